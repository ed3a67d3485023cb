"""What a forecaster derives from its data, by stated rules, before it is built.

Only the part of each series before its validation part is looked at for the transform and for the means of
the covariates, so that a validation score owes nothing to what it is scored on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Columns, Series, SeriesTable, Step
from ...errors import DataError
from ...scores import season_of
from .settings import ForecastSettings

Array = np.ndarray[Any, np.dtype[np.float64]]

SHORTEST_CONTEXT = 24
"""Steps that a derived context has at least."""


@dataclass(frozen=True)
class Plan:
    """All that it takes, besides the weights, to read a table and to answer.

    Args:
        horizon: steps of a forecast.
        seasons: the season, and a second one where calendar or data have it (days and weeks).
        context: steps read before a forecast.
        transform: "none", "sqrt" or "log".
        step: distance between rows, as text.
        columns: the table's columns, as `Columns.to_json` gives them.
        numeric: for "past", "future" and "static": (column, mean, deviation) of each covariate of numbers.
        coded: for the same: (column, number of categories) of each categorical one.
        calendar: the calendar's cycles, as `calendar_cycles` names them.
    """

    horizon: int
    seasons: tuple[int, ...]
    context: int
    transform: str
    step: str
    columns: dict[str, Any]
    numeric: dict[str, tuple[tuple[str, float, float], ...]]
    coded: dict[str, tuple[tuple[str, int], ...]]
    calendar: tuple[str, ...]

    @property
    def season(self) -> int:
        """Steps in one season: the one that baselines and MASE use."""
        return self.seasons[0]

    @property
    def lookback(self) -> int:
        """Steps before the context that lags reach back to: two of the longest season."""
        return 2 * max(self.seasons)

    @property
    def memory(self) -> int:
        """Steps of a series that a forecast may depend on."""
        return self.context + self.lookback

    def __str__(self) -> str:
        columns = columns_of(self)
        roles = {role: getattr(columns, role) for role in ("target", "past", "future", "static")}
        lines = {
            "horizon": f"{self.horizon} steps of {self.step}",
            "season": ", ".join(map(str, self.seasons)),
            "context": f"{self.context} steps",
            "transform": self.transform,
            "calendar": ", ".join(self.calendar),
        } | {role: ", ".join(names) for role, names in roles.items()}
        return "\n".join(f"{name:<9}  {text}" for name, text in lines.items() if text)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` gives back an equal plan."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        kept = dict(saved) | {"seasons": tuple(saved["seasons"]), "calendar": tuple(saved["calendar"])}
        for name in ("numeric", "coded"):
            kept[name] = {role: tuple(map(tuple, rows)) for role, rows in saved[name].items()}
        return cls(**kept)


def make_plan(table: SeriesTable, settings: ForecastSettings) -> Plan:
    """Derive a plan from a table.

    The season is the given one, or what time stamps and data say; `_second` may add another. The context is
    the longest season, at least 24 steps. The transform makes the spread within a season independent of
    its level.

    Args:
        table: at least one series.
        settings: what the user has fixed; None stands for "derive".

    Raises:
        DataError: a series is all missing, or shorter than context + horizon; the message names it and says
            how long it must be.
    """
    for series in table:
        if np.isnan(series.target).all():
            raise DataError(
                f"series {series.name!r}: all {len(series)} values are missing. "
                f"Leave it out, or give a target column that has values."
            )
    transform, seasons, context = _derived(table, settings)
    _allowed(table, transform)
    _long_enough(table, context, settings.horizon)
    numeric, coded = _covariates(table, settings)
    return Plan(
        horizon=settings.horizon,
        seasons=seasons,
        context=context,
        transform=transform,
        step=str(table.step),
        columns=table.columns.to_json(),
        numeric=numeric,
        coded=coded,
        calendar=calendar_cycles(table.step),
    )


def rows_needed(table: SeriesTable, settings: ForecastSettings) -> int:
    """Rows that each series of a table must have at least, to be fitted."""
    return _rows_needed(_derived(table, settings)[2], settings.horizon)


def cut(length: int, settings: ForecastSettings) -> int:
    """The row at which the validation part of a series of `length` rows begins."""
    return max(length - max(settings.horizon, int(settings.validation * length)), 0)


REACH = {"log": " above 0", "sqrt": " of at least 0"}
"""The values that a transform can take, where not all."""


def transformed(values: Array, transform: str) -> Array:
    """Values on the model's scale; NaN where missing, or where the scale does not reach."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if transform == "log":
            return np.where(values > 0, np.log(np.where(values > 0, values, 1)), np.nan)
        if transform == "sqrt":
            return np.where(values >= 0, np.sqrt(np.abs(values)), np.nan)
    return np.asarray(values, float)


