"""A text that the model has not seen: nats, bits and perplexity, beside baselines.

A text is read as one sequence from the initial state, so that the score depends on the text alone, neither on
a batch nor on a window. Its first token is read, and not scored.
"""

from __future__ import annotations

import io
import lzma
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ... import scores
from ...errors import DataError, need
from ...train.progress import followed
from .model import LanguageNetwork, States
from .vocabulary import Vocabulary

MODEL = "LSTM"
"""The model's own name among the baselines."""
WINDOW = 1024
"""Tokens read at once; another number gives the same score."""
MOST = 20_000_000
"""Tokens of the training text, its last, that the baselines look at."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Score:
    """How well a text was expected.

    Args:
        unit: what a token stands for.
        tokens: how many were scored.
        chars: how many characters they stand for.
        nats: method -> mean of -log p of a token; the model first.
        strange: what was outside the vocabulary, counted.
        unknown: how many of the scored tokens are <unk>.
    """

    unit: str
    tokens: int
    chars: int
    nats: dict[str, float]
    strange: Counter[str] = field(default_factory=Counter)
    unknown: int = 0

    def __getitem__(self, metric: str) -> float:
        """The model's own "nats", "bits" (a character) or "ppl" (of a token)."""
        return self.rows()[MODEL][metric]

    def rows(self) -> dict[str, dict[str, float]]:
        """Method -> nats a token, bits a character, perplexity of a token."""
        per = self.tokens / max(self.chars, 1) / math.log(2)
        return {
            name: {"nats": nats, "bits": nats * per, "ppl": math.exp(min(nats, 700.0))}
            for name, nats in self.nats.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "unit": self.unit,
            "tokens": self.tokens,
            "characters": self.chars,
            "outside the vocabulary": dict(self.strange.most_common(20)),
            "scores": self.rows(),
        }

    def text(self) -> str:
        """The table as text."""
        need("rich", extra="tasks", to="print a score")
        from rich.console import Console
        from rich.table import Table

        what = {"char": "characters", "byte": "bytes"}.get(self.unit, f"{self.unit}s")
        table = Table(box=None, pad_edge=False, title_justify="left")
        table.add_column("")
        for name in (f"nats/{self.unit}", "bits/char", f"perplexity of a {self.unit}"):
            table.add_column(name, justify="right")
        for name, row in self.rows().items():
            table.add_row(name, f"{row['nats']:.4f}", f"{row['bits']:.3f}", f"{row['ppl']:.4g}")
        out = io.StringIO()
        Console(file=out, width=100, no_color=True).print(table)
        lines = [
            f"{self.tokens:,} {what} scored",
            "",
            *(line.rstrip() for line in out.getvalue().splitlines()),
        ]
        if self.strange:
            lines += ["", outside(self.strange, self.unit)]
            if self.unit == "char" and len(self.nats) > 1:
                lines += ["no row for xz, which cannot leave such characters out"]
        if self.unknown:
            lines += ["", f"{self.unknown:,} of them are <unk>, whose characters count in bits/char and cost"]
            lines += ["nothing: not to be compared with a model of characters"]
        return "\n".join(lines)

    __str__ = text


def outside(strange: Counter[str], unit: str, *, scored: bool = True) -> str:
    """What was outside the vocabulary, as a sentence."""
    shown = ", ".join(f"{name!r} {count}x" for name, count in strange.most_common(8))
    more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
    kind, how = (
        "characters",
        "read as the likest one the model knows" + (", and not scored" if scored else ""),
    )
    if unit == "word":
        kind, how = "words", "read as <unk>"
    if strange.total() == 1:
        kind = kind.removesuffix("s")
    return f"{strange.total():,} {kind} outside the vocabulary, {how}: {shown}{more}"


