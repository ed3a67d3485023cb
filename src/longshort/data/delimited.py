"""Bytes of a CSV file -> rows of text, each with the number of the line it stands on."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, SettingError, need
from .table import Table

if TYPE_CHECKING:
    import polars

_SEPARATORS = (",", ";", "\t", "|")
_DECLARED = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t ]*(?=[\r\n])', re.IGNORECASE)
"""The line before the names by which spreadsheets say what separates cells."""


def parse(raw: bytes, origin: str, encoding: str) -> Table:
    """Read the bytes of a CSV file, all cells as text.

    The separator is the first of comma, semicolon, tab and bar that occurs in the line of names, or the one
    that a line `sep=;` before it declares. Blank lines are skipped; in a table of one column a blank line
    between values is a missing value.

    Args:
        raw: the content of the file, which may be gzipped.
        origin: the name of the file in messages.
        encoding: of the text; a byte order mark of UTF-8 is ignored, one of UTF-16 obeyed.

    Returns:
        The table, as many rows as the file has records; `lines` counts from 1 and includes the header.

    Raises:
        DataError: the file is empty, is no text in this encoding, or a line has too many or too few cells.
        SettingError: there is no such encoding.
    """
    text = _decode(_unpack(raw, origin), origin, encoding)
    if not text.strip():
        raise DataError(f"{origin}: the file is empty; it must have a line of column names, and rows below.")
    declared = _DECLARED.match(text)
    separator = declared[1] if declared else None
    text = text[declared.end() :] if declared else text  # its line stays, as a blank one: lines are counted
    plain = '"' not in text and (separator is None or separator.isascii())
    lines, rows = (_plain if plain else _quoted)(text, origin, separator)
    return Table(rows, origin, lines)


def _unpack(raw: bytes, origin: str) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{origin}: the file begins as gzip but cannot be unpacked: {error}.") from None


def _decode(raw: bytes, origin: str, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError):
        raise SettingError(f"read: `encoding` must be one that Python knows, got {encoding!r}.") from None
    if known == "utf-8" and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = raw.decode(encoding)
    except LookupError:
        raise SettingError(f"read: `encoding` must be one of text, got {encoding!r}.") from None
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = raw[:start].count(b"\n") + 1
        raise DataError(
            f"{origin}, line {line}: byte {start} of the file is 0x{raw[start]:02x}, which is not "
            f"{encoding.upper()} there. Save the file as UTF-8, or pass its `encoding`, such as 'latin-1' "
            f"or 'utf-16'."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{origin}, line {line}: a table of text must not hold the character NUL; this may be a binary "
            f"file, or text in another `encoding` (such as 'utf-16')."
        )
    return text.removeprefix("\ufeff")


def _separator(names: str) -> str:
    return next((s for s in _SEPARATORS if s in names), ",")


def _plain(text: str, origin: str, separator: str | None) -> tuple[np.ndarray, polars.DataFrame]:
    """Without a quote in the file every line is a record, and polars may split it."""
    pl = need("polars", extra="tasks", to="read a table")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lead = len(text) - len(text.lstrip(" \n"))
    first = text.count("\n", 0, lead) + 1
    header, _, body = text[lead:].partition("\n")
    separator = separator or _separator(header)
    names = _names(header.split(separator), origin, first)
    if len(names) == 1:
        cells = body.rstrip(" \n").split("\n") if body.strip() else []
        for row, cell in enumerate(cells):
            _width(1 + cell.count(separator), 1, origin, first + 1 + row, first)
        lines = np.arange(len(cells)) + first + 1
        return _some(lines, origin), pl.DataFrame({names[0]: cells}, schema={names[0]: pl.String})
    body = body.rstrip("\n")
    data = np.frombuffer(body.encode(), np.uint8)
    ends = np.append(np.flatnonzero(data == 10), len(data))
    cells_in = 1 + np.diff(np.searchsorted(np.flatnonzero(data == ord(separator)), ends), prepend=0)
    starts = np.append(0, ends[:-1] + 1)
    blank = np.zeros(len(ends), bool)
    for row in np.flatnonzero(cells_in == 1).tolist():
        blank[row] = not data[starts[row] : ends[row]].tobytes().strip()
    lines = np.flatnonzero(~blank) + first + 1
    wrong = np.flatnonzero(cells_in[~blank] != len(names))
    if len(wrong):
        _width(int(cells_in[~blank][wrong[0]]), len(names), origin, int(lines[wrong[0]]), first)
    _some(lines, origin)
    if blank.any():
        body = "\n".join(line for line, empty in zip(body.split("\n"), blank, strict=True) if not empty)
    options = {"has_header": False, "infer_schema": False, "quote_char": None, "separator": separator}
    frame = pl.read_csv(io.BytesIO(body.encode()), **options)
    if frame.shape != (len(lines), len(names)):
        raise DataError(f"{origin}: {len(lines)} lines were counted and {frame.height} could be read.")
    return lines, frame.rename(dict(zip(frame.columns, names, strict=True)))


def _quoted(text: str, origin: str, separator: str | None) -> tuple[np.ndarray, polars.DataFrame]:
    """With quotes a record may span lines, so each one is read with the number of its first line."""
    pl = need("polars", extra="tasks", to="read a table")
    header = next(line for line in io.StringIO(text, newline="") if line.strip())
    separator = separator or _separator(_outside_quotes(header))
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    lines, rows, line, first = [], [], 1, 1
    try:
        for record in records:
            blank = not record or (len(record) == 1 and not record[0].strip())
            if not names and not blank:
                names, first = _names(record, origin, line), line
            elif names and (not blank or len(names) == 1):
                _width(1 if blank else len(record), len(names), origin, line, first)
                lines.append(line)
                rows.append(record or [""])
            line = records.line_num + 1
    except csv.Error as error:
        raise DataError(f"{origin}, line {line}: the quotes of this row do not close: {error}.") from None
    while len(names) == 1 and rows and not rows[-1][0].strip():
        lines.pop()
        rows.pop()
    columns: Any = zip(*rows, strict=True) if rows else [[] for _ in names]
    data = {name: list(cells) for name, cells in zip(names, columns, strict=True)}
    return _some(np.array(lines, np.int64), origin), pl.DataFrame(
        data, schema=dict.fromkeys(names, pl.String)
    )


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def _names(cells: list[str], origin: str, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(
                f"{origin}, line {line}: the column name {name!r} must be given once, and columns "
                f"{names.index(name) + 1} and {place + 1} both have it. Rename one."
            )
    return names


def _width(got: int, wanted: int, origin: str, line: int, header: int) -> None:
    if got != wanted:
        cells = "1 cell" if wanted == 1 else f"{wanted} cells"
        raise DataError(
            f"{origin}, line {line}: a row must have {cells}, as many as line {header} names columns; this "
            f"one has {got}. A cell that holds the separator must stand in quotes."
        )


def _some(lines: np.ndarray, origin: str) -> np.ndarray:
    if len(lines) == 0:
        raise DataError(f"{origin}: the file has a line of column names and no row below it.")
    return lines
