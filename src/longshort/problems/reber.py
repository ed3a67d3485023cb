"""Embedded Reber grammar: the second symbol decides the last but one, whatever grammar lies between.

A string is B, then T or P, then a string of Reber's grammar, then the same T or P, then E. Reber's grammar
starts with B and ends with E; between them it walks

    1: T -> 2, P -> 3    2: S -> 2, X -> 4    3: T -> 3, V -> 5    4: X -> 3, S -> end    5: P -> 4, V -> end

and where there are two ways, each is taken half the time. At each step but the last the network is trained on
the symbol that came next. It is right if both symbols that were legal (or the only one) are more probable to
it than every illegal one, and a string counts as right only if all its steps are. Input: 7 channels, one of
them 1. The lag L is the least number of symbols of the inner string; while it is shorter, the walk does not
end. Up to 5 that changes nothing.

Without memory of the second symbol, T and P are equally likely in the end: 1 of 2 strings is wrong.

The continual form joins strings to a stream without a sign between them, after Gers, Schmidhuber & Cummins
(2000); for it the forget gate was invented. There the lag is the number of strings of a stream, a stream
counts as right only if all of it is, and without memory 1 - 1 / 2^L of the streams are wrong.

Sources: Hochreiter & Schmidhuber, "Long short-term memory" (1997), experiment 1; Gers, Schmidhuber & Cummins,
"Learning to forget: continual prediction with LSTM" (2000).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .answers import NextSymbols
from .problem import Batch, Problem, Schedule, one_hot

ALPHABET = "BTSXVPE"
WALK = {
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
}
"""State -> symbol -> next state; 6 is the end."""


class Reber(Problem):
    """Strings of the embedded Reber grammar."""

    name = "reber"
    about = "embedded Reber grammar: the second symbol comes again at the end"
    source = "Hochreiter & Schmidhuber (1997), experiment 1"
    lag = "the least number of symbols of the inner string"
    lags = (5, 10, 20, 40)
    inputs = len(ALPHABET)
    whole = True
    bound, stop = 0.0, 0.0
    rates = (0.03, 0.02, 0.01)
    schedule: ClassVar[Schedule] = Schedule(hidden=32, size=4, max_steps=1000, every=20, held=1024, test=256)

    def __init__(self) -> None:
        self.answers = NextSymbols(len(ALPHABET))

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N strings."""
        return batch([embedded(lag, rng) for _ in range(N)])

    def trivial(self, lag: int) -> float:
        """1 / 2."""
        return 0.5

    def longest(self, lag: int) -> int:
        """The length of all but a few strings."""
        return lag + 15


class ReberContinual(Reber):
    """Streams of embedded Reber strings without a sign between them."""

    name = "reber-continual"
    about = "embedded Reber strings in one stream, never reset from outside"
    source = "Gers, Schmidhuber & Cummins (2000)"
    lag = "the number of strings in a stream"
    lags = (2, 5, 10, 20)
    rates = (0.03, 0.01, 0.003)
    schedule: ClassVar[Schedule] = Schedule(hidden=32, size=10, max_steps=4000, every=50, held=128, test=256)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N streams of `lag` strings."""
        return batch([join([embedded(0, rng) for _ in range(lag)]) for _ in range(N)])

    def trivial(self, lag: int) -> float:
        """Each of its strings is right half the time."""
        return 1 - 0.5**lag

    def longest(self, lag: int) -> int:
        """About the length of one long string: what is older no longer matters."""
        return 30


Steps = list[tuple[str, str]]
"""A string as (symbol, the symbols that might have stood in its place)."""


def embedded(least: int, rng: np.random.Generator) -> Steps:
    """One string, its inner string of at least `least` symbols, B and E included."""
    outer = "TP"[rng.integers(2)]
    inner: Steps = [("B", "B")]
    state = 1
    while state != 6:
        ways = list(WALK[state].items())
        if len(inner) + 2 < least:  # this symbol and E would end it too soon
            ways = [(symbol, there) for symbol, there in ways if there != 6]
        symbol, there = ways[rng.integers(len(ways))]
        inner.append((symbol, "".join(symbol for symbol, _ in ways)))
        state = there
    return [("B", "B"), (outer, "TP"), *inner, ("E", "E"), (outer, outer), ("E", "E")]


def join(strings: list[Steps]) -> Steps:
    """One stream of several strings."""
    return [step for string in strings for step in string]


def batch(strings: list[Steps]) -> Batch:
    """Strings as sequences, each symbol the target of the step before.

    Returns:
        x (N, T, 7) and target (N, T, 7): 2 at the symbol that came next, 1 at another that might have.
    """
    T = max(map(len, strings)) - 1
    shape = (len(strings), T, len(ALPHABET))
    x, target, asked = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape[:2], bool)
    for n, string in enumerate(strings):
        symbols = np.array([ALPHABET.index(symbol) for symbol, _ in string])
        x[n, : len(string) - 1] = one_hot(symbols[:-1], len(ALPHABET))
        for t, (symbol, legal) in enumerate(string[1:]):
            target[n, t, [ALPHABET.index(other) for other in legal]] = 1
            target[n, t, ALPHABET.index(symbol)] = 2
        asked[n, : len(string) - 1] = True
    return Batch(x, target, asked)
