"""One trial: one cell, on one problem at one lag, from one seed, at one learning rate. Its folder is a run.

settings.json        what was asked
weights.safetensors  the weights of the best validation
metrics.jsonl        the validations
result.json          what came out; the trial is over when it is there
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..errors import Diverged
from ..runs import Run
from ..train import FitSettings, fit
from ..train.checkpoint import load_best
from .catalogue import problem_named
from .cells import CELLS, cell_named
from .learner import Learner, MemoryObjective, score
from .problem import Problem
from .settings import TrialSettings

NEVER = 10**9
"""Validations without progress after which to give up: memory is found suddenly, after long plateaus."""


def run_trial(
    problem: Problem, settings: TrialSettings, folder: str | Path, *, device: str = "cpu", quiet: bool = True
) -> dict[str, Any] | None:
    """Train one cell until it has solved its problem or the steps are used up, and score it on the test part.

    Args:
        problem: the problem that `settings` names.
        settings: all that decides the trial.
        folder: its run folder. A trial that is over is not run again; one that was stopped goes on.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.

    Returns:
        The result, or None if Ctrl-C ended the trial early: units and parameters of the recurrent layer, the
        score on the test part, whether that solves the problem, the steps made and the seconds they took.
        Apart from the seconds it is, on a CPU, a function of the settings alone.

    Raises:
        RunError: the folder holds something else.
    """
    run = Run.create(folder, "problem", settings.to_json())
    if run.exists("result.json"):
        return dict(run.read_json("result.json"))
    cell, schedule = CELLS[settings.cell], problem.schedule
    units = cell.units(problem.inputs, settings.hidden)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        learner = Learner(problem, cell, units, settings.lag)
    objective = MemoryObjective(problem, settings.lag, settings.seed, schedule.size)
    how = FitSettings(
        max_steps=settings.max_steps, lr=settings.rate, warmup=0, weight_decay=0.0, every=schedule.every,
        patience=NEVER, goal=problem.stop, seed=settings.seed,
    )  # fmt: skip
    about = {"hidden": settings.hidden, "units": units}
    busy = time.process_time()
    try:
        fitted = fit(learner, objective, how, run=run, about=about, device=device, quiet=quiet)
    except Diverged:
        result: dict[str, Any] = {
            "diverged": True,
            "score": None,
            "solved": False,
            "steps": settings.max_steps,
        }
    else:
        if fitted.interrupted:
            return None
        test = float(score(learner, problem, objective.part("test", schedule.test)).mean())
        result = {
            "diverged": False,
            "score": test,
            "solved": test <= problem.bound,
            "steps": fitted.step,
            "seconds": round(fitted.seconds, 2),
        }
    result = {
        **settings.to_json(),
        "units": units,
        "parameters": cell.parameters(problem.inputs, units),
        "sequences": result["steps"] * schedule.size,
        "processor_seconds": round(time.process_time() - busy, 2),
        **result,
    }
    run.write_json("result.json", result)
    return result


def load_trial(folder: str | Path, data: str | None = None) -> tuple[TrialSettings, Learner]:
    """Open a trial to look into it: its settings, and the network with the weights of the best validation.

    Args:
        folder: its run folder.
        data: the folder of the files that its problem reads, if it reads any.

    Raises:
        RunError: it is no trial, or is damaged.
    """
    run = Run.open(folder, "problem")
    settings = TrialSettings.from_json(run.settings, str(run.path("settings.json")))
    problem, cell = problem_named(settings.problem, data), cell_named(settings.cell)
    learner = Learner(problem, cell, cell.units(problem.inputs, settings.hidden), settings.lag)
    load_best(run, learner)
    return settings, learner.eval()
