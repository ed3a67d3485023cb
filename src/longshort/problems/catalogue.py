"""Every problem by its name."""

from __future__ import annotations

import difflib

from ..errors import SettingError
from .adding import Adding
from .anbn import AnBn, AnBnCn
from .copy import Copy
from .echo import Echo
from .flipflop import FlipFlop
from .loan import Loan
from .mnist import Mnist, MnistPermuted, MnistPixels
from .problem import Problem
from .reber import Reber, ReberContinual
from .recall import Recall
from .samosa import Samosa
from .temporal import Temporal, TemporalFour
from .timing import Timing
from .wolf import Wolf

PROBLEMS = {
    problem.name: problem
    for problem in (
        Recall(),
        Loan(),
        Samosa(),
        Wolf(),
        Adding(),
        Copy(),
        Temporal(),
        TemporalFour(),
        Reber(),
        ReberContinual(),
        AnBn(),
        AnBnCn(),
        Echo(),
        FlipFlop(),
        Timing(),
        Mnist(),
        MnistPixels(),
        MnistPermuted(),
    )
}


def problem_named(name: str, data: str | None = None) -> Problem:
    """Return the problem of a name.

    Args:
        name: one of PROBLEMS.
        data: the folder of the files it reads, if it reads any.

    Raises:
        SettingError: there is none of that name; the known ones are listed.
    """
    if name not in PROBLEMS:
        near = difflib.get_close_matches(name, PROBLEMS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SettingError(f"NAME must be of {', '.join(PROBLEMS)}, got {name!r}.{hint}")
    problem = PROBLEMS[name]
    return type(problem)(data) if isinstance(problem, Mnist) else problem
