"""Score a run on rows it has not seen, beside the baselines.

    longshort evaluate runs/load test.csv
    longshort evaluate runs/load test.csv --stride 24 --out windows.csv
    longshort evaluate runs/load test.csv --out scores.json

The file holds rows that follow those of the run, or whole series, of which only what follows is scored.
A forecast is made after every --stride rows; nothing is fitted again.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run and the rows to score it on."""
    from .predict import percentages

    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("source", metavar="FILE", help="later rows; - is standard input")
    parser.add_argument("--stride", type=int, default=1, metavar="INT", help="rows between two forecasts")
    parser.add_argument(
        "--levels", type=percentages, metavar="X,...", help="percent of each interval. Default: 80,95."
    )
    parser.add_argument(
        "--horizon", type=int, metavar="INT", help="steps; at most, and by default, the run's"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the windows as .csv or .parquet, or the scores as .json"
    )


def run(args: argparse.Namespace) -> None:
    """Score."""
    from .predict import story

    options = {"levels": args.levels} if args.levels else {}
    story(args.folder).evaluate(
        args.folder, args.source, stride=args.stride, horizon=args.horizon, out=args.out, **options
    )
