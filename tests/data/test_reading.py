"""One table of inputs, read from every kind of source; one test for each law of reading."""

import gzip
from dataclasses import dataclass, field

import numpy as np
import pandas
import polars
import pytest

from longshort.data import Columns, Step, read
from longshort.errors import DataError

NAN = float("nan")


@dataclass(frozen=True)
class Case:
    """A table as text, and what it must become: for each series its first time and its values."""

    why: str
    text: str
    step: Step
    series: dict
    arguments: dict = field(default_factory=dict)
    notes: tuple = ()


CASES = [
    Case(
        "hours",
        "ds,y\n2024-01-01 22:00:00,1\n2024-01-01 23:00:00,2.5\n2024-01-02 00:00:00,-3\n",
        Step(1, "hour"),
        {"y": ("2024-01-01T22", [1, 2.5, -3])},
    ),
    Case(
        "a gap in time",
        "ds,y\n2024-01-01T00:00,1\n2024-01-01T00:30,2\n2024-01-01T01:00,3\n2024-01-01T02:30,4\n",
        Step(30, "minute"),
        {"y": ("2024-01-01T00", [1, 2, 3, NAN, NAN, 4])},
        notes=("2 times without a row are masked",),
    ),
    Case(
        "rows out of order",
        "date,y\n2024-01-03,3\n2024-01-01,1\n2024-01-02,2\n",
        Step(1, "day"),
        {"y": ("2024-01-01", [1, 2, 3])},
        notes=("sorted by 'date': line 3 is earlier than the row before it",),
    ),
    Case(
        "months",
        "Month,#Passengers\n1949-01,112\n1949-02,118\n1949-03,132\n",
        Step(1, "month"),
        {"#Passengers": ("1949-01", [112, 118, 132])},
    ),
    Case(
        "month ends",
        "ds,y\n2023-11-30,1\n2023-12-31,2\n2024-01-31,3\n2024-02-29,4\n2024-03-31,5\n",
        Step(1, "month", end=True),
        {"y": ("2023-11-30", [1, 2, 3, 4, 5])},
    ),
    Case(
        "month ends, the step given as months",
        "ds,y\n2024-01-31,1\n2024-03-31,2\n",
        Step(1, "month", end=True),
        {"y": ("2024-01-31", [1, NAN, 2])},
        {"step": "month"},
        notes=("1 time without a row is masked",),
    ),
    Case(
        "every second month end",
        "ds,y\n2024-01-31,1\n2024-03-31,2\n2024-05-31,3\n",
        Step(2, "month", end=True),
        {"y": ("2024-01-31", [1, 2, 3])},
    ),
    Case("quarters", "ds,y\n1990Q4,1\n1991Q1,2\n", Step(1, "quarter"), {"y": ("1990-10", [1, 2])}),
    Case(
        "years that leap",
        "ds,y\n2019-06-01,1\n2020-06-01,2\n2021-06-01,3\n",
        Step(1, "year"),
        {"y": ("2019-06-01", [1, 2, 3])},
    ),
    Case("weeks", "ds,y\n2024-01-03,1\n2024-01-10,2\n", Step(1, "week"), {"y": ("2024-01-03", [1, 2])}),
    Case(
        "business days with a holiday",
        "ds,y\n2024-01-04,1\n2024-01-05,2\n2024-01-08,3\n2024-01-10,4\n",
        Step(1, "business day"),
        {"y": ("2024-01-04", [1, 2, 3, NAN, 4])},
        notes=("1 time without a row is masked",),
    ),
    Case(
        "day first, as one row shows",
        "Date,Close\n12-01-00,1\n13-01-00,2\n14-01-00,3\n",
        Step(1, "day"),
        {"Close": ("2000-01-12", [1, 2, 3])},
        notes=("'Date' read as day-month-year, the one order that fits every row",),
    ),
    Case(
        "years of two digits in two centuries",
        "ds,y\n31-12-68,3\n31-12-69,1\n31-12-70,2\n",
        Step(1, "year", end=True),
        {"y": ("1969-12-31", [1, 2] + 97 * [NAN] + [3])},
        notes=(
            "'ds' read as day-month-year, the one order that fits every row",
            "sorted by 'ds': line 3 is earlier than the row before it",
            "97 times without a row are masked",
        ),
    ),
    Case(
        "month first, as one row shows",
        "ds,y\n01/12/2018 05:00,1\n01/13/2018 05:00,2\n",
        Step(1, "day"),
        {"y": ("2018-01-12T05", [1, 2])},
        notes=("'ds' read as month-day-year, the one order that fits every row",),
    ),
    Case(
        "day first, as the caller says",
        "ds,y\n01/02/2018,1\n02/02/2018,2\n",
        Step(1, "day"),
        {"y": ("2018-02-01", [1, 2])},
        {"time_format": "%d/%m/%Y"},
    ),
    Case(
        "offsets from UTC",
        "ds,y\n2024-01-01T00:30:00+01:00,1\n2024-01-01T00:30:00Z,2\n2023-12-31T20:30:00-0500,3\n",
        Step(1, "hour"),
        {"y": ("2023-12-31T23:30", [1, 2, 3])},
        notes=("'ds' read in UTC",),
    ),
    Case(
        "days of a local clock that changes",
        "ds,y\n2024-03-30T00:00+01:00,1\n2024-03-31T00:00+01:00,2\n2024-04-01T00:00+02:00,3\n",
        Step(1, "day"),
        {"y": ("2024-03-30", [1, 2, 3])},
        notes=("'ds' read by the local clock, without their offsets",),
    ),
    Case(
        "UTC itself",
        "ds,y\n2024-03-30T00:00Z,1\n2024-03-30T01:00Z,2\n",
        Step(1, "hour"),
        {"y": ("2024-03-30", [1, 2])},
    ),
    Case(
        "fractions of a second",
        "ds,y\n2024-01-01 00:00:00.5,1\n2024-01-01 00:00:00.75,2\n2024-01-01 00:00:01,3\n",
        Step(250_000, "microsecond"),
        {"y": ("2024-01-01T00:00:00.5", [1, 2, 3])},
    ),
    Case(
        "whole numbers",
        "t,y\n10,1\n15,2\n25,3\n",
        Step(5),
        {"y": (10, [1, 2, NAN, 3])},
        notes=("1 time without a row is masked",),
    ),
    Case("no times", "Y\n22262\n21756\n22247\n", Step(), {"Y": (0, [22262, 21756, 22247])}),
    Case("one row", "ds,y\n5,1\n", Step(), {"y": (5, [1])}),
    Case(
        "missing in every way of writing",
        "ds,y\n1,1\n2,\n3,NA\n4,nan\n5,NULL\n6,?\n7,n/a\n8,None\n9, 9 \n",
        Step(),
        {"y": (1, [1, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 9])},
    ),
    Case(
        "columns of different lengths",
        "ds,a,b\n1,,5\n2,1,6\n3,2,\n4,,\n",
        Step(),
        {"a": (2, [1, 2]), "b": (1, [5, 6])},
    ),
    Case(
        "every row kept",
        "ds,a,b\n1,,\n2,1,\n3,,\n",
        Step(),
        {"a": (1, [NAN, 1, NAN]), "b": (1, [NAN, NAN, NAN])},
        {"trim": False, "target": ["a", "b"]},
    ),
    Case("a constant series", "ds,y\n1,7\n2,7\n3,7\n", Step(), {"y": (1, [7, 7, 7])}),
    Case(
        "a long table",
        "unique_id,ds,y\nb,2024-01-02,1\nb,2024-01-03,2\na,2024-01-07,3\na,2024-01-09,4\na,2024-01-08,5\n",
        Step(1, "day"),
        {"b": ("2024-01-02", [1, 2]), "a": ("2024-01-07", [3, 5, 4])},
        notes=("sorted by 'ds': line 6 is earlier than the row before it",),
    ),
    Case(
        "a long table with more columns than are needed",
        "unique_id,ds,x,y\na,1,7,1\na,2,8,2\n",
        Step(),
        {"a": (1, [1, 2])},
    ),
    Case(
        "a long table with names of its own",
        "shop,when,sold,price\n7,1,5,1\n7,2,6,1\n8,1,3,1\n",
        Step(),
        {"7": (1, [5, 6]), "8": (1, [3])},
        {"id": "shop", "time": "when", "target": "sold"},
    ),
    Case(
        "two targets in a long table",
        "unique_id,ds,u,v\na,1,1,2\na,2,3,4\n",
        Step(),
        {"a u": (1, [1, 3]), "a v": (1, [2, 4])},
        {"target": ["u", "v"]},
    ),
    Case(
        "a column that is no number",
        "ds,y,place\n1,1,here\n2,2,there\n",
        Step(),
        {"y": (1, [1, 2])},
        notes=("left out 'place': not a column of numbers",),
    ),
    Case(
        "a coarser step than most rows keep",
        "ds,y\n2024-01-01,1\n2024-01-03,2\n2024-01-05,3\n2024-01-06,4\n",
        Step(1, "day"),
        {"y": ("2024-01-01", [1, NAN, 2, NAN, 3, 4])},
        {"step": "day"},
        notes=("2 times without a row are masked",),
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.why.replace(" ", "-"))


def rows_of(case):
    header, *rows = [line.split(",") for line in case.text.splitlines()]
    return header, rows


def as_csv(case, folder):
    (folder / "table.csv").write_text(case.text)
    return folder / "table.csv"


def as_windows_csv(case, folder):
    (folder / "table.csv").write_bytes(b"\xef\xbb\xbf" + case.text.replace("\n", "\r\n").encode())
    return folder / "table.csv"


def as_semicolons(case, folder):
    (folder / "table.txt").write_text(case.text.replace(",", ";"))
    return folder / "table.txt"


def as_quoted_csv(case, folder):
    header, rows = rows_of(case)
    lines = [",".join(f'"{cell}"' for cell in row) for row in [header, *rows]]
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def as_gzip(case, folder):
    (folder / "table.csv.gz").write_bytes(gzip.compress(case.text.encode()))
    return folder / "table.csv.gz"


def as_text_frame(case, folder):
    header, rows = rows_of(case)
    return polars.DataFrame(rows, schema=header, orient="row")


def as_frame(case, folder):
    """Columns of numbers and dates wherever the text allows it."""
    frame = as_text_frame(case, folder)
    for name in frame.columns:
        number = frame[name].cast(polars.Float64, strict=False)
        if not number.is_null().any():
            whole = (number == number.floor()).all()
            frame = frame.with_columns(number.cast(polars.Int64) if whole else number)
        for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"):
            if frame[name].dtype == polars.String:
                kind = polars.Date if len(form) == 8 else polars.Datetime
                time = frame[name].str.strptime(kind, form, strict=False)
                frame = frame if time.is_null().any() else frame.with_columns(time)
    return frame


def as_parquet(case, folder):
    as_frame(case, folder).write_parquet(folder / "table.parquet")
    return folder / "table.parquet"


def as_pandas(case, folder):
    frame = as_frame(case, folder)
    return pandas.DataFrame({name: frame[name].to_list() for name in frame.columns})


SOURCES = [
    as_csv,
    as_windows_csv,
    as_semicolons,
    as_quoted_csv,
    as_gzip,
    as_text_frame,
    as_parquet,
    as_pandas,
]
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__[3:])


