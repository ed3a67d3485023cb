"""Cells of a column -> numbers, names or codes, or the first cell that is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, SettingError, need
from .table import Table

if TYPE_CHECKING:
    import polars

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""Text that means "not observed", in upper or lower case."""
_COMMA = r"^[+-]?\d*,\d+$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2},\d{3}$"
"""A number with one comma, and one whose comma may as well stand behind the thousands."""
_POINT = r"^[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?$"
_GROUPED = {True: r"^[+-]?\d{1,3}(\.\d{3})+,\d+$", False: r"^[+-]?\d{1,3}(,\d{3})+\.\d*$"}
"""A number that has both: whether its decimals stand behind the comma."""


def text(table: Table, name: str) -> polars.Series:
    """The cells of a column as text without space around it, null where missing.

    Raises:
        DataError: the column holds lists, structures or bytes.
    """
    pl = need("polars", extra="tasks", to="read a table")
    column = table.frame[name]
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"{table.origin}: column {name!r} must hold names or categories, and it holds {column.dtype}."
        )
    if column.dtype == pl.Boolean:
        column = pl.Series(name, [None if cell is None else str(cell) for cell in column], dtype=pl.String)
    elif column.dtype.is_float():
        cells = (None if c is None or c != c else str(int(c)) if c.is_integer() else repr(c) for c in column)
        column = pl.Series(name, list(cells), dtype=pl.String)
    elif column.dtype != pl.String:
        column = column.cast(pl.String)
    column = column.str.strip_chars()
    return column.set(column.str.to_lowercase().is_in(MISSING), None)


def numbers(table: Table, name: str, role: str) -> np.ndarray:
    """The cells of a column as float64, NaN where missing; true and false are 1 and 0.

    Raises:
        DataError: a cell is no number, or is infinite; the message names its line and its text.
    """
    pl = need("polars", extra="tasks", to="read a table")
    column = table.frame[name]
    if column.dtype == pl.String:
        cells = text(table, name)
        values = _parse(pl, cells, table.decimal)
        wrong = (values.is_null() & cells.is_not_null()).arg_true()
        if len(wrong):
            raise DataError(_no_number(table, name, role, int(wrong[0]), cells[int(wrong[0])]))
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        values = column.cast(pl.Float64)
    else:
        raise DataError(
            f"{table.origin}: column {name!r} ({role}) must hold numbers, and it holds {column.dtype}."
        )
    array = np.array(values.fill_null(float("nan")).to_numpy(), np.float64)
    infinite = np.flatnonzero(np.isinf(array))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"{table.at(row)}: column {name!r} ({role}) must hold finite numbers, and this cell is "
            f"{table.frame[name][row]}. Leave a cell empty where nothing was observed."
        )
    return array


def looks_numeric(table: Table, name: str) -> bool:
    """Whether a column is meant as numbers: at least half of what it holds, and something, is a number."""
    pl = need("polars", extra="tasks", to="read a table")
    column = table.frame[name]
    if column.dtype != pl.String:
        return bool(column.dtype.is_numeric() and column.null_count() < len(column))
    cells = text(table, name).drop_nulls()
    found = len(cells) - _parse(pl, cells, table.decimal).null_count()
    return 2 * found >= len(cells) > 0


def number_rows(table: Table, name: str) -> bool:
    """Whether a column numbers rows and no more: up or down, some perhaps left out, or begun anew.

    Raises:
        DataError: a cell is no number.
    """
    values = numbers(table, name, "target")
    steps = np.diff(values)
    whole = bool((values == np.floor(values)).all())
    return whole and bool(
        (steps > 0).all() or (steps < 0).all() or 2 * (np.abs(steps) == 1).sum() >= len(steps)
    )


