"""The kinds of answers a problem may ask for: what training makes small, and what counts as a mistake.

Each takes what the network says at the M steps where it was asked, out (M, K), and the truth there.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Answers(Protocol):
    """K numbers a step, read as an answer."""

    outputs: int
    """K, the numbers that the network gives at a step."""
    measure: str
    """What `mistakes` counts, as the name of an axis; less is better."""

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """What training makes small, a scalar."""

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) how wrong each answer is; 0 is right."""


class Classes:
    """One of K: cross-entropy; a mistake is 1.

    Args:
        outputs: K.

    >>> Classes(3).mistakes(torch.tensor([[0.1, 0.9, 0.0], [2.0, 0.0, 0.0]]), torch.tensor([1, 2])).tolist()
    [0.0, 1.0]
    """

    measure = "wrong answers"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy in nats, a scalar; target (M,) int64."""
        return functional.cross_entropy(out, target)

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) 1.0 where the most probable class is not the target."""
        return (out.argmax(1) != target).to(out.dtype)


class Probabilities(Classes):
    """One of K, scored by its cross-entropy in nats: a probability that is nearly right counts."""

    measure = "cross-entropy in nats"

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) the cross-entropy of each answer."""
        return functional.cross_entropy(out, target, reduction="none")


class Numbers:
    """K numbers: mean squared error.

    Args:
        outputs: K.
    """

    measure = "mean squared error"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, a scalar; target (M, K)."""
        return functional.mse_loss(out, target)

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) squared error, the mean of the K numbers."""
        return (out - target).square().mean(1)


class LegalSets:
    """Which of K symbols may follow: the set itself is the target; a mistake is any symbol too many or few.

    Args:
        outputs: K.
    """

    measure = "strings with a mistake"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of each symbol, a scalar; target (M, K) of 0 and 1."""
        return functional.binary_cross_entropy_with_logits(out, target)

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) 1.0 where the symbols of probability above a half are not the set."""
        return ((out > 0) != (target > 0.5)).any(1).to(out.dtype)


class NextSymbols:
    """Which symbol follows, where several may: trained on the one that did, scored on the set.

    Args:
        outputs: K.
    """

    measure = "strings with a mistake"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy; target (M, K): 2 at the symbol that came, 1 at others that might have."""
        return functional.cross_entropy(out, target.argmax(1))

    def mistakes(self, out: Tensor, target: Tensor) -> Tensor:
        """(M,) 1.0 where an illegal symbol has a probability as high as a legal one."""
        legal = target > 0
        lowest = out.masked_fill(~legal, torch.inf).amin(1)
        highest = out.masked_fill(legal, -torch.inf).amax(1)
        return (highest >= lowest).to(out.dtype)
