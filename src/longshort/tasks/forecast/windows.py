"""Series become windows: what a model reads, scaled by the window's own past, and what it may look up.

    |---- lookback ----|---- context ----|-- more steps --|---- horizon ----|
      lags reach here    read; sets the    read too, on     known covariates
                         scale             the same scale   alone

A window is cut by the number of rows that are known at the end of its context. Rows before the first one,
and missing ones, are marked as missing. Nothing of the target after the last step read is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data import Series, SeriesTable
from .plan import Array, Plan, calendar_channels, columns_of, transformed


@dataclass(eq=False)
class Windows:
    """N windows, B steps of lookback, T steps read, F >= horizon steps looked up ahead.

    Args:
        values: (N, B + T) the target, transformed and scaled; 0 where missing.
        known: (N, B + T) 1 where the target is known, else 0.
        seen: (N, T, P) covariates of numbers known up to now, and whether each is known.
        seen_codes: (N, T, Pc) categories; 0 is "unknown".
        ahead: (N, T + F, K) calendar and covariates known in advance, of the steps read and those after.
        ahead_codes: (N, T + F, Kc) categories known in advance.
        static: (N, S) covariates of the series, and whether each is known.
        static_codes: (N, Sc) categories of the series.
    """

    values: Tensor
    known: Tensor
    seen: Tensor
    seen_codes: Tensor
    ahead: Tensor
    ahead_codes: Tensor
    static: Tensor
    static_codes: Tensor

    def to(self, device: Any) -> Windows:
        """The same windows on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Scale:
    """How windows were scaled: transformed value = location + size x scaled value.

    Args:
        location: (N,) mean of the context.
        size: (N,) mean absolute deviation from it, above 0.
    """

    location: Array
    size: Array


class Panel:
    """All series of a table as arrays that share a row numbering, for cutting windows quickly.

    Args:
        table: the series; their columns must be the plan's.
        plan: the model's plan.
        reach: rows of calendar and known covariates to keep beyond the longest target.
    """

    def __init__(self, table: SeriesTable, plan: Plan, reach: int | None = None) -> None:
        self.plan, self.table = plan, table
        self.length = np.array([len(series) for series in table])
        self.front = plan.memory
        self.back = plan.horizon if reach is None else reach
        rows = self.front + int(self.length.max()) + self.back
        each = [self._channels(series, rows) for series in table]
        self.target, self.seen, self.seen_codes, self.ahead, self.ahead_codes = map(
            np.stack, zip(*each, strict=True)
        )
        both = [_numbers(series.static[None], "static", plan) for series in table]
        self.static = np.stack([b[0] for b in both])
        self.static_codes = np.stack([_codes(series.static[None], "static", plan)[0] for series in table])

    def cut(
        self, which: Any, count: Any, steps: int, scale: Scale | None = None, ahead: int | None = None
    ) -> tuple[Windows, Scale]:
        """Cut one window for each pair of `which` and `count`.

        Args:
            which: (N,) numbers of series.
            count: (N,) rows known at the end of the context; the context is the `plan.context` before.
            steps: T, steps to read: those of the context, then the rows after it. Fewer than the context
                leave its beginning out.
            scale: a scale to use; by default that of the context.
            ahead: steps to look up after the last one read; the horizon by default.

        Returns:
            The windows and their scale.
        """
        which, count = np.asarray(which)[:, None], np.asarray(count)[:, None]
        context, lookback = self.plan.context, self.plan.lookback
        first = count - context + self.front
        if scale is None:
            scale = scale_of(self.target[which, first + np.arange(context)])
        rows = first + np.arange(-lookback, steps)
        values = (self.target[which, rows] - scale.location[:, None]) / scale.size[:, None]
        known = ~np.isnan(values)
        read, look = (
            rows[:, lookback:],
            first + np.arange(steps + (self.plan.horizon if ahead is None else ahead)),
        )
        windows = Windows(
            values=_float(np.where(known, values, 0)),
            known=_float(known),
            seen=_float(self.seen[which, read]),
            seen_codes=torch.from_numpy(self.seen_codes[which, read]),
            ahead=_float(self.ahead[which, look]),
            ahead_codes=torch.from_numpy(self.ahead_codes[which, look]),
            static=_float(self.static[which[:, 0]]),
            static_codes=torch.from_numpy(self.static_codes[which[:, 0]]),
        )
        return windows, scale

    def truth(self, which: Any, count: Any, end: Any, scale: Scale) -> Tensor:
        """(N, P, horizon) scaled target after each of `count` (N, P) known rows; NaN from row `end` on."""
        which, count = np.asarray(which)[:, None, None], np.asarray(count)[:, :, None]
        rows = count + np.arange(self.plan.horizon)
        values = self.target[which, np.minimum(rows + self.front, self.target.shape[1] - 1)]
        values = np.where(rows < np.asarray(end)[:, None, None], values, np.nan)
        return _float((values - scale.location[:, None, None]) / scale.size[:, None, None])

    def _channels(self, series: Series, rows: int) -> tuple[np.ndarray, ...]:
        plan, T = self.plan, len(series)
        times = self.table.step.add(series.time[0], np.arange(T + self.back))
        future = np.full((T + self.back, series.future.shape[1]), np.nan)
        some = min(len(future), len(series.future))
        future[:some] = series.future[:some]
        calendar = calendar_channels(times, plan.calendar)
        known = np.concatenate([calendar, _numbers(future, "future", plan)], -1)
        return (
            _placed(transformed(series.target, plan.transform), self.front, rows, np.nan),
            _placed(_numbers(series.past, "past", plan), self.front, rows, 0.0),
            _placed(_codes(series.past, "past", plan), self.front, rows, 0),
            _placed(known, self.front, rows, 0.0),
            _placed(_codes(future, "future", plan), self.front, rows, 0),
        )


