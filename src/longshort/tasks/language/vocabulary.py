"""Characters to tokens and back: by characters, bytes, words or subwords."""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, RunError, need

Tokens = NDArray[np.int64]

END, UNKNOWN = "<eos>", "<unk>"
"""The end of a line and every word outside the vocabulary, as word models of Penn Treebank write them."""
SIZES = {"word": 10_000, "subword": 4_096}


class Vocabulary(Protocol):
    """What every kind of vocabulary does."""

    unit: str
    """What a token stands for, in the singular."""
    unknown: int | None
    """The token that stands for whatever is outside the vocabulary, if there is one."""

    def __len__(self) -> int:
        """How many tokens there are."""

    def encode(self, text: str) -> tuple[Tokens, Counter[str]]:
        """Tokens of a text, and what was outside the vocabulary, counted; see `unscored`."""

    def unscored(self, text: str) -> NDArray[np.bool_]:
        """(T,) true at the tokens of `encode(text)` that stand for something no token is of."""

    def decoder(self) -> Callable[[int], str]:
        """Return a function from each next token to the text it adds."""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes an equal vocabulary of."""


class Characters:
    """One token a character; those outside are read as the likest one inside.

    Args:
        known: the characters, each once, in any order.
    """

    unit = "char"
    unknown: int | None = None

    def __init__(self, known: str) -> None:
        self.known = "".join(sorted(set(known)))
        self._codes = _codes(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def encode(self, text: str) -> tuple[Tokens, Counter[str]]:
        """Tokens of a text, and the characters outside the vocabulary, counted."""
        tokens, outside = self._found(text)
        strange = Counter(np.array(list(text))[outside].tolist()) if outside.any() else Counter[str]()
        for char in strange:
            tokens[(_codes(text) == ord(char)) & outside] = self.nearest(char)
        return tokens, strange

    def unscored(self, text: str) -> NDArray[np.bool_]:
        """True at the characters outside the vocabulary."""
        return self._found(text)[1]

    def nearest(self, char: str) -> int:
        """The token to read a foreign character as: without its accents, in the other case, or a space."""
        plain = unicodedata.normalize("NFKD", _PLAIN.get(char, char))
        for candidate in (*plain, *plain.swapcase(), " ", "\n"):
            place = self.known.find(candidate)
            if place >= 0:
                return place
        return 0

    def decoder(self) -> Callable[[int], str]:
        """Each token's character."""
        return lambda token: self.known[token]

    def to_json(self) -> dict[str, Any]:
        """The unit and the characters."""
        return {"unit": self.unit, "known": self.known}

    def _found(self, text: str) -> tuple[Tokens, NDArray[np.bool_]]:
        codes = _codes(text)
        tokens = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1).astype(np.int64)
        return tokens, self._codes[tokens] != codes


