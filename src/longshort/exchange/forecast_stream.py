"""A fitted forecaster as a stream: its context at once, then row by row, as `Forecaster.update` goes on."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from ..scan import State
from ..tasks import Forecaster
from .onnx_forecast import LastRows, forecast_graph, scale_of
from .onnx_writing import Graph
from .program_writing import Stream

KEPT = ("values", "known", "location", "size", "h", "c")
"""What is kept from one row to the next: the last rows on the scale, the scale, the LSTM's state."""


class Beginning(nn.Module):
    """(target, covariates) -> quantiles and what is kept.

    Args:
        rows: the forecaster as a function of its last rows.
    """

    def __init__(self, rows: LastRows) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, target: Tensor, *covariates: Tensor) -> tuple[Tensor, ...]:
        """Read the context of target (N, lookback + context), and answer at its end."""
        rows, model = self.rows, self.rows.model
        context, lookback = rows.plan.context, rows.plan.lookback
        z, known = rows.transformed(target)
        scale = scale_of(z[:, -context:], known[:, -context:])
        windows = rows.windows(z, known, scale, covariates, context)
        h, state = model.read(windows)
        last = torch.full((1,), context - 1, dtype=torch.int64)
        quantiles = rows.restored(model.answer(windows, h[:, -1:], last)[:, 0], scale)
        recent = (part[:, -lookback - 1 :] for part in (windows.values, windows.known))
        return (quantiles, *recent, *scale, *state)


class NextRow(nn.Module):
    """(what is kept, target, covariates) -> quantiles and what is kept.

    Args:
        rows: the forecaster as a function of its last rows.
    """

    def __init__(self, rows: LastRows) -> None:
        super().__init__()
        self.rows = rows

    def forward(
        self, values: Tensor, known: Tensor, location: Tensor, size: Tensor, h: Tensor, c: Tensor,
        target: Tensor, *covariates: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Read one row of target (N,) on the scale of the beginning, and answer after it."""
        rows, model, scale = self.rows, self.rows.model, (location, size)
        z, is_known = rows.transformed(target[:, None])
        new = rows.windows(z, is_known, scale, covariates, 1)
        values = torch.cat([values[:, 1:], new.values], 1)
        known = torch.cat([known[:, 1:], new.known], 1)
        windows = dataclasses.replace(new, values=values, known=known)
        out, state = model.read(windows, State(h, c))
        quantiles = rows.restored(model.answer(windows, out, torch.zeros(1, dtype=torch.int64))[:, 0], scale)
        return (quantiles, values, known, location, size, *state)


def forecast_stream(forecaster: Forecaster) -> tuple[Graph, Stream]:
    """Return a fitted forecaster as the graph of its beginning, and that of one more row.

    Raises:
        SettingError: the forecaster has not been fitted.
    """
    graph = forecast_graph(forecaster)
    rows = cast(LastRows, graph.module)
    ports = rows.ports
    whole = dataclasses.replace(graph, module=Beginning(rows), outputs=("quantiles", *KEPT))
    horizon = rows.plan.horizon

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        target, *covariates = graph.example(N, T)
        with torch.no_grad():
            kept = Beginning(rows)(target, *covariates)[1:]
        # the last row once more, as if it came again
        return (*kept, target[:, -1], *map(last_of, ports, covariates))

    def last_of(name: str, covariate: Tensor) -> Tensor:
        if name.startswith("static"):
            return covariate
        return covariate[:, -1:] if name.startswith("seen") else covariate[:, -horizon - 1 :]

    dynamic = {name: {1 if name in "hc" else 0: "N"} for name in KEPT}
    dynamic |= {name: {0: "N"} for name in ("target", *ports)}
    step = dataclasses.replace(
        graph,
        module=NextRow(rows),
        inputs=(*KEPT, "target", *ports),
        outputs=("quantiles", *KEPT),
        dynamic=dynamic,
        example=example,
    )
    return whole, Stream(step, len(KEPT))
