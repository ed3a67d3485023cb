"""Flip-flop: three switches, each set now and then, and read at every step.

Three channels; at each step each carries, with probability 1 / L, a pulse of +1 or -1, and 0 otherwise. The
first step sets all three. The answer at every step is the last pulse of each channel. Sequences have 5 L
steps, at least 20. The lag L is the mean number of steps between two pulses of a channel.

Without memory: the pulse itself where there is one and 0 elsewhere, a mean squared error of
(1 - 1 / L) (T - 1) / T for T steps.

Source: Sussillo & Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent
neural networks" (2013).
"""

from __future__ import annotations

import numpy as np

from .answers import Numbers
from .problem import Batch, Problem

CHANNELS = 3


class FlipFlop(Problem):
    """The last pulse of each of three channels, at every step."""

    name = "flipflop"
    about = "three switches, set now and then, read at every step"
    source = "Sussillo & Barak (2013)"
    lag = "mean steps from a pulse to the next on its channel"
    least = 2
    lags = (5, 10, 50, 100)
    inputs = CHANNELS

    def __init__(self) -> None:
        self.answers = Numbers(CHANNELS)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of max(5 lag, 20) steps."""
        T = steps(lag)
        pulses = np.where(rng.random((N, T, CHANNELS)) < 1 / lag, rng.choice((-1, 1), (N, T, CHANNELS)), 0)
        pulses[:, 0] = rng.choice((-1, 1), (N, CHANNELS))
        set_at = np.maximum.accumulate(np.where(pulses != 0, np.arange(T)[:, None], 0), axis=1)
        held = np.take_along_axis(pulses, set_at, axis=1)
        return Batch(pulses.astype(np.float32), held.astype(np.float32), np.ones((N, T), bool))

    def trivial(self, lag: int) -> float:
        """The share of steps without a pulse: there the answer is +1 or -1, and the guess 0."""
        T = steps(lag)
        return (1 - 1 / lag) * (T - 1) / T

    def longest(self, lag: int) -> int:
        """The length of a sequence."""
        return steps(lag)


def steps(lag: int) -> int:
    """Steps of a sequence."""
    return max(5 * lag, 20)
