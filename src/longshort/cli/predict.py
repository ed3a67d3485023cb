"""Go on from a run: forecast what follows the rows it knows, or generate the text that follows a prompt.

    longshort predict runs/load                                     after the rows of the training
    longshort predict runs/load new.csv --out forecast.parquet      after those of a file
    tail -n 500 load.csv | longshort predict runs/load -            after those of standard input
    longshort predict runs/load --future weather.csv --levels 50,90
    longshort predict runs/load --out forecast.svg                  the picture

    longshort predict runs/book "It was"                            the text that goes on, as it is written
    longshort predict runs/book "It was" "She said" --length 200    several prompts at once
    longshort predict runs/book --prompt-file chapter.txt --temperature 0.5 --stop "THE END"
    echo "It was" | longshort predict runs/book -

A forecast goes to standard output as CSV, a text as it is, or to the file that --out names.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import RunError, SettingError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run and what it is to go on from."""
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument(
        "source",
        metavar="INPUT",
        nargs="*",
        help="a forecast's file of rows, or prompts; - is standard input",
    )
    parser.add_argument("--out", metavar="FILE", help="a .csv, .parquet, .png or .svg file, or one for text")
    of_characters(parser)
    forecast = parser.add_argument_group("runs of forecast", argument_default=argparse.SUPPRESS)
    forecast.add_argument("--future", metavar="FILE", help="rows of the covariates known in advance")
    forecast.add_argument(
        "--levels", type=percentages, metavar="X,...", help="percent of each interval. Default: 80,95."
    )
    forecast.add_argument(
        "--horizon", type=int, metavar="INT", help="steps; at most, and by default, the run's"
    )
    text = parser.add_argument_group("runs of language", argument_default=argparse.SUPPRESS)
    text.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a file")
    text.add_argument("--length", type=int, metavar="INT", help="tokens to write. Default: 500.")
    text.add_argument(
        "--temperature", type=float, metavar="X", help="0 takes the likeliest always. Default: 0.8."
    )
    text.add_argument("--top-k", type=int, metavar="INT", help="choose among so many of the likeliest")
    text.add_argument(
        "--top-p", type=float, metavar="X", help="choose among the likeliest of this probability together"
    )
    text.add_argument(
        "--repetition-penalty", type=float, metavar="X", help="above 1 avoids what came lately. Default: 1."
    )
    text.add_argument("--unknown", action="store_true", help="let a model of words write <unk>")
    text.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may repeat")
    text.add_argument(
        "--stored",
        choices=("full", "bfloat16", "int8"),
        help="how weights are kept while writing; short ones are read faster. Default: full.",
    )
    text.add_argument("--seed", type=int, metavar="INT", help="of the choices. Default: another each time.")


def run(args: argparse.Namespace) -> None:
    """Forecast, or go on with a text."""
    task, told = story(args.folder)
    told.predict(args.folder, args.source, out=args.out, **options(args, "predict", task))


OWN = {
    ("predict", "forecast"): ("future", "levels", "horizon", "encoding"),
    ("predict", "language"): (
        "prompt_file", "encoding", "length", "temperature", "top_k", "top_p", "repetition_penalty", "unknown",
        "stop", "stored", "seed",
    ),
    ("evaluate", "forecast"): ("stride", "levels", "horizon", "encoding"),
    ("evaluate", "language"): ("encoding",),
}  # fmt: skip
"""The options that a verb has for the runs of one task alone."""


def options(args: argparse.Namespace, verb: str, task: str) -> dict[str, Any]:
    """The options given that are the task's own.

    Raises:
        SettingError: one was given that is for runs of another task.
    """
    for (of, other), names in OWN.items():
        for name in names:
            if of == verb and hasattr(args, name) and name not in OWN[verb, task]:
                raise SettingError(
                    f"--{name.replace('_', '-')} is for runs of {other}, and {args.folder} is one of {task}."
                )
    return {name: getattr(args, name) for name in OWN[verb, task] if hasattr(args, name)}


def of_characters(parser: argparse.ArgumentParser) -> None:
    """Take the encoding of the files named."""
    parser.add_argument(
        "--encoding",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="of the characters of files. Default: the run's.",
    )


def percentages(text: str) -> tuple[float, ...]:
    """Read a list such as 80,95."""
    return tuple(float(part) for part in text.split(",") if part.strip())


def story(folder: str) -> tuple[str, Any]:
    """The task whose run a folder holds, and its story.

    Raises:
        RunError: the run is of no task that predicts and evaluates.
    """
    from importlib import import_module

    from ..runs import Run

    task = Run.open(folder).task
    if ("predict", task) not in OWN:
        tasks = " or ".join(known for verb, known in OWN if verb == "predict")
        raise RunError(f"{folder}: must hold a run of {tasks}, and holds one of {task}. Name another folder.")
    return task, import_module(f"..tasks.{task}.story", __package__)
