"""How long each cell keeps what it holds, and how its gates behave.

Source: half-lives as in Mahto et al. (2021); saturation as in Karpathy, Johnson & Fei-Fei (2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .account import has_ledger
from .replay import Layer

LEFT, RIGHT = 0.1, 0.9
"""A gate below the first is shut, above the second open: saturated."""
STILL = 1e-3
"""A unit that varies less over time is dead (h), or stuck (c, relative to its size)."""


@dataclass(frozen=True)
class HalfLife:
    """Steps after which half of what a cell holds is left."""

    steps: Tensor
    "(H,) never more than the longest sequence"
    censored: Tensor
    "(H,) bool: more than the longest sequence, so the number is only a lower bound"
    upper: Tensor
    """(H,) the upper quartile over sequences, each with its own mean log: a cell that keeps what it holds in
    some sequences and drops it in others is long there, and short on average"""
    upper_censored: Tensor
    "(H,) bool, as `censored`, of `upper`"

    def text(self, unit: int) -> str:
        """The half-life of a unit in words: "3.4 steps", or "> 200 steps"."""
        return _steps(self.steps[unit].item(), bool(self.censored[unit]))

    def upper_text(self, unit: int) -> str:
        """The upper quartile over sequences, in the same words."""
        return _steps(self.upper[unit].item(), bool(self.upper_censored[unit]))

    def order(self, need: Tensor | None = None) -> list[int]:
        """The units, by `upper` from the longest; beyond the sequence, where nobody knows, by need, then by
        `steps`.

        Args:
            need: (H,) how much the loss needs each, if that is known.
        """
        ties = torch.zeros_like(self.upper) if need is None else need
        rows = zip(self.upper.tolist(), ties.tolist(), self.steps.tolist(), strict=True)
        keys = [
            (u, n, s) if far else (u, 0.0, s)
            for (u, n, s), far in zip(rows, self.upper_censored, strict=True)
        ]
        return sorted(range(len(keys)), key=lambda j: keys[j], reverse=True)


def _steps(value: float, censored: bool) -> str:
    return f"> {value:.0f} steps" if censored else f"{value:.1f} steps"


def half_life(layer: Layer) -> HalfLife:
    r"""Steps after which half of what a cell holds is left, from the mean of the log forget gate.

    $$n_j = \frac{\ln 2}{-\frac{1}{|S|}\sum_{(n,t) \in S} \ln f_{n,t,j}}$$

    over all steps of all sequences that are no padding; `upper` has the same of each sequence alone, and the
    upper quartile of those. The mean is of the logarithm because it is the product that decays; a mean of f
    itself is always too optimistic. A GRU's update gate z takes the place of f.

    Args:
        layer: a replayed LSTM or GRU.

    Returns:
        Half-lives, right-censored at the longest sequence: nobody has seen what comes after it.

    Raises:
        SettingError: a plain RNN has no forget gate.
    """
    if layer.kind == "rnn":
        from ..errors import SettingError

        raise SettingError(f"look: `{layer.name}` has no half-life. {has_ledger(layer)}")
    longest = float(layer.mask.sum(1).max())
    log = layer.values["log_keep"].double()
    if layer.reset is not None:  # an episode's end is not forgetting
        log = torch.where(torch.isfinite(log), log, 0)
    mean = log.sum((0, 1)) / layer.mask.sum()
    steps = math.log(2) / (-mean).clamp(min=1e-300)
    count = layer.mask.sum(1)
    each = log.sum(1)[count > 0] / count[count > 0, None]
    upper = math.log(2) / (-each.clamp(min=-1e300)).quantile(0.25, 0).clamp(min=1e-300)
    return HalfLife(steps.clamp(max=longest), steps > longest, upper.clamp(max=longest), upper > longest)


def survival(layer: Layer, lags: Tensor) -> Tensor:
    r"""What is left of a cell after k steps, as the median over all starting steps: gates reset at events.

    $$S_j(k) = \operatorname{median}_{t} \prod_{s=t+1}^{t+k} f_{s,j}$$

    Args:
        layer: a replayed LSTM or GRU.
        lags: (K,) int64 steps, each less than T.

    Returns:
        (K, H) shares in [0, 1].
    """
    log = layer.values["log_keep"]
    log = (log.flip(1) if layer.reverse else log).clamp(min=-1e4)
    total = torch.cat((torch.zeros_like(log[:, :1]), log.cumsum(1)), 1)
    rows = [(total[:, int(k) :] - total[:, : total.shape[1] - int(k)]).exp().flatten(0, 1) for k in lags]
    return torch.stack([row.median(0).values for row in rows])


@dataclass(frozen=True)
class Health:
    """How the units of a layer behave on the steps that are no padding; shares in [0, 1]."""

    shut: dict[str, Tensor]
    "gate -> (H,) share of steps at which it is below 0.1"
    open: dict[str, Tensor]
    "gate -> (H,) share of steps at which it is above 0.9"
    dead: Tensor
    "(H,) bool: h varies by less than 0.001"
    stuck: Tensor
    "(H,) bool: c varies by less than 0.001 of its size (never of an RNN or GRU)"
    blocked: Tensor
    "(H,) share of steps at which 1 - tanh²(c) < 0.01: the readout no longer feels the cell"
    drift: Tensor
    "(H,) slope of |c| over time, per step, relative to its mean"


def health(layer: Layer) -> Health:
    """Count saturated gates, dead and stuck units, blocked readouts and drifting cells.

    Args:
        layer: a replayed layer.

    Returns:
        Shares and flags per unit; units of h are meant for `dead`.
    """
    keep = layer.mask
    gates = {g: layer.values[g] for g in layer.gates if g in "ifozr"}
    shut = {g: (v[keep] < LEFT).float().mean(0) for g, v in gates.items()}
    opened = {g: (v[keep] > RIGHT).float().mean(0) for g, v in gates.items()}
    h = layer.values["h"][keep]
    dead = h.std(0, correction=0) < STILL
    if layer.kind != "lstm":
        none = torch.zeros(layer.units)
        return Health(shut, opened, dead, none.bool(), (1 - h**2 < 0.01).float().mean(0), none)
    c = layer.values["c"][keep]
    size = c.abs().mean(0).clamp(min=1e-12)
    stuck = c.std(0, correction=0) / size < STILL
    blocked = (1 - c.tanh() ** 2 < 0.01).float().mean(0)
    steps = torch.arange(keep.shape[1], device=c.device).expand_as(keep)[keep].to(c.dtype)
    steps = steps - steps.mean()
    slope = (steps[:, None] * (c.abs() - c.abs().mean(0))).sum(0) / steps.square().sum().clamp(min=1e-12)
    return Health(shut, opened, dead, stuck, blocked, slope / size)
