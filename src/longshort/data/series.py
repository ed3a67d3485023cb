"""What a reader gives: series on a regular grid of time, with NaN wherever nothing was observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, SettingError, ShapeError, need
from .calendar import Step, Times

if TYPE_CHECKING:
    import polars

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Columns:
    """Which column of the table plays which role, and what the codes of the categories mean.

    Args:
        target: the columns forecast; in a wide table each is one series.
        time: the column of times, or None where rows are simply counted.
        id: the column that names the series of a long table, or None for a wide one.
        past: covariates known up to now (a measured temperature).
        future: covariates known in advance (a holiday, a planned price).
        static: covariates that never change within a series (a region).
        categories: for each categorical covariate, its categories in the order of their codes 0, 1, 2, ...
        time_format: strptime format of the times, where one was needed.
        clock: "local" or "UTC" where the times came with an offset from UTC, and were read as one of them.
        decimal: "," where numbers have a decimal comma.
    """

    target: tuple[str, ...]
    time: str | None = None
    id: str | None = None
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    time_format: str | None = None
    clock: str | None = None
    decimal: str | None = None

    @property
    def categorical(self) -> tuple[str, ...]:
        """The covariates that hold codes of categories."""
        return tuple(self.categories)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain lists and strings; `Columns.from_json` gives the same roles back."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def zoned(self, frame: polars.DataFrame, *names: str) -> polars.DataFrame:
        """The frame, whose columns of times say that they are in UTC where these are."""
        if self.clock != "UTC":
            return frame
        pl = need("polars", extra="tasks", to="make a table")
        times = pl.col(names).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return frame.with_columns(times)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Columns:
        """The roles that `to_json` wrote."""
        kept = dict(saved)
        for name in ("target", "past", "future", "static"):
            kept[name] = tuple(kept[name])
        kept["categories"] = {name: tuple(values) for name, values in kept["categories"].items()}
        return cls(**kept)


@dataclass(frozen=True, eq=False)
class Series:
    """One series on a regular grid. Arrays are read-only.

    Args:
        name: the id of a long table, the column of a wide one.
        time: (T,) datetime64[us] or int64, one step apart without a gap.
        target: (T,) float64; NaN where nothing was observed, never infinite.
        past: (T, P) float64 covariates known up to now; codes for categories; NaN where missing.
        future: (T + F, K) float64 covariates known in advance, for T rows and F >= 0 beyond the target.
        static: (S,) float64 covariates of the whole series.

    Raises:
        ShapeError: an array does not have these axes.
    """

    name: str
    time: Times
    target: Array
    past: Array
    future: Array
    static: Array

    def __post_init__(self) -> None:
        T = len(self.time)
        for what, array, wanted, right in (
            ("target", self.target, f"({T},)", self.target.shape == (T,)),
            ("past", self.past, f"({T}, P)", self.past.ndim == 2 and len(self.past) == T),
            ("future", self.future, f"(at least {T}, K)", self.future.ndim == 2 and len(self.future) >= T),
            ("static", self.static, "(S,)", self.static.ndim == 1),
        ):
            if not right:
                raise ShapeError(f"Series {self.name!r}: `{what}` must be {wanted}, got {array.shape}.")
        if self.future.shape[1] == 0:  # nothing is known of any row ahead
            object.__setattr__(self, "future", self.future[:T])
        for name in ("time", "target", "past", "future", "static"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        """T, the steps of the target."""
        return len(self.time)

    @property
    def ahead(self) -> int:
        """F, the steps beyond the target for which rows of the known covariates exist."""
        return len(self.future) - len(self.time)


@dataclass(frozen=True)
class Missing:
    """One cell of a known-future covariate that a forecast needs and the table lacks."""

    series: str
    time: Any
    column: str


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Series that share their columns and their step.

    Args:
        series: at least one, in the order of their first row.
        step: the distance between two rows, the same for all.
        columns: the roles, and the categories behind the codes.
        notes: what was done on reading that a person should know ("sorted by `ds`").
    """

    series: tuple[Series, ...]
    step: Step
    columns: Columns
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many series."""
        return len(self.series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every series, in order."""
        return tuple(series.name for series in self.series)

    def __getitem__(self, name: str) -> Series:
        """The series of that name.

        Raises:
            DataError: no series has it; the message names those that exist.
        """
        return self.select([name]).series[0]

    def select(self, names: Sequence[str]) -> SeriesTable:
        """The series of these names, in this order.

        Raises:
            DataError: a name is unknown; the message says which exist and which is nearest.
        """
        known = {series.name: series for series in self.series}
        for name in names:
            if name not in known:
                raise DataError(f"no series is named {name!r}; {nearest(name, self.names)}")
        return replace(self, series=tuple(known[name] for name in names))

    def split(self, *, last: int | float) -> tuple[SeriesTable, SeriesTable]:
        """Cut every series in time: all but the last rows, and the last rows.

        Args:
            last: rows of the second part, counted in steps of each series; or a share in (0, 1) of
                each series, rounded down to whole steps but at least one.

        Returns:
            earlier, later. Nothing of `later`'s target or past covariates is in `earlier`. The covariates
            known in advance are: `earlier` keeps their rows beyond its own end.

        Raises:
            SettingError: `last` is neither a count of at least 1 nor a share in (0, 1).
            DataError: a series would be left with no row in its earlier part.
        """
        share = isinstance(last, float)
        if not (0 < last < 1 if share else last >= 1):
            raise SettingError(f"split: `last` must be a count >= 1 or a share in (0, 1), got {last!r}.")
        before, after = [], []
        for series in self.series:
            T = len(series)
            count = max(int(T * last), 1) if share else int(last)
            if count >= T:
                raise DataError(
                    f"series {series.name!r} has {T} rows, and the later part alone takes {count}; "
                    f"it must have at least {count + 1}. Give a smaller `last`, or leave the series out."
                )
            before.append(part(series, 0, T - count))
            after.append(part(series, T - count, T))
        return replace(self, series=tuple(before)), replace(self, series=tuple(after))

    def missing_future(self, horizon: int) -> tuple[Missing, ...]:
        """The cells of covariates known in advance that forecasting `horizon` steps needs and lacks.

        Args:
            horizon: steps beyond the end of each target; at least 1.

        Returns:
            One entry a series, time and column, in that order; empty when nothing is missing.
        """
        return tuple(
            Missing(series.name, time, column)
            for series in self.series
            for row, time in enumerate(self.times_ahead(series, horizon), start=len(series))
            for k, column in enumerate(self.columns.future)
            if row >= len(series.future) or np.isnan(series.future[row, k])
        )

    def with_ahead(self, ahead: SeriesTable) -> SeriesTable:
        """Add rows of the known covariates that lie beyond the targets.

        Args:
            ahead: what `read_ahead` gave; a series that it lacks stays as it is, a cell that it has replaces
                the one here. In a table without times its first row follows the last one here.

        Returns:
            A table with the same targets.

        Raises:
            DataError: a row does not stand on the grid of its series.
        """
        known = {series.name: series for series in ahead.series}
        return replace(
            self, series=tuple(self._join(s, known[s.name]) if s.name in known else s for s in self.series)
        )

    def _join(self, series: Series, ahead: Series) -> Series:
        start, on_grid = np.array(len(series)), np.array(True)
        if self.columns.time is not None:
            start, on_grid = self.step.places(series.time[0], ahead.time[0])
        if not on_grid:
            raise DataError(
                f"series {series.name!r}: rows known in advance must stand whole steps of {self.step} after "
                f"{self.step.text(series.time[0])}, and the first is {self.step.text(ahead.time[0])}."
            )
        rows = ahead.future[max(-int(start), 0) :]
        first = max(int(start), 0)
        future = np.full((max(len(series.future), first + len(rows)), len(self.columns.future)), np.nan)
        future[: len(series.future)] = series.future
        given = ~np.isnan(rows)
        future[first : first + len(rows)][given] = rows[given]
        return replace(series, future=future)

    def times_ahead(self, series: Series, horizon: int) -> Times:
        """(horizon,) the times of the steps that follow the end of `series`."""
        return self.step.add(series.time[-1], np.arange(1, horizon + 1))

    def to_polars(self) -> polars.DataFrame:
        """A long table: unique_id, ds, y, then the covariates, with categories as text.

        Returns:
            One row a step of each series, NaN as null; reading it again with the same roles gives the
            same series. Rows beyond the end of a target have y null. Times in UTC say so.

        Raises:
            MissingExtra: polars is not installed.
        """
        pl: Any = need("polars", extra="tasks", to="make a table")
        frames = [self._frame(pl, series) for series in self.series]
        table: polars.DataFrame = pl.concat(frames)
        return self.columns.zoned(table, "ds")

    def _frame(self, pl: Any, series: Series) -> Any:
        rows = len(series.future) if self.columns.future else len(series)
        columns: dict[str, Any] = {
            "unique_id": [series.name] * rows,
            "ds": self.step.grid(series.time[0], rows),
            "y": _longer(series.target, rows),
        }
        columns |= {n: _longer(series.past[:, k], rows) for k, n in enumerate(self.columns.past)}
        columns |= {n: series.future[:rows, k] for k, n in enumerate(self.columns.future)}
        columns |= {n: np.full(rows, series.static[k]) for k, n in enumerate(self.columns.static)}
        frame = pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))
        for name, values in self.columns.categories.items():
            coded = frame[name].cast(pl.Int64)
            text = pl.Series(name, list(values), dtype=pl.String)
            frame = frame.with_columns(text.gather(coded) if len(values) else coded.cast(pl.String))
        return frame


def part(series: Series, start: int, stop: int) -> Series:
    """Rows `start` to `stop` of a series, `stop` excluded, as views of its arrays.

    Known-future covariates keep every row from `start` on: they are known in advance.
    """
    return Series(
        series.name,
        series.time[start:stop],
        series.target[start:stop],
        series.past[start:stop],
        series.future[start:],
        series.static,
    )


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: those that exist, and the one it resembles."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    shown = ", ".join(repr(k) for k in known[:20]) + (
        f" and {len(known) - 20} more" if len(known) > 20 else ""
    )
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"there are {shown}.{guess}" if known else "there is none."


def _longer(values: Array, rows: int) -> Array:
    return np.concatenate([values, np.full(rows - len(values), np.nan)])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: list(values) for name, values in value.items()}
    return list(value) if isinstance(value, tuple) else value
