"""Linear probes: fitted to some sequences, scored on others, with the error of their advantage.

Every state is read by a probe that was fitted to other sequences: in turn each third of them is left out.
What two probes read is compared sequence by sequence, so that a sequence that is hard for both does not
count as doubt. With e and e0 the squared errors (or code lengths) of a probe and of its rival,

    gain = ½ log2(mean e0 / mean e)    its error from the scores ½ (e0 / mean e0 - e / mean e) / ln 2,
                                       summed over each sequence: its steps are not independent

Source: Stone (1974) for cross-validation; Allen (1974) for the leave-one-out error of ridge regression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-3, 1e-1, 10.0, 100.0, 1000.0)
"""Ridge penalties tried on standardised numbers; leave-one-out chooses one for each target."""
CHANCE = 0.02
"""Of what a probe of symbols says, the share that is left to chance: one that it is sure of and wrong about
would cost more than all the others gain."""
MANY = 1500
"""Symbols beyond which one third alone is read: a softmax is slow to fit."""
PENALTY = 1e-3
"""On the squared weights of a probe of symbols."""
TINY = 1e-12
"""Added to variances: of a constant nothing is read."""
LEAST_FITTED, LEAST_READ = 8, 4
"""States that a probe is fitted to and read from, at least."""


@dataclass(frozen=True)
class Reading:
    """What a probe made of M states that it was not fitted to, for each of C targets."""

    wrong: Tensor
    "(M, C) squared errors, or the code lengths of symbols in bits"
    plain: Tensor
    "(M, C) the same of one who knows the fitting part's mean, or shares, alone"
    group: Tensor
    "(M,) which sequence (or block of time) each state is of"
    symbols: bool

    def bits(self) -> Tensor:
        """(C,) bits that the probe reads; 0 where it reads none."""
        return _advantage(self.wrong, self.plain, self.symbols).clamp(min=0)

    def share(self) -> Tensor:
        """(C,) R² of numbers, the share that is right of symbols."""
        if self.symbols:
            return (self.wrong < 1).double().mean(0)
        return (1 - (self.wrong.mean(0) + TINY) / (self.plain.mean(0) + TINY)).clamp(0, 1)

    def error(self, rival: Tensor | None = None) -> tuple[Tensor, int]:
        """(C,) standard error of what the probe reads beyond a rival, and how many sequences tell.

        Args:
            rival: (M, C) the errors of another probe of the same states; those without any if None.
        """
        other = self.plain if rival is None else rival
        if self.symbols:
            return clustered(other - self.wrong, self.group)
        scores = other / (other.mean(0) + TINY) - self.wrong / (self.wrong.mean(0) + TINY)
        return clustered(scores / (2 * math.log(2)), self.group)

    def part(self, targets: slice) -> Reading:
        """Some of the targets."""
        return Reading(self.wrong[:, targets], self.plain[:, targets], self.group, self.symbols)

    def pooled(self) -> Reading:
        """All targets as one, each measured by its own spread: C is 1."""
        size = self.plain.mean(0) + TINY
        return Reading(
            (self.wrong / size).mean(1, True), (self.plain / size).mean(1, True), self.group, self.symbols
        )


def _advantage(wrong: Tensor, other: Tensor, symbols: bool) -> Tensor:
    """(C,) bits by which the errors `wrong` are better than `other`."""
    if symbols:
        return (other - wrong).mean(0)
    return -0.5 * ((wrong.mean(0) + TINY) / (other.mean(0) + TINY)).clamp(min=1e-6).log2()


def reading(x: Tensor, y: Tensor, fold: Tensor, group: Tensor) -> Reading | None:
    """Read targets from states, each by a probe that was fitted to the other folds.

    Args:
        x: (M, D) states.
        y: (M, C) numbers, or (M,) int64 symbols.
        fold: (M,) int64, the part that is left out with each state; of one part all others are fitted to.
        group: (M,) int64, which states are of one sequence.

    Returns:
        Errors beside those of who knows no state; None where too few states are left to fit or to read.
    """
    symbols = not y.is_floating_point()
    parts = fold.unique().tolist()
    if symbols and len(x) > MANY:
        parts = parts[:1]
    places, wrong, plain = [], [], []
    for part in parts:
        test = fold == part
        if test.sum() == 0 or (~test).sum() < LEAST_FITTED:
            continue
        centre, scale = x[~test].mean(0), x[~test].std(0) + 1e-6
        states = (x - centre) / scale
        made = (_soft if symbols else _ridge)(states[~test], y[~test], states[test], y[test])
        places.append(test.nonzero().flatten())
        wrong.append(made[0])
        plain.append(made[1])
    if sum(map(len, places)) < LEAST_READ:
        return None
    return Reading(torch.cat(wrong), torch.cat(plain), group[torch.cat(places)], symbols)


def _ridge(x: Tensor, y: Tensor, unseen: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors (M, C) on unseen states, of a ridge regression and of the mean."""
    centre = y.mean(0)
    gaps = y - centre
    values, turn = torch.linalg.eigh(x.T @ x)
    turned, aim = x @ turn, turn.T @ (x.T @ gaps)
    least = torch.full((y.shape[1],), math.inf).to(y)
    weights = torch.zeros(x.shape[1], y.shape[1]).to(y)
    for penalty in PENALTIES:
        inverse = 1 / (values.clamp(min=0) + penalty)
        tried = turn @ (inverse[:, None] * aim)
        leverage = 1 / len(x) + (turned.square() @ inverse)[:, None]
        left_out = ((gaps - x @ tried) / (1 - leverage.clamp(max=0.999))).square().mean(0)
        weights = torch.where(left_out < least, tried, weights)
        least = torch.minimum(left_out, least)
    return (wanted - centre - unseen @ weights).square(), (wanted - centre).square()


