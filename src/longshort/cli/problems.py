"""Problems of memory: who remembers what for how long, a plain RNN, a GRU, an LSTM and its variants.

    longshort problems                                     the problems and the cells, by name
    longshort problems recall                              every usual cell at lags of 10 to 500
    longshort problems recall loan --cells rnn,gru,lstm,lstm-chrono --lags 10,100 --seeds 5 --out runs/memory
    longshort problems loan --look                         and the page that shows what each cell remembers
    longshort problems mnist --data pictures --cells lstm-bias1 --seeds 1
    longshort problems complexity                          parameters, time and memory beside RNN and GRU
    longshort problems overfitting --data words.txt        what each regulariser does to the held-out loss
    longshort problems start                               how much the random start matters

All cells have as many weights as an LSTM with --hidden units, and each is tuned over the same learning rates.
The same command goes on where it was interrupted. --out gets tables, pictures, every number, and each trained
model.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take the problems, and how to compare."""
    from ..problems.settings import ComparisonSettings

    text = "problems, or one of complexity, overfitting, start; none to list them"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    ComparisonSettings.flags(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps. Default: auto.")
    parser.add_argument(
        "--look", action="store_true", help="also write a page for each problem that looks inside its cells"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="the folder of the comparison. Default: runs/ and the names."
    )


def run(args: argparse.Namespace) -> int:
    """Compare."""
    from ..errors import SettingError
    from ..problems import story
    from ..problems.settings import ComparisonSettings

    if not args.names:
        print(story.known())
        return 0
    out = args.out or f"runs/{'-'.join(args.names)}"
    if len(args.names) == 1 and args.names[0] in story.COMPLAINTS:
        if args.look:
            raise SettingError(f"--look shows the cells of a problem, got {args.names[0]}.")
        return story.complain(args.names[0], ComparisonSettings.given(args), out, device=args.device)
    code = story.compare_all(args.names, ComparisonSettings.given(args), out, device=args.device)
    if args.look and code == 0:
        _look(args.names, out)
    return code


def _look(names: list[str], out: str) -> None:
    from ..lens import look_at
    from ..lens.opening_problem import open_comparison
    from ..runs import Run

    run = Run.open(out, "problems")
    for name in names:
        made = look_at(open_comparison(run, name))
        path = made.save(run.path(f"{name}.html"))
        print(f"\n{made}\n\n{path}: the page of {made.title}, {path.stat().st_size / 1e6:.1f} MB")
