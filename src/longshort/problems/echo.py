"""Echo: at every step, the symbol of k steps ago.

A stream of symbols of 4, drawn at random, of 2 k + 20 steps. From step k on, the answer at each step t is the
symbol of step t - k. Input: 4 channels, one of them 1. The lag is k; the network must hold k symbols, 2 k
bits, at once, so the size of the state bounds the lag.

Without memory: 3 of 4 answers are wrong.

Source: the delay line of Jaeger, "Short term memory in echo state networks" (2001), with symbols for numbers.
"""

from __future__ import annotations

import numpy as np

from .answers import Classes
from .problem import Batch, Problem, one_hot

SYMBOLS = 4


class Echo(Problem):
    """The symbol of k steps ago, at every step."""

    name = "echo"
    about = "the symbol of k steps ago, at every step"
    source = "Jaeger (2001)"
    lag = "steps from a symbol to its echo"
    lags = (2, 5, 10, 20)
    inputs = SYMBOLS

    def __init__(self) -> None:
        self.answers = Classes(SYMBOLS)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of 2 lag + 20 steps."""
        T = 2 * lag + 20
        symbols = rng.integers(SYMBOLS, size=(N, T))
        target, asked = np.zeros_like(symbols), np.zeros((N, T), bool)
        target[:, lag:], asked[:, lag:] = symbols[:, :-lag], True
        return Batch(one_hot(symbols, SYMBOLS), target, asked)

    def trivial(self, lag: int) -> float:
        """3 / 4."""
        return 1 - 1 / SYMBOLS
