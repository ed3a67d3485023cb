"""From a file to a run folder, and from a run folder to forecasts and scores: what the command line calls.

runs/load/settings.json        what was asked
          data.json            the rows it was trained on, as a checksum
          weights.safetensors  the best weights, and the plan
          last.safetensors     the last checkpoint
          history.safetensors  the series, for forecasts that go on from them
          metrics.jsonl        one line a validation
          film.json            what `--watch` kept
          scores.json          the score on the rows held out, beside the baselines
          backtest.csv         the forecasts behind that score
          forecast.csv, .png, .svg
          backtest.png, .svg   in their place, where covariates known in advance end with the rows
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np

from ...data import SeriesTable, embedded, read
from ...data.series import part
from ...errors import DataError, SettingError, need
from ...figures import save_figure
from ...runs import Run, require_writable
from ...settings import setting
from ...train import FitSettings, Fitted
from ...train.fit import present_device
from .answer import PICTURES, TABLES, csv, require_ending, write_table
from .forecaster import LEVELS, Forecaster
from .plan import Plan, make_plan, rows_needed
from .scoring import MODEL, Backtest
from .settings import ForecastSettings

MOST_WINDOWS = 2000
"""About how many windows the score of `train` has; with more, only every k-th row is an origin."""

EXAMPLES = """\
    longshort train forecast load.csv --target load --horizon 24 --out runs/load
    longshort train forecast shops.csv --id shop --target sales --past visitors --future holiday --step day
"""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ForecastSettings):
    """Forecast the next steps of the series in a CSV or Parquet file, with intervals."""

    file: str | None = setting(
        None, "CSV or Parquet file; by default the series that comes with the package."
    )
    test: float = setting(
        0.2, "Share of each series, its last, held out for the score; 0 for none.", least=0, below=1
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `longshort train forecast` takes: the forecast's own settings, then the optimiser's.

    Raises:
        MissingExtra: what reads a file or prints the score is not installed.
    """
    for module in ("polars", "rich"):
        need(module, extra="tasks", to="train on a file")
    text = "CSV or Parquet file; by default the series that comes with the package, or --file"
    parser.add_argument("source", nargs="?", metavar="FILE", help=text)
    optimiser = [field.name for field in dataclasses.fields(FitSettings)]
    own = [f.name for f in dataclasses.fields(TrainSettings) if f.name not in optimiser]
    TrainSettings.flags(parser.add_argument_group("the forecast"), own)
    TrainSettings.flags(parser.add_argument_group("the optimiser"), optimiser)


def beneath(given: argparse.Namespace) -> TrainSettings:
    """The settings that hold where no flag was given."""
    return TrainSettings()


def train(
    settings: TrainSettings,
    out: str | Path,
    *,
    device: str = "auto",
    quiet: bool = False,
    recorder: Callable[[int, Any, Any], None] | None = None,
) -> int:
    """Train on a file, score the model on the rows held out, and forecast what follows.

    Args:
        settings: the file, the columns and the model.
        out: the run folder; an interrupted run of the same settings goes on.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.
        recorder: is shown the training, step by step, as in `longshort.train.fit`.

    Returns:
        0, or 130 if Ctrl-C ended the training early.
    """
    present_device(device, settings.precision)  # before anything is written
    table = embedded() if settings.file is None else read(settings.file, **settings.roles())
    for note in table.notes:
        print(f"note: {note}")
    earlier, later = held_out(table, settings)
    plan = _can_be_trained(earlier, settings)
    run = Run.create(out, "forecast", settings.to_json())
    model = Forecaster(**_forecaster_settings(settings))
    _introduce(table, earlier, plan, settings)
    model.fit(earlier, run=run, device=device, quiet=quiet, recorder=recorder)
    fitted = model.fitted
    if fitted is None:
        raise SettingError("train: the fit left no result.")
    state = "interrupted" if fitted.interrupted else "done"
    print(
        f"{state} after {fitted.step} steps, {fitted.seconds:.0f} s; "
        f"the weights are those of step {fitted.best_step}"
    )
    found = None
    if later is not None:
        found = model.score(later, stride=_stride(later, earlier, settings.horizon))
        run.write_json("scores.json", found.to_json())
        found.write(run.path("backtest.csv"))
        print(f"\n{found.text()}\n")
    advice = _advice(found, fitted, settings)
    if advice is not None:
        print(advice)
    model.restart(table)
    model.write(run)
    if model.history.missing_future(settings.horizon):
        _without_forecast(model, run, found)
    else:
        forecast = model.predict()
        forecast.write(run.path("forecast.csv"))
        save_figure(forecast.figure(), run.path("forecast.png"), run.path("forecast.svg"))
        print(f"{run.folder}: the run. longshort predict {shlex.quote(str(run.folder))}")
    if fitted.interrupted:
        print(f"Interrupted at step {fitted.step}. The same command goes on from there.", file=sys.stderr)
    return 130 if fitted.interrupted else 0  # as for any verb that Ctrl-C ends


