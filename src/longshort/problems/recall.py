"""Recall: one symbol, then noise, then the question which symbol it was.

Step 0 shows one of 8 symbols. The next L - 1 steps show noise: one of 8 other symbols each, drawn at random.
Step L shows the cue, and the answer there is the symbol of step 0. Input: 17 channels, one of them 1.

Without memory: 7 of 8 answers are wrong.

Source: the latching problem of Bengio, Simard & Frasconi, "Learning long-term dependencies with gradient
descent is difficult" (1994), and experiments 2a to 2c of Hochreiter & Schmidhuber, "Long short-term memory"
(1997), with eight symbols in place of two.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .answers import Classes
from .problem import Batch, Problem, Schedule, one_hot, only_last

SYMBOLS = 8


class Recall(Problem):
    """Which symbol came first, L steps ago?"""

    name = "recall"
    about = "which of 8 symbols came first, with noise in between"
    source = "Bengio et al. (1994); Hochreiter & Schmidhuber (1997), experiment 2"
    inputs = 2 * SYMBOLS + 1
    rates = (0.01, 0.003)
    schedule: ClassVar[Schedule] = Schedule(size=16, max_steps=1000, every=50, held=256)

    def __init__(self) -> None:
        self.answers = Classes(SYMBOLS)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of lag + 1 steps."""
        first = rng.integers(SYMBOLS, size=N)
        symbols = rng.integers(SYMBOLS, 2 * SYMBOLS, size=(N, lag + 1))
        symbols[:, 0], symbols[:, -1] = first, 2 * SYMBOLS
        return Batch(one_hot(symbols, self.inputs), *only_last(N, lag + 1, first))

    def trivial(self, lag: int) -> float:
        """7 / 8."""
        return 1 - 1 / SYMBOLS
