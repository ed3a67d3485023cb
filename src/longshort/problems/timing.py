"""Timing: how long was it between two spikes?

A stream of silence with four spikes, each F to F + 9 steps after the one before, drawn at random; the first
comes within the first ten steps. At each spike but the first, the answer is which of the ten intervals has
just passed. Input: 1 channel. The lag is F.

Nothing happens between the spikes, so the network must count by itself. A gate that sees the cell can open
when the count is full; without peepholes a gate sees the cell only through the output gate (Gers et al.
2002).

Without memory: 9 of 10 answers are wrong.

Source: the measuring of spike distances in Gers, Schraudolph & Schmidhuber, "Learning precise timing with
LSTM recurrent networks" (2002), with ten classes for one number.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .answers import Classes
from .problem import Batch, Problem, Schedule

INTERVALS, SPIKES = 10, 4


class Timing(Problem):
    """Which interval has passed since the last spike?"""

    name = "timing"
    about = "the exact number of steps between two spikes"
    source = "Gers, Schraudolph & Schmidhuber (2002)"
    lag = "the shortest interval between two spikes"
    lags = (5, 10, 20, 50)
    inputs = 1
    bound, stop = 0.02, 0.01
    schedule: ClassVar[Schedule] = Schedule(max_steps=4000)

    def __init__(self) -> None:
        self.answers = Classes(INTERVALS)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences, long enough for the longest intervals."""
        T = INTERVALS + (SPIKES - 1) * (lag + INTERVALS - 1)
        first, passed = rng.integers(INTERVALS, size=(N, 1)), rng.integers(INTERVALS, size=(N, SPIKES - 1))
        spikes = np.concatenate([first, first + np.cumsum(lag + passed, axis=1)], axis=1)
        x, target, asked = np.zeros((N, T, 1), np.float32), np.zeros((N, T), np.int64), np.zeros((N, T), bool)
        rows = np.arange(N)[:, None]
        x[rows, spikes, 0] = 1
        target[rows, spikes[:, 1:]], asked[rows, spikes[:, 1:]] = passed, True
        return Batch(x, target, asked)

    def trivial(self, lag: int) -> float:
        """9 / 10."""
        return 1 - 1 / INTERVALS

    def longest(self, lag: int) -> int:
        """The longest interval."""
        return lag + INTERVALS - 1
