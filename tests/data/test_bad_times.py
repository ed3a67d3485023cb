"""What the reader says of times that are missing, doubled, irregular or unclear, in full."""

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
        "dup time",
        b"ds,y\n2020-01-01,1\n2020-01-02,2\n2020-01-01,3\n",
        {},
        DataError,
        "load.csv, line 4: a time must occur once, and 2020-01-01 00:00:00 stands in line 2 "
        "already (1 such in all). Take one row out, or name the column that tells series apart "
        "with `id`.",
    ),
    Case(
        "clocks set back",
        b"ds,y\n2024-10-27 01:00,1\n2024-10-27 02:00,2\n2024-10-27 02:00,3\n",
        {},
        DataError,
        "load.csv, line 4: a time must occur once, and 2024-10-27 02:00:00 stands in line 3 already (1 "
        "such in all). Take one row out, or name the column that tells series apart with `id`; if clocks "
        "were set back "
        "then, write times with their offset, such as 02:00+01:00.",
    ),
    Case(
        "a fraction of a second too late",
        b"ds,y\n2024-01-01 00:00:00,1\n2024-01-01 00:00:01,2\n2024-01-01 00:00:02.5,3\n"
        b"2024-01-01 00:00:03,3\n2024-01-01 00:00:04,3\n",
        {},
        DataError,
        "load.csv, line 4: the rows must stand whole steps apart, and the step, the most common distance "
        "between rows, is 1 second; 2024-01-01 00:00:02.500000 does not stand a whole number of steps "
        "after 2024-01-01 00:00:00 (line 2). Correct the time, or read on a finer grid, where times "
        "without a row are masked: "
        "`step` '500000 microseconds'.",
    ),
    Case(
        "dup time long",
        b"unique_id,ds,y\na,1,1\na,1,2\n",
        {},
        DataError,
        "load.csv, line 3: a time of series 'a' must occur once, and 1 stands in line 2 already "
        "(1 such in all). Take one row out.",
    ),
    Case(
        "irregular",
        b"ds,y\n2020-01-01 00:00,1\n2020-01-01 01:00,2\n2020-01-01 02:00,2\n2020-01-01 02:17,2\n",
        {},
        DataError,
        "load.csv, line 5: the rows must stand whole steps apart, and the step, the most common "
        "distance between rows, is 1 hour; 2020-01-01 02:17:00 does not stand a whole number of "
        "steps after 2020-01-01 00:00:00 (line 2). Correct the time, or read on a finer grid, "
        "where times without a row are masked: `step` '1 minute'.",
    ),
    Case(
        "irregular int",
        b"ds,y\n0,1\n5,2\n10,2\n12,3\n",
        {},
        DataError,
        "load.csv, line 5: the rows must stand whole steps apart, and the step, the most common "
        "distance between rows, is 5; 12 does not stand a whole number of steps after 0 (line 2)."
        " Correct the time, or read on a finer grid, where times without a row are masked: "
        "`step` '1'.",
    ),
    Case(
        "given step",
        b"ds,y\n2020-01-01 00:00,1\n2020-01-01 01:30,2\n",
        {"step": "hour"},
        DataError,
        "load.csv, line 3: the rows must stand whole steps apart, and the step, as given, is 1 "
        "hour; 2020-01-01 01:30:00 does not stand a whole number of steps after 2020-01-01 "
        "00:00:00 (line 2). Correct the time, or read on a finer grid, where times without a row "
        "are masked: `step` '90 minutes'.",
    ),
    Case(
        "step kind",
        b"ds,y\n2020-01-01,1\n2020-01-02,2\n",
        {"step": 5},
        SettingError,
        "read: the times are dates, so a step of the calendar is needed as `step`, got '5'.",
    ),
    Case(
        "step kind 2",
        b"ds,y\n1,1\n2,2\n",
        {"step": "hour"},
        SettingError,
        "read: the times are whole numbers, so a whole number is needed as `step`, got '1 hour'.",
    ),
    Case(
        "one row each",
        b"ds,y\n2020-01-01,1\n",
        {},
        DataError,
        "load.csv: a series must have two rows to tell the step from, and each has one. Give "
        "`step`, such as 'hour'.",
    ),
    Case(
        "too long",
        b"ds,y\n1,1\n2,1\n3,1\n99999999999,2\n",
        {},
        DataError,
        "load.csv: 1 to 99999999999 is 99999999999 steps of 1, and a series may have 20000000. "
        "Look for a wrong time, or pass a longer `step`.",
    ),
    Case(
        "time missing",
        b"ds,y\n2020-01-01,1\n,2\n",
        {},
        DataError,
        "load.csv, line 3: column 'ds' (time) must hold a time in every row, and this cell is "
        "empty. Fill it in, or take the row out.",
    ),
    Case(
        "time bad",
        b"ds,y\n2020-01-01,1\n2020-02-30,2\n",
        {},
        DataError,
        "load.csv, line 3: column 'ds' (time) must hold whole numbers or dates such as 2016-07-01"
        " 13:30:00, all written alike, and this cell is '2020-02-30'. For another way of writing "
        "set `time_format` to its strptime form, such as '%d.%m.%Y %H:%M'.",
    ),
    Case(
        "time word",
        b"ds,y\nmonday,1\ntuesday,2\n",
        {"time": "ds"},
        DataError,
        "load.csv, line 2: column 'ds' (time) must hold whole numbers or dates such as 2016-07-01"
        " 13:30:00, all written alike, and this cell is 'monday'. For another way of writing "
        "set `time_format` to its strptime form, such as '%d.%m.%Y %H:%M'.",
    ),
    Case(
        "time ambiguous",
        b"ds,y\n01/02/2018,1\n02/02/2018,2\n",
        {},
        DataError,
        "load.csv: column 'ds' (time), such as '01/02/2018', can be read as day-month-year or "
        "month-day-year. Say which: set `time_format` to '%d/%m/%Y' or '%m/%d/%Y' (strptime).",
    ),
    Case(
        "time ambiguous short",
        b"ds,y\n01-02-03,1\n02-02-03,2\n",
        {},
        DataError,
        "load.csv: column 'ds' (time), such as '01-02-03', can be read as day-month-year or "
        "month-day-year or year-month-day. Say which: set `time_format` to '%d-%m-%y' or '%m-%d-%y' "
        "or '%y-%m-%d' (strptime).",
    ),
    Case(
        "time fits none",
        b"ds,y\n13/13/2018,1\n",
        {},
        DataError,
        "load.csv, line 2: column 'ds' (time) must hold whole numbers or dates such as 2016-07-01"
        " 13:30:00, all written alike, and this cell is '13/13/2018'. For another way of writing "
        "set `time_format` to its strptime form, such as '%d.%m.%Y %H:%M'.",
    ),
    Case(
        "time format",
        b"ds,y\n01/02/2018,1\n2018-01-02,2\n",
        {"time_format": "%d/%m/%Y"},
        DataError,
        "load.csv, line 3: column 'ds' (time) must be written as `time_format`, '%d/%m/%Y', says, and"
        " this cell is '2018-01-02': time data '2018-01-02' does not match format '%d/%m/%Y'.",
    ),
    Case(
        "two times",
        b"a,b,y\n2020-01-01,2020-01-01,2\n",
        {},
        DataError,
        "load.csv: the times must stand in one column, and 'a', 'b' all hold dates. Name one with `time`.",
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
