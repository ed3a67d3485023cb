"""A file into tokens: in memory while it is small, as a memory map in the run folder when it is large."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...runs import replacing
from .settings import LanguageSettings
from .text import characters, counter, raw
from .vocabulary import Vocabulary, learn, lines

IN_MEMORY = 64_000_000
"""Tokens up to which a text is kept in memory."""

NAME = "tokens.bin"
"""The memory map in the run folder."""
HELD_OUT = 250_000
"""Tokens of a long text that validate at most: enough to decide when to stop."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as tokens.

    Args:
        tokens: (T,) the smallest unsigned integers that hold the vocabulary; perhaps a memory map.
        chars: how many characters the text has.
        strange: what was outside the vocabulary, counted.
        digest: of the text.
    """

    tokens: Array
    chars: int
    strange: Counter[str]
    digest: str

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """Cut the last `share` of the tokens off, but no more than `HELD_OUT`."""
        first = max(int((1 - share) * len(self.tokens)), len(self.tokens) - HELD_OUT)
        rest = self.chars * (len(self.tokens) - first) // max(len(self.tokens), 1)
        return (
            Corpus(self.tokens[:first], self.chars - rest, self.strange, self.digest),
            Corpus(self.tokens[first:], rest, self.strange, self.digest),
        )


def mapped(folder: Path, vocabulary: Vocabulary) -> Array:
    """The memory map in a run folder."""
    return np.memmap(folder / NAME, np.min_scalar_type(len(vocabulary) - 1), "r")


class Source:
    """A text that can be read again and again: a file, or a string.

    Args:
        path: the file, None for `text`.
        text: pieces of text in place of a file.
        settings: name the unit and the encoding.
    """

    def __init__(
        self, path: str | Path | None, settings: LanguageSettings, text: Iterable[str] | None = None
    ) -> None:
        self.path, self.settings = path, settings
        self.name = "the text" if path is None else "standard input" if str(path) == "-" else str(path)
        self.held: list[str] | None = None if text is None else list(text)
        if path is not None and (str(path) == "-" or (not Path(path).is_file() and Path(path).exists())):
            self.held = list(self._read())  # a pipe is read once

    def pieces(self) -> Iterable[str]:
        """The text, piece by piece."""
        return self.held if self.held is not None else self._read()

    def _read(self) -> Iterable[str]:
        path = self.path if self.path is not None else "-"
        if self.settings.unit == "byte":
            return raw(path)
        return characters(path, self.settings.encoding)

    def counter(self) -> Callable[[str], int]:
        """What counts its characters, given piece by piece: those of bytes are written in the encoding."""
        return counter(self.settings.encoding) if self.path and self.settings.unit == "byte" else len

    def vocabulary(self) -> Vocabulary:
        """Learn the vocabulary of the text.

        Raises:
            DataError: the text is empty.
        """
        self._not_empty()
        return learn(self.settings.unit, self.pieces, self.settings.vocabulary, self.name)

    def _not_empty(self) -> None:
        if next(iter(self.pieces()), "") == "":
            raise DataError(f"{self.name}: is empty. Give a text of some thousand characters.")

    def corpus(self, vocabulary: Vocabulary, folder: Callable[[], Path] | None = None) -> Corpus:
        """Turn the text into tokens.

        Args:
            vocabulary: says which.
            folder: makes the folder where a text that is too large for memory goes, as `tokens.bin`.

        Raises:
            DataError: the text is empty.
        """
        self._not_empty()
        kind = np.min_scalar_type(len(vocabulary) - 1)
        digest, chars, strange = hashlib.sha256(), 0, Counter[str]()
        count = self.counter()
        held: list[Array] = []
        spill: Any = None
        with ExitStack() as stack:
            for piece in self._cut(vocabulary):
                tokens, outside = vocabulary.encode(piece)
                digest.update(piece.encode("utf-32-le", "surrogatepass"))
                chars += count(piece)
                strange.update(outside)
                held.append(tokens.astype(kind))
                if folder is not None and sum(map(len, held)) > IN_MEMORY:
                    spill = spill or stack.enter_context(replacing(folder() / NAME))
                    spill.write(np.concatenate(held).tobytes())
                    held.clear()
            rest = np.concatenate(held) if held else np.zeros(0, kind)
            if spill is not None:
                spill.write(rest.tobytes())
        if spill is not None and folder is not None:
            rest = mapped(folder(), vocabulary)
        return Corpus(rest, chars, strange, digest.hexdigest())

    def _cut(self, vocabulary: Vocabulary) -> Iterable[str]:
        return lines(self.pieces()) if vocabulary.unit in ("word", "subword") else self.pieces()