def restored(values: Array, transform: str) -> Array:
    """Values on the series' own scale again: the inverse of `transformed`, monotone everywhere."""
    if transform == "log":
        return np.exp(np.minimum(values, 700.0))
    if transform == "sqrt":
        return np.maximum(values, 0.0) ** 2
    return np.asarray(values, float)


def calendar_cycles(step: Step) -> tuple[str, ...]:
    """The cycles of the calendar that a step of this length can tell apart."""
    if not step.calendar:
        return ()
    fixed = {"microsecond": 0, "second": 0, "minute": 0, "hour": 1, "day": 2, "business day": 2, "week": 3}
    first = fixed.get(step.unit, 3)
    cycles = ("hour", "day", "week", "year")
    return cycles[first:] if step.unit != "year" else ()


def calendar_channels(times: Any, cycles: Sequence[str]) -> Array:
    """(..., 2 x cycles) sine and cosine of where each time stands in each cycle of the calendar."""
    channels: list[Array] = []
    if cycles:
        stamps = np.asarray(times, "datetime64[us]")
        seconds = stamps.astype(np.int64) / 1e6
        months = stamps.astype("datetime64[M]")
        days = (stamps - months.astype("datetime64[us]")).astype(np.int64) / 86_400e6
        share = {
            "hour": seconds / 3600,
            "day": seconds / 86_400,
            "week": seconds / 604_800,
            "year": (months.astype(np.int64) % 12 + days / 31) / 12,
        }
        for cycle in cycles:
            angle = 2 * np.pi * (share[cycle] % 1)
            channels += [np.sin(angle), np.cos(angle)]
    shape = np.shape(times)
    return np.stack(channels, -1) if channels else np.zeros((*shape, 0))


def _derived(table: SeriesTable, settings: ForecastSettings) -> tuple[str, tuple[int, ...], int]:
    """Transform, seasons and context, given or derived."""
    early = [series.target[: cut(len(series), settings)] for series in table]
    season = settings.season or season_of([series.target for series in table], table.step)
    transform = _transform(early, season) if settings.transform == "auto" else settings.transform
    values = [transformed(series.target, transform) for series in table]
    second = _second(values, season, table.step) if season > 1 else None
    seasons = (season,) if second is None else (season, second)
    return transform, seasons, settings.context or max(*seasons, SHORTEST_CONTEXT)


def _transform(series: Sequence[Array], season: int) -> str:
    """Guerrero's rule: how the spread within a season, about a line, grows with the season's level.

    The slope of log spread over log level is about 0 for "none", 1/2 for "sqrt" and 1 for "log"; the median
    over the series that have at least four seasons whose levels differ by half decides.
    """
    slopes = [slope for values in series if (slope := _slope(values, max(season, 4))) is not None]
    known = np.concatenate([values[~np.isnan(values)] for values in series])
    if len(slopes) < 0.1 * len(series) or not len(slopes) or known.min() < 0:
        return "none"
    slope = float(np.median(slopes))
    if slope > 0.75 and known.min() > 0:
        return "log"
    return "sqrt" if slope > 0.25 else "none"


def _slope(values: Array, season: int) -> float | None:
    blocks = len(values) // season
    if blocks < 4:
        return None
    block = values[len(values) - blocks * season :].reshape(blocks, season)
    block = block[~np.isnan(block).any(1)]
    if len(block) < 4:
        return None
    line = np.linspace(-1, 1, season)
    level, trend = block.mean(1), block @ line / (line @ line)
    spread = (block - level[:, None] - trend[:, None] * line).std(1)
    if level.min() <= 0 or level.max() < 1.5 * level.min() or (spread > 0).sum() < 4:
        return None
    some = spread > 0
    return float(np.polyfit(np.log(level[some]), np.log(spread[some]), 1)[0])


