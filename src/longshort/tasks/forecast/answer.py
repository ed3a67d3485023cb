"""A forecast: quantiles that become any level, the mean, a table, a file, a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data import SeriesTable, Step
from ...errors import SettingError, need
from ...runs import replacing
from .plan import Array, restored
from .settings import LEVELS

if TYPE_CHECKING:
    import polars

TABLES = ("", ".csv", ".txt", ".parquet")
"""How the name of a table may end."""
PICTURES = (".png", ".svg")
_GRID = (np.arange(199) + 0.5) / 199
"""Levels over which the mean is integrated."""


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Distributions as quantiles on the model's scale.

    Args:
        values: (..., Q) at `LEVELS`, rising, on the transformed scale.
        transform: "none", "sqrt" or "log".
    """

    values: Array
    transform: str

    def at(self, levels: Sequence[float] | Array) -> Array:
        """(..., levels) the quantiles of any levels in (0, 1), in the series' own units.

        Between the model's levels they lie on straight lines over the normal score of the level, and
        beyond the outer ones on the continuation of the last line: tails like the normal distribution's.
        """
        wanted = _scores(levels)
        have = _scores(LEVELS)
        place = np.clip(np.searchsorted(have, wanted) - 1, 0, len(have) - 2)
        share = (wanted - have[place]) / (have[place + 1] - have[place])
        low, high = self.values[..., place], self.values[..., place + 1]
        return restored(low + share * (high - low), self.transform)

    @property
    def median(self) -> Array:
        """(...) the point forecast."""
        return restored(self.values[..., LEVELS.index(0.5)], self.transform)

    @property
    def mean(self) -> Array:
        """(...) the mean, by integrating the quantiles over their level."""
        return np.asarray(self.at(_GRID).mean(-1))

    def interval(self, level: float) -> tuple[Array, Array]:
        """Low and high end, each (...), of the central interval of `level` percent."""
        both = self.at([0.5 - level / 200, 0.5 + level / 200])
        return both[..., 0], both[..., 1]


def _scores(levels: Any) -> Array:
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf(float(level)) for level in levels])


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a model expects of the next steps of some series.

    Args:
        names: S series.
        times: (S, horizon) the steps forecast.
        quantiles: of shape (S, horizon, Q).
        levels: the intervals' levels in percent, of tables and pictures.
        history: the series as they were known, for the picture.
    """

    names: tuple[str, ...]
    times: np.ndarray
    quantiles: Quantiles
    levels: tuple[float, ...]
    history: SeriesTable

    @property
    def median(self) -> Array:
        """(S, horizon) the point forecast, in the series' own units."""
        return self.quantiles.median

    @property
    def mean(self) -> Array:
        """(S, horizon) the mean."""
        return self.quantiles.mean

    def interval(self, level: float) -> tuple[Array, Array]:
        """Low and high end, each (S, horizon), of the central interval of `level` percent.

        Raises:
            SettingError: the level lies outside (0, 100).
        """
        checked_levels((level,))
        return self.quantiles.interval(level)

    def to_polars(self) -> polars.DataFrame:
        """A long table: unique_id, ds, mean, median, lo-95, lo-80, hi-80, hi-95 (the levels asked)."""
        pl = need("polars", extra="tasks", to="make a table")
        S, horizon = self.median.shape
        columns = {"unique_id": np.repeat(np.array(self.names, object), horizon)}
        table = pl.DataFrame(columns, schema={"unique_id": pl.String})
        rest = {"ds": stamps(self.times.reshape(-1), self.history.step)}
        rest |= {
            name: values.reshape(S * horizon) for name, values in columns_of(self.quantiles, self.levels)
        }
        full = table.with_columns(pl.Series(name, values) for name, values in rest.items())
        return self.history.columns.zoned(full, "ds")

    def write(self, path: str | Path) -> Path:
        """Write the table as CSV or, where the name ends in .parquet, as Parquet; whole or not at all."""
        return write_table(self.to_polars(), path)

    def figure(self, names: Sequence[str] | None = None, *, past: int | None = None) -> Any:
        """A picture of history, forecast and intervals.

        Args:
            names: the series to draw; the first three if None.
            past: steps of history; three horizons, at least 48, if None.

        Returns:
            A matplotlib Figure; `longshort.figures.save_figure` writes it as PNG or SVG.
        """
        from ...figures import Panel, forecast_figure

        chosen = [self.names.index(name) for name in (names or self.names[:3])]
        steps = past or max(3 * self.times.shape[1], 48)
        panels = []
        for s in chosen:
            series = self.history[self.names[s]]
            ends = {round(level): self._ends(level, s) for level in self.levels}
            panels.append(
                Panel(
                    title=self.names[s],
                    time=series.time[-steps:],
                    history=series.target[-steps:],
                    ahead=self.times[s],
                    point=self.median[s],
                    intervals=ends,
                )
            )
        return forecast_figure(panels, clock=self.history.columns.clock or "")

    def _ends(self, level: float, s: int) -> tuple[Array, Array]:
        low, high = self.interval(level)
        return low[s], high[s]

    def __repr__(self) -> str:
        return f"Forecast of {len(self.names)} series, {self.times.shape[1]} steps\n{self.to_polars()}"