def scale_of(context: Array) -> Scale:
    """Location and size of contexts (N, L) with NaN where missing.

    A context without any spread, or any value, gets a size from its location, so that nothing divides
    by zero and a constant series stays one.
    """
    known = ~np.isnan(context)
    count = np.maximum(known.sum(1), 1)
    location = np.where(known, context, 0).sum(1) / count
    size = np.where(known, np.abs(context - location[:, None]), 0).sum(1) / count
    floor = np.where(location == 0, 1.0, 0.1 * np.abs(location))
    return Scale(location, np.where(size > 1e-9 * np.abs(location), size, floor))


def channels(plan: Plan) -> dict[str, int]:
    """How many channels of numbers `seen`, `ahead` and `static` have."""
    return {
        "seen": 2 * len(plan.numeric["past"]),
        "ahead": 2 * len(plan.calendar) + 2 * len(plan.numeric["future"]),
        "static": 2 * len(plan.numeric["static"]),
    }


def _numbers(values: Array, role: str, plan: Plan) -> Array:
    """(T, 2 x columns): each covariate of numbers standardised, 0 where missing; then whether it is known."""
    names = getattr(columns_of(plan), role)
    parts = []
    for name, mean, deviation in plan.numeric[role]:
        column = (values[:, names.index(name)] - mean) / deviation
        parts += [np.where(np.isnan(column), 0, column), ~np.isnan(column)]
    return np.stack(parts, -1).astype(float) if parts else np.zeros((len(values), 0))


def _codes(values: Array, role: str, plan: Plan) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(T, columns): categories from 1 on, 0 for a missing or unknown one."""
    names = getattr(columns_of(plan), role)
    parts = []
    for name, size in plan.coded[role]:
        column = values[:, names.index(name)]
        known = (column >= 0) & (column < size)
        parts.append(np.where(known, column + 1, 0).astype(np.int64))
    return np.stack(parts, -1) if parts else np.zeros((len(values), 0), np.int64)


def _placed(values: np.ndarray, front: int, rows: int, empty: float) -> np.ndarray:
    placed = np.full((rows, *values.shape[1:]), empty, values.dtype)
    placed[front : front + len(values)] = values[: rows - front]
    return placed


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
