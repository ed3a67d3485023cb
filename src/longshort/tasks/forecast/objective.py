"""What the training loop is told: windows at random, the quantile loss at many steps of each, the validation.

A window's context sets its scale; the model answers at 16 of the 32 steps that follow it (fewer for long
horizons), on that scale, as it does when a state goes on. So a step of training learns from hundreds of
forecasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import SeriesTable
from ...train import Validation
from .plan import Plan, cut
from .settings import LEVELS, ForecastSettings
from .windows import Panel, Windows

AFTER = 32
"""Steps of a training window from the end of its context on, at which the model may answer."""
CELLS = 1536
"""About how many steps are forecast from one training window."""
VALIDATION_WINDOWS = 256
"""How many windows a validation has, unless there are more series."""
WATCHED = 4
"""Windows that a training is filmed on."""


@dataclass(eq=False)
class Batch:
    """Windows, the steps at which to answer, and what came after them."""

    windows: Windows
    places: Tensor
    truth: Tensor

    def to(self, device: Any) -> Batch:
        """The same batch on another device."""
        return Batch(self.windows.to(device), self.places.to(device), self.truth.to(device))


class ForecastObjective:
    """The objective of a forecaster; see `longshort.train.Objective`.

    Args:
        table: the series.
        plan: the model's plan.
        settings: the batch's size, the validation's share, the seed.
    """

    metric = "validation"
    unit = "windows"

    def __init__(self, table: SeriesTable, plan: Plan, settings: ForecastSettings) -> None:
        self.plan, self.settings, self.size = plan, settings, settings.batch
        self.panel = Panel(table, plan, reach=plan.horizon + AFTER)
        self.cut = np.array([cut(len(series), settings) for series in table])
        self.independent = float(((self.panel.length - self.cut) / plan.horizon).sum())
        self.validation = self._validation_windows()

    def batch(self, step: int) -> Batch:
        """Windows of series at random, each series as likely as any other; a function of seed and step."""
        random = np.random.default_rng((self.settings.seed, step))
        horizon, context = self.plan.horizon, self.plan.context
        which = random.integers(0, len(self.cut), self.size)
        latest = np.maximum(self.cut[which] - horizon, 1)
        earliest = np.minimum(np.maximum(context // 2, self.plan.season), latest)
        latest = np.maximum(latest - AFTER + 1, earliest)
        count = random.integers(earliest, latest + 1)
        answers = min(max(CELLS // horizon, 1), AFTER // 2)
        after = np.sort(random.permutation(AFTER)[:answers])
        windows, scale = self.panel.cut(which, count, context + AFTER - 1)
        truth = self.panel.truth(which, count[:, None] + after, self.cut[which], scale)
        return Batch(windows, torch.from_numpy(after + context - 1), truth)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean quantile loss over the steps whose truth is known, on the windows' scale."""
        return quantile_loss(model(batch.windows, batch.places), batch.truth)

    def validate(self, model: nn.Module) -> Validation:
        """The same loss, and what the 80 % interval covers, on the validation part."""
        quantiles, truth = self.validation_answers(model)
        known = ~truth.isnan()
        low, high = quantiles[..., LEVELS.index(0.1)], quantiles[..., LEVELS.index(0.9)]
        inside = (low <= truth) & (truth <= high) & known
        scores = {
            self.metric: quantile_loss(quantiles, truth).item(),
            "coverage_80": inside.sum().item() / max(int(known.sum()), 1),
        }
        share = len(truth) / known.sum().clamp(min=1)  # so that the mean over windows is the mean over steps
        losses = pinball(quantiles, truth).sum((1, 2)) * share
        return Validation(scores, losses.double().numpy(), min(self.independent, len(losses)))

    def watched(self) -> tuple[tuple[Any, ...], Callable[[Any], Tensor]]:
        """A few windows of the first batch, and what picks the forecast at the last step."""
        batch = self.batch(0)
        names = Windows.__dataclass_fields__
        few = replace(batch.windows, **{name: getattr(batch.windows, name)[:WATCHED] for name in names})
        return (few, torch.tensor([self.plan.context + AFTER - 2])), lambda out: out.flatten(1)

    def validation_answers(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Quantiles (W, 1, horizon, Q) and truth (W, 1, horizon) of the validation windows."""
        device = next(model.parameters()).device
        parts = [model(batch.windows.to(device), batch.places.to(device)).cpu() for batch in self.validation]
        return torch.cat(parts), torch.cat([batch.truth for batch in self.validation])

    def _validation_windows(self) -> list[Batch]:
        series = len(self.cut)
        chosen = np.unique(
            np.linspace(0, series - 1, min(series, 4 * VALIDATION_WINDOWS)).round().astype(int)
        )
        each = max(VALIDATION_WINDOWS // len(chosen), 1)
        pairs = []
        for number in chosen:
            latest = int(self.panel.length[number]) - self.plan.horizon
            counts = np.linspace(latest, self.cut[number], each).round().astype(int)
            pairs += [(number, count) for count in np.unique(counts)]
        batches = []
        for start in range(0, len(pairs), VALIDATION_WINDOWS):
            which, count = np.array(pairs[start : start + VALIDATION_WINDOWS]).T
            windows, scale = self.panel.cut(which, count, self.plan.context)
            truth = self.panel.truth(which, count[:, None], self.panel.length[which], scale)
            batches.append(Batch(windows, torch.tensor([self.plan.context - 1]), truth))
        return batches


def quantile_loss(quantiles: Tensor, truth: Tensor) -> Tensor:
    """Twice the pinball loss, averaged over quantiles and over the steps whose truth is known.

    Args:
        quantiles: (..., Q) in the order of `LEVELS`.
        truth: (...), NaN where missing; such a step adds nothing, and no gradient.

    Returns:
        A scalar; at the median alone it would be the mean absolute error.
    """
    return pinball(quantiles, truth).sum() / (~truth.isnan()).sum().clamp(min=1)


def pinball(quantiles: Tensor, truth: Tensor) -> Tensor:
    """(...) twice the pinball loss, averaged over quantiles (..., Q); without gradient where truth is NaN."""
    known = ~truth.isnan()
    error = torch.where(known, truth, torch.zeros_like(truth))[..., None] - quantiles
    levels = torch.tensor(LEVELS, device=error.device)
    return torch.maximum(levels * error, (levels - 1) * error).mean(-1) * 2 * known


def widening(quantiles: Tensor, truth: Tensor, independent: float) -> float:
    """The factor, at least 1, by which intervals grow so that the 80 % one covers 80 % of the validation.

    Never below 1: the validation part has chosen the weights, and so is easier than the future. And the
    fewer independent windows it has, the less of the growth it can justify: n / (n + 4).

    Args:
        quantiles: (..., Q), rising.
        truth: (...), NaN where missing.
        independent: n, how many windows that do not overlap the validation is worth.
    """
    median = quantiles[..., LEVELS.index(0.5)]
    low, high = median - quantiles[..., LEVELS.index(0.1)], quantiles[..., LEVELS.index(0.9)] - median
    share = torch.where(truth >= median, (truth - median) / high, (median - truth) / low)
    share = share[~truth.isnan()]
    if not len(share):
        return 1.0
    wanted = max(1.0, float(np.quantile(share.double().numpy(), 0.8)))
    return 1 + (wanted - 1) * independent / (independent + 4)