@torch.no_grad()
def losses(
    network: LanguageNetwork, tokens: Array, state: States | None = None, *, quiet: bool = True
) -> tuple[Array, States]:
    """-log p of each token but the first, (T - 1,), and the state after the last but one."""
    found, device = [], next(network.parameters()).device
    state = network.initial(1) if state is None else state
    for start in followed(range(0, len(tokens) - 1, WINDOW), "reading", quiet=quiet):
        part = torch.from_numpy(tokens[start : start + WINDOW + 1].astype(np.int64)).to(device)[None]
        read = network(part[:, :-1], state, part[:, 1:])
        state = read.state
        found.append(read.losses[0].double().cpu().numpy())
    return np.concatenate(found), state


def score(
    network: LanguageNetwork,
    vocabulary: Vocabulary,
    text: str,
    train: Array | None = None,
    name: str = "the text",
    quiet: bool = True,
    chars: int | None = None,
) -> Score:
    """Score a text beside baselines.

    Args:
        network: in evaluation mode.
        vocabulary: its own.
        text: what is scored.
        train: the tokens that the baselines count in; without them there are no baselines.
        name: of the text, for an error.
        quiet: show no progress.
        chars: characters that it has; those of `text` if None.

    Raises:
        DataError: the text has no token to be scored.
    """
    tokens, strange = vocabulary.encode(text)
    if len(tokens) < 2:
        raise DataError(f"{name}: must have two {vocabulary.unit}s at least, got {len(tokens)}.")
    scored = ~vocabulary.unscored(text)[1:]
    if not scored.any():
        raise DataError(f"{name}: no {vocabulary.unit} of it is in the vocabulary.")
    chars = len(text) if chars is None else chars
    return score_tokens(network, vocabulary, tokens, chars, train, scored, strange, quiet)


def score_tokens(
    network: LanguageNetwork,
    vocabulary: Vocabulary,
    tokens: Array,
    chars: int,
    train: Array | None = None,
    scored: NDArray[np.bool_] | None = None,
    strange: Counter[str] | None = None,
    quiet: bool = True,
) -> Score:
    """Score a text that is tokens already.

    Args:
        network: as in `score`.
        vocabulary: as in `score`.
        tokens: (T,) the text.
        chars: characters that it has.
        train: as in `score`.
        scored: (T - 1,) which of all but the first count; all if None.
        strange: what was outside the vocabulary.
        quiet: as in `score`.
    """
    scored = np.ones(len(tokens) - 1, bool) if scored is None else scored
    nats = {MODEL: float(losses(network, tokens, quiet=quiet)[0][scored].mean())}
    if train is not None:
        nats |= baselines(train[-MOST:], tokens, scored, vocabulary)
    read = round(chars * float(scored.sum()) / len(tokens))
    unknown = 0 if vocabulary.unknown is None else int((tokens[1:][scored] == vocabulary.unknown).sum())
    return Score(vocabulary.unit, int(scored.sum()), read, nats, strange or Counter(), unknown)


def baselines(
    train: Array, tokens: Array, scored: NDArray[np.bool_], vocabulary: Vocabulary
) -> dict[str, float]:
    """Nats a token of counting: of what followed the last few tokens, and of how often each comes at all."""
    unit = vocabulary.unit
    found = {}
    for order in (6 if unit in ("char", "byte") else 3, 1):
        found[f"{order}-gram"] = float(scores.ngram(train, tokens, len(vocabulary), order)[scored].mean())
    if unit in ("char", "byte") and scored.all():
        found["xz"] = compressed(train, tokens)
    return found


def compressed(train: Array, tokens: Array) -> float:
    """Nats a token of `xz -9`: by how many bits a file of the training text grows when the text is added."""
    kind = np.min_scalar_type(int(max(train.max(), tokens.max())))
    before, both = train.astype(kind).tobytes(), np.concatenate([train, tokens]).astype(kind).tobytes()
    grown = len(lzma.compress(both, preset=9)) - len(lzma.compress(before, preset=9))
    return 8 * grown * math.log(2) / len(tokens)
