"""The second complaint: "an LSTM overfits". A small word model, with and without each regulariser.

The model is the small one of Zaremba et al. (2014): vectors of 200 numbers, two layers of 200 units, a linear
layer over the vocabulary. It is trained once for each row of REGULARISERS, from the same first weights and on
the same batches, each of 32 windows of 35 words from anywhere in the training's text. At every validation the
loss on words held out, read as streams, stands beside that on as many words of the training. The weights with
the best held-out loss are kept, so what a regulariser is worth is the held-out perplexity, not the gap alone.

Sources: Zaremba, Sutskever & Vinyals, "Recurrent neural network regularization" (2014); Gal & Ghahramani, "A
theoretically grounded application of dropout in recurrent neural networks" (2016); Krueger et al., "Zoneout"
(2017); Merity, Keskar & Socher, "Regularizing and optimizing LSTM language models" (2018).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError
from ..nn import LSTM
from ..runs import Run
from ..scan import Noise
from ..train import FitSettings, fit
from ..train.fit import Validation
from .problem import Array

UNITS, LAYERS, STEPS, STREAMS = 200, 2, 35, 32
VALIDATIONS = 20
"""How often each model is looked at."""
TYPES = 10_000
"""Words of the vocabulary at most, the commonest; all others are <unk>."""
HELD = 0.1
"""Share of a text, its last, that is held out where no second file is given."""
SILENT = Noise()


@dataclass(frozen=True)
class Regulariser:
    """What a row adds to the plain model.

    Args:
        about: in a few words.
        dropout: share of the numbers silenced before, between and after the layers, new at every step.
        noise: inside the recurrence.
    """

    about: str
    dropout: float = 0.0
    noise: Noise = SILENT


REGULARISERS = {
    "none": Regulariser("nothing"),
    "zoneout": Regulariser("zoneout of h 0.1 and of c 0.3", noise=Noise(zoneout_h=0.1, zoneout_c=0.3)),
    "weight-drop": Regulariser("half of the recurrent weights dropped", noise=Noise(weight_drop=0.5)),
    "variational": Regulariser("0.3 of h silenced, the same at every step", noise=Noise(variational_h=0.3)),
    "dropout": Regulariser("dropout of 0.4 around the layers", dropout=0.4),
    "dropout-zoneout": Regulariser("both", dropout=0.4, noise=Noise(zoneout_h=0.1, zoneout_c=0.3)),
}
"""Each regulariser alone, and a combination."""


class WordModel(nn.Module):
    """Two LSTM layers over words.

    Args:
        types: words of the vocabulary.
        units: of each layer, and numbers of a word's vector.
        regulariser: what is added in training.
    """

    def __init__(self, types: int, units: int, regulariser: Regulariser) -> None:
        super().__init__()
        self.vectors = nn.Embedding(types, units)
        self.lstm = LSTM(
            units, units, LAYERS, batch_first=True, dropout=regulariser.dropout, noise=regulariser.noise
        )
        self.drop, self.head = nn.Dropout(regulariser.dropout), nn.Linear(units, types)
        for weight in (self.vectors.weight, self.head.weight):
            nn.init.uniform_(weight, -0.1, 0.1)

    def forward(self, words: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(N, T) words -> (N, T, types) scores of the next ones, and the state."""
        h, state = self.lstm(self.drop(self.vectors(words)), state)
        return self.head(self.drop(h)), state


