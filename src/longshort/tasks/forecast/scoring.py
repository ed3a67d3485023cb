"""The rolling origin: forecasts from many moments of the past, scored beside the baselines."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import scores
from ...data import SeriesTable
from ...errors import DataError, SettingError, need
from .answer import Quantiles, columns_of, stamps, write_table
from .plan import Array, Plan

if TYPE_CHECKING:
    import polars

MODEL = "LSTM"
"""The model's own name among the baselines."""
METRICS = ("MASE", "sMAPE", "OWA", "wQL", "MAE", "RMSE")
"""The columns of a score, besides what the intervals cover; all are better when lower."""
WQL_LEVELS = tuple(k / 10 for k in range(1, 10))
"""The quantiles of the weighted quantile loss."""


@dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of W windows, what happened, and the scores.

    Args:
        names: (W,) the series of each window.
        origins: (W,) the last time known in each window.
        times: (W, horizon) the steps forecast.
        truth: (W, horizon) what happened; NaN where missing.
        quantiles: of shape (W, horizon, Q).
        scores: method -> metric -> value; the model first, then "seasonal naive", "naive", "drift".
        levels: the intervals' levels in percent.
        table: the series, for tables and pictures.
    """

    names: tuple[str, ...]
    origins: np.ndarray
    times: np.ndarray
    truth: Array
    quantiles: Quantiles
    scores: dict[str, dict[str, float]]
    levels: tuple[float, ...]
    table: SeriesTable

    def __getitem__(self, metric: str) -> float:
        """The model's own score, such as ``backtest["MASE"]`` or ``backtest["coverage-80"]``."""
        return self.scores[MODEL][metric]

    def to_json(self) -> dict[str, Any]:
        """The scores and what they were measured on; NaN as null."""
        rows = {
            method: {metric: None if np.isnan(value) else value for metric, value in row.items()}
            for method, row in self.scores.items()
        }
        W, horizon = self.truth.shape
        return {"windows": W, "series": len(set(self.names)), "horizon": horizon, "scores": rows}

    def to_polars(self) -> polars.DataFrame:
        """A long table: unique_id, cutoff, ds, y, mean, median, lo-95 ... hi-95."""
        pl = need("polars", extra="tasks", to="make a table")
        W, horizon = self.truth.shape
        step = self.table.step
        columns: dict[str, Any] = {
            "unique_id": np.repeat(np.array(self.names, object), horizon).tolist(),
            "cutoff": np.repeat(stamps(self.origins, step), horizon),
            "ds": stamps(self.times.reshape(-1), step),
            "y": self.truth.reshape(-1),
        }
        columns |= {name: v.reshape(W * horizon) for name, v in columns_of(self.quantiles, self.levels)}
        table = pl.DataFrame(columns).with_columns(pl.col("y").fill_nan(None))
        return self.table.columns.zoned(table, "cutoff", "ds")

    def write(self, path: str | Path) -> Path:
        """Write the table as CSV or, where the name ends in .parquet, as Parquet; whole or not at all."""
        return write_table(self.to_polars(), path)

    def figure(self, names: Sequence[str] | None = None) -> Any:
        """A picture of the last window of some series: its forecast, and what happened.

        Args:
            names: the series to draw; the first three if None.

        Returns:
            A matplotlib Figure; `longshort.figures.save_figure` writes it as PNG or SVG.
        """
        from ...figures import Panel, forecast_figure

        ends = {level: self.quantiles.interval(level) for level in self.levels}
        steps = max(3 * self.times.shape[1], 48)
        panels = []
        for name in names or tuple(dict.fromkeys(self.names))[:3]:
            w = len(self.names) - 1 - self.names[::-1].index(name)
            series = self.table[name]
            known = slice(None, int(np.searchsorted(series.time, self.origins[w], "right")))
            panels.append(
                Panel(
                    title=name,
                    time=series.time[known][-steps:],
                    history=series.target[known][-steps:],
                    ahead=self.times[w],
                    point=self.quantiles.median[w],
                    intervals={round(level): (low[w], high[w]) for level, (low, high) in ends.items()},
                    truth=self.truth[w],
                )
            )
        return forecast_figure(panels, clock=self.table.columns.clock or "")

    def rich(self) -> Any:
        """The scores as a table of rich's under a title, the best of each column in bold."""
        need("rich", extra="tasks", to="draw a table")
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table

        W, horizon = self.truth.shape
        title = f"{W} windows of {horizon} steps, {len(set(self.names))} series"
        drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        drawn.add_column("", no_wrap=True)
        ours = self.scores[MODEL]
        metrics = [name for name in ours if not np.isnan(ours[name])]
        for metric in metrics:
            drawn.add_column(_heading(metric), justify="right", no_wrap=True)
        for method, row in self.scores.items():
            cells = []
            for metric in metrics:
                value = row.get(metric, float("nan"))
                best = metric in METRICS and value == min(r.get(metric, np.inf) for r in self.scores.values())
                text = _text(metric, value)
                cells.append(f"[bold]{text}[/bold]" if best else text)
            drawn.add_row(method, *cells)
        return Group(title, "", drawn)

    def text(self, console: Any = None) -> str:
        """The table as text, without blank lines or spaces at its ends.

        Args:
            console: rich's console that it is to be printed on; by default that of standard output.
        """
        need("rich", extra="tasks", to="draw a table")
        from rich.console import Console

        console = Console() if console is None else console
        with console.capture() as captured:
            console.print(self.rich(), highlight=False)
        return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())

    def __repr__(self) -> str:
        need("rich", extra="tasks", to="draw a table")
        from rich.console import Console

        return self.text(Console(width=100, file=io.StringIO()))


