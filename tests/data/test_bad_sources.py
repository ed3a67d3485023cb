"""What the reader says of bad files, Parquet tables, categories and roles, in full."""

import gzip
import io
from dataclasses import dataclass

import pandas
import polars
import pytest

from longshort.data import read, read_ahead
from longshort.errors import DataError, SettingError


@dataclass(frozen=True)
class Case:
    why: str
    content: bytes
    arguments: dict
    error: type
    message: str


def parquet(**columns):
    file = io.BytesIO()
    polars.DataFrame(columns).write_parquet(file)
    return file.getvalue()


PARQUET = [
    Case(
        "an infinite number",
        parquet(ds=[1, 2], y=[1.0, float("inf")]),
        {},
        DataError,
        "load.parquet, row 1 (from 0): column 'y' (target) must hold finite numbers, and this cell is inf. "
        "Leave a cell empty where nothing was observed.",
    ),
    Case(
        "text among numbers",
        parquet(ds=[1, 2], y=["1", "b"]),
        {"target": "y"},
        DataError,
        "load.parquet, row 1 (from 0): column 'y' (target) must hold numbers, and this cell is 'b'. Correct "
        "the cell, or leave it empty where nothing was observed.",
    ),
    Case(
        "lists",
        parquet(ds=[1, 2], y=[[1], [2]]),
        {"target": "y"},
        DataError,
        "load.parquet: column 'y' (target) must hold numbers, and it holds List(Int64).",
    ),
    Case(
        "a time that is not whole",
        parquet(ds=[1.5, 2], y=[1, 2]),
        {"time": "ds"},
        DataError,
        "load.parquet, row 0 (from 0): column 'ds' (time) must hold dates or whole numbers, and this cell is "
        "1.5.",
    ),
    Case(
        "no rows",
        parquet(ds=[], y=[]),
        {},
        DataError,
        "load.parquet: the table has 0 rows and 2 columns; it must have at least one of each.",
    ),
    Case(
        "not Parquet",
        b"ds,y\n1,1\n",
        {},
        DataError,
        "load.parquet: a Parquet file must begin with b'PAR1', and this one begins with b'ds,y'. If it is "
        "text, give it a name that ends in .csv.",
    ),
]


@pytest.mark.parametrize("case", PARQUET, ids=lambda case: case.why.replace(" ", "-"))
def test_a_parquet_file(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "load.parquet").write_bytes(case.content)
    with pytest.raises(case.error) as raised:
        read("load.parquet", **case.arguments)
    assert str(raised.value) == case.message
    assert type(raised.value) is case.error


@pytest.mark.parametrize(
    "source, error, message",
    [
        ("nope.csv", DataError, "nope.csv: there is no such file."),
        (".", DataError, ".: this is a folder; name the CSV or Parquet file in it."),
        (3, SettingError, "read: `source` must be a path, or a pandas or polars frame, got int."),
    ],
)
def test_no_file(source, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        read(source)
    assert str(raised.value) == message


def test_frames_that_are_no_table():
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    nested = polars.DataFrame({"ds": [1, 2], "y": [1, 2], "c": [[1], [2]]})
    for source, arguments, message in (
        (twice, {}, "the frame: a column name must be given once, and one is given twice."),
        (
            nested,
            {"target": "y", "past": "c", "categorical": "c"},
            "the frame: column 'c' must hold names or categories, and it holds List(Int64).",
        ),
    ):
        with pytest.raises(DataError) as raised:
            read(source, **arguments)
        assert str(raised.value) == message


@pytest.mark.parametrize("cut", [9, 12, 20])
def test_a_cut_gzip_file(cut, tmp_path):
    path = tmp_path / "load.csv.gz"
    path.write_bytes(gzip.compress(b"ds,y\n1,1\n", mtime=0)[:-cut])
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: the file begins as gzip but cannot be unpacked: ")


@pytest.mark.parametrize("keep", [4, 8, 100, -20, -1])
def test_a_cut_parquet_file(keep, tmp_path):
    path = tmp_path / "load.parquet"
    path.write_bytes(parquet(ds=[1, 2], y=[1.0, 2.0])[:keep])
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: the Parquet file is damaged or cut short: ")


def test_roles_given_twice(tmp_path):
    path = tmp_path / "load.csv"
    path.write_bytes(b"ds,y\n1,2\n")
    with pytest.raises(SettingError) as raised:
        read(path, target="y", like=read(path).columns)
    assert str(raised.value) == (
        "read: `like` gives every role already; leave target, time, id, past, ... out."
    )


def test_a_category_that_training_never_saw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_bytes(b"ds,y,sky\n1,2,grey\n2,3,blue\n")
    (tmp_path / "new.csv").write_bytes(b"ds,y,sky\n3,2,grey\n\n4,3,red\n")
    columns = read("old.csv", future="sky", categorical="sky").columns
    with pytest.raises(DataError) as raised:
        read("new.csv", like=columns)
    assert str(raised.value) == (
        "new.csv, line 4: column 'sky' (future) must hold a category known since training, and this cell is "
        "'red'. The known ones are 'blue', 'grey'. Give one of them, or train again."
    )


def test_rows_ahead_that_lack_a_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_bytes(b"ds,y,price\n1,2,3\n2,3,4\n")
    (tmp_path / "new.csv").write_bytes(b"ds,prize\n3,2\n4,3\n")
    table = read("old.csv", future="price")
    with pytest.raises(DataError) as raised:
        read_ahead("new.csv", like=table.columns, step=table.step)
    assert str(raised.value) == (
        "new.csv: `future` names the column 'price', which does not exist; there are 'ds', 'prize'. "
        "Did you mean 'prize'?"
    )
