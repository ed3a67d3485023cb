"""The second complaint: "an LSTM overfits". A small word model, with and without each regulariser.

The model is the small one of Zaremba et al. (2014): vectors of 200 numbers, two layers of 200 units, a linear
layer over the vocabulary. It is trained once for each row of REGULARISERS, from the same first weights and on
the same batches: 20 streams of the training's text in windows of 20 words, the state carried from window to
window. Rate and clipping are the paper's for the model without any regulariser. The rate falls in a straight
line, and what is validated is the running mean of the weights, so that a row is near its best whenever that
comes. At every validation the loss on words held out, read as streams, stands beside that on as many words of
the training. The weights with the best held-out loss are kept, so what a regulariser is worth is the held-out
perplexity, not the gap alone.

Sources: Zaremba, Sutskever & Vinyals, "Recurrent neural network regularization" (2014); Gal & Ghahramani, "A
theoretically grounded application of dropout in recurrent neural networks" (2016); Krueger et al., "Zoneout"
(2017); Press & Wolf, "Using the output embedding to improve language models" (2017); Merity, Keskar & Socher,
"Regularizing and optimizing LSTM language models" (2018).
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

from ..errors import DataError
from ..nn import LSTM
from ..nn.decoder import Decoder
from ..runs import Run
from ..scan import Noise, State
from ..train import FitSettings, fit
from ..train.fit import Validation
from .problem import Array

UNITS, LAYERS, STEPS, STREAMS = 200, 2, 20, 20
RATE, CLIP = 20.0, 0.25
"""Of Zaremba et al.: they sum the loss over the 20 steps of a window, at rate 1 and clip 5."""
MEAN = 0.999
"""Decay of the running mean of the weights."""
READ = 100
"""Words of each stream that a validation reads at once."""
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
        tied: score a word by the vector that it is read as, which leaves two fifths fewer weights.
        noise: inside the recurrence.
    """

    about: str
    dropout: float = 0.0
    tied: bool = False
    noise: Noise = SILENT


REGULARISERS = {
    "none": Regulariser("nothing"),
    "zoneout": Regulariser("zoneout of h 0.1 and of c 0.3", noise=Noise(zoneout_h=0.1, zoneout_c=0.3)),
    "weight-drop": Regulariser("half of the recurrent weights dropped", noise=Noise(weight_drop=0.5)),
    "variational": Regulariser("0.3 of h silenced, the same at every step", noise=Noise(variational_h=0.3)),
    "dropout": Regulariser("dropout of 0.2 around the layers", dropout=0.2),
    "dropout-zoneout": Regulariser("both", dropout=0.2, noise=Noise(zoneout_h=0.1, zoneout_c=0.3)),
    "tied": Regulariser("one vector a word, read and scored by", tied=True),
    "dropout-tied": Regulariser(
        "dropout of 0.2 around the layers, one vector a word", dropout=0.2, tied=True
    ),
}
"""Each regulariser alone, and combinations; 200 units want less dropout than the 650 of the papers."""


class WordModel(nn.Module):
    """Two LSTM layers over words.

    Args:
        types: words of the vocabulary.
        units: of each layer, and numbers of a word's vector.
        regulariser: what is added in training.
        short: multiply the scores in bfloat16, with sums in float32.
    """

    def __init__(self, types: int, units: int, regulariser: Regulariser, short: bool = False) -> None:
        super().__init__()
        self.vectors = nn.Embedding(types, units)
        self.lstm = LSTM(
            units, units, LAYERS, batch_first=True, dropout=regulariser.dropout, noise=regulariser.noise
        )
        self.drop = nn.Dropout(regulariser.dropout)
        self.head = Decoder(units, types, self.vectors if regulariser.tied else None, short)
        nn.init.uniform_(self.vectors.weight, -0.1, 0.1)
        if not regulariser.tied:
            nn.init.uniform_(self.head.weight, -0.1, 0.1)

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(N, T + 1) words -> (N, T) nats of each but the first, and the state after the T that are read."""
        h, state = self.lstm(self.drop(self.vectors(words[:, :-1])), state)
        nats = self.head.losses(self.drop(h).flatten(0, 1), words[:, 1:].flatten())
        return nats.view(h.shape[:2]), state


@dataclass(eq=False)
class WordObjective:
    """Windows of the training, one after the other; the loss on held-out words, and on the training's.

    Args:
        train: the training's words, as numbers.
        held: the words held out.
    """

    train: Array
    held: Array
    metric: str = "perplexity"
    unit: str = "windows"
    size: int = STREAMS

    def __post_init__(self) -> None:
        each = len(self.train) // self.size
        self.streams = self.train[: each * self.size].reshape(self.size, each)
        self.windows = (each - 1) // STEPS
        self.state: State | None = None

    def batch(self, step: int) -> tuple[Tensor, bool]:
        """(20, 21) words, a window of each stream, and whether a pass over the text begins with it."""
        first = step % self.windows * STEPS
        return torch.from_numpy(self.streams[:, first : first + STEPS + 1]), first == 0

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Nats a word; no gradient passes into the window before."""
        words, fresh = batch
        before = None if fresh or self.state is None else self.state.to(words.device)
        nats, state = model(words, before)
        self.state = State(*state).detach()
        loss: Tensor = nats.mean()
        return loss

    def carried(self) -> dict[str, Tensor]:
        """The state after the last window."""
        return {} if self.state is None else {"h": self.state.h, "c": self.state.c}

    def carry(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state that `carried` gave."""
        self.state = State(**tensors) if tensors else None

    def share(self, step: int) -> float:
        """1: all windows are of one length."""
        return 1.0

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
    short: bool = False,
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
        seed: of the first weights and of what is silenced.
        device: where to train.
        short: multiply the scores in bfloat16, with sums in float32: less exact, faster on some processors.
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
        settings = {
            "data": data, "regulariser": name, "max_steps": max_steps, "units": units, "seed": seed,
            "short": short,
        }  # fmt: skip
        mine = Run.create(run.path(name), "overfitting", settings)
        how = FitSettings(
            max_steps=max_steps, optimiser="sgd", lr=RATE, clip=CLIP, warmup=0, weight_decay=0.0,
            average=MEAN, every=max(1, max_steps // VALIDATIONS), patience=VALIDATIONS // 4, seed=seed,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = WordModel(len(types), units, regulariser, short)
        fitted = fit(model, WordObjective(train, held), how, run=mine, device=device, quiet=quiet)
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
    """(W,) nats of each word but the first of each of 20 streams, read with the state carried on."""
    each = len(words) // STREAMS
    streams = torch.from_numpy(words[: each * STREAMS].reshape(STREAMS, each))
    streams = streams.to(next(model.parameters()).device)
    state, found = None, []
    for first in range(0, each - 1, READ):
        nats, state = model(streams[:, first : first + READ + 1], state)
        found.append(nats)
    return torch.cat(found, 1).flatten().cpu().numpy()


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