def _soft(x: Tensor, y: Tensor, unseen: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Code lengths (M, 1) in bits of unseen symbols, by a softmax regression and by the shares of each."""
    count = int(max(y.max(), wanted.max())) + 1
    x, unseen = (torch.cat((part, torch.ones(len(part), 1).to(part)), 1) for part in (x, unseen))
    weights = _softmax_weights(x, y, count)
    share = (torch.bincount(y, minlength=count).double() + 0.5) / (len(y) + 0.5 * count)
    plain = share[wanted][:, None]
    said = (unseen @ weights).softmax(1).gather(1, wanted[:, None])
    return -((1 - CHANCE) * said + CHANCE * plain).log2(), -plain.log2()


def _softmax_weights(x: Tensor, y: Tensor, count: int) -> Tensor:
    """(D, K) what the cross-entropy of symbols y and `PENALTY` |weights|² is least for.

    The search goes along the principal axes of x, each scaled so that all bend alike: half of the steps will
    do. In float32, since the end of the search is not sharper.
    """
    values, turn = torch.linalg.eigh(x.T @ x / len(x))
    turn = turn / (values.clamp(min=0) + 4 * PENALTY).sqrt()
    size = turn.square().sum(0)[:, None].float()
    z, right = (x @ turn).float(), torch.nn.functional.one_hot(y, count).float()
    found = torch.zeros(z.shape[1], count, device=z.device)
    search = torch.optim.LBFGS([found], max_iter=40, tolerance_change=1e-4, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        said: Tensor = (z @ found).log_softmax(1)
        found.grad = z.T @ (said.exp() - right) / len(z) + 2 * PENALTY * size * found
        loss: Tensor = -(said * right).sum() / len(z) + PENALTY * (size * found.square()).sum()
        return loss

    with torch.no_grad():
        search.step(objective)
    weights: Tensor = turn @ found.to(turn)
    return weights


def clustered(scores: Tensor, group: Tensor) -> tuple[Tensor, int]:
    """Standard error (C,) of the mean of scores (M, C) over groups, and how many groups there are."""
    names, inverse = group.unique(return_inverse=True)
    G = len(names)
    if G < 2:
        return torch.full_like(scores[0], math.inf), G
    gaps = torch.zeros(G, scores.shape[1]).to(scores).index_add(0, inverse, scores - scores.mean(0))
    return (gaps.square().sum(0) * G / (G - 1)).sqrt() / len(scores), G


def doubt(tests: int, groups: int) -> float:
    """How many standard errors a gain must exceed, so that of so many tests of nothing one in twenty errs.

    The quantile of Student's t with groups - 1 degrees of freedom at 0.05 / tests (Bonferroni), by Wallace's
    approximation (1959), whose quantiles are within 3 % from 5 degrees of freedom on.

    Args:
        tests: how many gains are looked at.
        groups: sequences that each was measured on; infinite below 6.
    """
    nu = groups - 1
    if nu < 5:
        return math.inf
    normal = torch.distributions.Normal(0.0, 1.0)
    z = float(normal.icdf(torch.tensor(1 - 0.05 / max(tests, 1), dtype=torch.float64)))
    wider = (8 * nu + 3) / (8 * nu + 1)
    return math.sqrt(nu * math.expm1((wider * z) ** 2 / nu))
