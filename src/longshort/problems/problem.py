"""What a problem is: sequences to read, answers to give, and the score of one who remembers nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import nn

from ..errors import SettingError
from .answers import Answers

Array = np.ndarray[Any, np.dtype[Any]]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Batch:
    """N sequences of T steps.

    Args:
        x: (N, T, C) float32; or (N, T) int64, the words of sentences; or (N, T, rows, columns), pictures.
            Zeros from the end of a sequence on.
        target: (N, T) int64 or (N, T, K) float32, the right answers; 0 where none is asked.
        asked: (N, T) bool, the steps at which an answer counts.
    """

    x: Array
    target: Array
    asked: Array


class Schedule(NamedTuple):
    """How a problem is trained: the same for every cell."""

    hidden: int = 64
    """H of the LSTM; other cells have as many units as match its parameters."""
    size: int = 32
    """Sequences in a batch."""
    max_steps: int = 2000
    """Optimiser steps after which a trial counts as failed."""
    every: int = 100
    """Steps from one validation to the next."""
    held: int = 512
    """Sequences of the validation part."""
    test: int = 1000
    """Sequences of the test part."""


class Problem(ABC):
    """One problem, as its file's docstring defines it.

    A sequence is a function of the lag, the part and the generator alone, so that the same seeds give the
    same sequences to every cell.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """One line, for lists."""
    source: ClassVar[str]
    """The paper."""
    lag: ClassVar[str] = "steps from the first symbol to the answer"
    """What the lag is."""
    least: ClassVar[int] = 1
    """The shortest lag the definition allows."""
    lags: ClassVar[tuple[int, ...]] = (10, 50, 100, 500)
    """The lags of a comparison that names none."""
    inputs: ClassVar[int]
    """C, the channels of a step after `encoder`."""
    answers: Answers
    whole: ClassVar[bool] = False
    """A sequence counts as wrong with one mistake in it; else it counts by its share of mistakes."""
    bound: ClassVar[float] = 0.01
    """A trial is solved when its score on the test part is at most this."""
    stop: ClassVar[float] = 0.005
    """Training stops when the score on the validation part is at most this."""
    rates: ClassVar[tuple[float, ...]] = (0.01, 0.003, 0.001)
    """Learning rates that each cell is tuned over."""
    schedule: ClassVar[Schedule] = Schedule()

    @abstractmethod
    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """Make N sequences.

        Args:
            lag: at least `least`.
            N: sequences.
            rng: where every random number comes from.
            part: "train", "validation" or "test"; the same distribution unless the definition says more.
        """

    @abstractmethod
    def trivial(self, lag: int) -> float:
        """The best score of one who knows the rules and the current step, but remembers nothing."""

    def encoder(self) -> nn.Module | None:
        """What turns a step of `x` into C channels; None where x has them already."""
        return None

    def longest(self, lag: int) -> int:
        """The longest dependency in steps, which the chrono start is told."""
        return lag

    def check(self, lag: int) -> None:
        """Raise where the definition does not allow the lag.

        Raises:
            SettingError: the lag is too short; the message says what it means.
        """
        if lag < self.least:
            raise SettingError(
                f"{self.name}: a lag must be at least {self.least}, got {lag}. Here it means: {self.lag}."
            )


def one_hot(symbols: Array, count: int) -> Array:
    """(...) whole numbers in [0, count) -> (..., count) float32, one 1 each.

    >>> one_hot(np.array([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return np.eye(count, dtype=np.float32)[symbols]


def only_last(N: int, T: int, answer: Array) -> tuple[Array, Array]:
    """Targets and the asked steps of sequences that are asked once, at their last step.

    Args:
        N: sequences.
        T: steps.
        answer: (N,) or (N, K).

    Returns:
        target (N, T) or (N, T, K), of the answer's type, and asked (N, T).
    """
    target = np.zeros((N, T, *answer.shape[1:]), answer.dtype)
    asked = np.zeros((N, T), bool)
    target[:, -1], asked[:, -1] = answer, True
    return target, asked
