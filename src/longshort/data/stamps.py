"""Cells of a column -> times, by rules that leave nothing to guess.

Year first is always understood: 2016-07-01 13:30:00, 2016-07-01T13:30Z, 2016/7/1, 2016-07, 2016Q3. Day,
month and year in another order are understood only where exactly one order fits every cell of the column.
Times with an offset from UTC become UTC, so that no hour is missing or doubled when clocks change; but where
all show the same time of day, as dates do, they stay what the local clock said, so that days stay days. Times
with an offset and times without one are not mixed, in a column or between an earlier table and a later one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, need
from .calendar import Times
from .cells import text
from .table import Table

if TYPE_CHECKING:
    import polars

NAMES = ("ds", "time", "t", "timestamp", "date", "datetime", "step", "index", "year", "")
"""Names that make a column of whole numbers a column of times."""

_CLOCK = r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6})\d*)?)?)?\s*(Z|[+-]\d{2}:?\d{2})?"
_YEAR_FIRST = rf"^(\d{{4}})[-/](\d{{1,2}})(?:[-/](\d{{1,2}}){_CLOCK})?$"
_INTEGER = r"^[+-]?\d{1,18}$"
_QUARTER = r"^(\d{4})[- ]?[Qq]([1-4])$"
_YEAR_LAST = rf"^(\d{{1,2}})[-/.](\d{{1,2}})[-/.](\d{{4}}|\d{{2}}){_CLOCK}$"
_ORDERS = {"day-month-year": (2, 1, 0), "month-day-year": (2, 0, 1), "year-month-day": (0, 1, 2)}
_FORMATS = {
    "day-month-year": "%d{0}%m{0}%{1}",
    "month-day-year": "%m{0}%d{0}%{1}",
    "year-month-day": "%y{0}%m{0}%d",
}


@dataclass(frozen=True)
class Stamps:
    """The times of every row: datetime64[us] or int64, and how they were understood."""

    times: Times
    note: str = ""
    format: str | None = None
    clock: str | None = None


@dataclass(frozen=True)
class Writing:
    """How the times of an earlier table were understood: its strptime format, and "local" or "UTC".

    `later` says that there was one: if it had no clock, its times came without an offset.
    """

    format: str | None = None
    clock: str | None = None
    later: bool = False


def read_times(table: Table, name: str, writing: Writing) -> Stamps:
    """The times of a column.

    Args:
        table: where the column is.
        name: the column.
        writing: what is known of it; by default the rules above.

    Raises:
        DataError: a cell is missing or no time, or the order of day and month cannot be told.
    """
    pl = need("polars", extra="tasks", to="read a table")
    column = table.frame[name]
    if column.dtype == pl.Datetime or column.dtype == pl.Date:
        _complete(table, name, column)
        if getattr(column.dtype, "time_zone", None) is None:
            local = _microseconds(column, pl)
            return _one_clock(table, name, local, _without_offset(local), writing)
        local = _microseconds(column.dt.replace_time_zone(None), pl)
        utc = _microseconds(column.dt.convert_time_zone("UTC").dt.replace_time_zone(None), pl)
        return _one_clock(table, name, local, local - utc, writing)
    if column.dtype != pl.String:
        return Stamps(_whole(table, name, pl))
    cells = text(table, name)
    _complete(table, name, cells)
    if writing.format is not None:
        local, ahead = _strptime(table, name, cells, writing.format)
        return replace(_one_clock(table, name, local, ahead, writing), format=writing.format)
    if cells.str.contains(_INTEGER).all():
        return Stamps(cells.cast(pl.Int64).to_numpy().astype(np.int64))
    if cells.str.contains(_YEAR_LAST)[0]:
        return _year_last(table, name, cells, writing, pl)
    quarters = cells.str.contains(_QUARTER)[0]
    local, ahead, valid = _quarter(cells, pl) if quarters else _year_first(cells, pl)
    _all_valid(table, name, cells, valid)
    return _one_clock(table, name, local, ahead, writing)


def time_column(table: Table, taken: set[str]) -> str | None:
    """The column of times of a table that does not name it, or None where rows are simply counted.

    Raises:
        DataError: several columns hold dates.
    """
    pl = need("polars", extra="tasks", to="read a table")
    free = [name for name in table.names if name not in taken]
    dates = [name for name in free if _holds_dates(table, name, pl)]
    if len(dates) > 1:
        raise DataError(
            f"{table.origin}: the times must stand in one column, and {', '.join(map(repr, dates))} all hold "
            f"dates. Name one with `time`."
        )
    named = [name for name in free if name.strip().lower() in NAMES and _holds_times(table, name, pl)]
    return next(iter([*dates, *named]), None)


def _holds_dates(table: Table, name: str, pl: Any) -> bool:
    column = table.frame[name]
    if column.dtype in (pl.Datetime, pl.Date):
        return True
    if column.dtype != pl.String:
        return False
    first = text(table, name).drop_nulls().head(1)
    return any(bool(first.str.contains(pattern).any()) for pattern in (_YEAR_FIRST, _QUARTER, _YEAR_LAST))


def _holds_times(table: Table, name: str, pl: Any) -> bool:
    """Whether a column with a name of time is one: whole numbers, or text that is no number."""
    column = table.frame[name]
    if column.dtype != pl.String:
        return bool(column.dtype.is_integer() and column.null_count() == 0)
    first = text(table, name).drop_nulls().head(1)
    return (
        len(first) > 0
        and (name.strip() != "" or bool(first.str.contains(_INTEGER).all()))
        and not bool(first.str.contains(r"^[+-]?\d*\.\d*$").any())
    )


def _complete(table: Table, name: str, column: polars.Series) -> None:
    missing = column.is_null().arg_true()
    if len(missing):
        raise DataError(
            f"{table.at(int(missing[0]))}: column {name!r} (time) must hold a time in every row, and this "
            f"cell is empty. Fill it in, or take the row out."
        )


def _all_valid(table: Table, name: str, cells: polars.Series, valid: np.ndarray) -> None:
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        raise DataError(
            f"{table.at(row)}: column {name!r} (time) must hold whole numbers or dates such as 2016-07-01 "
            f"13:30:00, all written alike, and this cell is {cells[row]!r}. For another way of writing set "
            f"`time_format` to its strptime form, such as '%d.%m.%Y %H:%M'."
        )


def _whole(table: Table, name: str, pl: Any) -> Times:
    column = table.frame[name]
    if not column.dtype.is_numeric():
        raise DataError(
            f"{table.origin}: column {name!r} (time) must hold dates or whole numbers, and it holds "
            f"{column.dtype}."
        )
    _complete(table, name, column)
    values = column.cast(pl.Float64).to_numpy()
    wrong = np.flatnonzero((values != np.floor(values)) | ~(np.abs(values) < 2**53))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{table.at(row)}: column {name!r} (time) must hold dates or whole numbers, and this cell is "
            f"{column[row]}."
        )
    return np.asarray(column.cast(pl.Int64).to_numpy(), np.int64)


def _strptime(table: Table, name: str, cells: polars.Series, format: str) -> tuple[Times, Times]:
    known: dict[str, tuple[datetime, timedelta | None]] = {}
    for row, cell in enumerate(cells):
        if cell in known:
            continue
        try:
            stamp = datetime.strptime(cell, format)
        except (ValueError, re.error) as error:
            raise DataError(
                f"{table.at(row)}: column {name!r} (time) must be written as `time_format`, {format!r}, "
                f"says, and this cell is {cell!r}: {error}."
            ) from None
        known[cell] = (stamp.replace(tzinfo=None), stamp.utcoffset())
    local, ahead = zip(*(known[cell] for cell in cells), strict=True)
    return np.array(local, "datetime64[us]"), np.array(ahead, "timedelta64[us]")


def _one_clock(table: Table, name: str, local: Times, ahead: Times, writing: Writing) -> Stamps:
    """Local times and how far they are ahead of UTC, NaT without an offset -> times of one clock.

    It is the earlier table's, if there was one.
    """
    bare = np.isnat(ahead)
    if bare.all() and writing.clock != "UTC":
        return Stamps(local, clock=writing.clock)
    _offsets_alike(table, name, bare, ahead, writing)
    clock = writing.clock or (
        "local" if len(np.unique(local - local.astype("datetime64[D]"))) == 1 else "UTC"
    )
    times = local if clock == "local" else local - ahead
    said = "in UTC" if clock == "UTC" else "by the local clock, without their offsets"
    return Stamps(times, f"{name!r} read {said}" if ahead.any() else "", clock=clock)


def _offsets_alike(table: Table, name: str, bare: np.ndarray, ahead: Times, writing: Writing) -> None:
    """Refuse times that only a guess could bring to one clock."""
    example = "such as 2016-07-01T13:30+02:00, or Z for UTC"
    if bare.any():
        why = "as those of the earlier table did" if writing.clock == "UTC" else "as others of the column do"
        row = int(bare.argmax())
        cell = str(table.frame[name][row])
        raise DataError(
            f"{table.at(row)}: column {name!r} (time) must have an offset from UTC, {why}, and this cell is "
            f"{cell!r}. Write it, {example}."
        )
    if writing.later and writing.clock is None and ahead.any():
        row = int((ahead != np.timedelta64(0)).argmax())
        raise DataError(
            f"{table.at(row)}: column {name!r} (time) must have no offset from UTC but Z, as those of the "
            f"earlier table, and this cell is {str(table.frame[name][row])!r}. Write that table's clock."
        )


def _without_offset(local: Times) -> Times:
    return np.full(len(local), np.timedelta64("NaT"), "timedelta64[us]")


def _microseconds(column: polars.Series, pl: Any) -> Times:
    return np.asarray(column.cast(pl.Datetime("us")).to_numpy().astype("datetime64[us]"))


def _fields(cells: polars.Series, pattern: str) -> list[polars.Series]:
    """The groups of a pattern as text, null where a group is absent."""
    groups = cells.str.extract_groups(pattern).struct
    return [groups.field(str(place)) for place in range(1, re.compile(pattern).groups + 1)]


def _numbers(fields: list[polars.Series], pl: Any) -> list[np.ndarray]:
    """Whole numbers, -1 where a group is absent."""
    return [field.cast(pl.Int64).fill_null(-1).to_numpy() for field in fields]


def _clock(fields: list[polars.Series], pl: Any) -> tuple[Times, Times, np.ndarray]:
    """The last five groups as time after midnight, as time ahead of UTC (NaT: not said), and which exist."""
    hour, minute, second = (np.maximum(part, 0) for part in _numbers(fields[:3], pl))
    since = ((hour * 60 + minute) * 60 + second) * 1_000_000
    ahead = _without_offset(since)
    exists = (hour < 24) & (minute < 60) & (second < 60)
    if fields[3].null_count() < len(fields[3]):
        since += fields[3].str.pad_end(6, "0").cast(pl.Int64).fill_null(0).to_numpy()
    if fields[4].null_count() < len(fields[4]):
        said = fields[4].is_not_null().to_numpy()
        zone = fields[4].str.replace("Z", "+0000").str.replace(":", "").fill_null("+0000")
        sign = np.where((zone.str.slice(0, 1) == "-").to_numpy(), -1, 1)
        hours, minutes = _numbers([zone.str.slice(1, 2), zone.str.slice(3, 2)], pl)
        offset = (sign * (hours * 60 + minutes) * 60_000_000).astype("timedelta64[us]")
        ahead = np.where(said, offset, ahead)
        exists &= (hours < 24) & (minutes < 60)
    return since.astype("timedelta64[us]"), ahead, exists


def _day(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[Times, np.ndarray]:
    """Midnight of a date, and which of the dates exist."""
    valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]")
    length = ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(int)
    midnight = first.astype("datetime64[D]") + (np.clip(day, 1, 31) - 1)
    return midnight.astype("datetime64[us]"), valid & (day <= length)


def _year_first(cells: polars.Series, pl: Any) -> tuple[Times, Times, np.ndarray]:
    fields = _fields(cells, _YEAR_FIRST)
    year, month, day = _numbers(fields[:3], pl)
    midnight, valid = _day(year, month, np.where(day == -1, 1, day))
    clock, ahead, runs = _clock(fields[3:], pl)
    return midnight + clock, ahead, valid & runs & ((day == -1) == (day[0] == -1))


def _quarter(cells: polars.Series, pl: Any) -> tuple[Times, Times, np.ndarray]:
    year, quarter = _numbers(_fields(cells, _QUARTER), pl)
    local, valid = _day(year, 3 * quarter - 2, np.ones_like(year))
    return local, _without_offset(local), valid


def _year_last(table: Table, name: str, cells: polars.Series, writing: Writing, pl: Any) -> Stamps:
    texts = _fields(cells, _YEAR_LAST)
    fields = _numbers(texts[:3], pl)
    _all_valid(table, name, cells, fields[0] >= 0)
    clock, ahead, runs = _clock(texts[3:], pl)
    short = bool((texts[2].str.len_chars() == 2).any())
    fits, exists = {}, {}
    for order, places in _ORDERS.items():
        if order == "year-month-day" and not short:
            continue
        year, month, day = (fields[place] for place in places)
        year = np.where(year < 69, year + 2000, np.where(year < 100, year + 1900, year))
        midnight, valid = _day(year, month, day)
        exists[order] = valid & runs
        if exists[order].all():
            fits[order] = midnight + clock
    if not fits:
        _all_valid(table, name, cells, max(exists.values(), key=lambda valid: valid.sum()))
    mark = next(c for c in cells[0] if c in "-/.")
    ways = {order: _FORMATS[order].format(mark, "y" if short else "Y") for order in fits}
    if len(fits) != 1:
        raise DataError(
            f"{table.origin}: column {name!r} (time), such as {cells[0]!r}, can be read as "
            f"{' or '.join(fits)}. Say which: set `time_format` to {' or '.join(map(repr, ways.values()))} "
            f"(strptime)."
        )
    ((order, local),) = fits.items()
    found = _one_clock(table, name, local, ahead, writing)
    note = f"{name!r} read as {order}, the one order that fits every row"
    note += f"; {found.note}" if found.note else ""
    return replace(found, note=note, format=_format(cells, ways[order]))


def _format(cells: polars.Series, date: str) -> str | None:
    """The strptime form of a whole column, to read a later one in the same way; None if it has several."""
    for clock, directives in (("", ""), (r" \d+:\d+", " %H:%M"), (r" \d+:\d+:\d+", " %H:%M:%S")):
        if cells.str.contains(rf"^[\d./-]+{clock}$").all():
            return date + directives
    return None
