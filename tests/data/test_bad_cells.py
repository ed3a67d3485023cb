"""What the reader says of a bad CSV file, its cells and the roles of its columns, in full."""

from dataclasses import dataclass

import pytest

from longshort.data import read
from longshort.errors import DataError, SettingError


@dataclass(frozen=True)
class Case:
    why: str
    content: bytes
    arguments: dict
    error: type
    message: str


CASES = [
    Case(
        "empty",
        b"",
        {},
        DataError,
        "load.csv: the file is empty; it must have a line of column names, and rows below.",
    ),
    Case(
        "only space",
        b" \n\n",
        {},
        DataError,
        "load.csv: the file is empty; it must have a line of column names, and rows below.",
    ),
    Case(
        "only names",
        b"ds,y\n",
        {},
        DataError,
        "load.csv: the file has a line of column names and no row below it.",
    ),
    Case(
        "only names quoted",
        b'"ds","y"\n\n',
        {},
        DataError,
        "load.csv: the file has a line of column names and no row below it.",
    ),
    Case(
        "missing column",
        b"ds,load\n1,2\n",
        {"target": "lod"},
        DataError,
        "load.csv: `target` names the column 'lod', which does not exist; there are 'ds', 'load'."
        " Did you mean 'load'?",
    ),
    Case(
        "missing time",
        b"ds,load\n1,2\n",
        {"time": "date"},
        DataError,
        "load.csv: `time` names the column 'date', which does not exist; there are 'ds', 'load'.",
    ),
    Case(
        "text cell",
        b"ds,y\n1,2\n2,abc\n",
        {},
        DataError,
        "load.csv, line 3: column 'y' (target) must hold numbers, and this cell is 'abc'. Correct"
        " the cell, or leave it empty where nothing was observed.",
    ),
    Case(
        "text cell covariate",
        b"ds,y,x\n1,2,a\n2,3,b\n",
        {"past": ["x"]},
        DataError,
        "load.csv, line 2: column 'x' (past) must hold numbers, and this cell is 'a'. To read the"
        " column as categories, name it in `categorical`.",
    ),
    Case(
        "text cell after quoted lines",
        b'ds,y,note\n1,2,"two\nlines"\n\n2,abc,x\n',
        {"target": "y"},
        DataError,
        "load.csv, line 5: column 'y' (target) must hold numbers, and this cell is 'abc'. Correct"
        " the cell, or leave it empty where nothing was observed.",
    ),
    Case(
        "text in a table of one column",
        b"\ny\n1\n\nabc\n",
        {},
        DataError,
        "load.csv, line 5: column 'y' (target) must hold numbers, and this cell is 'abc'. Correct the cell, "
        "or leave it empty where nothing was observed.",
    ),
    Case(
        "two cells in a table of one column",
        b"y\n1\n2,3\n",
        {},
        DataError,
        "load.csv, line 3: a row must have 1 cell, as many as line 1 names columns; this one has 2. A cell "
        "that holds the separator must stand in quotes.",
    ),
    Case(
        "text after blank",
        b"ds,y\n1,2\n\n\n2,abc\n",
        {"target": "y"},
        DataError,
        "load.csv, line 5: column 'y' (target) must hold numbers, and this cell is 'abc'. Correct"
        " the cell, or leave it empty where nothing was observed.",
    ),
    Case(
        "all missing",
        b"ds,y\n1,\n2,NA\n",
        {"target": "y"},
        DataError,
        "load.csv: series 'y' must have at least one value, and every cell from line 2 to line 3 "
        "is missing. Leave the series out, or name another `target`.",
    ),
    Case(
        "all missing long",
        b"unique_id,ds,y\na,1,1\nb,1,\nb,2,\n",
        {},
        DataError,
        "load.csv: series 'b' must have at least one value, and every cell from line 3 to line 4 "
        "is missing. Leave the series out, or name another `target`.",
    ),
    Case(
        "infinite",
        b"ds,y\n1,1\n2,inf\n",
        {},
        DataError,
        "load.csv, line 3: column 'y' (target) must hold finite numbers, and this cell is inf. "
        "Leave a cell empty where nothing was observed.",
    ),
    Case(
        "infinite 2",
        b"ds,y\n1,1\n2,-1e999\n",
        {},
        DataError,
        "load.csv, line 3: column 'y' (target) must hold finite numbers, and this cell is -1e999."
        " Leave a cell empty where nothing was observed.",
    ),
    Case(
        "not utf8",
        b"ds,y\n1,1\n2,caf\xe9\n",
        {},
        DataError,
        "load.csv, line 3: byte 14 of the file is 0xe9, which is not UTF-8 there. Save the file "
        "as UTF-8, or pass its `encoding`, such as 'latin-1' or 'utf-16'.",
    ),
    Case(
        "a page of Windows",
        b"\xf6,y\n1,1\n",
        {},
        DataError,
        "load.csv, line 1: byte 0 of the file is 0xf6, which is not UTF-8 there. Save the file as"
        " UTF-8, or pass its `encoding`, such as 'latin-1' or 'utf-16'.",
    ),
    Case(
        "nul",
        b"ds,y\n1,1\n2,\x00\n",
        {},
        DataError,
        "load.csv, line 3: a table of text must not hold the character NUL; this may be a binary "
        "file, or text in another `encoding` (such as 'utf-16').",
    ),
    Case(
        "encoding",
        b"ds,y\n1,1\n",
        {"encoding": "latin1x"},
        SettingError,
        "read: `encoding` must be one that Python knows, got 'latin1x'.",
    ),
    Case(
        "short row",
        b"ds,y\n1,1\n2\n",
        {},
        DataError,
        "load.csv, line 3: a row must have 2 cells, as many as line 1 names columns; this one has"
        " 1. A cell that holds the separator must stand in quotes.",
    ),
    Case(
        "long row",
        b"ds,y\n1,1\n2,3,4\n",
        {},
        DataError,
        "load.csv, line 3: a row must have 2 cells, as many as line 1 names columns; this one has"
        " 3. A cell that holds the separator must stand in quotes.",
    ),
    Case(
        "long row quoted",
        b'ds,y\n"1",1\n2,3,4\n',
        {},
        DataError,
        "load.csv, line 3: a row must have 2 cells, as many as line 1 names columns; this one has"
        " 3. A cell that holds the separator must stand in quotes.",
    ),
    Case(
        "open quote",
        b'ds,y\n1,1\n2,"3\n4,5\n',
        {},
        DataError,
        "load.csv, line 3: the quotes of this row do not close: unexpected end of data.",
    ),
    Case(
        "after quote",
        b'ds,y\n1,1\n2,"3"4\n4,5\n',
        {},
        DataError,
        "load.csv, line 3: the quotes of this row do not close: ',' expected after '\"'.",
    ),
    Case(
        "dup names",
        b"ds,y,y\n1,2,3\n",
        {},
        DataError,
        "load.csv, line 1: the column name 'y' must be given once, and columns 2 and 3 both have "
        "it. Rename one.",
    ),
    Case(
        "no target",
        b"ds,name\n2020-01-01,abc\n",
        {},
        DataError,
        "load.csv: a column of numbers must be left for the target, and there is none; there are "
        "'ds', 'name'. Name it with `target`.",
    ),
    Case(
        "which target",
        b"unique_id,ds,a,b\nx,2020-01-01,1,2\n",
        {},
        DataError,
        "load.csv: which column is the target? 'a', 'b' hold numbers. Name one with `target`.",
    ),
    Case(
        "id missing",
        b"unique_id,ds,y\na,1,1\n,1,2\n",
        {},
        DataError,
        "load.csv, line 3: column 'unique_id' (id) must name a series in every row, and this cell is empty.",
    ),
    Case(
        "static",
        b"unique_id,ds,y,s\na,1,1,4\na,2,1,5\n",
        {"static": "s"},
        DataError,
        "load.csv, line 3: column 's' (static) must not change within a series, and it is '5' "
        "here and '4' in line 2. Name it as `past` or `future` instead.",
    ),
    Case(
        "role twice",
        b"ds,y\n1,2\n",
        {"target": "y", "past": "y"},
        SettingError,
        "read: the column 'y' must have one role, and it was given two.",
    ),
    Case(
        "categorical role",
        b"ds,y,x\n1,2,3\n",
        {"target": "y", "categorical": "x"},
        SettingError,
        "read: `categorical` names 'x', which must also stand in `past`, `future` or `static`.",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why.replace(" ", "-"))
def test_the_message_in_full(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "load.csv").write_bytes(case.content)
    with pytest.raises(case.error) as raised:
        read("load.csv", **case.arguments)
    assert str(raised.value) == case.message
    assert type(raised.value) is case.error
