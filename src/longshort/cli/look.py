"""Look inside the model of a run: what it stored, what it uses, what it could learn.

    longshort look runs/load                         findings to the terminal, the page to runs/load/look.html
    longshort look runs/load new.csv --out look.html
    longshort look runs/book "Once upon a time"      the prompt, and what the model goes on with
    longshort look runs/memory recall                the cells of a comparison side by side
    longshort look runs/load --findings              the findings alone
    longshort look runs/load --words LTM/STM         long-term and short-term memory

The page is one HTML file that needs no network. Whatever it leaves out, it says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import SettingError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the run, and what to look at."""
    parser.add_argument("folder", metavar="RUN", help="a run folder")
    parser.add_argument(
        "source",
        metavar="INPUT",
        nargs="?",
        help="rows to look at; for a model of language a prompt, or the file of a text; for a comparison the "
        "name of a problem. By default what the run has.",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="the page to write. Default: look.html in RUN."
    )
    parser.add_argument("--findings", action="store_true", help="print the findings, write no page")
    parser.add_argument(
        "--words",
        choices=("classic", "LTM/STM", "torch"),
        default="classic",
        help="names of gates and states",
    )
    parser.add_argument(
        "--limit", type=float, default=2, metavar="MB", help="largest size of the page. Default: %(default)g."
    )


def run(args: argparse.Namespace) -> None:
    """Look."""
    from ..lens import look_at
    from ..lens.checking import require_page_name
    from ..lens.opening import open_run
    from ..runs import require_writable

    if not args.limit > 0:
        raise SettingError(f"look: --limit must be a number of MB above 0, got {args.limit:g}.")
    if args.findings and args.out is not None:
        raise SettingError(
            f"look: --findings writes no page, and --out asks for one in {args.out}. Leave out one of them."
        )
    if args.out is not None and not args.out.is_dir():
        require_page_name(args.out, "--out")
    opened = open_run(args.folder, args.source)
    for note in opened.notes:
        _note(note)
    out = args.out or Path(args.folder) / "look.html"
    if not args.findings:
        require_writable(out)
    made = look_at(opened, vocabulary=args.words, quiet=False)
    if opened.compare:
        print(f"{made.title}: {opened.name}\n")
    print(made)
    if not args.findings:
        path = made.save(out, args.limit * 1e6)
        size = path.stat().st_size / 1e6
        print(f"\n{path}: the page, {size:.1f} MB")
        if size > args.limit:
            _note(f"the page is larger than --limit {args.limit:g}: of this model it cannot show less.")


def _note(text: str) -> None:
    """Tell the person, beside the findings that standard output is for."""
    print(f"note: {text}", file=sys.stderr, flush=True)
