"""From names to a folder of answers: what the command line calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..runs import Run
from .catalogue import PROBLEMS, problem_named
from .cells import CELLS
from .comparison import Interrupted, checked, compare
from .report import results, write
from .settings import ComparisonSettings


def known() -> str:
    """Every problem and every cell, a line each."""
    wide = max(map(len, [*PROBLEMS, *CELLS]))
    lines = ["problems"]
    lines += [f"  {name:{wide}}  {problem.about} ({problem.source})" for name, problem in PROBLEMS.items()]
    lines += ["", "cells"]
    lines += [f"  {name:{wide}}  {cell.about}" for name, cell in CELLS.items()]
    return "\n".join(lines)


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
        0, or 1 if Ctrl-C ended it early.

    Raises:
        SettingError: an unknown problem or cell, or a lag that a problem does not allow; before anything is
        run. DataError: a file that a problem reads is missing or damaged; likewise. RunError: the folder
        holds another comparison.
    """
    if len(set(names)) < len(names):
        raise SettingError(f"problems: each NAME may stand once, got {' '.join(names)}.")
    problems = [problem_named(name, settings.data) for name in names]
    for problem in problems:
        checked(problem, settings)
    run = Run.create(out, "problems", {"names": names, **settings.to_json()})
    several: list[dict[str, Any]] = []
    try:
        for problem in problems:
            several.append(results(problem, compare(problem, settings, run, device=device, quiet=quiet)))
    except Interrupted:
        print("Interrupted. The same command goes on from there.", file=sys.stderr)
        return 1
    print(write(run, several))
    print(f"\n{run.folder}: tables, pictures and the trained models")
    return 0
