"""Copy: ten symbols, a long silence, then the ten symbols again.

Ten symbols of 8 are shown, then T - 1 blanks, a cue, and ten more blanks: T + 20 steps. The answer is "blank"
at the first T + 10 steps and the ten symbols at the last ten. Input: 10 channels; answers: 9 classes. The lag
is T.

Without memory: one who knows the rules says "blank" rightly T + 10 times and guesses ten times among 8, a
mean cross-entropy of 10 ln 8 / (T + 20) nats: 0.0945 for T = 200, 0.0204 for T = 1,000.

Source: Hochreiter & Schmidhuber (1997), in the form of Arjovsky, Shah & Bengio, "Unitary evolution recurrent
neural networks" (2016).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from .answers import Probabilities
from .problem import Batch, Problem, Schedule, one_hot

SYMBOLS = 8
BLANK, CUE = SYMBOLS, SYMBOLS + 1


class Copy(Problem):
    """Ten symbols, said again T steps later.

    Args:
        count: how many there are; ten in the papers.
    """

    name = "copy"
    about = "ten symbols of 8, said again after a long silence"
    source = "Hochreiter & Schmidhuber (1997); Arjovsky et al. (2016)"
    lag = "steps from the end of the ten symbols to the cue"
    lags = (10, 50, 100, 200)
    inputs = SYMBOLS + 2
    bound, stop = 1e-3, 5e-4
    schedule: ClassVar[Schedule] = Schedule(hidden=128, max_steps=8000, every=200, held=256)

    def __init__(self, count: int = 10) -> None:
        self.count = count
        self.answers = Probabilities(SYMBOLS + 1)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of lag + 20 steps, with ten symbols."""
        kept = rng.integers(SYMBOLS, size=(N, self.count))
        symbols = np.full((N, lag + 2 * self.count), BLANK)
        symbols[:, : self.count], symbols[:, self.count + lag - 1] = kept, CUE
        target = np.full_like(symbols, BLANK)
        target[:, -self.count :] = kept
        return Batch(one_hot(symbols, self.inputs), target, np.ones(symbols.shape, bool))

    def trivial(self, lag: int) -> float:
        """10 ln 8 / (T + 20)."""
        return self.count * math.log(SYMBOLS) / (lag + 2 * self.count)

    def longest(self, lag: int) -> int:
        """From a symbol to its copy."""
        return lag + self.count
