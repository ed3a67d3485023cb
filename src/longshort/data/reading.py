"""read: a file or a frame becomes series on a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .calendar import Step
from .series import Columns, SeriesTable


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
        past, future, static: covariates known up to now, known in advance, and constant in a series.
        categorical: those covariates whose cells are categories rather than numbers; each gets codes 0, 1,
            ... in sorted order, which `SeriesTable.columns` remembers.
        step: the distance between rows, such as "hour" or "30 minutes"; inferred from the times if None.
        time_format: strptime format of times that could be read in two ways, such as "%d-%m-%y".
        encoding: of a CSV file.
        trim: each series begins with its first observed value and ends with its last, and rows of known
            covariates that follow are kept as its future; False keeps every row as a step of the target,
            and allows a series without any value.
        like: the `columns` of a table read before: the same roles and the same codes, so that a model meets
            the columns it was trained on. A target column may then be absent: it is read as missing.

    Returns:
        The series, each on its own regular grid: a time without a row is a row of NaN, and nothing is
        filled in. `notes` says what was done: sorted rows, gaps, the order of day and month.

    Raises:
        DataError: the source breaks its contract; the message names the file, and the line (counted from
            1, the header included), column or value.
        SettingError: an argument is out of range, or two of them contradict each other.
        MissingExtra: polars or narwhals is not installed.

    Memory: about 8 bytes a cell besides the file itself.
    """
    raise NotImplementedError