@dataclass(eq=False)
class WordObjective:
    """Windows of the training's words; the loss on held-out words, and on as many of the training's.

    Args:
        train: the training's words, as numbers.
        held: the words held out.
        seed: of the batches.
    """

    train: Array
    held: Array
    seed: int = 0
    metric: str = "perplexity"
    unit: str = "windows"
    size: int = STREAMS

    def batch(self, step: int) -> Tensor:
        """(32, 36) words: windows from anywhere in the training."""
        rng = np.random.default_rng([self.seed, step])
        starts = rng.integers(len(self.train) - STEPS, size=self.size)
        return torch.from_numpy(self.train[starts[:, None] + np.arange(STEPS + 1)])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Nats a word."""
        return _nats(model(batch[:, :-1])[0], batch[:, 1:]).mean()

    def validate(self, model: nn.Module) -> Validation:
        """Nats a word on both texts."""
        held = read_on(model, self.held)
        seen = read_on(model, self.train[: len(self.held)])
        scores = {"perplexity": math.exp(held.mean()), "held-out": held.mean(), "training": seen.mean()}
        return Validation({name: float(value) for name, value in scores.items()}, held)


def read_text(data: str | None) -> tuple[Array, Array, list[str]]:
    """Read words to train on and words to hold out.

    Args:
        data: a file of words, whose last tenth is held out; or a folder with `ptb.train.txt` and
            `ptb.valid.txt`. The end of a line is a word of its own.

    Returns:
        Both as numbers, and the vocabulary.

    Raises:
        DataError: nothing was given, it cannot be read, or has too few words.
    """
    if data is None:
        raise DataError("overfitting: needs words to read. Give --data FILE, or a folder with ptb.train.txt.")
    path = Path(data)
    if path.is_dir():
        train, held = (_words(path / f"ptb.{part}.txt") for part in ("train", "valid"))
    else:
        words = _words(path)
        cut = int(len(words) * (1 - HELD))
        train, held = words[:cut], words[cut:]
    least = STREAMS * (STEPS + 1)
    if min(len(train), len(held)) < least:
        raise DataError(
            f"{path}: must have {least:,} words to train on and as many to hold out, got {len(train):,} and "
            f"{len(held):,}. Give a longer text."
        )
    common = [word for word, _ in Counter(word for word in train if word != "<unk>").most_common(TYPES - 1)]
    types = ["<unk>", *common]
    number = {word: k for k, word in enumerate(types)}
    first, second = (np.array([number.get(word, 0) for word in part]) for part in (train, held))
    return first, second, types


def overfitting(
    run: Run,
    data: str | None,
    *,
    max_steps: int,
    names: Sequence[str] | None = None,
    units: int = UNITS,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> list[dict[str, Any]] | None:
    """Train the word model once with each regulariser.

    Args:
        run: the folder; each row is a run in it, and goes on where it was stopped.
        data: as in `read_text`.
        max_steps: batches of each at most; one whose held-out loss has not fallen at a quarter of the
            validations has seen its best.
        names: the rows wanted, of REGULARISERS, all if None; the first is what the others are compared with.
        units: of each layer.
        seed: of weights and batches.
        device: where to train.
        quiet: show no progress.

    Returns:
        One object a row: losses on both texts and their gap at the best validation, and every validation;
        None if Ctrl-C ended it early.

    Raises:
        DataError: the text cannot be used.
    """  # fmt: skip
    train, held, types = read_text(data)
    rows: list[dict[str, Any]] = []
    for name in names or REGULARISERS:
        regulariser = REGULARISERS[name]
        settings = {"data": data, "regulariser": name, "max_steps": max_steps, "units": units, "seed": seed}
        mine = Run.create(run.path(name), "overfitting", settings)
        how = FitSettings(
            max_steps=max_steps, lr=2e-3, warmup=0, weight_decay=0.0, every=max(1, max_steps // VALIDATIONS),
            patience=VALIDATIONS // 4, seed=seed,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = WordModel(len(types), units, regulariser)
        fitted = fit(model, WordObjective(train, held, seed), how, run=mine, device=device, quiet=quiet)
        if fitted.interrupted:
            return None
        rows.append(_row(name, regulariser, mine.read_metrics()))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text; perplexity is the exponential of the loss."""
    lines = [f"{'regulariser':16} {'perplexity':>10}  {'held-out':>8}  {'training':>8}  {'gap':>5}  step"]
    for row in rows:
        numbers = f"{row['held-out']:8.3f}  {row['training']:8.3f}  {row['gap']:5.3f}"
        lines.append(f"{row['name']:16} {row['perplexity']:10.1f}  {numbers}  {row['step']:,}")
    plain, best = rows[0]["perplexity"], min(rows, key=lambda row: float(row["perplexity"]))
    lines += ["", f"best: {best['name']}, {100 * (1 - best['perplexity'] / plain):.1f} % below none"]
    return "\n".join(lines)


def read_on(model: nn.Module, words: Array) -> Array:
    """(W,) nats of each word but the first of each of 32 streams, read with the state carried on."""
    each = len(words) // STREAMS
    streams = torch.from_numpy(words[: each * STREAMS].reshape(STREAMS, each))
    streams = streams.to(next(model.parameters()).device)
    state, found = None, []
    for first in range(0, each - 1, STEPS):
        part = streams[:, first : first + STEPS + 1]
        out, state = model(part[:, :-1], state)
        found.append(_nats(out, part[:, 1:]))
    return torch.cat(found, 1).flatten().cpu().numpy()


def _nats(out: Tensor, words: Tensor) -> Tensor:
    """(N, T) cross-entropy of each word."""
    return functional.cross_entropy(out.flatten(0, 1), words.flatten(), reduction="none").view(words.shape)


def _words(path: Path) -> list[str]:
    try:
        text = path.read_text("utf8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}.") from None
    return [word for line in text.splitlines() for word in [*line.split(), "<eos>"]]


def _row(name: str, regulariser: Regulariser, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    best = min(metrics, key=lambda line: float(line["held-out"]))
    return {
        "name": name,
        "about": regulariser.about,
        "step": best["step"],
        **{key: best[key] for key in ("perplexity", "held-out", "training")},
        "gap": best["held-out"] - best["training"],
        "last": {key: metrics[-1][key] for key in ("step", "perplexity", "held-out", "training")},
        "curve": [[line["step"], line["held-out"], line["training"]] for line in metrics],
    }