def codes(
    table: Table, name: str, role: str, known: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The cells of a column as codes 0, 1, ... of its categories, NaN where missing.

    Args:
        table: where the column is.
        name: the column.
        role: what it is, for messages.
        known: the categories of a table read before; by default those found, in sorted order (by number
            where all are whole numbers).

    Returns:
        (n,) float64 codes, and the categories in the order of their codes.

    Raises:
        DataError: a category is not among the known ones; the message names its line.
    """
    cells = text(table, name)
    if known is None:
        found = cells.drop_nulls().unique().to_list()
        whole = all(cell.lstrip("-").isdecimal() for cell in found)
        known = sorted(found, key=(lambda cell: (int(cell), cell)) if whole else None)
    code: dict[str | None, float] = {category: float(k) for k, category in enumerate(known)}
    code[None] = float("nan")
    for row, cell in enumerate(cells):
        if cell not in code:
            shown = ", ".join(repr(k) for k in known[:20]) + (", ..." if len(known) > 20 else "")
            advice = "Give one of them" if role == "future" else "Leave the cell empty if none applies"
            raise DataError(
                f"{table.at(row)}: column {name!r} ({role}) must hold a category known since training, and "
                f"this cell is {cell!r}. The known ones are {shown}. {advice}, or train again."
            )
    return np.array([code[cell] for cell in cells], np.float64), tuple(known)


def with_decimal(table: Table, given: str | None) -> tuple[Table, list[str]]:
    """The table with what separates its decimals, given or found, and what a person should know of it.

    A comma is found where all cells of a column are numbers if commas are points, one of them cannot be a
    number whose thousands a comma sets apart, and no other cell looks like a number with a point, or like
    thousands. A number that has both, such as 1.234,5, says it of all.

    Raises:
        SettingError: `given` is neither a point nor a comma.
    """
    if given not in (None, ".", ","):
        raise SettingError(f"read: `decimal` must be '.' or ',', got {given!r}.")
    if given is not None or not _has_decimal_commas(table):
        return replace(table, decimal=given or "."), []
    return replace(table, decimal=","), ["numbers have a decimal comma"]


def has_decimal_commas(table: Table, name: str) -> bool:
    """Whether all cells of a column of text are numbers if commas are points, and one is no thousands."""
    pl = need("polars", extra="tasks", to="read a table")
    if table.frame[name].dtype != pl.String:
        return False
    cells = text(table, name).drop_nulls()
    commas = cells.filter(cells.str.contains(_COMMA))
    return not commas.str.contains(_THOUSANDS).all() and _parse(pl, cells, ",").null_count() == 0


def _has_decimal_commas(table: Table) -> bool:
    pl = need("polars", extra="tasks", to="read a table")
    columns = [text(table, name).drop_nulls() for name in table.names if table.frame[name].dtype == pl.String]
    for behind, grouped in _GROUPED.items():
        if any(column.str.contains(grouped).any() for column in columns):
            return behind
    sure = False
    for column in columns:
        has_comma = column.str.contains(_COMMA)
        if column.str.contains(_POINT).any():
            return False
        if has_comma.any() and _parse(pl, column, ",").null_count() == 0:
            if not column.filter(has_comma).str.contains(_THOUSANDS).all():
                sure = True
            elif (column.filter(~has_comma).cast(pl.Float64, strict=False).abs() < 1000).any():
                return False
    return sure


def _parse(pl: Any, cells: polars.Series, decimal: str) -> polars.Series:
    lowered = cells.str.to_lowercase()
    if lowered.is_in(["true", "false"]).sum() + lowered.null_count() == len(cells):
        return (lowered == "true").cast(pl.Float64)
    if decimal == ",":
        cells = cells.set(cells.str.contains(_POINT), None).str.replace(",", ".", literal=True)
    return cells.cast(pl.Float64, strict=False)


def _no_number(table: Table, name: str, role: str, row: int, cell: str) -> str:
    hint = ""
    if role == "target":
        hint = " Correct the cell, or leave it empty where nothing was observed."
    elif cell:
        hint = " To read the column as categories, name it in `categorical`."
    if cell.replace(",", "", 1).lstrip("+-").isdecimal() and "," in cell:
        hint = " If this is a decimal comma, set `decimal` to ','; else leave the comma out."
    elif table.decimal == "," and "." in cell:
        hint = " Its decimals stand behind a comma, as elsewhere in the table; leave the point out."
    return f"{table.at(row)}: column {name!r} ({role}) must hold numbers, and this cell is {cell!r}.{hint}"