@each_case
@each_source
def test_the_same_series_from_every_source(case, source, tmp_path):
    table = read(source(case, tmp_path), **case.arguments)
    assert table.names == tuple(case.series)
    assert table.step == case.step
    for series in table:
        start, values = case.series[series.name]
        first = np.datetime64(start, "us") if isinstance(start, str) else start
        np.testing.assert_array_equal(series.time, table.step.grid(first, len(values)))
        np.testing.assert_array_equal(series.target, np.array(values, float))


@each_case
def test_what_was_done_is_noted(case, tmp_path):
    assert read(as_csv(case, tmp_path), **case.arguments).notes == case.notes


@pytest.mark.parametrize("case", [case for case in CASES if "trim" not in case.arguments])
def test_reading_again_with_the_same_columns_gives_the_same(case, tmp_path):
    path = as_csv(case, tmp_path)
    table = read(path, **case.arguments)
    saved = Columns.from_json(table.columns.to_json())
    again = read(path, like=saved, step=str(table.step))
    assert saved == table.columns == again.columns
    assert [s.target.tobytes() for s in again] == [s.target.tobytes() for s in table]


@each_case
def test_a_table_of_its_own_reads_back(case, tmp_path):
    table = read(as_csv(case, tmp_path), **case.arguments)
    again = read(table.to_polars(), step=table.step, trim=case.arguments.get("trim", True))
    assert again.names == table.names
    for before, after in zip(table, again, strict=True):
        np.testing.assert_array_equal(after.time, before.time)
        np.testing.assert_array_equal(after.target, before.target)


