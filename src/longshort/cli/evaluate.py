"""Score a run on rows or a text it has not seen, beside the baselines.

    longshort evaluate runs/load test.csv
    longshort evaluate runs/load test.csv --stride 24 --out windows.csv
    longshort evaluate runs/load test.csv --out scores.json
    longshort evaluate runs/book other.txt --out scores.json

For a forecast the file holds rows that follow those of the run, or whole series, of which only what follows
is scored; a forecast is made after every --stride rows. A text is read as one sequence, and scored in nats a
token, bits a character and perplexity. Nothing is fitted again.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run and what to score it on."""
    from .predict import of_characters, percentages

    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument("source", metavar="FILE", help="later rows, or a text; - is standard input")
    parser.add_argument(
        "--out", metavar="FILE", help="the scores as .json, or a forecast's windows as .csv or .parquet"
    )
    of_characters(parser)
    forecast = parser.add_argument_group("runs of forecast", argument_default=argparse.SUPPRESS)
    forecast.add_argument("--stride", type=int, metavar="INT", help="rows between two forecasts. Default: 1.")
    forecast.add_argument(
        "--levels", type=percentages, metavar="X,...", help="percent of each interval. Default: 80,95."
    )
    forecast.add_argument(
        "--horizon", type=int, metavar="INT", help="steps; at most, and by default, the run's"
    )


def run(args: argparse.Namespace) -> None:
    """Score."""
    from .predict import options, story

    task, told = story(args.folder)
    told.evaluate(args.folder, args.source, out=args.out, **options(args, "evaluate", task))
