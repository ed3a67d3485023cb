"""Temporal order: which of two symbols came where, three or four times in a long stream.

Sequences of T to 1.1 T steps begin with E and end with B; in between stand distractors a, b, c, d, drawn at
random, but for three steps, at which stands X or Y. The three steps are drawn from [0.10, 0.20], [0.33, 0.43]
and [0.66, 0.76] of T; for four, from [0.10, 0.20], [0.30, 0.40], [0.50, 0.60] and [0.70, 0.80]. The answer at
the B is which of the 8 (16) orders it was: XXX, XXY, ... Input: 8 channels, one of them 1. The lag is T.

Without memory: 7 of 8 (15 of 16) answers are wrong.

Source: Hochreiter & Schmidhuber, "Long short-term memory" (1997), experiment 6b with T = 100; the form with
four symbols follows the same rule.
"""

from __future__ import annotations

import numpy as np

from .answers import Classes
from .problem import Batch, Problem, one_hot

ALPHABET = "EBabcdXY"
STARTS = {3: (0.10, 0.33, 0.66), 4: (0.10, 0.30, 0.50, 0.70)}


class Temporal(Problem):
    """The order of three symbols X or Y.

    Args:
        bits: how many there are, 3 or 4.
    """

    name = "temporal"
    about = "the order of three X or Y in a long stream"
    source = "Hochreiter & Schmidhuber (1997), experiment 6b"
    lag = "steps of a sequence, with room for each X or Y"
    least = 10
    lags = (20, 50, 100, 200)
    inputs = len(ALPHABET)

    def __init__(self, bits: int = 3) -> None:
        self.bits = bits
        self.answers = Classes(2**bits)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences, padded to 1.1 lag steps."""
        most = lag + lag // 10
        lengths = rng.integers(lag, most, N, endpoint=True)
        symbols = rng.integers(2, 6, (N, most))
        rows, order = np.arange(N), np.zeros(N, np.int64)
        for start in STARTS[self.bits]:
            first = round(start * lag)
            step = rng.integers(first, first + lag // 10, N, endpoint=True)
            choice = rng.integers(2, size=N)
            symbols[rows, step] = 6 + choice
            order = 2 * order + choice
        symbols[:, 0], symbols[rows, lengths - 1] = 0, 1
        x = one_hot(symbols, self.inputs)
        x[np.arange(most) >= lengths[:, None]] = 0
        asked = np.arange(most) == lengths[:, None] - 1
        return Batch(x, np.where(asked, order[:, None], 0), asked)

    def trivial(self, lag: int) -> float:
        """All orders are equally likely."""
        return 1 - 0.5**self.bits


class TemporalFour(Temporal):
    """The order of four symbols X or Y."""

    name = "temporal-4"
    about = "the order of four X or Y in a long stream"

    def __init__(self) -> None:
        super().__init__(4)
