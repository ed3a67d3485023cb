"""Trained cells on a problem of memory -> what `look` opens: a trial, or all cells and seeds side by side."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RunError, SettingError
from ..problems.catalogue import problem_named
from ..problems.problem import PARTS, Problem
from ..problems.sentences import Vocabulary
from ..problems.trial import load_trial
from ..runs import Run
from .opening import Opened

DRAWN, LOOKED_AT = 512, 48
"""Sequences of the test part that are drawn, and those of one length that are looked at."""


def open_trial(run: Run, data: str | None = None) -> Opened:
    """One cell of a comparison, on sequences of the test part of its problem.

    Args:
        run: the trial.
        data: the folder of the files that its problem reads, if it reads any.

    Raises:
        RunError: the trial has no weights.
    """
    settings, learner = load_trial(run.folder, data)
    opened = _opened(problem_named(settings.problem, data), settings.lag, learner)
    seed = f"seed {settings.seed}"
    return dataclasses.replace(opened, title=f"{opened.title}: {settings.cell}, {seed}", name=settings.cell)


def open_comparison(run: Run, name: str | None = None) -> Opened:
    """All cells and seeds of a comparison, at the longest lag at which the most cells were tried.

    The views show the LSTM that solved the problem from the most seeds; the horizons all of them.

    Args:
        run: what `longshort problems ... --out` wrote.
        name: of the problem; may be left out where there is one.

    Raises:
        RunError: the comparison is unfinished, or none of its cells was trained. SettingError: `name` is none
        of its problems.
    """
    if not run.exists("results.json"):
        raise RunError(
            f"{run.folder}: is unfinished: no results.json. The same problems command goes on from there."
        )
    several = {found["name"]: found["rows"] for found in run.read_json("results.json")["problems"]}
    if name not in several and not (name is None and len(several) == 1):
        got = "none" if name is None else repr(name)
        raise SettingError(f"look: INPUT must be one of {', '.join(several)} for {run.folder}, got {got}.")
    name = name or next(iter(several))
    tried = [row for row in several[name] if row["tried"]]
    cells = Counter(row["lag"] for row in tried)
    lag = max(cells, key=lambda k: (cells[k], k))
    rows = {row["cell"]: row for row in tried if row["lag"] == lag}
    data = run.settings.get("data")
    folder = Path(run.folder, name, f"lag-{lag}")
    trained = {cell: list(_trained(folder / cell, row["trials"], data)) for cell, row in rows.items()}
    trained = {cell: models for cell, models in trained.items() if models}
    if not trained:
        raise RunError(f"{folder}: holds no trained cell.")
    chosen = min(trained, key=lambda cell: _worth(cell, rows[cell]))
    first = min(range(len(trained[chosen])), key=lambda k: trained[chosen][k][0])
    _, seed, model = trained[chosen].pop(first)
    problem = problem_named(name, data)
    opened = _opened(problem, lag, model)
    units = ", ".join(f"{cell} {row['units']}" for cell, row in rows.items() if cell in trained)
    lost = [cell for cell in rows if len(trained.get(cell, [])) + (cell == chosen) < rows[cell]["seeds"]]
    notes = [
        f"The views show {chosen}, seed {seed}; the three horizons show every cell, each the median of its "
        f"seeds and their band.",
        f"Units of each cell, at about equal numbers of weights: {units}.",
        *opened.notes,
    ]
    if len(cells) > 1:
        notes.append(f"Of the lags {', '.join(map(str, sorted(cells)))} it shows {lag}.")
    if lost:
        notes.append(f"Trials that diverged before a first validation are left out: {', '.join(lost)}.")
    return dataclasses.replace(
        opened,
        name=chosen,
        compare={cell: [model for *_, model in models] for cell, models in trained.items()},
        notes=notes,
    )


def _trained(
    folder: Path, trials: Iterable[dict[str, Any]], data: str | None
) -> Iterable[tuple[tuple[bool, float], int, nn.Module]]:
    """What sorts it, the seed and the network of each trial that has weights."""
    for seed, trial in enumerate(trials):
        place = folder / f"seed-{seed}"
        if (place / "weights.safetensors").is_file():
            score = float("inf") if trial["score"] is None else trial["score"]
            yield (not trial["solved"], score), seed, load_trial(place, data)[1]


def _worth(cell: str, row: dict[str, Any]) -> tuple[bool, int, float]:
    """What sorts cells: an LSTM first, then by seeds that solved it, then by score."""
    return not cell.startswith("lstm"), -row["solved"], row["score"]["median"]


def _opened(problem: Problem, lag: int, model: nn.Module) -> Opened:
    """A model of a problem, on sequences of the test part that all ask for their last answer at one step."""
    batch = problem.draw(lag, DRAWN, np.random.default_rng([PARTS.index("test"), 0]), "test")
    steps = np.arange(batch.asked.shape[1])
    last = np.where(batch.asked, steps, -1).max(1)
    T = Counter(last.tolist()).most_common(1)[0][0] + 1
    rows = (last == T - 1).nonzero()[0][:LOOKED_AT]
    x = torch.from_numpy(batch.x[rows, :T])
    target = torch.from_numpy(batch.target[rows, T - 1])

    def loss(out: Tensor) -> Tensor:
        each = zip(out[:, -1].split(1), target.split(1), strict=True)
        return torch.stack([problem.answers.loss(answer, right) for answer, right in each])

    vocabulary = getattr(problem, "vocabulary", None)
    tokens = None
    if isinstance(vocabulary, Vocabulary):
        tokens = [[vocabulary.words[k] for k in row] for row in x.tolist()]
    return Opened(
        model,
        (x,),
        loss=loss,
        title=f"{problem.name}, lag {lag}",
        notes=[
            f"{len(rows)} sequences of the test part, all of {T} steps; the loss is that of the last answer."
        ],
        tokens=tokens,
        required=min(problem.longest(lag), T - 1),  # no sequence shows more steps back
    )
