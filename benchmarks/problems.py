"""Who remembers what for how long: the numbers of the classic tests of memory.

    scripts/bench problems PART [PART ...] [--out FOLDER] [--threads 1] [--as-it-is]

A part is a call of `longshort problems` with the settings below, and becomes results/problems-PART.json. One
that was interrupted goes on in --out. "seconds" are those of the wall; "processor seconds" are those of the
process alone, validations and final test included: on a shared machine the ones to compare. The parts that
read a file find it in LONGSHORT_DATA. --as-it-is takes the word models of "overfitting" as far as they have
come, and trains no further.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import record
from longshort.problems.catalogue import problem_named
from longshort.problems.comparison import compare
from longshort.problems.complexity import complexity
from longshort.problems.mnist import FILES
from longshort.problems.overfitting import overfitting, row_of
from longshort.problems.report import results, table
from longshort.problems.settings import USUAL, ComparisonSettings
from longshort.runs import Run

CHRONO = {"cells": ("lstm-chrono",)}
STORY = ("rnn", "rnn-orthogonal", "gru", "lstm", "lstm-bias1", "lstm-chrono")
ALL = ("rnn", "rnn-orthogonal", "rnn-identity", *USUAL[2:])
LASTING = ("rnn-orthogonal", "lstm-peephole", "gru-chrono", "rnn", "rnn-identity")
"""The cells that solve recall at 50, other than those with parts of their own."""
PARTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "recall": ("recall", "the lag at which each cell stops", {"cells": ALL, "lags": (10, 50)}),
    "recall-long": ("recall", "all five seeds at lags 100 and 500", {**CHRONO, "lags": (100, 500)}),
    "recall-bias1": ("recall", "the lag at which it stops", {"cells": ("lstm-bias1",), "lags": (100,)}),
    "recall-stops": ("recall", "the lag at which each stops", {"cells": LASTING, "lags": (100, 200, 500)}),
    "start": (
        "recall",
        "the spread over ten seeds for each start of the LSTM",
        {"cells": ("lstm-chrono", "lstm-bias1", "lstm"), "lags": (20,), "seeds": 10},
    ),
    "loan": ("loan", "the lag at which each cell stops", {"cells": STORY, "lags": (10,)}),
    "loan-long": (
        "loan",
        "all five seeds at lags 50, 100 and 500",
        {**CHRONO, "lags": (50, 100, 500), "rates": (0.003,), "max_steps": 2000},
    ),
    "reber": (
        "reber",
        "all seeds, in at most 2,000 sequences (1997: 8,440)",
        {"cells": ("lstm-chrono", "lstm-bias1"), "lags": (5,)},
    ),
    "anbn": (
        "anbn",
        "learned to n = 10, right to n = 100 for the best seed",
        {"cells": ("lstm-1997",), "lags": (100,), "seeds": 20, "rates": (0.01,)},
    ),
    "adding": ("adding", "below 1e-3 in 600 s at 400 and 600", {**CHRONO, "lags": (400, 600), "seeds": 1}),
    "copy": (
        "copy",
        "solved at 200",
        {
            "cells": ("lstm-coupled-chrono",),
            "lags": (200,),
            "seeds": 1,
            "rates": (0.01,),
            "max_steps": 30_000,
        },
    ),
    "samosa": ("samosa", "all seeds", {**CHRONO, "lags": (10,), "rates": (0.01,), "max_steps": 20_000}),
    "samosa-long": (
        "samosa",
        "all seeds at lags 100 and 500",
        {**CHRONO, "lags": (100, 500), "rates": (0.01,), "max_steps": 20_000},
    ),
    "wolf": (
        "wolf",
        "none stated",
        {"cells": ("lstm-bias1",), "lags": (10,), "seeds": 1, "rates": (0.003,), "max_steps": 800},
    ),
    "mnist": (
        "mnist",
        "98.5 % in 600 s",
        {"cells": ("lstm-bias1",), "seeds": 1, "rates": (0.003,)},
    ),
    "mnist-pixels": (
        "mnist-pixels",
        "96 % after an hour",
        {**CHRONO, "seeds": 1, "rates": (0.01,), "max_steps": 10_000},
    ),
}
"""Part -> problem, target, settings."""


def measure(part: str, folder: Path) -> dict[str, Any]:
    """The rows of one part, and what was asked of it."""
    name, target, settings = PARTS[part]
    if name.startswith("mnist"):
        settings = {**settings, "data": str(record.data(f"pictures/mnist-{FILES[0]}-ubyte.gz").parent)}
    wanted = ComparisonSettings(**settings)
    problem = problem_named(name, wanted.data)
    run = Run.create(folder / part, "problems", {"names": [name], **wanted.to_json()})
    found = results(problem, compare(problem, wanted, run))
    print(table(found))
    return {"target": target, "schedule": problem.schedule._asdict(), **found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "complexity", "overfitting"], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-problems"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--as-it-is", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in args.parts:
        if part == "complexity":
            content: dict[str, Any] = {"rows": complexity()}
        elif part == "overfitting":
            run = Run.create(args.out / part, part, {})
            text = str(record.data("text/ptb.train.txt").parent)
            target = "one combination lowers the perplexity on ptb.valid.txt by 10 %"
            rows = (
                [row_of(name, Run.open(run.path(name), part)) for name in ROWS]
                if args.as_it_is
                else overfitting(run, text, max_steps=STEPS, names=ROWS, short=True)
            )
            if rows is None:
                raise SystemExit("interrupted: the same command goes on where it stopped")
            content = {"target": target, "max steps": STEPS, "scores multiplied in": "bfloat16", "rows": rows}
        else:
            content = measure(part, args.out)
        print(record.write("problems", content, f"problems-{part}"))


STEPS = 28_000
"""Windows of each word model at most, 12 times the training."""
ROWS = ("none", "dropout-tied")


if __name__ == "__main__":
    main()
