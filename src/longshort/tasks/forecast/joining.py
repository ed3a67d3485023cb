"""Rows that follow earlier rows: one table of both, on one grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...data import Series, SeriesTable
from ...errors import DataError


def joined(earlier: SeriesTable, later: SeriesTable, *, follow: bool = False) -> SeriesTable:
    """Every series of `later`, preceded by its rows in `earlier`.

    Where both have a cell, the later one counts. Where times are mere row numbers, because the tables have
    no column of times, `later` follows directly, unless it begins with all the values known before. A gap
    between the two is rows of missing values.

    Args:
        earlier: what is known, such as a model's history.
        later: new rows; a series that `earlier` does not have is taken as it is.
        follow: whether rows without times follow whatever they begin with.

    Returns:
        The series of `later` alone, in its order.

    Raises:
        DataError: the steps differ, or a series begins before its earlier rows do.
    """
    if earlier.step != later.step:
        raise DataError(
            f"the new rows are {later.step} apart, and the model's {earlier.step}. "
            f"Give rows of the same step."
        )
    known = {series.name: series for series in earlier}
    both = [_join(known[s.name], s, earlier, later, follow) if s.name in known else s for s in later]
    return replace(later, series=tuple(both))


def _join(first: Series, second: Series, earlier: SeriesTable, later: SeriesTable, follow: bool) -> Series:
    begins_alike = np.array_equal(second.target[: len(first)], first.target, equal_nan=True)
    start = 0 if begins_alike and not follow else len(first)
    if later.columns.time is not None:
        index, on_grid = later.step.places(first.time[0], second.time[:1])
        start = int(index[0])
        if not on_grid[0] or start < 0:
            at, begin = later.step.text(second.time[0]), later.step.text(first.time[0])
            why = "is not on the model's grid of times" if start >= 0 else "lies before the first known row"
            raise DataError(
                f"series {second.name!r}: its first new row, {at}, {why}, which begins at {begin} with a "
                f"step of {later.step}. Give rows that continue the series."
            )
    length = max(start + len(second), 0)
    future = max(start + len(second.future), len(first.future))
    return Series(
        first.name,
        earlier.step.grid(first.time[0], length),
        _over(first.target, second.target, start, length),
        _over(first.past, second.past, start, length),
        _over(first.future, second.future, start, max(future, length)),
        np.where(np.isnan(second.static), first.static, second.static),
    )


def _over(first: Any, second: Any, start: int, length: int) -> Any:
    """(length, ...) `first`, then NaN, with `second` laid over it from row `start` on."""
    rows = np.full((length, *first.shape[1:]), np.nan)
    some = min(len(first), length)
    rows[:some] = first[:some]
    there = rows[start : start + len(second)]
    rows[start : start + len(second)] = np.where(np.isnan(second[: len(there)]), there, second[: len(there)])
    return rows


def tail(table: SeriesTable, rows: int) -> SeriesTable:
    """The last `rows` rows of every series, and all known covariates after them."""
    from ...data.series import part

    return replace(table, series=tuple(part(s, max(len(s) - rows, 0), len(s)) for s in table))


def require_later(read: SeriesTable, rows: SeriesTable) -> None:
    """Refuse rows that do not follow those that were read.

    Raises:
        DataError: a series begins before the end of its earlier rows.
    """
    if rows.columns.time is None:
        return
    for series, new in zip(read, rows, strict=True):
        if new.time[0] <= series.time[-1]:
            raise DataError(
                f"update: series {series.name!r} has been read up to {read.step.text(series.time[-1])}, and "
                f"its new rows begin at {read.step.text(new.time[0])}. "
                f"Give rows that follow, or use `restart`."
            )


def require_known(table: SeriesTable, horizon: int) -> None:
    """Refuse a forecast whose covariates known in advance are not all there.

    Raises:
        DataError: some are missing; the message lists them.
    """
    missing = table.missing_future(horizon)
    if missing:
        shown = [f"{m.series} {table.step.text(m.time)} {m.column}" for m in missing[:10]]
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise DataError(
            f"predict: {len(missing)} values of covariates known in advance are missing "
            f"(series, time, column):\n  " + "\n  ".join(shown) + more + "\n  Give them with `future` "
            "(--future FILE), or as rows of the table with an empty target."
        )