def _heading(metric: str) -> str:
    return f"in {metric.removeprefix('coverage-')} %" if metric.startswith("coverage") else metric


def _text(metric: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if metric.startswith("coverage"):
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def rolling(
    table: SeriesTable, first: Sequence[int], horizon: int, stride: int, windows: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Series number and known rows of each window, oldest first within a series.

    Args:
        table: the series.
        first: for each, the fewest rows known; windows begin there and every `stride` rows after.
        horizon: steps that must lie before the end of the series, except for a first window.
        stride: rows between two windows.
        windows: keep the last so many of each series; all if None.

    Raises:
        SettingError: `stride` or `windows` is below 1.
        DataError: no series has a row to be scored.
    """
    asked: dict[str, Any] = {"stride": stride, "windows": windows}
    for name, value in asked.items():
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise SettingError(f"backtest: `{name}` must be a whole number of at least 1, got {value}.")
    which, count = [], []
    for number, series in enumerate(table):
        if len(series) <= first[number]:
            continue
        last = max(len(series) - horizon, first[number])
        counts = list(range(last, first[number] - 1, -stride))[:windows]
        which += [number] * len(counts)
        count += counts[::-1]
    if not which:
        raise DataError(
            "backtest: no series has a row after the ones that the model was trained on. "
            "Give rows that continue the series."
        )
    return np.array(which), np.array(count)


def score(
    table: SeriesTable,
    plan: Plan,
    which: np.ndarray,
    count: np.ndarray,
    values: Array,
    scales: Array,
    levels: Sequence[float],
) -> Backtest:
    """Score quantile forecasts beside the baselines.

    Each metric but wQL, which is one share of all windows, is averaged over the windows of a series first and
    then over the series; sMAPE, MASE and OWA are thus M4's where each series has one window.

    Args:
        table: the series, truth included.
        plan: the model's plan; its first season is that of MASE and of the baselines.
        which: (W,) the series of each window.
        count: (W,) how many of its rows were known.
        values: (W, horizon, Q) the model's quantiles on the transformed scale.
        scales: (S,) the unit of MASE of each series.
        levels: of the intervals, in percent.
    """
    horizon = values.shape[1]
    quantiles = Quantiles(values, plan.transform)
    truth = np.stack([_after(table.series[s].target, n, horizon) for s, n in zip(which, count, strict=True)])
    methods = {MODEL: quantiles.median} | _baselines(table, plan.season, which, count, horizon)
    naive2 = methods.pop("Naive2")
    unit = scales[which]
    yardstick = [
        _by_series(which, metric)
        for metric in (scores.smape(truth, naive2), scores.mase(truth, naive2, unit))
    ]
    rows = {}
    for method, point in methods.items():
        smape = _by_series(which, scores.smape(truth, point))
        mase = _by_series(which, scores.mase(truth, point, unit))
        fan = quantiles.at(WQL_LEVELS) if method == MODEL else np.repeat(point[..., None], 9, -1)
        rows[method] = {
            "MASE": mase,
            "sMAPE": smape,
            "OWA": scores.owa(smape, mase, *yardstick),
            "wQL": scores.weighted_quantile_loss(truth, fan, WQL_LEVELS),
            "MAE": _by_series(which, scores.mae(truth, point)),
            "RMSE": _by_series(which, scores.rmse(truth, point)),
        }
    for level in levels:
        inside = scores.coverage(truth, *quantiles.interval(level))
        rows[MODEL][f"coverage-{level:g}"] = _by_series(which, inside)
    series = [table.series[s] for s in which]
    return Backtest(
        names=tuple(s.name for s in series),
        origins=np.array([s.time[n - 1] for s, n in zip(series, count, strict=True)]),
        times=np.stack(
            [
                table.step.add(s.time[n - 1], np.arange(1, horizon + 1))
                for s, n in zip(series, count, strict=True)
            ]
        ),
        truth=truth,
        quantiles=quantiles,
        scores=rows,
        levels=tuple(levels),
        table=table,
    )


def _baselines(
    table: SeriesTable, season: int, which: np.ndarray, count: np.ndarray, horizon: int
) -> dict[str, Array]:
    found: dict[str, list[Array]] = {name: [] for name in ("seasonal naive", "naive", "drift", "Naive2")}
    for number, counts in _groups(which, count):
        history = scores.histories(table.series[number].target, counts)
        found["seasonal naive"].append(scores.seasonal_naive(history, horizon, season))
        found["naive"].append(scores.naive(history, horizon))
        found["drift"].append(scores.drift(history, horizon))
        found["Naive2"].append(scores.naive2(history, horizon, season))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _groups(which: np.ndarray, count: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Windows of one series, in order, at most 256 at a time; `which` is sorted."""
    for number in np.unique(which):
        counts = count[which == number]
        for first in range(0, len(counts), 256):
            yield int(number), counts[first : first + 256]


def _after(target: Array, count: int, horizon: int) -> Array:
    rows = target[count : count + horizon]
    return np.concatenate([rows, np.full(horizon - len(rows), np.nan)])


def _by_series(which: np.ndarray, values: Array) -> float:
    return scores.mean(np.array([scores.mean(values[which == s]) for s in np.unique(which)]))
