"""A comparison: every cell on every problem at every lag, tuned alike, from several seeds. Its folder:

    settings.json                                what was asked
    recall/lag-100/lstm-chrono/rate-0.01/        a trial that tunes
    recall/lag-100/lstm-chrono/seed-0/           a trial that counts
    results.json                                 all of them
    table.txt, recall.png, recall.svg            what they say

A trial that is over is never run again, so the same command goes on with what is left.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..runs import Run
from .cells import cell_named
from .problem import Problem
from .settings import ComparisonSettings, TrialSettings
from .trial import run_trial

TUNING_SEED = 10_000
"""The seed of the trials that tune; no trial that counts has it."""


class Interrupted(Exception):
    """Ctrl-C ended a trial early."""


@dataclass(frozen=True)
class Row:
    """What one cell did on one problem at one lag: its trials, and what they say together.

    Args:
        problem: whose bound and trivial score hold.
        lag: the lag.
        cell: the cell's name.
        rate: the learning rate that tuning chose.
        trials: the results, one a seed; none if the cell was not tried because it solved no shorter lag.
    """

    problem: Problem
    lag: int
    cell: str
    rate: float | None
    trials: tuple[dict[str, Any], ...]

    @property
    def solved(self) -> int:
        """How many seeds solved the problem."""
        return sum(trial["solved"] for trial in self.trials)

    @property
    def scores(self) -> list[float]:
        """The scores in order; a trial that diverged has the trivial one."""
        trivial = self.problem.trivial(self.lag)
        return sorted(trivial if t["score"] is None else t["score"] for t in self.trials)

    def middle(self, name: str) -> float | None:
        """The median of a number over the trials that solved the problem; None if there is none."""
        values = [trial[name] for trial in self.trials if trial["solved"]]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        found: dict[str, Any] = {
            "problem": self.problem.name, "lag": self.lag, "cell": self.cell,
            "trivial": self.problem.trivial(self.lag), "tried": bool(self.trials),
        }  # fmt: skip
        if not self.trials:
            return found
        scores = self.scores
        return {
            **found,
            "units": self.trials[0]["units"],
            "parameters": self.trials[0]["parameters"],
            "rate": self.rate,
            "solved": self.solved,
            "seeds": len(self.trials),
            "score": {"median": statistics.median(scores), "least": scores[0], "most": scores[-1]},
            "steps to solve": self.middle("steps"),
            "seconds to solve": self.middle("seconds"),
            "processor seconds to solve": self.middle("processor_seconds"),
            "trials": list(self.trials),
        }


def compare(
    problem: Problem, settings: ComparisonSettings, run: Run, *, device: str = "cpu", quiet: bool = False
) -> Iterator[Row]:
    """Run what is left of the trials of one problem, lag by lag and cell by cell.

    Each cell is tuned at each lag: one trial a learning rate, from one seed that does not count; the rate
    that solves the problem in the fewest steps, or failing that has the lowest score, is taken for all seeds.

    Args:
        problem: the problem.
        settings: cells, lags, seeds and rates.
        run: the comparison's folder.
        device: where to train.
        quiet: print no line a trial.

    Yields:
        One row for each lag and cell, in that order.

    Raises:
        SettingError: an unknown cell, or a lag that the problem does not allow; before anything is run.
        Interrupted: Ctrl-C; the same call goes on.
    """
    lags, rates = checked(problem, settings)
    lost: set[str] = set()
    for lag in lags:
        for cell in settings.cells:
            if cell in lost:
                yield Row(problem, lag, cell, None, ())
                continue
            folder = Path(run.folder, problem.name, f"lag-{lag}", cell)
            trials = Trials(problem, lag, cell, settings, folder, device, quiet)
            rate = trials.tuned(rates)
            row = Row(problem, lag, cell, rate, tuple(trials.one(rate, k) for k in range(settings.seeds)))
            if not row.solved and not settings.beyond:
                lost.add(cell)
            yield row


def checked(problem: Problem, settings: ComparisonSettings) -> tuple[list[int], tuple[float, ...]]:
    """The lags in order, and the learning rates.

    Raises:
        SettingError: an unknown cell, one named twice, none at all, or a lag that the problem does not allow.
    """
    lags = sorted(set(settings.lags or problem.lags))
    for name in ("cells", "lags", "rates"):
        if getattr(settings, name) == ():
            raise SettingError(f"`{name}` must name at least one, got none.")
    for cell in settings.cells:
        cell_named(cell)
        if settings.cells.count(cell) > 1:
            raise SettingError(f"`cells` must name each once, got {cell} {settings.cells.count(cell)} times.")
    for lag in lags:
        problem.check(lag)
    return lags, settings.rates or problem.rates


@dataclass(frozen=True)
class Trials:
    """The trials of one cell at one lag."""

    problem: Problem
    lag: int
    cell: str
    settings: ComparisonSettings
    folder: Path
    device: str
    quiet: bool

    def tuned(self, rates: tuple[float, ...]) -> float:
        """The learning rate that does best on the seed for tuning."""
        if len(rates) == 1:
            return rates[0]
        found = [(self._run(rate, TUNING_SEED, f"rate-{rate:g}"), rate) for rate in rates]
        return min(found, key=lambda pair: _worth(pair[0]))[1]

    def one(self, rate: float, seed: int) -> dict[str, Any]:
        """The result of one seed."""
        return self._run(rate, seed, f"seed-{seed}")

    def _run(self, rate: float, seed: int, name: str) -> dict[str, Any]:
        wanted = TrialSettings(
            problem=self.problem.name,
            lag=self.lag,
            cell=self.cell,
            hidden=self.settings.hidden or self.problem.schedule.hidden,
            rate=rate,
            seed=seed,
            max_steps=self.settings.max_steps or self.problem.schedule.max_steps,
        )
        known = (self.folder / name / "result.json").is_file()
        result = run_trial(self.problem, wanted, self.folder / name, device=self.device, quiet=True)
        if result is None:
            raise Interrupted
        if not (self.quiet or known):
            print(
                f"{self.problem.name} lag {self.lag} {self.cell} {name}: {said(result)}",
                file=sys.stderr,
                flush=True,
            )
        return result


def said(result: dict[str, Any]) -> str:
    """A result in a few words."""
    if result["diverged"]:
        return "diverged"
    solved = "solved" if result["solved"] else "not solved"
    return f"{solved}, score {result['score']:.4g}, {result['steps']} steps, {result['seconds']:.0f} s"


def _worth(result: dict[str, Any]) -> tuple[bool, float]:
    """What sorts results: solved ones first and by steps, the others by score, diverged ones last."""
    if result["solved"]:
        return False, result["steps"]
    return True, float("inf") if result["score"] is None else result["score"]
