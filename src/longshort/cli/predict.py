"""Go on from a run: forecast what follows the rows it knows, or those of a file.

    longshort predict runs/load                                     after the rows of the training
    longshort predict runs/load new.csv --out forecast.parquet      after those of a file
    tail -n 500 load.csv | longshort predict runs/load -            after those of standard input
    longshort predict runs/load --future weather.csv --levels 50,90
    longshort predict runs/load --out forecast.svg                  the picture

The table goes to standard output as CSV, or to the file that --out names.
"""

from __future__ import annotations

import argparse
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run and what it is to go on from."""
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("source", metavar="FILE", nargs="?", help="rows to go on from; - is standard input")
    parser.add_argument("--future", metavar="FILE", help="rows of the covariates known in advance")
    parser.add_argument(
        "--levels", type=percentages, metavar="X,...", help="percent of each interval. Default: 80,95."
    )
    parser.add_argument(
        "--horizon", type=int, metavar="INT", help="steps; at most, and by default, the run's"
    )
    parser.add_argument("--out", metavar="FILE", help="a .csv, .parquet, .png or .svg file")


def run(args: argparse.Namespace) -> None:
    """Forecast."""
    options = {"levels": args.levels} if args.levels else {}
    story(args.folder).predict(
        args.folder, args.source, future=args.future, horizon=args.horizon, out=args.out, **options
    )


def percentages(text: str) -> tuple[float, ...]:
    """Read a list such as 80,95."""
    return tuple(float(part) for part in text.split(",") if part.strip())


def story(folder: str) -> Any:
    """The story of the task that a run folder holds."""
    from importlib import import_module

    from ..runs import Run

    return import_module(f"..tasks.{Run.open(folder).task}.story", __package__)
