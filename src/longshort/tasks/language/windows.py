"""Tokens into N streams side by side, and the streams into windows that follow one another.

    stream n is tokens[n L : n L + L],   L = floor((tokens - 1) / N)
    window w of a pass reads places p_w ... p_{w+1} - 1 of every stream, and is to say what stands one further

The state after a window is the state before the next; a pass begins from the initial state.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError

Array = NDArray[Any]


class Streams:
    """A text as N streams of L tokens.

    Args:
        tokens: (T,) of any integer type, perhaps a memory map; only what a window needs is read.
        N: streams.
        name: of the text, for an error.

    Raises:
        DataError: the streams would be empty.
    """

    def __init__(self, tokens: Array, N: int, name: str = "the text") -> None:
        self.tokens, self.N = tokens, N
        self.L = (len(tokens) - 1) // N
        if self.L < 1:
            raise DataError(
                f"{name}: must have more than {N} tokens, one for each stream, got {len(tokens)}. "
                f"Give a longer text, or a smaller --batch."
            )

    def window(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """What the streams read from `start` to `end`, and what stands one further: (N, end - start) each."""
        rows = [self.tokens[n * self.L + start : n * self.L + end + 1] for n in range(self.N)]
        both = torch.from_numpy(np.stack(rows).astype(np.int64))
        return both[:, :-1], both[:, 1:]


class Passes:
    """Which window step s of a training reads: pass after pass, each from the beginning of the streams.

    Args:
        L: tokens of a stream.
        T: tokens of a window; the last one of a pass may be shorter.
        random: draw the lengths as Merity et al. (2018) do: about T with deviation 5, or about T / 2 with
            chance 0.05, at least 5.
        seed: decides them; those of a pass are a function of the seed and the pass alone.
    """

    def __init__(self, L: int, T: int, random: bool = False, seed: int = 0) -> None:
        self.L, self.T, self.random, self.seed = L, T, random, seed
        self._starts: list[list[int]] = []
        self._firsts = [0]

    def place(self, step: int) -> tuple[int, int, int]:
        """Start, end and number within its pass of the window that step `step` reads."""
        while self._firsts[-1] <= step:
            self._starts.append(self._cut(len(self._starts)))
            self._firsts.append(self._firsts[-1] + len(self._starts[-1]) - 1)
        number = bisect_right(self._firsts, step) - 1
        starts, k = self._starts[number], step - self._firsts[number]
        return starts[k], starts[k + 1], k

    def steps(self) -> int:
        """Windows of the first pass."""
        self.place(0)
        return self._firsts[1]

    def _cut(self, number: int) -> list[int]:
        """Where the windows of a pass begin, and where its last one ends."""
        if not self.random:
            return [*range(0, self.L, self.T), self.L]
        draw = np.random.default_rng((self.seed, number))
        most = self.L // 5 + 2
        about = np.where(draw.random(most) < 0.95, self.T, self.T / 2)
        lengths = np.maximum(5, draw.normal(about, 5).astype(int)).tolist()
        starts = [start for start in accumulate(lengths, initial=0) if start < self.L]
        return [*starts, self.L]
