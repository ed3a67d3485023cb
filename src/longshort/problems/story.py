"""From names to a folder of answers: what the command line calls."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..figures import metrics_figure, save_figure
from ..runs import Run
from ..train.fit import present_device
from . import complexity, overfitting
from .catalogue import PROBLEMS, problem_named
from .cells import CELLS, cell_named
from .comparison import Interrupted, checked, compare
from .report import results, write
from .settings import ComparisonSettings

COMPLAINTS = ("complexity", "overfitting", "start")
"""What stands alone on the command line in the place of problems."""
START, START_LAGS = "recall", (20,)
"""The problem on which the random start is varied, and at which lags."""


def known() -> str:
    """Every problem and every cell, a line each."""
    wide = max(map(len, [*PROBLEMS, *CELLS]))
    lines = ["problems"]
    lines += [f"  {name:{wide}}  {problem.about} ({problem.source})" for name, problem in PROBLEMS.items()]
    lines += ["", "cells"]
    lines += [f"  {name:{wide}}  {cell.about}" for name, cell in CELLS.items()]
    return "\n".join(lines)


def complain(name: str, settings: ComparisonSettings, out: str | Path, *, device: str = "cpu") -> int:
    """Answer one of the usual complaints with figures.

    Args:
        name: "complexity", "overfitting" or "start".
        settings: complexity reads `cells` and `hidden`; overfitting `data`, `hidden`, `max_steps`; start all.
        out: the folder.
        device: where to train.

    Returns:
        0, or 130 if Ctrl-C ended it early.

    Raises:
        DataError: overfitting has no text that it can use.
        RunError: the folder holds something else.
    """
    if name == "start":
        return compare_all([START], with_defaults(settings, lags=START_LAGS, seeds=10), out, device=device)
    for cell in settings.cells:
        cell_named(cell)
    if name == "overfitting":
        overfitting.read_text(settings.data)
    else:
        settings = with_defaults(settings, cells=complexity.USUAL)
    present_device(device)
    run = Run.create(out, name, settings.to_json())
    if name == "complexity":
        rows: list[dict[str, Any]] | None = complexity.complexity(settings.cells, H=settings.hidden or 128)
        text = complexity.table(rows or [])
    else:
        units, steps = settings.hidden or overfitting.UNITS, settings.max_steps or 12_000
        rows = overfitting.overfitting(run, settings.data, max_steps=steps, units=units, device=device)
        if rows is None:
            return _interrupted()
        text = overfitting.table(rows)
        save_figure(_overfitting_figure(rows), run.path("overfitting.png"), run.path("overfitting.svg"))
    run.write_json("results.json", {"rows": rows})
    run.write_bytes("table.txt", f"{text}\n".encode())
    print(f"{text}\n\n{run.folder}: the numbers")
    return 0


def with_defaults(settings: ComparisonSettings, **values: Any) -> ComparisonSettings:
    """The settings, with other values where they are still the default ones."""
    usual = ComparisonSettings()
    changed = {
        name: value for name, value in values.items() if getattr(settings, name) == getattr(usual, name)
    }
    return dataclasses.replace(settings, **changed)


def _overfitting_figure(rows: list[dict[str, Any]]) -> Any:
    curves = {
        row["name"]: ([point[0] for point in row["curve"]], [point[1] for point in row["curve"]])
        for row in rows
    }
    return metrics_figure(curves, title="Loss on words held out, by regulariser")


def _interrupted() -> int:
    print("Interrupted. The same command goes on from there.", file=sys.stderr)
    return 130


def compare_all(
    names: list[str],
    settings: ComparisonSettings,
    out: str | Path,
    *,
    device: str = "cpu",
    quiet: bool = False,
) -> int:
    """Compare cells on several problems, and print and write what came out.

    Args:
        names: of the problems.
        settings: cells, lags, seeds and rates.
        out: the folder; an interrupted comparison of the same names and settings goes on.
        device: where to train.
        quiet: print the tables alone.

    Returns:
        0, or 130 if Ctrl-C ended it early.

    Raises:
        SettingError: an unknown problem or cell, or a lag that a problem does not allow.
        BackendError: this machine has no such device.
        DataError: a file that a problem reads is missing or damaged. All three come before anything is run.
        RunError: the folder holds another comparison.
    """
    for name in COMPLAINTS:
        if name in names:
            raise SettingError(f"{name!r} must stand alone, got {' '.join(names)}.")
    if len(set(names)) < len(names):
        raise SettingError(f"each NAME may stand once, got {' '.join(names)}.")
    problems = [problem_named(name, settings.data) for name in names]
    for problem in problems:
        checked(problem, settings)
    present_device(device)
    run = Run.create(out, "problems", {"names": names, **settings.to_json()})
    several: list[dict[str, Any]] = []
    try:
        for problem in problems:
            several.append(results(problem, compare(problem, settings, run, device=device, quiet=quiet)))
    except Interrupted:
        return _interrupted()
    print(write(run, several))
    print(f"\n{run.folder}: tables, pictures and the trained models")
    return 0