def columns_of(quantiles: Quantiles, levels: Sequence[float]) -> list[tuple[str, Array]]:
    """Name and values (...) of each column of a table of forecasts, in order."""
    down = sorted(levels, reverse=True)
    ends = {level: quantiles.interval(level) for level in down}
    return [
        ("mean", quantiles.mean),
        ("median", quantiles.median),
        *((f"lo-{level:g}", ends[level][0]) for level in down),
        *((f"hi-{level:g}", ends[level][1]) for level in reversed(down)),
    ]


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels, or an error that names the one outside [1, 100): a share of 0.8 is none."""
    given: Any = levels
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SettingError(f"levels: must be a list of percentages, such as (80, 95), got {given!r}.")
    for level in given:
        if isinstance(level, str):
            raise SettingError(
                f"levels: a level is a number, the percentage an interval covers, got {level!r}."
            )
        if not 1 <= level < 100:
            share = f" Write {100 * level:g} for {level:.0%}." if 0.01 <= level < 1 else ""
            raise SettingError(
                f"levels: a level is the percentage an interval covers, in [1, 100), got {level!r}.{share}"
            )
    return tuple(dict.fromkeys(levels))


def stamps(times: np.ndarray, step: Step) -> np.ndarray:
    """Times as a table holds them: whole days as dates."""
    if step.calendar and np.array_equal(times, times.astype("datetime64[D]")):
        return times.astype("datetime64[D]")
    return times


def write_table(frame: Any, path: str | Path) -> Path:
    """Write a polars frame as CSV, or as Parquet where the name says so; whole or not at all.

    Raises:
        SettingError: the name ends in what is neither.
    """
    path = Path(path)
    ending = require_ending(path, TABLES)
    with replacing(path) as file:
        if ending == ".parquet":
            frame.write_parquet(file)
        else:
            file.write(csv(frame).encode())
    return path


def require_ending(path: str | Path, endings: Sequence[str]) -> str:
    """The ending of a file's name, in lower case.

    Raises:
        SettingError: it is none of these.
    """
    ending = Path(path).suffix.lower()
    if ending not in endings:
        raise SettingError(
            f"{path}: a table's name ends in .csv or .parquet, that of a forecast's picture in .png or .svg, "
            f"and that of scores in .json. Give one of these endings."
        )
    return ending


def csv(frame: Any) -> str:
    """A polars frame as CSV, its numbers to eight digits."""
    pl = need("polars", extra="tasks", to="make a table")
    return str(frame.with_columns(pl.selectors.float().round_sig_figs(8)).write_csv())