def predict(
    folder: str | Path,
    sources: Sequence[str] = (),
    *,
    future: str | None = None,
    levels: tuple[float, ...] = LEVELS,
    horizon: int | None = None,
    encoding: str | None = None,
    out: str | Path | None = None,
) -> None:
    """Write the forecast of a run as CSV to standard output, or to a .csv, .parquet, .png or .svg file.

    Args:
        folder: the run.
        sources: a file of series, or of rows that follow those of the run; "-" is standard input; without
            one, the forecast goes on from the rows of the run.
        future: a file of covariates known in advance.
        levels: of the intervals, in percent.
        horizon: steps to forecast; the model's by default.
        encoding: how characters are written in these files; as in the run's own file if None.
        out: where to write.
    """
    if len(sources) > 1:
        raise SettingError(f"predict: a forecast takes one file, got {len(sources)}: {', '.join(sources)}.")
    model = _loaded(folder, encoding)
    if out is not None:
        require_ending(out, (*TABLES, *PICTURES))
        require_writable(out)
    for source in sources:
        model.restart(_noted(model.table("/dev/stdin" if source == "-" else source)))
    forecast = model.predict(future=future, levels=levels, horizon=horizon)
    if out is None:
        sys.stdout.write(csv(forecast.to_polars()))
    elif Path(out).suffix.lower() in PICTURES:
        save_figure(forecast.figure(), out)
    else:
        forecast.write(out)


def evaluate(
    folder: str | Path,
    source: str,
    *,
    stride: int = 1,
    levels: tuple[float, ...] = LEVELS,
    horizon: int | None = None,
    encoding: str | None = None,
    out: str | Path | None = None,
) -> Backtest:
    """Score a run on a file of later rows, beside the baselines, and print the table.

    Args:
        folder: the run.
        source: a file of rows that follow those of the run, or of whole series; "-" is standard input.
        stride: rows between two forecasts.
        levels: of the intervals whose coverage is measured, in percent.
        horizon: steps to forecast; the model's by default.
        encoding: how characters are written in the file; as in the run's own file if None.
        out: where to write the forecasts and the truth, as .csv or .parquet; or the scores, as .json.
    """
    model = _loaded(folder, encoding)
    if out is not None:
        require_ending(out, (*TABLES, ".json"))
        require_writable(out)
    later = _noted(model.table("/dev/stdin" if source == "-" else source, follow=True))
    found = model.score(later, stride=stride, levels=levels, horizon=horizon)
    print(found.text())
    if out is not None and Path(out).suffix.lower() == ".json":
        target = Path(out)
        Run(target.parent, "forecast", {}).write_json(target.name, found.to_json())
    elif out is not None:
        write_table(found.to_polars(), out)
    return found


def _noted(table: SeriesTable) -> SeriesTable:
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return table


def _loaded(folder: str | Path, encoding: str | None) -> Forecaster:
    model = Forecaster.load(folder)
    if encoding is not None:
        model.settings = replaced(model.settings, encoding=encoding)
    return model


def held_out(table: SeriesTable, settings: TrainSettings) -> tuple[SeriesTable, SeriesTable | None]:
    """Cut the last `test` share of each series off, at least one horizon; None if `test` is 0.

    Raises:
        DataError: nothing of a series would be left; the message says how many rows it must have.
    """
    if settings.test == 0:
        return table, None
    earlier, later = [], []
    for series in table:
        T = len(series)
        count = _rows_held(T, settings)
        if count >= T:
            least = _rows_asked(table, settings)
            raise DataError(
                f"series {series.name!r} has {T} rows, and must have at least {least}: the test part alone "
                f"takes {count}, at least one horizon. "
                f"Give a smaller `horizon`, or `test` 0 for no test part."
            )
        earlier.append(part(series, 0, T - count))
        later.append(part(series, T - count, T))
    return replaced(table, series=tuple(earlier)), replaced(table, series=tuple(later))


