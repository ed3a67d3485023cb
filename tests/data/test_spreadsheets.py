"""Tables as spreadsheets of many countries write them: decimal commas, a separator declared, UTF-16."""

from dataclasses import dataclass, field

import numpy as np
import polars
import pytest

from longshort.data import Columns, read, read_ahead
from longshort.errors import DataError, SettingError

NAN = float("nan")
COMMA = "numbers have a decimal comma"


@dataclass(frozen=True)
class Case:
    why: str
    content: bytes
    series: dict
    notes: tuple = ()
    arguments: dict = field(default_factory=dict)


CASES = [
    Case("decimal commas", b"ds;y\n1;2,5\n2;-0,25\n3;4\n", {"y": [2.5, -0.25, 4]}, (COMMA,)),
    Case("a cell is missing", b"ds;y\n1;,5\n2;NA\n3;+4,0\n", {"y": [0.5, NAN, 4]}, (COMMA,)),
    Case("in quotes", b'ds,y\n1,"2,5"\n2,"3,5"\n', {"y": [2.5, 3.5]}, (COMMA,)),
    Case("powers of ten", b"ds;y\n1;2,5\n2;1,5e-3\n", {"y": [2.5, 0.0015]}, (COMMA,)),
    Case(
        "one column tells it of the others",
        b"ds;kwh;temp\n1;1,234;2,5\n2;2,345;3\n",
        {"kwh": [1.234, 2.345], "temp": [2.5, 3]},
        (COMMA,),
    ),
    Case("as told", b"ds;y\n1;1,234\n2;2,345\n", {"y": [1.234, 2.345]}, (), {"decimal": ","}),
    Case("a column with points", b"ds;y;z\n1;2,5;2.5\n2;3,5;3.5\n", {"z": [2.5, 3.5]}, (), {"target": "z"}),
    Case(
        "hours with a point",
        b"ds;h;y\n1;2.30;2,5\n2;3.30;3\n",
        {"y": [2.5, 3]},
        (),
        {"target": "y", "decimal": ","},
    ),
    Case(
        "whole numbers below a thousand beside thousands",
        b"ds;a;b\n1;950;12,34\n2;1,234;5,5\n3;1,100;6,1\n4;7;8\n5;8;9\n6;9;1\n",
        {"a": [950, 1.234, 1.1, 7, 8, 9], "b": [12.34, 5.5, 6.1, 8, 9, 1]},
        (),
        {"decimal": ","},
    ),
    Case(
        "row numbers as pandas writes them",
        b",ds,y\n0,2024-01-01,2\n1,2024-01-02,3\n3,2024-01-03,5\n",
        {"y": [2, 3, 5]},
        ("left out '': row numbers",),
    ),
    Case(
        "those of several tables in one",
        b"Unnamed: 0,ds,y\n0,2024-01-01,2\n1,2024-01-02,3\n2,2024-01-03,3\n0,2024-01-04,5\n1,2024-01-05,5\n",
        {"y": [2, 3, 3, 5, 5]},
        ("left out 'Unnamed: 0': row numbers",),
    ),
    Case(
        "those of a table that was turned round",
        b",ds,y\n5,2024-01-01,2\n4,2024-01-02,3\n2,2024-01-03,5\n",
        {"y": [2, 3, 5]},
        ("left out '': row numbers",),
    ),
    Case(
        "an index of prices",
        b"ds,index,y\n2024-01-01,3812,2\n2024-01-02,3790,3\n2024-01-03,3855,5\n",
        {"index": [3812, 3790, 3855], "y": [2, 3, 5]},
    ),
    Case(
        "no row numbers", b"index,ds,y\n7.5,2024-01-01,2\n8,2024-01-02,3\n", {"index": [7.5, 8], "y": [2, 3]}
    ),
    Case("an index alone", b"ds,index\n2024-01-01,2\n2024-01-02,3\n", {"index": [2, 3]}),
    Case("the separator on a line of its own", b"sep=;\r\nds;y\r\n1;2\r\n2;3\r\n", {"y": [2, 3]}),
    Case("it, in quotes and filled up", b'"sep=;";\nds;"y, kW"\n1;2\n2;3\n', {"y, kW": [2, 3]}),
    Case("one of several bytes", "sep=§ \nds§y\n1§2\n2§3\n".encode(), {"y": [2, 3]}),
    Case("lines of old machines", b"sep=;\rds;y\r1;2\r2;3\r", {"y": [2, 3]}),
    Case("one that nobody guesses", b"SEP=~\nds~y\n1~2\n2~3\n", {"y": [2, 3]}),
    Case("UTF-16 with its mark", "ds\tHöhe\n1\t2\n2\t3\n".encode("utf-16"), {"Höhe": [2, 3]}),
    Case("UTF-16, big end first", b"\xfe\xff" + "ds\tŁ\n1\t2\n2\t3\n".encode("utf-16-be"), {"Ł": [2, 3]}),
    Case("a page of Windows", "ds;é\n1;2\n2;3\n".encode("cp1252"), {"é": [2, 3]}, (), {"encoding": "cp1252"}),
    Case(
        "times that nobody reads",
        b"day;y\nmonday;2\ntuesday;3\n",
        {"y": [2, 3]},
        (
            "left out 'day': not a column of numbers",
            "no column of times was found, so rows are counted; `time` names one",
        ),
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)


@each_case
def test_it_is_read_as_it_was_meant(case, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(case.content)
    table = read(path, **case.arguments)
    assert table.names == tuple(case.series) and table.notes == case.notes
    for series in table:
        np.testing.assert_array_equal(series.target, np.array(case.series[series.name], float))


def test_a_frame_of_text_is_read_like_a_file():
    frame = polars.DataFrame({"ds": [1, 2, 3], "y": ["1,5", None, "2"]})
    np.testing.assert_array_equal(read(frame)["y"].target, [1.5, NAN, 2])


def test_later_rows_are_read_as_the_first_were(tmp_path):
    """A row alone does not tell a decimal comma from one of thousands, so the first table's word holds."""
    (tmp_path / "first.csv").write_text("ds;y;price\n1;0,5;1,5\n2;1,5;2,5\n")
    (tmp_path / "later.csv").write_text("ds;y;price\n3;1,234;1,999\n")
    table = read(tmp_path / "first.csv", target="y", future="price")
    columns = Columns.from_json(table.columns.to_json())
    assert columns.decimal == "," and columns == table.columns
    assert read(tmp_path / "later.csv", like=columns, step=1)["y"].target == [1.234]
    assert read_ahead(tmp_path / "later.csv", like=columns, step=table.step)["y"].future == [[1.999]]


@pytest.mark.parametrize(
    ("content", "arguments", "error", "message"),
    [
        (
            b"ds;y\n1;1,234\n2;2,345\n",
            {"target": "y"},
            DataError,
            "table.csv, line 2: column 'y' (target) must hold numbers, and this cell is '1,234'. If this is "
            "a decimal comma, set `decimal` to ','; else leave the comma out.",
        ),
        (
            b"ds;y\n1;1,234\n2;2,345\n",
            {},
            DataError,
            "table.csv: a column of numbers must be left for the target, and there is none; there are 'ds', "
            "'y'. Set `decimal` to ',' if 'y' has decimal commas, else write its numbers without.",
        ),
        (
            b"ds;h;z;y\n1;2.30;7;2,5\n2;3.30;8;3,5\n",
            {},
            DataError,
            "table.csv: which column is the target? The numbers of 'h', 'z' have a point or no decimals, "
            "those of 'y' a decimal comma. Name it with `target`, and set `decimal` to ',' to read numbers "
            "with a comma.",
        ),
        (
            b"ds;y\n1;2\n",
            {"encoding": "utf\0"},
            SettingError,
            "read: `encoding` must be one that Python knows, got 'utf\\x00'.",
        ),
        (
            b"ds;y\n1;2\n",
            {"encoding": "hex"},
            SettingError,
            "read: `encoding` must be one of text, got 'hex'.",
        ),
        (
            b"ds;y;z\n1;1,5;2\n2;2,5;1.002,5\n",
            {"target": "z"},
            DataError,
            "table.csv, line 3: column 'z' (target) must hold numbers, and this cell is '1.002,5'. Its "
            "decimals stand behind a comma, as elsewhere in the table; leave the point out.",
        ),
        (
            b"sep=;\nds;y\n1;2\n2;two\n",
            {"target": "y"},
            DataError,
            "table.csv, line 4: column 'y' (target) must hold numbers, and this cell is 'two'. Correct the "
            "cell, or leave it empty where nothing was observed.",
        ),
        (
            b'ds,a,b,c\n1,"950","1.5","12,34"\n2,"1,234","1,002.5","5"\n3,"1,100","3.5","6"\n',
            {},
            DataError,
            "table.csv, line 3: column 'b' (target) must hold numbers, and this cell is '1,002.5'. Correct "
            "the cell, or leave it empty where nothing was observed.",
        ),
        (
            b"ds;a;b\n1;950;12,34\n2;1,234;5,5\n3;1,100;6,1\n",
            {"target": "a"},
            DataError,
            "table.csv, line 3: column 'a' (target) must hold numbers, and this cell is '1,234'. If this is "
            "a decimal comma, set `decimal` to ','; else leave the comma out.",
        ),
        (
            b"ds;c0;c3\n1;2.551,39;72.938\n2;1.247,69;81.133\n",
            {"target": "c3"},
            DataError,
            "table.csv, line 2: column 'c3' (target) must hold numbers, and this cell is '72.938'. Its "
            "decimals stand behind a comma, as elsewhere in the table; leave the point out.",
        ),
        (
            b"ds;y;z\n1;1,5;2\n2;2,5;1.5e3\n",
            {"target": "z", "decimal": ","},
            DataError,
            "table.csv, line 3: column 'z' (target) must hold numbers, and this cell is '1.5e3'. Its "
            "decimals stand behind a comma, as elsewhere in the table; leave the point out.",
        ),
        (b"ds;y\n1;2\n", {"decimal": ";"}, SettingError, "read: `decimal` must be '.' or ',', got ';'."),
        (
            b"\xff\xfed",
            {},
            DataError,
            "table.csv, line 1: byte 2 of the file is 0x64, which is not UTF-16 there. Save the file as "
            "UTF-8, or pass its `encoding`, such as 'latin-1' or 'utf-16'.",
        ),
    ],
)
def test_what_is_not_guessed(content, arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(error) as raised:
        read("table.csv", **arguments)
    assert str(raised.value) == message
