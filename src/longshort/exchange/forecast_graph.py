"""A fitted forecaster as graphs, whole and row by row: rows in, quantiles in their own units out."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import SeriesTable
from ..errors import need
from ..scan import State
from ..tasks import Forecaster
from ..tasks.forecast.plan import Plan
from ..tasks.forecast.settings import LEVELS
from .forecast_rows import Rows
from .layers import Array
from .onnx_writing import Graph
from .program_writing import Stream

KEPT = {
    "values": "values_n", "known": "known_n", "location": "location_n", "size": "size_n", "h0": "h_n",
    "c0": "c_n",
}  # fmt: skip
"""What is kept, before a row and after it: the last rows on the scale, the scale, the LSTM's state."""
SAID = ("step", "horizon", "context", "lookback", "columns", "transform")
"""What an exported model says of its plan."""

NAT = np.iinfo(np.int64).min
"""No time, as in NumPy's datetime64."""


class Context(nn.Module):
    """(target, times, covariates) -> quantiles and what is kept.

    Args:
        rows: the forecaster's.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, target: Tensor, *covariates: Tensor) -> tuple[Tensor, ...]:
        """Read target (N, lookback + T), NaN where missing, and answer at its end."""
        rows, model = self.rows, self.rows.model
        values, known, scale = rows.scaled(target, None)
        windows = rows.windows(values, known, covariates)
        h, state = model.read(windows)
        last = torch.full((1,), h.shape[1] - 1, dtype=torch.int64)
        quantiles = rows.restored(model.answer(windows, h[:, -1:], last)[:, 0], scale)
        recent = (part[:, -rows.plan.lookback - 1 :] for part in (values, known))
        return (quantiles, *recent, *scale, *state)


class NextRow(nn.Module):
    """(what is kept, target, times, covariates) -> quantiles and what is kept.

    Args:
        rows: the forecaster's.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def forward(
        self, values: Tensor, known: Tensor, location: Tensor, size: Tensor, h: Tensor, c: Tensor,
        target: Tensor, *covariates: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Read one row of target (N,) on the scale of the context, and answer after it."""
        rows, model = self.rows, self.rows.model
        value, is_known, scale = rows.scaled(target[:, None], (location, size))
        values = torch.cat([values[:, 1:], value], 1)
        known = torch.cat([known[:, 1:], is_known], 1)
        windows = rows.windows(values, known, covariates)
        out, state = model.read(windows, State(h, c))
        quantiles = rows.restored(model.answer(windows, out, torch.zeros(1, dtype=torch.int64))[:, 0], scale)
        return (quantiles, values, known, *scale, *state)


def forecast_graph(forecaster: Forecaster) -> tuple[Graph, Stream]:
    """Return a fitted forecaster as the graph of whole rows, and that of one more row.

    Whole: `target` (N, lookback + T) float64 in its own units, NaN where missing; T is at least the context,
    which sets the scale; `quantiles` (N, horizon, Q) after the last row, in the same units; and what is kept.
    Where the model reads them there are also `time` (N, T + horizon) int64, microseconds since 1970, NaT
    where there is no row, and the covariates in their own units, in the table's order, NaN where missing,
    categories by their numbers: `past` (N, T, P), `future` (N, T + horizon, K) and `static` (N, S) float64.
    One row after the other through the step gives what the whole gives for the longer target.

    Raises:
        SettingError: the forecaster has not been fitted.
    """
    plan, model, widening = forecaster._fitted()
    rows = Rows(copy.deepcopy(model).cpu().eval().requires_grad_(False), plan, widening)
    ports, table = rows.ports, forecaster.history

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        return last_rows(table.select(table.names[:3]), plan, ports, N, plan.context + T - 1)

    whole = Graph(
        module=Context(rows),
        inputs=("target", *ports),
        outputs=("quantiles", *KEPT.values()),
        dynamic={"target": {0: "N", 1: later("T", plan.lookback)}, **{n: _axes(n, plan) for n in ports}},
        example=example,
        table={torch.ops.aten.cummax.default: running_maximum},
        least={"T": plan.context},
        about={
            "task": "forecast",
            **{name: getattr(plan, name) for name in SAID},
            "quantiles": list(LEVELS),
        },
    )

    def row(N: int, T: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            kept = Context(rows)(*example(N, T))[1:]
        target, *covariates = example(N, T + 1)
        return (
            *kept,
            target[:, -1],
            *(_last(n, part, plan) for n, part in zip(ports, covariates, strict=True)),
        )

    step = dataclasses.replace(
        whole,
        module=NextRow(rows),
        inputs=(*KEPT, "target", *ports),
        dynamic={
            **{name: {1 if name in ("h0", "c0") else 0: "N"} for name in KEPT},
            **{name: {0: "N"} for name in ("target", *ports)},
        },
        example=row,
        least={},
    )
    return whole, Stream(step, len(KEPT))


def later(letter: str, steps: int) -> str:
    """The length of an axis that is longer than another by some steps."""
    return f"{letter} + {steps}" if steps else letter


def _axes(port: str, plan: Plan) -> dict[int, str]:
    if port == "static":
        return {0: "N"}
    return {0: "N", 1: "T" if port == "past" else later("T", plan.horizon)}


def _last(port: str, given: Tensor, plan: Plan) -> Tensor:
    """What the step reads of a port of the whole."""
    if port == "static":
        return given
    return given[:, -1:] if port == "past" else given[:, -1 - plan.horizon :]


def last_rows(table: SeriesTable, plan: Plan, ports: Sequence[str], N: int, T: int) -> tuple[Tensor, ...]:
    """The target (N, lookback + T) of the last rows of a table's series in turn, and what goes with it."""
    each: list[dict[str, Array]] = []
    for _, series in zip(range(N), itertools.cycle(table), strict=False):
        count = len(series)
        time = table.step.add(series.time[-1], np.arange(1 - T, plan.horizon + 1))
        each.append(
            {
                "target": _placed(series.target, count, plan.lookback + T, 0),
                "time": np.where(np.arange(len(time)) < T - count, NAT, time.astype(np.int64)),
                "past": _placed(series.past, count, T, 0),
                "future": _placed(series.future, count, T, plan.horizon),
                "static": series.static,
            }
        )
    return tuple(torch.from_numpy(np.stack([one[name] for one in each])) for name in ("target", *ports))


def _placed(values: Array, count: int, before: int, after: int) -> Array:
    """The rows before and after the first `count` ones; NaN where there are none."""
    rows = np.arange(count - before, count + after)
    some = (rows >= 0) & (rows < len(values))
    placed = np.full((len(rows), *values.shape[1:]), np.nan)
    placed[some] = values[rows[some]]
    return placed


def running_maximum(x: Any, dim: int) -> tuple[Any, Any]:
    """The running maximum of x (N, L), whose elements are their own places or 0; ONNX has no cummax.

    The k-th of those above 0 is looked up by how many there were up to each place. The model takes no indices
    from it: the elements are the places already.
    """
    ops = need("onnxscript", extra="exchange", to="write ONNX").opset20
    nothing = ops.Sub(x, x)
    some = ops.Greater(x, nothing)
    count = ops.CumSum(ops.Where(some, nothing + 1, nothing), 1)
    table = ops.ScatterElements(ops.Pad(nothing, [0, 1, 0, 0]), ops.Where(some, count, nothing), x, axis=1)
    found = ops.GatherElements(table, count, axis=1)
    return found, found