def _rows_held(rows: int, settings: TrainSettings) -> int:
    return max(settings.horizon, int(settings.test * rows))


def _rows_asked(table: SeriesTable, settings: TrainSettings) -> int:
    """Rows that a series must have at least, those held out included."""
    rows = needed = rows_needed(table, settings)
    while rows - _rows_held(rows, settings) < needed:
        rows += 1
    return rows


def _can_be_trained(earlier: SeriesTable, settings: TrainSettings) -> Plan:
    """The plan of the fit, or what the fit would raise about the data, before a run folder is made."""
    try:
        return make_plan(earlier, settings)
    except DataError as error:
        held = (
            f" (The last {settings.test:.0%} of each series are held out: `test`. "
            f"With them it must have at least {_rows_asked(earlier, settings)} rows.)"
            if settings.test
            else ""
        )
        raise DataError(f"{error}{held}") from None


def _forecaster_settings(settings: TrainSettings) -> dict[str, Any]:
    mine = settings.to_json()
    return {name: value for name, value in mine.items() if name not in ("file", "test")}


def _introduce(table: SeriesTable, earlier: SeriesTable, plan: Plan, settings: TrainSettings) -> None:
    rows, trained = sum(map(len, table)), sum(map(len, earlier))
    first = table.series[0]
    name = settings.file or "Carbon dioxide at Mauna Loa, which comes with the package"
    span = f"{table.step.text(first.time[0])} to {table.step.text(first.time[-1])}"
    which = f"{len(table)} series" if len(table) > 1 else f"series {first.name!r}, {span}"
    print(f"{name}: {which}")
    parts = f"trained on {trained:,}, scored on {rows - trained:,}" if settings.test else "trained on all"
    seasons = " and ".join(str(season) for season in sorted(plan.seasons) if season > 1)
    season = f"a season of {seasons}" if seasons else "no season"
    print(f"{rows:,} rows, a step of {table.step}, {season}; {parts}")
    if settings.test:
        print("the rows held out are only scored, never trained on; --test 0 trains on all")


def _advice(found: Backtest | None, fitted: Fitted, settings: TrainSettings) -> str | None:
    """What to do about a model that no baseline should beat, or that was still getting better."""
    if fitted.interrupted:
        return None
    findings = []
    if found is not None:
        baseline = min((row["MASE"], name) for name, row in found.scores.items() if name != MODEL)
        if found["MASE"] >= baseline[0]:
            findings.append(f"the LSTM does not beat the {baseline[1]} forecast")
    last = fitted.best_step == settings.max_steps
    if last:
        findings.append("the best weights are those of the last step allowed")
    if not findings:
        return None
    more = f"--max-steps {2 * settings.max_steps}"
    todo = more if last else f"{more}, another --season or --context"
    return f"{', and '.join(findings)}: try {todo}, with a new --out"


def _stride(later: SeriesTable, earlier: SeriesTable, horizon: int) -> int:
    windows = sum(max(len(series) - horizon + 1, 1) for series in later)
    return int(np.ceil(windows / MOST_WINDOWS))


def _without_forecast(model: Forecaster, run: Run, found: Backtest | None) -> None:
    """Draw the last forecast whose truth is known, and say what the next one needs."""
    found = model.backtest(windows=1) if found is None else found
    save_figure(found.figure(), run.path("backtest.png"), run.path("backtest.svg"))
    columns = model.history.columns
    ahead = f"the next {model.plan.horizon} rows of {', '.join(columns.future)}"
    keys = "".join(f"{name}, " for name in (columns.id, columns.time) if name is not None)
    print(f"no forecast yet: it needs {ahead}, known in advance")
    print(f"{run.path('backtest.png')}, .svg: the last forecast of the score, and what happened")
    print(
        f"{run.folder}: the run. longshort predict {shlex.quote(str(run.folder))} --future FILE "
        f"(columns {keys}{', '.join(columns.future)})"
    )
