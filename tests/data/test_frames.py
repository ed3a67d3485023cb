"""Frames of pandas and polars, with every kind of column and index that holds times and numbers."""

import decimal

import numpy as np
import pandas
import polars
import pytest

from longshort.data import Step, read
from longshort.errors import DataError

NAN = float("nan")


def test_a_pandas_index_is_a_column():
    index = pandas.date_range("2024-01-31", periods=3, freq="ME")
    for frame in (
        pandas.DataFrame({"load": [1.0, 2.0, None]}, index=index),
        pandas.Series([1.0, 2.0, None], index=index, name="load"),
        pandas.Series([1.0, 2.0, None], index=index.tz_localize("UTC"), name="load"),
    ):
        table = read(frame)
        assert table.step == Step(1, "month", end=True)
        assert table.names == ("load",) and table["load"].target.tolist() == [1, 2]


def test_pandas_periods_are_times():
    frame = pandas.DataFrame({"load": [1, 2]}, index=pandas.period_range("2024-01", periods=2, freq="M"))
    assert read(frame).step == Step(1, "month")


def test_a_zone_in_a_frame_is_read_as_its_offsets_are(tmp_path):
    days = pandas.date_range("2024-03-30", periods=3, freq="D", tz="Europe/Berlin")
    hours = pandas.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")
    for stamps, step, first in ((days, "1 day", "2024-03-30"), (hours, "1 hour", "2024-03-30T23")):
        frame = pandas.DataFrame({"ds": stamps, "y": 1.0})
        for source in (frame, polars.DataFrame({"ds": stamps.to_list(), "y": frame.y.to_list()})):
            table = read(source)
            assert str(table.step) == step
            assert table["y"].time[0] == np.datetime64(first)


def test_row_numbers_of_a_frame_are_no_series():
    days = pandas.date_range("2024-01-01", periods=6, freq="D")
    frame = pandas.DataFrame({"ds": days, "y": [1.0, 2, NAN, 4, 5, 6]}).dropna()
    table = read(frame)
    assert table.names == ("y",) and "left out 'index': row numbers" in table.notes


def test_offsets_in_a_frame_are_read_as_in_a_file():
    """No zone of the database, or another offset in each cell: polars has no type for either."""
    fixed = pandas.date_range("2024-01-01", periods=3, freq="h", tz="UTC+02:00")
    changing = [stamp.tz_convert(f"UTC+0{k}:00") for k, stamp in enumerate(fixed)]
    for stamps in (fixed, changing):
        table = read(pandas.DataFrame({"ds": stamps, "y": 1.0}))
        assert table["y"].time[0] == np.datetime64("2023-12-31T22") and table.notes == ("'ds' read in UTC",)
    mixed = pandas.DataFrame({"ds": [fixed[0], pandas.Timestamp("2024-01-01 01:00")], "y": 1.0})
    with pytest.raises(DataError, match=r"row 1 .*'ds' \(time\) must have an offset from UTC, as others"):
        read(mixed)


@pytest.mark.parametrize(
    "values",
    [
        pandas.array([1, None, 3], dtype="Int64"),
        pandas.array([1, None, 3], dtype="Float32"),
        np.array([1, np.nan, 3], np.float32),
        np.array([1, None, 3.0], object),
        np.array(["1", "", "3"], object),
        [decimal.Decimal(1), None, decimal.Decimal(3)],
    ],
    ids=["Int64", "Float32", "float32", "object", "text", "decimal"],
)
def test_pandas_numbers_of_every_kind(values):
    table = read(pandas.DataFrame({"t": [1, 2, 3], "y": values}))
    np.testing.assert_array_equal(table["y"].target, [1, NAN, 3])
