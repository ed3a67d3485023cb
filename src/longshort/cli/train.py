"""Train a model on a file, score it beside baselines, and leave a run folder.

    longshort train forecast load.csv --target load --horizon 24 --out runs/load
    longshort train forecast                    the series that comes with the package
    longshort train language book.txt --out runs/book
    longshort train language                    the help topics that come with Python
    longshort train forecast --watch            keeps how memory is learnt; longshort look shows the film
    longshort train forecast --help             every setting; so for language

The end of each series, or of the text, is held out for the score. The same command resumes an interrupted
run; `--settings runs/load/settings.json` repeats one, with whatever other flags change about it.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

TASKS = ("forecast", "language")
WATCH = 50
"""Steps between two frames of a film, if `--watch` names no other number."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the task; what else there is, is the task's."""
    parser.add_argument("task", choices=TASKS, help="what to train")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="see the task's own --help")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from importlib import import_module

    from ..errors import SettingError
    from ..train.fit import DEVICES
    from . import Parser

    story = import_module(f"..tasks.{args.task}.story", __package__)
    kind = story.TrainSettings
    parser = Parser(
        f"longshort train {args.task}",
        description=f"{kind.__doc__}\n\n{story.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    story.arguments(parser)
    parser.add_argument(
        "--out", default=f"runs/{args.task}", metavar="DIR", help="the run folder. Default: %(default)s."
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to train. Default: auto.")
    parser.add_argument("--settings", metavar="FILE", help="settings to start from, such as a run's")
    parser.add_argument("--print-settings", action="store_true", help="print the settings, and do nothing")
    parser.add_argument(
        "--watch", nargs="?", const=WATCH, type=_steps, metavar="K",
        help="keep how far back the gradient reaches, the half-lives and the saturation every K steps "
        f"(default {WATCH}); longshort look shows the film",
    )  # fmt: skip
    given = parser.parse_args(args.rest)
    beneath = story.beneath(given)
    if given.settings is not None:
        for name in ("recipe", "start"):
            if getattr(given, name, None) is not None:
                raise SettingError(
                    f"train: `--settings` and `--{name}` both stand beneath the flags. Give one."
                )
        beneath = _read(kind, given.settings)
    if given.source is not None:
        if getattr(given, "file", given.source) != given.source:
            raise SettingError(
                f"train: FILE and `--file` both say what to learn from, got {given.source} and {given.file}. "
                f"Give one."
            )
        given.file = given.source
    settings = kind.given(given, beneath)
    if given.print_settings:
        print(json.dumps(settings.to_json(), indent=2))
        return 0
    recorder = None
    if given.watch is not None:
        from ..lens.filming import RunRecorder

        recorder = RunRecorder(given.out, given.watch)
    return int(story.train(settings, given.out, device=given.device, recorder=recorder))


def _steps(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number of steps, got {text!r}: write FILE before it"
        ) from None


def _read(kind: Any, path: str) -> Any:
    """Settings from a run's settings.json, or from a file that holds nothing but settings."""
    from pathlib import Path

    try:
        nested = "longshort" in json.loads(Path(path).read_bytes())
    except (OSError, ValueError, TypeError):
        nested = False
    return kind.read(path, "settings" if nested else None)
