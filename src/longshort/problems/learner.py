"""What is trained: an encoder where the problem has one, the cell, and a linear answer at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..train.fit import Validation
from .cells import Cell
from .problem import PARTS, Batch, Problem

ROWS = 64
"""Sequences that are read at once when a part is scored."""


class Learner(nn.Module):
    """A cell with what it needs to read a problem's steps and to answer.

    Args:
        problem: whose sequences it reads.
        cell: which recurrence.
        units: of the recurrence.
        lag: what the start may be told of the dependencies' length.

    >>> from longshort.problems.catalogue import PROBLEMS
    >>> from longshort.problems.cells import CELLS
    >>> Learner(PROBLEMS["recall"], CELLS["lstm"], 8, 10)(torch.zeros(2, 11, 17)).shape
    torch.Size([2, 11, 8])
    """

    def __init__(self, problem: Problem, cell: Cell, units: int, lag: int) -> None:
        super().__init__()
        self.encoder = problem.encoder() or nn.Identity()
        self.cell = cell.build(problem.inputs, units, problem.longest(lag))
        self.head = nn.Linear(units, problem.answers.outputs)

    def forward(self, x: Tensor, asked: Tensor | None = None) -> Tensor:
        """Read whole sequences.

        Args:
            x: a batch's.
            asked: (N, T) bool; the steps to answer at.

        Returns:
            (M, K), the answers at the M asked steps, sequence by sequence; (N, T, K) without `asked`.
        """
        h: Tensor = self.cell(self.encoder(x))[0]
        answers: Tensor = self.head(h if asked is None else h[asked])
        return answers


class MemoryObjective:
    """One problem at one lag, as the training loop wants it.

    Args:
        problem: the problem.
        lag: its lag.
        seed: of the batches; validation and test are the same for every seed.
        size: sequences in a batch.
    """

    metric, unit = "score", "sequences"

    def __init__(self, problem: Problem, lag: int, seed: int, size: int) -> None:
        self.problem, self.lag, self.seed, self.size = problem, lag, seed, size
        self.held = self.part("validation", problem.schedule.held)

    def part(self, part: str, N: int) -> Batch:
        """The N sequences of the validation or the test part."""
        return self.problem.draw(self.lag, N, np.random.default_rng([PARTS.index(part), 0]), part)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """x, target and asked of one step: a function of seed and step alone."""
        drawn = self.problem.draw(self.lag, self.size, np.random.default_rng([0, self.seed, step]), "train")
        return tensors(drawn)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss over the asked steps."""
        x, target, asked = batch
        return self.problem.answers.loss(model(x, asked), target[asked])

    def validate(self, model: nn.Module) -> Validation:
        """Score the validation part."""
        losses = score(model, self.problem, self.held)
        return Validation({"score": float(losses.mean())}, losses)


def tensors(batch: Batch, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    """x, target and asked of some sequences, as torch has them."""
    x, target, asked = (torch.from_numpy(a[rows]) for a in (batch.x, batch.target, batch.asked))
    return x, target, asked


@torch.no_grad()
def score(model: nn.Module, problem: Problem, batch: Batch) -> np.ndarray[Any, Any]:
    """(N,) the score of each sequence: its share of mistakes, or 1 with any where it must be whole."""
    device = next(model.parameters()).device
    found = []
    for first in range(0, len(batch.x), ROWS):
        x, target, asked = (t.to(device) for t in tensors(batch, slice(first, first + ROWS)))
        wrong = torch.zeros(asked.shape, device=device)
        wrong[asked] = problem.answers.mistakes(model(x, asked), target[asked]).float()
        found.append(wrong.amax(1) if problem.whole else wrong.sum(1) / asked.sum(1))
    return torch.cat(found).cpu().numpy()