_PLAIN = {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": ".", "\t": " "}


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Bytes:
    """One token a byte; nothing is outside."""

    unit = "byte"
    unknown: int | None = None

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> tuple[Tokens, Counter[str]]:
        """The text's bytes in UTF-8."""
        return np.frombuffer(text.encode(errors="surrogateescape"), np.uint8).astype(np.int64), Counter()

    def unscored(self, text: str) -> NDArray[np.bool_]:
        """False everywhere."""
        return np.zeros(len(text.encode(errors="surrogateescape")), bool)

    def decoder(self) -> Callable[[int], str]:
        """Characters as soon as their last byte has come; what is no UTF-8 is replaced."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token: decoder.decode(bytes([token]))

    def to_json(self) -> dict[str, Any]:
        """The unit."""
        return {"unit": self.unit}


class Words:
    """One token a word between blanks, one for the end of a line, one for every other word.

    Args:
        known: the words, each once; `<unk>` and `<eos>` are added if they are not among them.
    """

    unit = "word"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = list(dict.fromkeys([*known, END, UNKNOWN]))
        self._number = {word: number for number, word in enumerate(self.known)}
        self.unknown: int | None = self._number[UNKNOWN]

    def __len__(self) -> int:
        return len(self.known)

    def encode(self, text: str) -> tuple[Tokens, Counter[str]]:
        """Tokens of a text, and the words outside the vocabulary, counted, which become <unk>."""
        strange, found = Counter[str](), []
        for word in _words(text):
            number = self._number.get(word)
            if number is None:
                strange[word] += 1
                number = self._number[UNKNOWN]
            found.append(number)
        return np.array(found, np.int64), strange

    def unscored(self, text: str) -> NDArray[np.bool_]:
        """False everywhere: an unknown word is scored as <unk>."""
        return np.zeros(sum(1 for _ in _words(text)), bool)

    def decoder(self) -> Callable[[int], str]:
        """Each word after a blank, the end of a line as one."""
        end, fresh = self._number[END], [True]

        def text(token: int) -> str:
            blank = "" if fresh[0] or token == end else " "
            fresh[0] = token == end
            return "\n" if token == end else blank + self.known[token]

        return text

    def to_json(self) -> dict[str, Any]:
        """The unit and the words."""
        return {"unit": self.unit, "known": self.known}


def _words(text: str) -> Iterator[str]:
    """The words of whole lines, each line's end as <eos>; of a last line without an end, the words."""
    lines = text.split("\n")
    for line in lines[:-1]:
        yield from line.split()
        yield END
    yield from lines[-1].split()


class Subwords:
    """Tokens that merge frequent neighbours (byte pair encoding over bytes); nothing is outside.

    Args:
        model: what Hugging Face's tokenizers writes as JSON.

    Source: Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword units" (2016).
    """

    unit = "subword"
    unknown: int | None = None

    def __init__(self, model: str) -> None:
        tokenizers = need("tokenizers", extra="subwords", to="read and write subwords")
        self._model, self._tokenizer = model, tokenizers.Tokenizer.from_str(model)

    @classmethod
    def learn(cls, text: Iterable[str], size: int) -> Subwords:
        """Merge the most frequent neighbours of a text until there are `size` tokens."""
        tokenizers = need("tokenizers", extra="subwords", to="learn subwords")
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(text, trainer)
        return cls(made.to_str())

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> tuple[Tokens, Counter[str]]:
        """Tokens of a text."""
        return np.array(self._tokenizer.encode(text).ids, np.int64), Counter()

    def unscored(self, text: str) -> NDArray[np.bool_]:
        """False everywhere."""
        return np.zeros(len(self.encode(text)[0]), bool)

    def decoder(self) -> Callable[[int], str]:
        """Characters as soon as their last token has come."""
        held: list[int] = []

        def text(token: int) -> str:
            held.append(token)
            found = str(self._tokenizer.decode(held))
            if found.endswith("\ufffd") and len(held) < 8:
                return ""
            held.clear()
            return found

        return text

    def to_json(self) -> dict[str, Any]:
        """The unit and the merges."""
        return {"unit": self.unit, "model": self._model}


def learn(
    unit: str, text: Callable[[], Iterable[str]], size: int | None, name: str = "the text"
) -> Vocabulary:
    """Make the vocabulary of a text.

    Args:
        unit: "char", "byte", "subword" or "word".
        text: gives the pieces of the text, anew each time it is called.
        size: most tokens; the unit's own default if None.
        name: of the text, for an error.

    Raises:
        DataError: the text has fewer than two different units.
    """
    if unit == "byte":
        return Bytes()
    if unit == "subword":
        return Subwords.learn(text(), max(size or SIZES[unit], 257))
    counts: Counter[str] = Counter()
    for piece in text() if unit == "char" else lines(text()):
        counts.update(piece if unit == "char" else _words(piece))
    most = size or SIZES.get(unit) or len(counts)
    if unit == "word":
        frequent = [word for word, _ in _by_frequency(counts) if word not in (END, UNKNOWN)]
        return Words([END, UNKNOWN, *frequent[: most - 2]])
    if len(counts) < 2:
        raise DataError(f"{name}: must have two different characters, got {''.join(counts)!r}.")
    return Characters("".join(char for char, _ in _by_frequency(counts)[:most]))


def _by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Cut pieces of text anew, each at its last line's end, so that no word lies in two of them."""
    held = ""
    for piece in pieces:
        whole, end, rest = (held + piece).rpartition("\n")
        if end:
            yield whole + end
        held = rest
    if held:
        yield held


def from_json(values: Any, path: Any) -> Vocabulary:
    """The vocabulary that `to_json` wrote.

    Raises:
        RunError: `values` is none.
    """
    kinds: dict[str, Callable[[], Vocabulary]] = {
        "char": lambda: Characters(values["known"]),
        "byte": Bytes,
        "word": lambda: Words(values["known"]),
        "subword": lambda: Subwords(values["model"]),
    }
    try:
        return kinds[values["unit"]]()
    except (KeyError, TypeError) as error:
        raise RunError(f"{path}: holds no vocabulary: {error}. Train the run again.") from None


def same(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether two vocabularies give the same tokens."""
    return json.dumps(one.to_json()) == json.dumps(other.to_json())
