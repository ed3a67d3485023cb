"""Which column plays which role, by name or by what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import DataError, SettingError
from . import cells, stamps
from .series import Columns, nearest
from .table import Table

COUNTS = ("", "index", "level_0", "unnamed: 0")
"""Names that pandas gives to its row numbers."""


def several(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names however they were given: none, one, or several."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def among(categories: dict[str, tuple[str, ...]], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The categories of these columns alone."""
    return {name: values for name, values in categories.items() if name in names}


def exist(table: Table, columns: Columns) -> None:
    """Refuse a role whose column the table lacks.

    Raises:
        DataError: the message says which columns exist and which one is nearest.
    """
    for role in ("target", "time", "id", "past", "future", "static"):
        for name in several(getattr(columns, role)):
            if name not in table.names:
                raise DataError(
                    f"{table.origin}: `{role}` names the column {name!r}, which does not exist; "
                    f"{nearest(name, table.names)}"
                )


def present(table: Table, like: Columns) -> tuple[Columns, list[str]]:
    """An earlier table's columns as far as this one has them, and what a person should know of it.

    Raises:
        DataError: a column is missing that is not one of several targets.
    """
    absent = [name for name in like.target if name not in table.names]
    if like.id is None and len(absent) < len(like.target):
        like = replace(like, target=tuple(name for name in like.target if name not in absent))
    else:
        absent = []
    exist(table, like)
    return like, [f"series {name!r} is left out: there is no such column" for name in absent]


def settle(table: Table, asked: Columns) -> tuple[Columns, list[str]]:
    """Find the roles that were not named.

    Returns:
        Columns with a target, and what a person should know of the choice.

    Raises:
        SettingError: two roles contradict each other.
        DataError: a named column is missing, or the target cannot be told.
    """
    covariates = (*asked.past, *asked.future, *asked.static)
    for name in asked.categories:
        if name not in covariates:
            raise SettingError(
                f"read: `categorical` names {name!r}, which must also stand in `past`, `future` or `static`."
            )
    exist(table, asked)
    names = [*asked.target, *several(asked.time), *several(asked.id), *covariates]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise SettingError(f"read: the column {name!r} must have one role, and it was given two.")
    id = asked.id if asked.id is not None else _id_column(table, names)
    taken = {*names, *several(id)}
    time = asked.time if asked.time is not None else stamps.time_column(table, taken)
    notes: list[str] = []
    target = asked.target or _targets(table, taken | set(several(time)), id, notes)
    if notes and time is None:
        notes.append("no column of times was found, so rows are counted; `time` names one")
    return replace(asked, target=target, time=time, id=id), notes


def _id_column(table: Table, taken: Sequence[str]) -> str | None:
    return next((n for n in table.names if n.strip().lower() == "unique_id" and n not in taken), None)


def _targets(table: Table, taken: set[str], id: str | None, notes: list[str]) -> tuple[str, ...]:
    free = [name for name in table.names if name not in taken]
    if id is not None and "y" in free:
        return ("y",)
    found = [name for name in free if cells.looks_numeric(table, name)]
    if not found:
        commas = next((name for name in free if cells.looks_numeric(replace(table, decimal=","), name)), None)
        how = (
            "Name it with `target`."
            if commas is None
            else f"Set `decimal` to ',' if {commas!r} has decimal commas, else write its numbers without."
        )
        raise DataError(
            f"{table.origin}: a column of numbers must be left for the target, and there is none; "
            f"{nearest('', table.names)} {how}"
        )
    counts = [name for name in found if name.strip().lower() in COUNTS and cells.number_rows(table, name)]
    if counts and len(counts) < len(found):
        found = [name for name in found if name not in counts]
        free = [name for name in free if name not in counts]
        notes.append(f"left out {', '.join(map(repr, counts))}: row numbers")
    if id is not None and len(found) > 1:
        raise DataError(
            f"{table.origin}: which column is the target? {', '.join(map(repr, found))} hold numbers. "
            f"Name one with `target`."
        )
    left = [name for name in free if name not in found]
    commas = next((name for name in left if cells.has_decimal_commas(table, name)), None)
    if commas is not None:
        raise DataError(
            f"{table.origin}: which column is the target? The numbers of {', '.join(map(repr, found))} have "
            f"a point or no decimals, those of {commas!r} a decimal comma. Name it with `target`, and set "
            f"`decimal` to ',' to read numbers with a comma."
        )
    if left:
        notes.append(f"left out {', '.join(map(repr, left))}: not a column of numbers")
    return tuple(found)
