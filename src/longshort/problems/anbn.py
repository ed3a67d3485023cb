"""a^n b^n: count, then count down; and a^n b^n c^n, which takes two counts.

A string is n times a, then n times b (then n times c), between a start S and an end T. At each step the
answer is the set of symbols that may follow: after S, {a}; after an a, {a, b}; after a b, {b} while b's are
left, then {T} ({c}, and so on). Training draws n from 1 to 10. The test reads each n from 1 to L once, and a
string counts as right only if every one of its answers is. The lag L is the largest n of the test. The
validation part, which decides when training stops, has each n from 1 to L / 2, at least to 10: it too goes
beyond the training, and the test beyond it.

Without memory: what follows a b is not known, and the best guess, {T}, is right for n = 1 alone:
1 - 1 / L of the strings are wrong.

Source: Gers & Schmidhuber, "LSTM recurrent networks learn simple context-free and context-sensitive
languages" (2001).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .answers import LegalSets
from .problem import Batch, Problem, Schedule

LONGEST = 10


class AnBn(Problem):
    """Strings a^n b^n, tested beyond the training's n."""

    name = "anbn"
    about = "strings a^n b^n, learned to n = 10 and tested beyond"
    source = "Gers & Schmidhuber (2001)"
    lag = f"the largest n of the test; the training's is {LONGEST}"
    lags = (10, 20, 50, 100)
    least = LONGEST
    rates = (0.03, 0.01)
    letters: ClassVar[int] = 2
    inputs = 3
    whole = True
    bound, stop = 0.0, 0.0
    schedule: ClassVar[Schedule] = Schedule(hidden=4, max_steps=1500)

    def __init__(self) -> None:
        self.answers = LegalSets(self.letters + 1)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N strings for training; else each n once, whatever N is."""
        n = rng.integers(1, LONGEST, N, endpoint=True)
        if part != "train":
            n = np.arange(1, (lag if part == "test" else max(lag // 2, LONGEST)) + 1)
        return strings(n, self.letters)

    def trivial(self, lag: int) -> float:
        """All but the string of n = 1."""
        return 1 - 1 / lag

    def longest(self, lag: int) -> int:
        """The longest string of the training."""
        return self.letters * LONGEST


class AnBnCn(AnBn):
    """Strings a^n b^n c^n."""

    name = "anbncn"
    about = "strings a^n b^n c^n, learned to n = 10 and tested beyond"
    letters = 3
    inputs = 4


def strings(n: np.ndarray, letters: int) -> Batch:
    """The strings of some n, with the legal sets.

    Args:
        n: (N,) repetitions.
        letters: how many letters are repeated, K - 1.

    Returns:
        x (N, T, K): channel 0 is S, the others the letters; target (N, T, K): the letters, then T.
    """
    T = letters * int(n.max()) + 1
    step = np.arange(T)
    place = (step[None] - 1) // n[:, None]  # which letter a step shows; -1 is S
    x = np.stack([place == k - 1 for k in range(letters + 1)], axis=2).astype(np.float32)
    last = (step % n[:, None] == 0) & (step > 0)
    target = np.zeros_like(x)
    target[..., 0] = place <= 0
    target[..., 1] = (place == 0) | ((place == 1) & ~last)
    for k in range(2, letters + 1):
        target[..., k] = ((place == k - 1) & last) | ((place == k) & ~last)
    return Batch(x, target, step <= letters * n[:, None])