def _second(values: Sequence[Array], season: int, step: Step) -> int | None:
    """A second season: the day within a week, or a multiple at which the season's own differences repeat.

    A cycle of the calendar that divides the season is one, if the steps of the series repeat with it. Else
    the candidates are the calendar's longer cycles (the week of an hourly series) or, without a calendar, 2
    to 12 seasons; of each, a series must hold four. Repeating means `_repeats` above 0; the largest decides.
    """
    shorter = [m for m in step.seasons if m < season and season % m == 0]
    if shorter and _repeats(values, 1, shorter[-1]) > 0:
        return shorter[-1]
    longer = [m for m in step.seasons if m > season and m % season == 0]
    lags = longer if step.calendar else list(range(2 * season, 13 * season, season))
    found = {lag: _repeats(values, season, lag) for lag in lags}
    best = max(found, key=lambda lag: found[lag], default=None)
    return best if best is not None and found[best] > 0 else None


def _repeats(values: Sequence[Array], apart: int, lag: int) -> float:
    """Median correlation of the differences over `apart` steps with themselves `lag` steps earlier.

    0 unless half of the series hold four times `lag` steps, and it is at least 0.1 and three standard errors.
    """
    changes = [series[apart:] - series[:-apart] for series in values if len(series) >= 4 * lag]
    correlations = np.array([_correlation(change[lag:], change[:-lag]) for change in changes])
    correlations = correlations[~np.isnan(correlations)]
    if len(correlations) == 0 or len(correlations) < 0.5 * len(values):
        return 0.0
    pairs = np.median([len(change) - lag for change in changes])
    middle = float(np.median(correlations))
    return middle if middle > max(0.1, 3 / np.sqrt(pairs)) else 0.0


def _correlation(a: Array, b: Array) -> float:
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 3:
        return float("nan")
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def _allowed(table: SeriesTable, transform: str) -> None:
    for series in table:
        lost = _lost(series.target, transform)
        if lost.any():
            row = int(lost.argmax())
            raise DataError(
                f"series {series.name!r}: `transform` {transform!r} needs values{REACH[transform]}, got "
                f"{series.target[row]:g} at {table.step.text(series.time[row])}. Use 'auto' or 'none'."
            )


def unread(table: SeriesTable, transform: str) -> list[str]:
    """What to tell a person of later values that the transform cannot take, a note for each series."""
    counts = {series.name: int(_lost(series.target, transform).sum()) for series in table}
    kind = "logarithms" if transform == "log" else "square roots"
    return [
        f"series {name!r}: {count} values that are not{REACH[transform]} count as missing, for the model is "
        f"of {kind}"
        for name, count in counts.items()
        if count
    ]


def _lost(values: Array, transform: str) -> Any:
    return np.isnan(transformed(values, transform)) & ~np.isnan(values)


def _long_enough(table: SeriesTable, context: int, horizon: int) -> None:
    need = _rows_needed(context, horizon)
    for series in table:
        if len(series) < need:
            parts = (
                f"context {context} + horizon {horizon}"
                if context > horizon
                else f"2 x horizon {horizon} + 1"
            )
            raise DataError(
                f"series {series.name!r} has {len(series)} rows, and must have at least {need} "
                f"({parts}). Give a smaller `horizon` or `context`, or leave the series out."
            )


def _rows_needed(context: int, horizon: int) -> int:
    return max(context, horizon + 1) + horizon


def _covariates(table: SeriesTable, settings: ForecastSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    columns = table.columns
    numeric: dict[str, Any] = {}
    coded: dict[str, Any] = {}
    for role in ("past", "future", "static"):
        numeric[role], coded[role] = (), ()
        for k, name in enumerate(getattr(columns, role)):
            if name in columns.categories:
                coded[role] += ((name, len(columns.categories[name])),)
                continue
            known = np.concatenate([_column(series, role, k, settings) for series in table])
            known = known[~np.isnan(known)]
            mean = float(known.mean()) if len(known) else 0.0
            deviation = float(known.std()) if len(known) else 1.0
            numeric[role] += ((name, mean, deviation if deviation > 0 else 1.0),)
    return numeric, coded


def _column(series: Series, role: str, k: int, settings: ForecastSettings) -> Array:
    if role == "static":
        return np.asarray([series.static[k]])
    return np.asarray(getattr(series, role)[: cut(len(series), settings), k])


def columns_of(plan: Plan) -> Columns:
    """The plan's columns as `longshort.data` knows them."""
    return Columns.from_json(plan.columns)
