"""Adding: a stream of numbers, two of them marked; at the end their sum.

T steps. Channel 0 is uniform in [0, 1]; channel 1 is 1 at two steps, one drawn from the first half and one
from the second, and 0 elsewhere. The answer at the last step is the sum of the two marked numbers. The lag is
T.

Without memory: the mean, 1, is the best answer, and its squared error is 1/6 = 0.1667. (Arjovsky et al. and
Bai et al. print 0.1767 for it.)

Source: Hochreiter & Schmidhuber, "Long short-term memory" (1997), experiment 4, in the form of Arjovsky, Shah
& Bengio, "Unitary evolution recurrent neural networks" (2016).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .answers import Numbers
from .problem import Batch, Problem, Schedule, only_last


class Adding(Problem):
    """The sum of the two marked numbers."""

    name = "adding"
    about = "the sum of two marked numbers among many"
    source = "Hochreiter & Schmidhuber (1997), experiment 4; Arjovsky et al. (2016)"
    lag = "steps of a sequence, at least one in each half"
    least = 2
    lags = (50, 100, 200, 400)
    inputs = 2
    bound, stop = 1e-3, 5e-4
    schedule: ClassVar[Schedule] = Schedule(max_steps=6000)

    def __init__(self) -> None:
        self.answers = Numbers(1)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of `lag` steps."""
        x = np.zeros((N, lag, 2), np.float32)
        x[..., 0] = rng.random((N, lag), np.float32)
        rows, half = np.arange(N), lag // 2
        x[rows, rng.integers(0, half, N), 1] = 1
        x[rows, rng.integers(half, lag, N), 1] = 1
        total = (x[..., 0] * x[..., 1]).sum(1, keepdims=True)
        return Batch(x, *only_last(N, lag, total))

    def trivial(self, lag: int) -> float:
        """1 / 6, the variance of the sum of two uniform numbers."""
        return 1 / 6
