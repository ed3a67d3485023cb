"""A path or a frame -> one polars table whose every row can be found again."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, SettingError, need

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of cells, and where each row came from.

    Args:
        frame: the cells; all text for a CSV file, typed otherwise.
        origin: the file's name, or "the frame".
        lines: the line of each row, where the source has lines.
        decimal: what separates the decimals of a number that is written as text, "." or ",".
    """

    frame: polars.DataFrame
    origin: str
    lines: np.ndarray | None = None
    decimal: str = "."

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(self.frame.columns)

    def row(self, row: int) -> str:
        """A row as a person finds it: "line 12", or "row 10 (from 0)" where there are no lines."""
        return f"row {row} (from 0)" if self.lines is None else f"line {self.lines[row]}"

    def at(self, row: int) -> str:
        """The source and the row, as the beginning of a message."""
        return f"{self.origin}, {self.row(row)}"


def open_table(source: Any, encoding: str) -> Table:
    """Read any source into a table.

    Raises:
        DataError: there is no such file, it is a folder, or its content is neither CSV nor Parquet.
        SettingError: `source` is neither a path nor a frame.
        MissingExtra: polars, or for a frame narwhals, is not installed.
    """
    need("polars", extra="tasks", to="read a table")
    if isinstance(source, str | Path):
        return _open_file(Path(source), encoding)
    return _filled(Table(_from_frame(source), "the frame"))


def _open_file(path: Path, encoding: str) -> Table:
    from . import delimited

    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a folder; name the CSV or Parquet file in it.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the file cannot be read: {error}.") from None
    if raw.startswith(b"PAR1"):
        return _filled(Table(_from_parquet(raw, path), str(path)))
    if path.suffix.lower() in (".parquet", ".pq"):
        raise DataError(
            f"{path}: a Parquet file must begin with b'PAR1', and this one begins with {raw[:4]!r}. "
            f"If it is text, give it a name that ends in .csv."
        )
    return delimited.parse(raw, str(path), encoding)


def _from_parquet(raw: bytes, path: Path) -> polars.DataFrame:
    import io

    import polars as pl

    try:
        return pl.read_parquet(io.BytesIO(raw))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: the Parquet file is damaged or cut short: {reason}.") from None


def _from_frame(source: Any) -> polars.DataFrame:
    """A polars frame as it is; anything else that narwhals knows, column by column."""
    import polars as pl

    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, pl.DataFrame):
        return source
    nw: Any = need("narwhals", extra="tasks", to="read a frame")
    try:
        frame = nw.from_native(_plain_pandas(source, nw), eager_only=True)
    except nw.exceptions.DuplicateError:
        raise DataError("the frame: a column name must be given once, and one is given twice.") from None
    except TypeError:
        raise SettingError(
            f"read: `source` must be a path, or a pandas or polars frame, got {type(source).__name__}."
        ) from None
    return pl.DataFrame([_column(pl, nw, frame[name]) for name in frame.columns])


def _plain_pandas(source: Any, nw: Any) -> Any:
    """A pandas frame whose index is a column, periods are time stamps, and names are text."""
    if nw.dependencies.is_pandas_series(source):
        source = source.to_frame(source.name if source.name is not None else "y")
    if not nw.dependencies.is_pandas_dataframe(source):
        return source
    if type(source.index).__name__ != "RangeIndex":
        source = source.reset_index()
    source = source.set_axis([str(name) for name in source.columns], axis=1)
    periods = [n for n, kind in source.dtypes.items() if type(kind).__name__ == "PeriodDtype"]
    return source.assign(**{name: source[name].dt.to_timestamp() for name in periods})


def _column(pl: Any, nw: Any, column: Any) -> Any:
    zone = getattr(column.dtype, "time_zone", None)
    if isinstance(column.dtype, nw.Datetime) and (zone is None or _is_place(zone)):
        utc = column if zone is None else column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        stamps = pl.Series(column.name, utc.to_numpy().astype("datetime64[us]"))
        return stamps if zone is None else stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    array = column.to_numpy()
    if array.dtype.kind in "biuf":
        return pl.Series(column.name, array)
    missing = column.is_null().to_list()
    cells = [None if gone else cell for cell, gone in zip(column.to_list(), missing, strict=True)]
    if any(isinstance(cell, datetime) and cell.tzinfo is not None for cell in cells):
        cells = [str(cell) if isinstance(cell, datetime) else cell for cell in cells]
    return pl.Series(column.name, cells, strict=False)


def _is_place(zone: str) -> bool:
    """Whether a time zone is one of the database, which polars knows, and no offset such as UTC+02:00."""
    try:
        return bool(zoneinfo.ZoneInfo(zone))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return False


def _filled(table: Table) -> Table:
    if table.frame.height == 0 or not table.names:
        raise DataError(
            f"{table.origin}: the table has {table.frame.height} rows and {len(table.names)} columns; it "
            f"must have at least one of each."
        )
    return table
