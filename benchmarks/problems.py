"""Who remembers what for how long: the numbers of the classic tests of memory.

    scripts/bench problems recall [--out FOLDER]       one part, or several; without a name, all but the long ones

Each part is the command `longshort problems` with the arguments below, and writes results/problems-PART.json. An
interrupted part goes on in --out. Seconds are those of the wall, processor seconds those of this process alone: on a
machine that is shared, the latter are the ones to compare.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

import record
from longshort.problems import story
from longshort.problems.settings import ComparisonSettings

LSTMS = ("lstm", "lstm-bias1", "lstm-chrono", "lstm-peephole")
ALL = ("rnn", "rnn-orthogonal", "rnn-identity", "gru", "gru-chrono", *LSTMS)
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "recall": ("recall", {"cells": ALL}),
}
LONG = ("mnist-pixels",)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-problems"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)


if __name__ == "__main__":
    main()
