"""What counts as a mistake, and what one who remembers nothing scores: measured, not only stated."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from longshort.problems.answers import Classes, LegalSets, NextSymbols, Numbers, Probabilities
from longshort.problems.catalogue import PROBLEMS
from longshort.problems.learner import score
from longshort.problems.mnist import Mnist

N = 3000


def ideal(problem, lag, guess):
    """The score of `guess(x, target, asked)`, which gives what is said at each step, (N, T, K)."""
    batch = problem.draw(lag, N if lag < 60 else 600, np.random.default_rng(7), "test")
    said = torch.from_numpy(guess(batch)).float()

    class Says(nn.Module):
        def __init__(self):
            super().__init__()
            self.none, self.row = nn.Parameter(torch.zeros(1)), 0

        def forward(self, x, asked):
            mine = said[self.row : self.row + len(x)]
            self.row += len(x)
            return mine[asked]

    return float(score(Says(), problem, batch).mean())


def always(numbers):
    """Says the same at each step."""
    return lambda batch: np.broadcast_to(np.float32(numbers), (*batch.asked.shape, len(numbers))).copy()


def chance(K):
    """Says one of the first K classes at random."""
    return lambda batch: np.eye(K)[np.random.default_rng(0).integers(K, size=batch.asked.shape)]


def copy_s_rules(batch):
    """Blank until the cue has passed, then the eight symbols alike."""
    T = batch.asked.shape[1]
    said = np.full((*batch.asked.shape, 9), -1e3)
    said[:, : T - 10, 8] = 1e3
    said[:, T - 10 :, :8] = 0
    return said


def pulse_or_nothing(batch):
    return batch.x.copy()


def after_the_letter(batch):
    """a's and b's as they come; after a b always the end."""
    said = np.full(batch.target.shape, -1.0)
    said[..., 0] = np.where(batch.x[..., 0] + batch.x[..., 1] > 0, 1, -1)
    said[..., 1] = np.where(batch.x[..., 1] > 0, 1, -1)
    letters = batch.x.shape[2] - 1
    for k in range(2, letters + 1):
        said[..., k] = np.where(batch.x[..., k] > 0, 1, -1)
    return said


def all_but_the_branch(batch):
    """Knows the grammar wholly, and guesses between T and P where the string's second symbol decides."""
    legal = batch.target > 0
    said = np.where(legal, 1.0, -1.0)
    T, P = 1, 5
    alone = (legal[..., T] ^ legal[..., P]) & (legal.sum(-1) == 1)
    coin = np.random.default_rng(0).random(alone.shape) < 0.5
    said[alone] = -1
    said[alone & coin, T] = 1
    said[alone & ~coin, P] = 1
    return said


TRIVIAL = {
    "recall": (20, chance(8)),
    "adding": (20, always([1.0])),
    "copy": (30, copy_s_rules),
    "temporal": (20, chance(8)),
    "temporal-4": (20, chance(16)),
    "reber": (5, all_but_the_branch),
    "reber-continual": (3, all_but_the_branch),
    "anbn": (20, after_the_letter),
    "anbncn": (20, after_the_letter),
    "echo": (5, chance(4)),
    "flipflop": (10, pulse_or_nothing),
    "timing": (10, chance(10)),
    "loan": (10, chance(2)),
    "samosa": (10, chance(4)),
    "wolf": (10, chance(2)),
}


def test_mnist_s_trivial_score_is_that_of_the_commonest_digit_of_the_training(digits):
    problem = Mnist(digits)
    commonest = np.bincount(problem.draw(28, 20_000, np.random.default_rng(0)).target[:, -1]).argmax()
    assert ideal(problem, 28, always(np.eye(10)[commonest])) == pytest.approx(problem.trivial(28), abs=1e-6)


def test_every_problem_has_its_trivial_score_measured():
    assert set(TRIVIAL) == {name for name in PROBLEMS if "mnist" not in name}


@pytest.mark.parametrize("name", TRIVIAL)
def test_the_trivial_score_is_what_is_measured(name):
    problem, (lag, guess) = PROBLEMS[name], TRIVIAL[name]
    assert ideal(problem, lag, guess) == pytest.approx(problem.trivial(lag), abs=0.03)


@pytest.mark.parametrize("name", TRIVIAL)
def test_the_right_answers_score_nothing(name):
    problem, lag = PROBLEMS[name], TRIVIAL[name][0]

    def truth(batch):
        if batch.target.ndim == 2:
            return 1e3 * np.eye(problem.answers.outputs)[batch.target]
        return batch.target if isinstance(problem.answers, Numbers) else np.where(batch.target > 0, 1.0, -1.0)

    assert ideal(problem, lag, truth) == 0
    assert problem.bound < problem.trivial(lag) and problem.stop <= problem.bound


def test_published_trivial_scores():
    assert PROBLEMS["copy"].trivial(1000) == pytest.approx(0.02039, abs=1e-5)
    assert PROBLEMS["adding"].trivial(600) == pytest.approx(0.16667, abs=1e-5)


ANSWERS = [
    (Classes(3), [[0, 2, 1]], 1, 0.0, 2, 1.0),
    (Probabilities(2), [[0, 0]], 0, math.log(2), 1, math.log(2)),
    (Numbers(2), [[1, 2]], [1, 2], 0.0, [1, 4], 2.0),
    (LegalSets(2), [[3, -3]], [1, 0], 0.0, [1, 1], 1.0),
    (NextSymbols(3), [[2, 1, 0]], [1, 2, 0], 0.0, [0, 2, 1], 1.0),
    (NextSymbols(3), [[1, 1, 0]], [1, 2, 0], 0.0, [0, 2, 0], 1.0),
]


@pytest.mark.parametrize(("answers", "out", "right", "none", "wrong", "some"), ANSWERS)
def test_mistakes(answers, out, right, none, wrong, some):
    out = torch.tensor(out, dtype=torch.float32)
    kind = torch.int64 if isinstance(answers, Classes) else torch.float32
    for target, wanted in ((right, none), (wrong, some)):
        assert answers.mistakes(out, torch.tensor([target], dtype=kind)).tolist() == [pytest.approx(wanted)]


@pytest.mark.parametrize("answers", [Classes(3), Numbers(3), LegalSets(3), NextSymbols(3)])
def test_a_loss_falls_towards_the_right_answer(answers):
    target = {Classes: torch.tensor([1]), NextSymbols: torch.tensor([[1.0, 2.0, 0.0]])}.get(
        type(answers), torch.tensor([[0.0, 1.0, 0.0]])
    )
    towards = torch.tensor([[0.0, 1.0, 0.0]])
    losses = [float(answers.loss(k * towards, target)) for k in (-1.0, 0.0, 0.5)]
    assert losses[0] > losses[1] > losses[2]
