"""A fitted forecaster as one ONNX graph: the last rows of a series in, quantiles in its own units out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..tasks import Forecaster
from ..tasks.forecast.model import ForecastModel
from ..tasks.forecast.plan import Plan
from ..tasks.forecast.windows import Panel, Windows
from .onnx_writing import Graph, Report, save_graph

OPTIONAL = ("seen", "seen_codes", "ahead", "ahead_codes", "static", "static_codes")
"""Fields of `Windows` that are ports where the model has channels for them."""


class LastRows(nn.Module):
    """(target, covariates) -> quantiles, with everything that `Forecaster.predict` does between.

    Args:
        model: of the forecaster.
        plan: its plan.
        widening: the factor of its intervals' width.
        ports: the covariates that are inputs, in order; the others have no channels.
    """

    def __init__(self, model: ForecastModel, plan: Plan, widening: float, ports: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.plan, self.widening, self.ports = model, plan, widening, ports

    def forward(self, target: Tensor, *covariates: Tensor) -> Tensor:
        """Return (N, horizon, Q) for target (N, lookback + context) in its own units, NaN where missing."""
        z, known = self.transformed(target)
        context = self.plan.context
        scale = scale_of(z[:, -context:], known[:, -context:])
        windows = self.windows(z, known, scale, covariates, context)
        last = torch.full((1,), context - 1, dtype=torch.int64)
        return self.restored(self.model(windows, last)[:, 0], scale)

    def windows(
        self, z: Tensor, known: Tensor, scale: tuple[Tensor, Tensor], covariates: tuple[Tensor, ...], T: int
    ) -> Windows:
        """The last T steps of a target on a scale, with the rows that the model looks back on."""
        values = torch.where(known, (z - scale[0]) / scale[1], torch.zeros_like(z))
        dtype = self.model.from_step.dtype
        given = dict(zip(self.ports, covariates, strict=True))
        return self._windows(values.to(dtype), known.to(dtype), given, T)

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

    def _windows(self, values: Tensor, known: Tensor, given: dict[str, Tensor], T: int) -> Windows:
        N = values.shape[0]
        rows = {"seen": T, "ahead": T + self.plan.horizon}
        parts = {}
        for name in OPTIONAL:
            length = rows.get(name.removesuffix("_codes"))
            shape = (N, 0) if length is None else (N, length, 0)
            kind = torch.int64 if name.endswith("_codes") else values.dtype
            part = given.get(name)
            parts[name] = values.new_zeros(shape, dtype=kind) if part is None else part.to(kind)
        return Windows(values, known, **parts)


def scale_of(z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Location and size (N, 1) of contexts (N, T), as `tasks.forecast.windows.scale_of` has them."""
    count = known.sum(1, keepdim=True).clamp(min=1)
    location = torch.where(known, z, torch.zeros_like(z)).sum(1, keepdim=True) / count
    spread = torch.where(known, (z - location).abs(), torch.zeros_like(z)).sum(1, keepdim=True) / count
    one = torch.ones_like(location)
    floor = torch.where(location == 0, one, 0.1 * location.abs())
    return location, torch.where(spread > 1e-9 * location.abs(), spread, floor)


def save_forecast(forecaster: Forecaster, path: str | Path) -> Report:
    """Write a fitted forecaster as an ONNX graph, run the file, and keep it only if it agrees.

    The port `target` (N, rows) float64 takes the last `lookback + context` rows of N series in their own
    units, NaN where missing; `quantiles` (N, horizon, Q) are those of `Forecaster`, in the same units. Where
    the model has covariates they are further ports, as `tasks.forecast.windows.Windows` describes them.

    Args:
        forecaster: fitted.
        path: the file's name.

    Raises:
        SettingError: the forecaster has not been fitted.
        BackendError: onnxruntime's numbers differ; no file was written.
        MissingExtra: onnx, onnxruntime or onnxscript is not installed.
    """
    return save_graph(forecast_graph(forecaster), path)


def forecast_graph(forecaster: Forecaster) -> Graph:
    """Return a fitted forecaster as a graph: its last rows in, quantiles in its own units out.

    Raises:
        SettingError: the forecaster has not been fitted.
    """
    plan, model, widening = forecaster._fitted()
    windows = _windows_of(forecaster, plan)
    ports = tuple(name for name in OPTIONAL if getattr(windows[1], name).shape[-1])
    module = LastRows(copy.deepcopy(model).cpu().eval().requires_grad_(False), plan, widening, ports)
    dynamic = {name: {0: "N"} for name in ("target", *ports)}

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        some = torch.arange(N) % len(windows[0])
        return (windows[0][some], *(getattr(windows[1], name)[some] for name in ports))

    table = {torch.ops.aten.cummax.default: _running_maximum}
    return Graph(module, tuple(dynamic), ("quantiles",), dynamic, example, table)


def _running_maximum(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The running maximum of row numbers x (N, L) along their last axis, as a pooling; ONNX has no cummax.

    The model takes no indices from it: the numbers are the places already.
    """
    padded = nn.functional.pad(x[:, None].to(torch.float32), (x.shape[-1] - 1, 0))
    found = nn.functional.max_pool1d(padded, x.shape[-1], 1)[:, 0].to(x.dtype)
    return found, found


def _windows_of(forecaster: Forecaster, plan: Plan) -> tuple[Tensor, Any]:
    """The last rows of up to three series in their own units, and the windows that they make."""
    table = forecaster.history
    table = table.select(table.names[:3])
    panel = Panel(table, plan)
    windows, _ = panel.cut(np.arange(len(table)), panel.length, plan.context)
    rows = np.full((len(table), plan.memory), np.nan)
    for k, series in enumerate(table):
        last = series.target[-plan.memory :]
        rows[k, len(rows[k]) - len(last) :] = last
    return torch.from_numpy(rows), windows
