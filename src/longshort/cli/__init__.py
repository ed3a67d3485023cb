"""longshort <verb> ...: one file per verb.

A verb is a module here with a docstring (its help), `arguments(parser)` and `run(args)`. Adding a
file adds a verb; there is no list to keep in step. A verb's module imports only the standard library
and levels 0 and 1 at its top, so `longshort --help` never waits for torch.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import itertools
import os
import pkgutil
import re
import shlex
import sys
from types import ModuleType
from typing import Any, NoReturn

from ..errors import LongshortError, need


class Parser(argparse.ArgumentParser):
    """Says of a wrong word, in one line, which one is near: a task's usage would push it off the screen."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and let the verb's own parser refuse what nobody knows."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            words = sys.argv[1:] if args is None else list(args)
            chosen = self._chosen(found)
            chosen.error(f"unrecognized arguments: {' '.join(rest)}{_commas(chosen, words, rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        wrong = re.search(r"(?:unrecognized arguments: |<verb>: invalid choice: ')([^\s'=]+)", message)
        near = difflib.get_close_matches(wrong[1], self._words(), 1) if wrong else []
        hint = f" Did you mean {near[0]}?" if near else ""
        self.exit(2, f"{self.prog}: {message}.{hint} `{self.prog} --help` lists what there is.\n")

    def _chosen(self, found: argparse.Namespace) -> argparse.ArgumentParser:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen: argparse.ArgumentParser = action.choices[getattr(found, action.dest)]
                return chosen
        return self

    def _words(self) -> list[str]:
        choices = [str(choice) for action in self._actions for choice in action.choices or ()]
        return [*self._option_string_actions, *choices]


def _commas(parser: argparse.ArgumentParser, words: list[str], rest: list[str]) -> str:
    """What to say of words that nobody knows, where they follow an option that takes a list."""
    lists = [action for action in parser._actions if str(action.metavar).endswith(",...")]
    names = [name for action in lists for name in action.option_strings]
    for k, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name not in names:
            continue
        after = list(itertools.takewhile(lambda one: not one.startswith("-"), words[k + 1 :]))
        values, more = ([value], after) if joined else (after[:1], after[1:])
        more = [one for one in more if one in rest]
        if more:
            whole = shlex.quote(",".join([*values, *more]))
            return f". Commas separate the names of a list: {name} {whole}"
    return ""


def verbs() -> dict[str, ModuleType]:
    """Return every verb's module by the verb's name."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from .. import __version__

    top = Parser(
        prog="longshort",
        description="LSTM, complete: train, predict, evaluate and look inside, from a file to an answer.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"longshort {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="verb", required=True, metavar="<verb>")
    for name, module in verbs().items():
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.arguments(command)
        command.set_defaults(run=module.run)
    return top


def _run(args: argparse.Namespace) -> int:
    """Run the verb; where torch is not installed, say how to install it."""
    try:
        return args.run(args) or 0
    except ModuleNotFoundError as error:
        if error.name == "torch":
            need("torch", extra="tasks", to=f"run `longshort {args.verb}`")
        raise


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words after ``longshort``; those of the process if None.

    Returns:
        0 done; 1 the work failed and stderr says why and what to do; 2 wrong usage (argparse exits);
        130 ended by Ctrl-C.
    """
    whole = parser()
    if not (sys.argv[1:] if argv is None else argv):
        whole.print_help(sys.stderr)
        return 2
    args = whole.parse_args(argv)
    try:
        return _run(args)
    except LongshortError as error:
        if args.debug:
            raise
        print(f"longshort {args.verb}: {str(error).removeprefix(f'{args.verb}: ')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"longshort {args.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: `longshort predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
