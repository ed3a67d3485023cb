"""A state that goes on: what a model has read, as a value that new rows advance.

The state is made by reading the context; its scale stays as it is then. Reading more rows from it gives
what reading everything at once, on that scale, would have given: nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data import SeriesTable
from ...scan import State
from .joining import joined, tail
from .model import ForecastModel
from .plan import Array, Plan, transformed
from .windows import Panel, Scale


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of some series, and what the model made of it.

    Args:
        table: the last rows of each series, as many as any later step looks back on, and known covariates.
        state: h and c, each (layers, S, hidden), after the last row.
        h: (S, hidden) the top layer's output there.
        scale: of S windows, as they were when the reading began.
    """

    table: SeriesTable
    state: State
    h: Tensor
    scale: Scale


@torch.no_grad()
def start(model: ForecastModel, plan: Plan, table: SeriesTable) -> Reading:
    """Read the context of every series: the last `plan.context` rows.

    A series none of whose rows there has a value that the plan's transform can take has no scale, and NaN for
    a forecast.
    """
    panel = Panel(table, plan)
    which = np.arange(len(table))
    windows, scale = panel.cut(which, panel.length, plan.context)
    ends = (transformed(series.target[-plan.context :], plan.transform) for series in table)
    empty = np.array([np.isnan(values).all() for values in ends])
    scale = Scale(np.where(empty, np.nan, scale.location), scale.size)
    h, state = model.read(windows)
    return Reading(tail(table, plan.memory), state, h[:, -1], scale)


@torch.no_grad()
def advance(model: ForecastModel, plan: Plan, reading: Reading, rows: SeriesTable) -> Reading:
    """Read new rows of some or all series, each from where it stood.

    Args:
        model: the fitted model.
        plan: its plan.
        reading: where the series stand.
        rows: rows that continue series of the reading.

    Returns:
        The new reading; series without new rows are as before.
    """
    names = list(reading.table.names)
    both = joined(reading.table, rows, follow=True)
    before = {series.name: len(series) for series in reading.table}
    added = np.array([len(series) - before[series.name] for series in both])
    tables = {series.name: series for series in reading.table}
    h, c, top = reading.state.h.clone(), reading.state.c.clone(), reading.h.clone()
    panel = Panel(both, plan)
    for steps in np.unique(added[added > 0]):
        local = np.flatnonzero(added == steps)
        where = torch.tensor([names.index(both.names[k]) for k in local])
        scale = _some(reading.scale, where.numpy())
        # the rows are read as the end of a context that ends with them; only the new ones are kept
        windows, _ = panel.cut(local, panel.length[local] - steps + plan.context, int(steps), scale)
        out, state = model.read(windows, State(h[:, where], c[:, where]))
        h[:, where], c[:, where], top[where] = state.h, state.c, out[:, -1]
    tables |= {series.name: series for series in tail(both, plan.memory)}
    table = SeriesTable(tuple(tables[name] for name in names), both.step, reading.table.columns)
    return Reading(table, State(h, c), top, reading.scale)


@torch.no_grad()
def answer(model: ForecastModel, plan: Plan, reading: Reading, widening: float) -> Array:
    """(S, horizon, Q) quantiles on the transformed scale, of the steps after the last row."""
    panel = Panel(reading.table, plan)
    which = np.arange(len(reading.table))
    windows, scale = panel.cut(which, panel.length - 1 + plan.context, 1, reading.scale)
    quantiles = model.answer(windows, reading.h[:, None], torch.zeros(1, dtype=torch.int64))
    return unscaled(quantiles[:, 0], scale, widening)


@torch.no_grad()
def answers(
    model: ForecastModel, plan: Plan, panel: Panel, which: Array, count: Array, widening: float
) -> Array:
    """(W, horizon, Q) quantiles on the transformed scale, each window read from its own context.

    Args:
        model: the fitted model.
        plan: its plan.
        panel: the series.
        which: (W,) the series of each window.
        count: (W,) how many of its rows are known.
        widening: the factor of the intervals' width.
    """
    parts = []
    places = torch.tensor([plan.context - 1])
    for first in range(0, len(which), 256):
        windows, scale = panel.cut(which[first : first + 256], count[first : first + 256], plan.context)
        parts.append(unscaled(model(windows, places)[:, 0], scale, widening))
    return np.concatenate(parts)


def unscaled(quantiles: Tensor, scale: Scale, widening: float) -> Array:
    """Quantiles (N, horizon, Q) widened about their median and taken off the windows' scale."""
    values = quantiles.double().numpy()
    median = values[..., values.shape[-1] // 2, None]
    values = median + widening * (values - median)
    return np.asarray(scale.location[:, None, None] + scale.size[:, None, None] * values)


def _some(scale: Scale, where: Sequence[int] | np.ndarray) -> Scale:
    return Scale(scale.location[where], scale.size[where])
