"""Forecaster: fit, predict, score, backtest, update, save, load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ... import scores
from ...data import Series, SeriesTable, read, read_ahead
from ...errors import RunError, SettingError
from ...runs import Run
from ...train import Fitted, fit
from ...train.fit import present_device
from .answer import Forecast, Quantiles, checked_levels
from .history import finished, read_history, same_data, write_history
from .joining import joined, require_known, require_later
from .model import ForecastModel
from .objective import ForecastObjective, widening
from .plan import Array, Plan, columns_of, cut, make_plan, unread
from .reading import Reading, advance, answer, answers, start
from .scoring import Backtest, rolling, score
from .settings import ForecastSettings
from .windows import Panel

LEVELS = (80, 95)
"""Intervals, in percent, where none are asked for."""


class Forecaster:
    """An LSTM that forecasts one or many series, with intervals.

    One model is fitted to all series. It reads the last `context` values of a series, on their own scale,
    step by step, and gives the quantiles of the next `horizon` at once. Whatever is not set is derived from
    the data by the rules of `plan.py`.

    Args:
        horizon: steps to forecast.
        settings: the settings of `ForecastSettings` by name: `season`, `context`, `target`, `past`,
            `future`, `static`, `seed`, `max_steps` and so on.

    Raises:
        SettingError: an unknown setting, or a value out of its range.

    >>> Forecaster(horizon=12, seed=1).settings.horizon
    12
    """

    def __init__(self, horizon: int = 24, **settings: Any) -> None:
        self.settings = ForecastSettings.from_json({"horizon": horizon, **settings}, "Forecaster")
        self._parts: tuple[Plan, ForecastModel, float] | None = None
        self._history: SeriesTable | None = None
        self._reading: Reading | None = None
        self.fitted: Fitted | None = None

    def __repr__(self) -> str:
        season = self.settings.season if self._parts is None else self.plan.season
        state = "not fitted" if self._history is None else f"fitted, {len(self._history)} series"
        return f"Forecaster(horizon={self.settings.horizon}, season={season or 'derived'}): {state}"

    def fit(
        self,
        source: Any,
        *,
        run: Run | str | Path | None = None,
        device: str = "auto",
        quiet: bool = False,
        recorder: Callable[[int, Any, Any], None] | None = None,
    ) -> Self:
        """Fit the model.

        The last fifth of each series (`validation`), at least one horizon, decides when to stop and how wide
        the intervals are; the weights are fitted to what lies before it.

        Args:
            source: a pandas or polars frame, the path of a CSV or Parquet file, or a `SeriesTable`.
            run: a run folder for checkpoints; an interrupted fit of the same settings resumes there.
            device: "auto", "cpu", "cuda" or "mps".
            quiet: show no progress.
            recorder: is shown the training, step by step, as in `longshort.train.fit`.

        Returns:
            This forecaster; `fitted` says how the fit ended.

        Raises:
            DataError: the table breaks the reader's contract, or a series is too short or all missing.
            RunError: the folder holds another task, other settings, or a damaged checkpoint.
            BackendError: the device is not there.
        """
        present_device(device, self.settings.precision)  # before anything is written
        table = source if isinstance(source, SeriesTable) else read(source, **self.settings.roles())
        plan = make_plan(table, self.settings)
        if isinstance(run, str | Path):
            run = Run.create(run, "forecast", self.settings.to_json())
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            model = ForecastModel(plan, self.settings)
        if run is not None:
            same_data(run, table)
        objective = ForecastObjective(table, plan, self.settings)
        about = {"plan": plan.to_json()}
        self.fitted = fit(
            model, objective, self.settings, run=run, about=about, device=device, quiet=quiet,
            recorder=recorder,
        )  # fmt: skip
        with torch.no_grad():
            factor = widening(*objective.validation_answers(model), objective.independent)
        self._parts, self._history, self._reading = (plan, model, factor), table, None
        if run is not None:
            self.write(run)
        return self

    @property
    def plan(self) -> Plan:
        """What was derived from the data.

        Raises:
            SettingError: the model has not been fitted.
        """
        return self._fitted()[0]

    @property
    def history(self) -> SeriesTable:
        """The series that forecasts go on from: those of the fit, and the rows that `update` added.

        Raises:
            SettingError: the model has not been fitted.
        """
        self._fitted()
        if self._history is None:
            raise SettingError("Forecaster: must be fitted first. Call `fit`, or `Forecaster.load` a run.")
        return self._history

    def restart(self, source: Any) -> Self:
        """Let forecasts go on from these series from now on, with a new state and scale.

        Args:
            source: a frame, path or `SeriesTable`. Rows that follow those of a known series are added to
                them; any other series is taken as it is.

        Returns:
            This forecaster.
        """
        self._history, self._reading = self._continued(self.table(source)), None
        return self

    def predict(
        self,
        source: Any = None,
        *,
        future: Any = None,
        levels: Sequence[float] = LEVELS,
        horizon: int | None = None,
    ) -> Forecast:
        """Forecast the steps after the last known row of each series; no row of the target is needed there.

        Args:
            source: series to forecast, a frame, path or `SeriesTable` with the columns of the training, as
                in `restart`; by default the `history`.
            future: rows of the covariates known in advance, a frame or path; they may also stand in
                `source`, with an empty target.
            levels: of the intervals, in percent.
            horizon: steps to forecast, at most the model's, and by default as many.

        Returns:
            The forecast.

        Raises:
            DataError: rows of known covariates are missing; the message lists them.
            SettingError: a level or the horizon is out of range, or the model has not been fitted.
        """
        plan, model, factor = self._fitted()
        levels, horizon = checked_levels(levels), self._horizon(horizon)
        if source is None:
            reading = self._reading = self._reading or start(model, plan, self.history)
        else:
            reading = start(model, plan, self._continued(self.table(source)))
        if future is not None:
            step, encoding = reading.table.step, self.settings.encoding or "utf-8"
            rows = read_ahead(future, like=columns_of(plan), step=step, encoding=encoding)
            reading = replace(reading, table=reading.table.with_ahead(rows))
        require_known(reading.table, horizon)
        table = reading.table
        values = answer(model, plan, reading, factor)[:, :horizon]
        times = np.stack([table.times_ahead(series, horizon) for series in table])
        return Forecast(table.names, times, Quantiles(values, plan.transform), levels, table)

    def update(self, rows: Any) -> Self:
        """Let the state go on: read new rows of the series without reading their past again.

        The scale of each series stays what it was when its state began, at the first `predict` or `update`
        after the fit.

        Args:
            rows: a frame, path or `SeriesTable` of rows that follow; of some or all of the series.

        Returns:
            This forecaster.

        Raises:
            DataError: a series is unknown, or its rows do not continue it.
        """
        plan, model, _ = self._fitted()
        table = self.table(rows, follow=True)
        require_later(self.history.select(table.names), table)
        reading = self._reading or start(model, plan, self.history)
        self._reading = advance(model, plan, reading, table)
        after = {series.name: series for series in joined(self.history, table, follow=True)}
        series = tuple(after.get(series.name, series) for series in self.history)
        self._history = replace(self.history, series=series)
        return self

    def score(
        self, later: Any, *, stride: int = 1, levels: Sequence[float] = LEVELS, horizon: int | None = None
    ) -> Backtest:
        """Score the model on rows that it has not seen, beside naive, seasonal naive and drift.

        A forecast is made every `stride` rows, the last where a whole horizon follows and none before the
        end of the history; nothing is fitted again.

        Args:
            later: a frame, path or `SeriesTable`: rows that follow the fitted ones, or whole series, of
                which only what follows is scored. A series that the model does not know is scored from
                the row after its first context and two seasons on, which the unit of MASE is taken from.
            stride: rows between two forecasts.
            levels: of the intervals whose coverage is measured, in percent.
            horizon: steps to forecast, at most the model's, and by default as many.
        """
        table = self._continued(self.table(later, follow=True))
        known = {series.name: series for series in self.history}
        first = [self._first_unseen(s, known.get(s.name), self._horizon(horizon)) for s in table]
        return self._backtest(table, first, stride, None, levels, horizon)

    def backtest(
        self,
        source: Any = None,
        *,
        horizon: int | None = None,
        stride: int = 1,
        windows: int | None = None,
        levels: Sequence[float] = LEVELS,
    ) -> Backtest:
        """Forecast from many moments of the past, in one pass over all windows, and score them.

        Args:
            source: a frame, path or `SeriesTable`; by default the series of the fit, of which only the
                validation part is scored. Of given series, all but the first context and two seasons is.
            horizon: steps to forecast, at most the model's, and by default as many.
            stride: rows between two forecasts.
            windows: the last so many of each series; all if None.
            levels: of the intervals whose coverage is measured, in percent.
        """
        if source is None:
            table = self.history
            first = [cut(len(series), self.settings) for series in table]
        else:
            table = self.table(source)
            first = [self._first_unseen(series, None, self._horizon(horizon)) for series in table]
        return self._backtest(table, first, stride, windows, levels, horizon)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder: settings, weights, history. `load` reads it.

        The state that `update` has moved on is not kept: what is loaded reads the last context of the history
        anew, and takes its scale.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        self._fitted()
        run = Run.create(folder, "forecast", self.settings.to_json())
        self.write(run)
        return run.folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a run folder that `save` or `longshort train forecast` wrote.

        Raises:
            RunError: it is no run of a forecast, unfinished, or damaged.
        """
        run = Run.open(folder, "forecast")
        finished(run)
        known = {field.name for field in dataclasses.fields(ForecastSettings)}
        forecaster = cls(**{name: value for name, value in run.settings.items() if name in known})
        arrays, about = run.read_arrays("weights.safetensors")
        path = run.path("weights.safetensors")
        try:
            plan = Plan.from_json(about["plan"])
            model = ForecastModel(plan, forecaster.settings)
            model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
        except (KeyError, TypeError, RuntimeError):
            raise RunError(
                f"{path}: holds no weights of this run's forecaster. Train the run again."
            ) from None
        forecaster._parts = (plan, model.eval(), float(about.get("widening", 1.0)))
        forecaster._history = read_history(run)
        return forecaster

    def write(self, run: Run) -> None:
        """Write weights, plan and history into a run."""
        plan, model, factor = self._fitted()
        arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
        run.write_arrays("weights.safetensors", arrays, {"plan": plan.to_json(), "widening": factor})
        write_history(run, self.history)

    def _fitted(self) -> tuple[Plan, ForecastModel, float]:
        if self._parts is None:
            raise SettingError("Forecaster: must be fitted first. Call `fit`, or `Forecaster.load` a run.")
        return self._parts

    def table(self, source: Any, *, follow: bool = False) -> SeriesTable:
        """Read a source with the columns of the fit.

        Args:
            source: a frame, path or `SeriesTable`, which is returned as it is.
            follow: whether the rows follow the history: without times all of them count as steps then.

        Returns:
            Its series; `notes` says what was done, and which series of the fit are not in it.

        Raises:
            DataError: it breaks the reader's contract; the message names the line.
        """
        if isinstance(source, SeriesTable):
            return source
        columns = columns_of(self.plan)
        trim = not follow or columns.time is not None
        encoding = self.settings.encoding or "utf-8"
        table = read(source, step=self.plan.step, like=columns, trim=trim, encoding=encoding)
        return replace(table, notes=(*table.notes, *unread(table, self.plan.transform)))

    def _continued(self, table: SeriesTable) -> SeriesTable:
        """The series with the rows of the history before them; those that begin before it as they are."""
        known = {series.name: series.time[0] for series in self.history}
        counted = table.columns.time is None
        later = tuple(s for s in table if s.name in known and (counted or s.time[0] >= known[s.name]))
        if not later:
            return table
        after = {s.name: s for s in joined(self.history, replace(table, series=later))}
        return replace(table, series=tuple(after.get(s.name, s) for s in table))

    def _first_unseen(self, series: Series, known: Series | None, horizon: int) -> int:
        """The first row to be scored: behind the known ones, or a context and the unit of MASE."""
        if known is None:
            return max(self.plan.context, min(2 * self.plan.season, len(series) - horizon))
        if columns_of(self.plan).time is None:
            return len(known)
        return self.history.step.steps(series.time[0], known.time[-1]) + 1

    def _horizon(self, horizon: int | None) -> int:
        most = self.plan.horizon
        if horizon is None:
            return most
        given: Any = horizon
        if not isinstance(given, Integral) or not 1 <= horizon <= most:
            raise SettingError(
                f"Forecaster: `horizon` must be a whole number in [1, {most}], the model's own, got "
                f"{horizon}."
            )
        return int(horizon)

    def _backtest(
        self,
        table: SeriesTable,
        first: Sequence[int],
        stride: int,
        windows: int | None,
        levels: Sequence[float],
        horizon: int | None,
    ) -> Backtest:
        plan, model, factor = self._fitted()
        levels, horizon = checked_levels(levels), self._horizon(horizon)
        which, count = rolling(table, first, horizon, stride, windows)
        values = answers(model, plan, Panel(table, plan), which, count, factor)[:, :horizon]
        scales = np.array([self._scale(series.target, n) for series, n in zip(table, first, strict=True)])
        return score(table, plan, which, count, values, scales, levels)

    def _scale(self, target: Array, known: int) -> float:
        """The unit of MASE: from what was known before the first forecast."""
        return float(scores.naive_scale(target[:known], self.plan.season))
