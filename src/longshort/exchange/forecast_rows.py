"""Rows of series in their own units as a forecast model reads them, and its quantiles back in those units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..tasks.forecast.model import ForecastModel
from ..tasks.forecast.plan import Plan, columns_of
from ..tasks.forecast.windows import Windows

DAY = 86_400_000_000
"""Microseconds."""


class Rows(nn.Module):
    """What `Forecaster.predict` does around its model, as tensors in and out.

    Args:
        model: of the forecaster.
        plan: its plan.
        widening: the factor of its intervals' width.
    """

    def __init__(self, model: ForecastModel, plan: Plan, widening: float) -> None:
        super().__init__()
        self.model, self.plan, self.widening = model, plan, widening

    @property
    def ports(self) -> tuple[str, ...]:
        """What is given besides the target: the times, and the covariates of each role that is read."""
        roles = [role for role in ("past", "future", "static") if self._columns(role)]
        return (*(("time",) if self.plan.calendar else ()), *roles)

    def scaled(self, target: Tensor, scale: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Any]:
        """Values, whether each is known, and their scale: the given one, or that of the first context.

        Taken one by one, so that a target of fewer rows is refused by what runs the graph.
        """
        z, known = self.transformed(target)
        if scale is None:
            first = self.plan.lookback + torch.arange(self.plan.context, device=z.device)
            scale = scale_of(z.index_select(1, first), known.index_select(1, first))
        values = torch.where(known, (z - scale[0]) / scale[1], torch.zeros_like(z))
        return values.to(self._dtype), known.to(self._dtype), scale

    def windows(self, values: Tensor, known: Tensor, given: Sequence[Tensor]) -> Windows:
        """What the model reads: the rows that it looks back on, and T after them."""
        N, T = values.shape[0], values.shape[1] - self.plan.lookback
        ports = dict(zip(self.ports, given, strict=True))
        later = T + self.plan.horizon
        past, future, static = (N, T), (N, later), (N,)
        ahead = [self._numbers("future", ports, values, future)]
        if "time" in ports:
            ahead.insert(0, calendar(ports["time"], self.plan.calendar).to(self._dtype))
        return Windows(
            values=values,
            known=known,
            seen=self._numbers("past", ports, values, past),
            seen_codes=self._codes("past", ports, values, past),
            ahead=torch.cat(ahead, -1),
            ahead_codes=self._codes("future", ports, values, future),
            static=self._numbers("static", ports, values, static),
            static_codes=self._codes("static", ports, values, static),
        )

    def restored(self, scaled: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
        """The model's quantiles (N, horizon, Q), widened, in the target's own units."""
        scaled = scaled.to(scale[0].dtype)
        half = scaled.shape[-1] // 2
        median = scaled[..., half : half + 1]
        scaled = median + self.widening * (scaled - median)
        return self._restored(scale[0][..., None] + scale[1][..., None] * scaled)

    def transformed(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The target on the model's scale, 0 where missing or beyond that scale, and where it is known."""
        known, kind = ~target.isnan(), self.plan.transform
        y = torch.where(known, target, torch.ones_like(target))
        if kind == "log":
            known = known & (y > 0)
            y = torch.where(known, y, torch.ones_like(y)).log()
        elif kind == "sqrt":
            known = known & (y >= 0)
            y = torch.where(known, y, torch.ones_like(y)).sqrt()
        return torch.where(known, y, torch.zeros_like(y)), known

    def _restored(self, z: Tensor) -> Tensor:
        if self.plan.transform == "log":
            return z.clamp(max=700.0).exp()
        return z.clamp(min=0.0).square() if self.plan.transform == "sqrt" else z

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.from_step.dtype

    def _columns(self, role: str) -> bool:
        return bool(self.plan.numeric[role] or self.plan.coded[role])

    def _places(self, role: str, names: Sequence[str]) -> Tensor:
        have = getattr(columns_of(self.plan), role)
        return torch.tensor([have.index(name) for name in names])

    def _numbers(
        self, role: str, ports: Mapping[str, Tensor], values: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """Each covariate of numbers, standardised, 0 where missing; then whether it is known."""
        names, means, deviations = (
            zip(*self.plan.numeric[role], strict=True) if self.plan.numeric[role] else 3 * ((),)
        )
        if not names:
            return values.new_zeros((*shape, 0))
        column = ports[role].index_select(-1, self._places(role, names))
        column = (column - torch.tensor(means, dtype=column.dtype)) / torch.tensor(
            deviations, dtype=column.dtype
        )
        known = ~column.isnan()
        column = torch.where(known, column, torch.zeros_like(column))
        return torch.stack([column, known.to(column.dtype)], -1).flatten(-2).to(self._dtype)

    def _codes(
        self, role: str, ports: Mapping[str, Tensor], values: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """Each category's number from 1 on, 0 for a missing or unknown one."""
        names, sizes = zip(*self.plan.coded[role], strict=True) if self.plan.coded[role] else 2 * ((),)
        if not names:
            return values.new_zeros((*shape, 0), dtype=torch.int64)
        column = ports[role].index_select(-1, self._places(role, names))
        known = (column >= 0) & (column < torch.tensor(sizes, dtype=column.dtype))
        return torch.where(known, column + 1, torch.zeros_like(column)).to(torch.int64)


def scale_of(z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Location and size (N, 1) of contexts (N, T), as `tasks.forecast.windows.scale_of` has them."""
    count = known.sum(1, keepdim=True).clamp(min=1)
    location = torch.where(known, z, torch.zeros_like(z)).sum(1, keepdim=True) / count
    spread = torch.where(known, (z - location).abs(), torch.zeros_like(z)).sum(1, keepdim=True) / count
    one = torch.ones_like(location)
    floor = torch.where(location == 0, one, 0.1 * location.abs())
    return location, torch.where(spread > 1e-9 * location.abs(), spread, floor)


def calendar(time: Tensor, cycles: Sequence[str]) -> Tensor:
    """Sine and cosine of where each time stands in each cycle, as `plan.calendar_channels` has them.

    Args:
        time: (...) int64, microseconds since 1970; NaT (NumPy's, the least int64) where there is no row.
        cycles: of the plan.

    Returns:
        (..., 2 x cycles) float32; 0 where there is no row.

    Source: the month and day of a day's number as in Howard Hinnant, "chrono-compatible low-level date
    algorithms" (2013): years begin in March there, so that the odd day comes last.
    """
    some = time > -(1 << 62)
    time = torch.where(some, time, torch.zeros_like(time))
    days = torch.floor_divide(time, DAY)
    shares = {
        name: time.to(torch.float64) / (DAY * part)
        for name, part in (("hour", 1 / 24), ("day", 1), ("week", 7))
    }
    if "year" in cycles:
        day = days + 719_468  # from 1 March of the year 0 on
        day = day - 146_097 * torch.floor_divide(day, 146_097)
        year = day - _floor(day, 1_460) + _floor(day, 36_524) - _floor(day, 146_096)
        year = _floor(year, 365)
        day = day - (365 * year + _floor(year, 4) - _floor(year, 100))
        month = _floor(5 * day + 2, 153)
        day = day - _floor(153 * month + 2, 5)
        month = torch.where(month < 10, month + 2, month - 10)
        within = day.to(torch.float64) + (time - days * DAY).to(torch.float64) / DAY
        shares["year"] = (month.to(torch.float64) + within / 31) / 12
    parts = []
    for cycle in cycles:
        share = shares[cycle]
        angle = (2 * math.pi * (share - share.floor())).to(torch.float32)
        parts += [angle.sin(), angle.cos()]
    return torch.where(some[..., None], torch.stack(parts, -1), torch.zeros(()))


def _floor(x: Tensor, by: int) -> Tensor:
    return torch.floor_divide(x, by)