def test_the_clock_of_an_earlier_table_is_kept(tmp_path):
    """One row alone cannot tell UTC from the local clock, so a later table is read as the first was."""
    (tmp_path / "later.csv").write_text("ds,y\n2024-04-02T00:00+02:00,4\n")
    for hours, clock, first in ((1, "UTC", "2024-04-01T22"), (24, "local", "2024-04-02")):
        stamps = [
            f"{t}+02:00"
            for t in np.datetime64("2024-03-01T00:00") + np.arange(3) * np.timedelta64(hours, "h")
        ]
        (tmp_path / "first.csv").write_text("ds,y\n" + "".join(f"{t},1\n" for t in stamps))
        columns = read(tmp_path / "first.csv").columns
        assert columns.clock == clock
        later = read(tmp_path / "later.csv", like=columns, step="hour")
        assert later["y"].time[0] == np.datetime64(first)


UTC = "\nds,y\n2024-01-01T00:00+01:00,1\n2024-01-01T01:00+01:00,2\n"
MUST = "column 'ds' (time) must have an offset from UTC, as"
EARLIER = "those of the earlier table"
WRITE = "Write it, such as 2016-07-01T13:30+02:00, or Z for UTC."
OFFSETS = {
    "an offset in some rows": (
        "ds,y\n2024-01-01T00:00+01:00,1\n2024-01-01 01:00,2\n",
        None,
        f"table.csv, line 3: {MUST} others of the column do, and this cell is '2024-01-01 01:00'. {WRITE}",
    ),
    "none behind a table in UTC": (
        "ds,y\n2024-01-01T00:00,1\n",
        UTC,
        f"table.csv, line 2: {MUST} {EARLIER} did, and this cell is '2024-01-01T00:00'. {WRITE}",
    ),
    "none behind one that said Z": (
        "ds,y\n2024-01-01T00:00,1\n",
        UTC.replace("+01:00", "Z"),
        f"table.csv, line 2: {MUST} {EARLIER} did, and this cell is '2024-01-01T00:00'. {WRITE}",
    ),
    "none in a format": (
        "ds,y\n13.01.2024 00:00,1\n",
        UTC,
        f"table.csv, line 2: {MUST} {EARLIER} did, and this cell is '13.01.2024 00:00'. {WRITE}",
    ),
    "one behind a table without": (
        "ds,y\n2024-01-01T00:00Z,1\n2024-01-01T02:00+01:00,1\n",
        UTC.replace("+01:00", ""),
        "table.csv, line 3: column 'ds' (time) must have no offset from UTC but Z, as those of the earlier "
        "table, and this cell is '2024-01-01T02:00+01:00'. Write that table's clock.",
    ),
}


