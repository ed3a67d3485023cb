"""Problems of memory: who remembers what for how long, a plain RNN, a GRU, an LSTM and its variants.

    longshort problems                                     the problems and the cells, by name
    longshort problems recall                              every usual cell at lags of 10 to 500
    longshort problems recall loan --cells rnn,gru,lstm,lstm-chrono --lags 10,100 --seeds 5 --out runs/memory
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
        "--out", metavar="DIR", help="the folder of the comparison. Default: runs/ and the names."
    )


def run(args: argparse.Namespace) -> int:
    """Compare."""
    from ..problems import story
    from ..problems.settings import ComparisonSettings

    if not args.names:
        print(story.known())
        return 0
    out = args.out or f"runs/{'-'.join(args.names)}"
    if len(args.names) == 1 and args.names[0] in story.COMPLAINTS:
        return story.complain(args.names[0], ComparisonSettings.given(args), out, device=args.device)
    return story.compare_all(args.names, ComparisonSettings.given(args), out, device=args.device)
