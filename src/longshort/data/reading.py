"""read: a file or a frame becomes series on a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from . import cells, regular, stamps
from .calendar import Step, Times
from .roles import among, exist, present, settle, several
from .series import Columns, Series, SeriesTable
from .table import Table, open_table

_LARGEST = 20_000_000
"""Rows of one regular grid; times that need more are taken for a mistake rather than for memory."""


def read(
    source: str | Path | Any,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    id: str | None = None,
    past: Sequence[str] = (),
    future: Sequence[str] = (),
    static: Sequence[str] = (),
    categorical: Sequence[str] = (),
    step: str | int | Step | None = None,
    time_format: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    trim: bool = True,
    like: Columns | None = None,
) -> SeriesTable:
    """Read series from CSV, Parquet, or a pandas or polars frame.

    A table is long where it has a column of series names (`id`, or one called unique_id), and wide
    otherwise: then every target column is one series.

    Args:
        source: the path of a CSV file (`.csv`, `.tsv`, `.txt`, also gzipped) or Parquet file, or a frame.
        target: the column or columns to forecast; by default `y` in a long table, and in a wide one every
            column of numbers that has no other role.
        time: the column of times; by default the one column that holds dates, or else one of whole numbers
            called ds, time, t, step, index, year; without any, rows are counted from 0.
        id: the column that names the series of a long table.
        past: covariates known up to now.
        future: covariates known in advance.
        static: covariates that do not change within a series.
        categorical: those covariates whose cells are categories rather than numbers; each gets codes 0, 1,
            ... in sorted order, which `SeriesTable.columns` remembers.
        step: the distance between rows, such as "hour" or "30 minutes"; inferred from the times if None.
        time_format: strptime format of times that could be read in two ways, such as "%d-%m-%y".
        decimal: "." or ",", which separates the decimals of numbers; by default a comma where every number of
            a column has one or none, one of them cannot be a thousand's, and no column has a decimal point.
        encoding: of a CSV file.
        trim: each series begins with its first observed value and ends with its last, and rows of known
            covariates that follow are kept as its future; False keeps every row as a step of the target,
            and allows a series without any value.
        like: the `columns` of a table read before: the same roles and the same codes, so that a model meets
            the columns it was trained on. All of them must be there, but of several targets one is enough: a
            series without a column or a value is left out, and noted. `read_ahead` needs no target.

    Returns:
        The series, each on its own regular grid: a time without a row is a row of NaN, and nothing is
        filled in. `notes` says what was done: sorted rows, gaps, the order of day and month.

    Raises:
        DataError: the source breaks its contract; the message names the file, and the line (counted from
            1, the header included), column or value.
        SettingError: an argument is out of range, or two of them contradict each other.
        MissingExtra: polars or narwhals is not installed.

    Memory: the file, its cells once more as text where it is CSV, and 8 bytes a cell that has a role.

    >>> import polars
    >>> table = read(polars.DataFrame({"ds": ["2024-01", "2024-02", "2024-04"], "load": [3.0, 4.0, 5.0]}))
    >>> str(table.step), table["load"].target, table.notes
    ('1 month', array([ 3.,  4., nan,  5.]), ('1 time without a row is masked',))
    """
    roles = (target, time, id, past, future, static, categorical, time_format, decimal)
    if like is not None and any(roles):
        raise SettingError("read: `like` gives every role already; leave target, time, id, past, ... out.")
    table = open_table(source, encoding)
    if like is None:
        table, notes = cells.with_decimal(table, decimal)
        asked = Columns(
            several(target),
            time,
            id,
            several(past),
            several(future),
            several(static),
            dict.fromkeys(several(categorical), ()),
            time_format,
            decimal="," if table.decimal == "," else None,
        )
        columns, found = settle(table, asked)
        notes += found
    else:
        table = replace(table, decimal=like.decimal or ".")
        columns, notes = present(table, like)
    read = _Reading(table, columns, notes, like is not None).run(step, trim)
    return read if like is None else replace(read, columns=like)


def read_ahead(
    source: str | Path | Any, *, like: Columns, step: Step, encoding: str = "utf-8"
) -> SeriesTable:
    """Read rows of covariates that are known in advance, without any target.

    Args:
        source: as in `read`; must have the id, the times and the known-future columns, and may have others.
        like: the columns of the table that the rows continue.
        step: its step.
        encoding: of a CSV file.

    Returns:
        Series whose targets are all missing, for `SeriesTable.with_ahead`.

    Raises:
        DataError, SettingError, MissingExtra: as in `read`.
    """
    table = replace(open_table(source, encoding), decimal=like.decimal or ".")
    columns = replace(like, past=(), static=(), categories=among(like.categories, like.future))
    exist(table, replace(columns, target=()))
    found = _Reading(table, columns, [], True, targets=False).run(step, trim=False)
    return replace(found, columns=like)


@dataclass
class _Group:
    """The rows of one series in the order of time, and where they stand on its grid."""

    name: str
    rows: np.ndarray
    times: Times
    index: np.ndarray


class _Reading:
    """One table on its way to series: groups of rows, a step, a grid for each."""

    def __init__(
        self, table: Table, columns: Columns, notes: list[str], fixed: bool, targets: bool = True
    ) -> None:
        self.table, self.columns, self.notes, self.fixed, self.targets = table, columns, notes, fixed, targets

    def run(self, step: str | int | Step | None, trim: bool) -> SeriesTable:
        groups = self.groups()
        chosen = self.step(groups, None if step is None else Step.parse(step))
        values = self.values()
        series = [one for group in groups for one in self.series(group, chosen, values, trim)]
        if not series:
            raise DataError(
                f"{self.table.origin}: a series must have at least one value, and every cell of "
                f"{', '.join(map(repr, self.columns.target))} is missing. Give a file with values."
            )
        masked = sum(int(group.index[-1]) + 1 - len(group.rows) for group in groups)
        if masked:
            many = "time without a row is" if masked == 1 else "times without a row are"
            self.notes.append(f"{masked} {many} masked")
        return SeriesTable(tuple(series), chosen, self.columns, tuple(self.notes))

    def groups(self) -> list[_Group]:
        """The rows of each series, sorted by time, none twice."""
        count = self.table.frame.height
        name, id = self.columns.time, self.columns.id
        parts = {"": np.arange(count)} if id is None else self.parts(id)
        if name is None:
            times: Times = np.zeros(count, np.int64)
            for rows in parts.values():
                times[rows] = np.arange(len(rows))
        else:
            writing = stamps.Writing(self.columns.time_format, self.columns.clock, later=self.fixed)
            read = stamps.read_times(self.table, name, writing)
            times = read.times
            if read.note:
                self.notes.append(read.note)
            if not self.fixed:
                self.columns = replace(self.columns, time_format=read.format, clock=read.clock)
        groups: list[_Group] = []
        moved: list[int] = []
        for key, rows in parts.items():
            order = np.argsort(times[rows], kind="stable")
            back = np.flatnonzero(np.diff(times[rows]).astype(np.int64) < 0)
            moved.extend(int(row) for row in rows[back[:1] + 1])
            groups.append(_Group(key, rows[order], times[rows][order], order))
            self.unique(groups[-1])
        if moved:
            self.notes.append(
                f"sorted by {name!r}: {self.table.row(int(min(moved)))} is earlier than the row before it"
            )
        return groups

    def parts(self, id: str) -> dict[str, np.ndarray]:
        names = cells.text(self.table, id)
        missing = names.is_null().arg_true()
        if len(missing):
            raise DataError(
                f"{self.table.at(int(missing[0]))}: column {id!r} (id) must name a series in every row, "
                f"and this cell is empty."
            )
        keys, first, inverse = np.unique(names.to_numpy(), return_index=True, return_inverse=True)
        rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        return {str(keys[k]): rows[k] for k in np.argsort(first)}

    def unique(self, group: _Group) -> None:
        twice = np.flatnonzero(np.diff(group.times).astype(np.int64) == 0)
        if len(twice):
            first, second = (int(row) for row in group.rows[twice[0] : twice[0] + 2])
            where = f" of series {group.name!r}" if self.columns.id is not None else ""
            hint = (
                ""
                if self.columns.id is not None
                else ", or name the column that tells series apart with `id`"
            )
            time = group.times[twice[0]]
            if time.dtype.kind == "M" and time != time.astype("datetime64[D]"):
                hint += "; if clocks were set back then, write times with their offset, such as 02:00+01:00"
            raise DataError(
                f"{self.table.at(second)}: a time{where} must occur once, and "
                f"{_shown(time)} stands in {self.table.row(first)} already "
                f"({len(twice)} such in all). Take one row out{hint}."
            )

    def step(self, groups: list[_Group], given: Step | None) -> Step:
        """The step given or found, which every row must keep."""
        times = [group.times for group in groups]
        calendar = times[0].dtype.kind == "M"
        if given is not None and given.calendar != calendar:
            kind = "dates, so a step of the calendar" if calendar else "whole numbers, so a whole number"
            raise SettingError(f"read: the times are {kind} is needed as `step`, got {str(given)!r}.")
        if given is not None and given.unit in ("month", "quarter", "year") and regular.at_month_end(times):
            given = Step(given.count, given.unit, end=True)
        step = given or regular.infer(times)
        if step is None and calendar:
            raise DataError(
                f"{self.table.origin}: a series must have two rows to tell the step from, and each has one. "
                f"Give `step`, such as 'hour'."
            )
        step = step or Step()
        for group in groups:
            self.regular(group, step, given is None, times)
        return step

    def regular(self, group: _Group, step: Step, found: bool, times: list[Times]) -> None:
        group.index, on_grid = step.places(group.times[0], group.times)
        if not on_grid.all():
            place = int(np.flatnonzero(~on_grid)[0])
            why = f"the most common distance between rows, is {step}" if found else f"as given, is {step}"
            raise DataError(
                f"{self.table.at(int(group.rows[place]))}: the rows must stand whole steps apart, and the "
                f"step, {why}; {_shown(group.times[place])} does not stand a whole number of steps after "
                f"{_shown(group.times[0])} ({self.table.row(int(group.rows[0]))}). Correct the time, or "
                f"read on a finer grid, where times without a row are masked: "
                f"`step` {str(regular.finer(step, times))!r}."
            )
        if group.index[-1] >= _LARGEST:
            raise DataError(
                f"{self.table.origin}: {_shown(group.times[0])} to {_shown(group.times[-1])} is "
                f"{group.index[-1] + 1} steps of {step}, and a series may have {_LARGEST}. Look for a wrong "
                f"time, or pass a longer `step`."
            )

    def values(self) -> dict[str, np.ndarray]:
        """Every column that has a role, as numbers or codes."""
        found, codes = {}, {}
        roles = {n: role for role in ("past", "future", "static") for n in getattr(self.columns, role)}
        for name, role in roles.items():
            if name in self.columns.categories:
                known = self.columns.categories[name] if self.fixed else None
                found[name], codes[name] = cells.codes(self.table, name, role, known)
            else:
                found[name] = cells.numbers(self.table, name, role)
        for name in self.columns.target:
            missing = np.full(self.table.frame.height, np.nan)
            found[name] = cells.numbers(self.table, name, "target") if self.targets else missing
        if not self.fixed:
            self.columns = replace(self.columns, categories={n: codes[n] for n in self.columns.categories})
        return found

    def series(self, group: _Group, step: Step, values: dict[str, np.ndarray], trim: bool) -> list[Series]:
        """One series for each target of a group of rows."""
        length = int(group.index[-1]) + 1

        def grid(names: Sequence[str]) -> np.ndarray:
            array = np.full((length, len(names)), np.nan)
            for k, name in enumerate(names):
                array[group.index, k] = values[name][group.rows]
            return array

        target, past, future = (
            grid(names) for names in (self.columns.target, self.columns.past, self.columns.future)
        )
        static = np.array([self.constant(group, name, values[name]) for name in self.columns.static])
        found = []
        for k, column in enumerate(self.columns.target):
            name = column if self.columns.id is None else group.name
            if self.columns.id is not None and len(self.columns.target) > 1:
                name = f"{group.name} {column}"
            if trim and self.fixed and np.isnan(target[:, k]).all():
                self.notes.append(f"series {name!r} is left out: it has no value")
                continue
            start, stop = self.ends(name, target[:, k], group) if trim else (0, length)
            time = step.add(group.times[0], np.arange(start, stop))
            found.append(
                Series(
                    name,
                    time,
                    target[start:stop, k].copy(),
                    past[start:stop].copy(),
                    future[start:].copy(),
                    static,
                )
            )
        return found

    def ends(self, name: str, target: np.ndarray, group: _Group) -> tuple[int, int]:
        known = np.flatnonzero(~np.isnan(target))
        if len(known) == 0:
            where = f"{self.table.row(int(group.rows.min()))} to {self.table.row(int(group.rows.max()))}"
            raise DataError(
                f"{self.table.origin}: series {name!r} must have at least one value, and every cell from "
                f"{where} is missing. Leave the series out, or name another `target`."
            )
        return int(known[0]), int(known[-1]) + 1

    def constant(self, group: _Group, name: str, values: np.ndarray) -> float:
        own = values[group.rows]
        known = np.flatnonzero(~np.isnan(own))
        if len(known) == 0:
            return float("nan")
        other = np.flatnonzero(own[known] != own[known[0]])
        if len(other):
            first, second = int(group.rows[known[0]]), int(group.rows[known[other[0]]])
            was, now = (self.table.frame[name][row] for row in (first, second))
            raise DataError(
                f"{self.table.at(second)}: column {name!r} (static) must not change within a series, and "
                f"it is {now!r} here and {was!r} in {self.table.row(first)}. Name it as `past` or `future` "
                f"instead."
            )
        return float(own[known[0]])


def _shown(time: Any) -> str:
    return str(time).replace("T", " ").removesuffix(".000000")