@pytest.mark.parametrize("text, earlier, message", OFFSETS.values(), ids=OFFSETS)
def test_times_with_an_offset_and_without_are_not_mixed(text, earlier, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(text)
    like = None
    if earlier is not None:
        (tmp_path / "earlier.csv").write_text(earlier)
        like = read("earlier.csv").columns
    with pytest.raises(DataError) as raised:
        read("table.csv", like=like, step="hour")
    assert str(raised.value) == message


def test_a_frame_of_later_rows_has_a_time_zone_too(tmp_path):
    (tmp_path / "earlier.csv").write_text(UTC)
    table = read(tmp_path / "earlier.csv")
    frame = polars.DataFrame({"ds": np.array(["2024-01-01T01:00"], "datetime64[us]"), "y": [3.0]})
    with pytest.raises(DataError, match="must have an offset from UTC, as those of the earlier table did"):
        read(frame, like=table.columns, step="hour")
    zoned = frame.with_columns(polars.col("ds").dt.replace_time_zone("UTC"))
    assert read(zoned, like=table.columns, step="hour")["y"].time[0] == np.datetime64("2024-01-01T01:00")
    assert table.to_polars()["ds"].dtype == polars.Datetime("us", "UTC")


DEAD = {
    "a cell empty everywhere": ("ds,a,b\n5,,1\n6,NA,2\n", "series 'a' is left out: it has no value"),
    "no such column": ("ds,b\n5,1\n6,2\n", "series 'a' is left out: there is no such column"),
}


@pytest.mark.parametrize("text, note", DEAD.values(), ids=DEAD)
def test_a_later_table_may_lack_one_of_several_series(text, note, tmp_path):
    """A sensor that is dead, or gone, does not take the others with it."""
    (tmp_path / "earlier.csv").write_text("ds,a,b\n1,5,6\n2,6,7\n")
    (tmp_path / "later.csv").write_text(text)
    earlier = read(tmp_path / "earlier.csv")
    later = read(tmp_path / "later.csv", like=earlier.columns, step=1)
    assert later.names == ("b",) and later.notes == (note,) and later.columns == earlier.columns
    for nothing in ("ds,a,b\n5,,\n6,,\n", "ds,c\n5,1\n", "ds,b\n5,\n"):
        (tmp_path / "later.csv").write_text(nothing)
        with pytest.raises(DataError, match=r"at least one value|which does not exist"):
            read(tmp_path / "later.csv", like=earlier.columns, step=1)


def test_a_blank_line_is_a_missing_value_where_there_is_one_column(tmp_path):
    for text in ("Y\n1\n\n3\n\n", '"Y"\n"1"\n\n"3"\n\n'):
        (tmp_path / "table.csv").write_text(text)
        np.testing.assert_array_equal(read(tmp_path / "table.csv")["Y"].target, [1, NAN, 3])


def test_another_encoding(tmp_path):
    (tmp_path / "table.csv").write_bytes("ds,Größe\n1,2\n2,3\n".encode("utf-16"))
    assert read(tmp_path / "table.csv", encoding="utf-16").names == ("Größe",)


def test_a_first_row_that_is_wrong_is_found_in_any_series(tmp_path):
    """Each series has a grid of its own, and a row that leaves it is named by its own line."""
    (tmp_path / "table.csv").write_text("unique_id,ds,y\na,0,1\na,10,1\na,20,1\nb,3,1\nb,13,1\nb,24,1\n")
    with pytest.raises(DataError, match=r"line 7: .* 24 does not stand .* after 3 \(line 5\)"):
        read(tmp_path / "table.csv")
