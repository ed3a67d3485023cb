"""The classic tests of memory, and the comparison of cells on them."""

from .adding import Adding
from .anbn import AnBn, AnBnCn
from .cells import CELLS
from .copy import Copy
from .echo import Echo
from .flipflop import FlipFlop
from .loan import Loan
from .mnist import Mnist, MnistPermuted, MnistPixels
from .reber import Reber, ReberContinual
from .recall import Recall
from .samosa import Samosa
from .temporal import Temporal, TemporalFour
from .timing import Timing
from .wolf import Wolf

PROBLEMS = {
    problem.name: problem
    for problem in (Recall(), Loan(), Samosa(), Wolf(), Adding(), Copy(), Temporal(), TemporalFour(), Reber(), ReberContinual(), AnBn(), AnBnCn(), Echo(), FlipFlop(), Timing(), Mnist(), MnistPixels(), MnistPermuted())
}
"""Every problem by its name."""
