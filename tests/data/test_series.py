"""Covariates and what a table of series can do: split, select, look ahead."""

from dataclasses import replace

import numpy as np
import polars
import pytest

from longshort.data import Columns, Series, SeriesTable, Step, read, read_ahead
from longshort.errors import DataError, SettingError, ShapeError

NAN = float("nan")
LONG = """unique_id,ds,y,wind,price,sky,region
a,2024-01-01,1,10,5,blue,north
a,2024-01-02,2,11,6,grey,north
a,2024-01-03,3,,7,,north
a,2024-01-04,,,8,grey,north
a,2024-01-06,,,9,grey,north
b,2024-02-01,4,20,,blue,
b,2024-02-02,5,21,3,blue,south
"""
ROLES = {"past": "wind", "future": ["price", "sky"], "static": ["region"], "categorical": ["sky", "region"]}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "long.csv").write_text(LONG)
    return read(tmp_path / "long.csv", **ROLES)


def test_covariates_in_their_roles(table):
    a, b = table
    np.testing.assert_array_equal(a.target, [1, 2, 3])
    np.testing.assert_array_equal(a.past, [[10], [11], [NAN]])
    np.testing.assert_array_equal(a.future, [[5, 0], [6, 1], [7, NAN], [8, 1], [NAN, NAN], [9, 1]])
    np.testing.assert_array_equal(a.static, [0])
    np.testing.assert_array_equal(b.future, [[NAN, 0], [3, 0]])
    np.testing.assert_array_equal(b.static, [1])
    assert (a.ahead, b.ahead) == (3, 0)
    assert table.columns == Columns(
        target=("y",), time="ds", id="unique_id", past=("wind",), future=("price", "sky"), static=("region",),
        categories={"sky": ("blue", "grey"), "region": ("north", "south")},
    )  # fmt: skip
    assert table.columns.categorical == ("sky", "region")


def test_codes_do_not_depend_on_which_categories_a_later_table_has(table, tmp_path):
    (tmp_path / "later.csv").write_text(
        "unique_id,ds,y,wind,price,sky,region\nc,2024-01-01,1,1,1,grey,south\n"
    )
    later = read(tmp_path / "later.csv", like=table.columns, step=table.step)
    np.testing.assert_array_equal(later["c"].future, [[1, 1]])
    np.testing.assert_array_equal(later["c"].static, [1])


def test_categories_that_are_whole_numbers_are_in_their_order():
    frame = polars.DataFrame({"ds": [1, 2, 3], "y": [1, 2, 3], "k": [10, 9, 10], "f": [1.0, None, 2.5]})
    table = read(frame, past=["k", "f"], categorical=["k", "f"])
    assert table.columns.categories == {"k": ("9", "10"), "f": ("1", "2.5")}
    np.testing.assert_array_equal(table["y"].past, [[1, 0], [0, NAN], [1, 1]])


def test_truth_values_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("ds,y,holiday\n1,1,True\n2,2,false\n3,3,\n")
    np.testing.assert_array_equal(
        read(tmp_path / "t.csv", future="holiday").series[0].future, [[1], [0], [NAN]]
    )


def test_a_wide_table_shares_its_covariates(tmp_path):
    (tmp_path / "t.csv").write_text("ds,a,b,x,w\n1,,5,7,.1\n2,1,6,8,.2\n3,2,,9,.3\n4,,,10,.4\n")
    a, b = read(tmp_path / "t.csv", future="x", past="w")
    np.testing.assert_array_equal(a.future, [[8], [9], [10]])
    np.testing.assert_array_equal(b.future, [[7], [8], [9], [10]])
    np.testing.assert_array_equal(a.past, [[0.2], [0.3]])
    np.testing.assert_array_equal(b.past, [[0.1], [0.2]])


@pytest.mark.parametrize("last, kept", [(1, 9), (9, 1), (0.2, 8), (0.01, 9), (0.99, 1)])
def test_a_split_in_time(last, kept):
    earlier, later = numbers(10).split(last=last)
    np.testing.assert_array_equal(earlier["s"].target, np.arange(kept))
    np.testing.assert_array_equal(later["s"].target, np.arange(kept, 10))
    assert later["s"].time[0] == earlier["s"].time[-1] + 1
    assert len(earlier["s"].past) == kept and len(later["s"].past) == 10 - kept
    np.testing.assert_array_equal(earlier["s"].future[:, 0], np.arange(12))
    np.testing.assert_array_equal(later["s"].future[:, 0], np.arange(kept, 12))


def test_nothing_of_the_later_target_reaches_the_earlier_part():
    """Whatever happens later, the earlier part is the same to the last bit."""
    whole = numbers(10)
    other = replace(
        whole,
        series=tuple(
            replace(
                s,
                target=np.append(s.target[:7], [9e9, NAN, -1]),
                past=np.append(s.past[:7], [[1], [2], [3]], 0),
            )
            for s in whole
        ),
    )
    for part, changed in zip(whole.split(last=3)[0], other.split(last=3)[0], strict=True):
        assert part.target.tobytes() == changed.target.tobytes()
        assert part.past.tobytes() == changed.past.tobytes()
        assert not np.shares_memory(part.target, changed.target)


@pytest.mark.parametrize("last", [0, -1, 0.0, 1.0, 1.5])
def test_a_split_that_is_none(last):
    with pytest.raises(SettingError) as raised:
        numbers(10).split(last=last)
    assert str(raised.value) == f"split: `last` must be a count >= 1 or a share in (0, 1), got {last!r}."


def test_a_split_that_leaves_nothing():
    with pytest.raises(DataError) as raised:
        numbers(10).split(last=10)
    assert str(raised.value) == (
        "series 's' has 10 rows, and the later part alone takes 10; it must have at least 11. Give a smaller "
        "`last`, or leave the series out."
    )


def test_without_known_covariates_nothing_is_ahead(tmp_path):
    (tmp_path / "t.csv").write_text("ds,y\n1,5\n2,6\n3,\n")
    table = read(tmp_path / "t.csv", target="y")
    assert [part["y"].ahead for part in (table, *table.split(last=1))] == [0, 0, 0]


def test_select(table):
    assert table.select(["b", "a"]).names == ("b", "a")
    with pytest.raises(DataError) as raised:
        table.select(["aa"])
    assert str(raised.value) == "no series is named 'aa'; there are 'a', 'b'. Did you mean 'a'?"


def test_what_is_missing_ahead(table):
    day = lambda text: np.datetime64(text, "us")  # noqa: E731
    found = [(m.series, m.time, m.column) for m in table.missing_future(2)]
    assert found == [
        ("a", day("2024-01-05"), "price"), ("a", day("2024-01-05"), "sky"),
        ("b", day("2024-02-03"), "price"), ("b", day("2024-02-03"), "sky"),
        ("b", day("2024-02-04"), "price"), ("b", day("2024-02-04"), "sky"),
    ]  # fmt: skip
    assert table.select(["a"]).missing_future(1) == ()


def test_rows_ahead_from_another_table(table, tmp_path):
    (tmp_path / "ahead.csv").write_text(
        "unique_id,ds,sky,price\nb,2024-02-01,grey,1\nb,2024-02-02,,2\n"
        "b,2024-02-03,grey,3\nb,2024-02-05,grey,4\n"
    )
    ahead = read_ahead(tmp_path / "ahead.csv", like=table.columns, step=table.step)
    joined = table.with_ahead(ahead)
    np.testing.assert_array_equal(joined["b"].future, [[1, 1], [2, 0], [3, 1], [NAN, NAN], [4, 1]])
    np.testing.assert_array_equal(joined["b"].target, table["b"].target)
    np.testing.assert_array_equal(joined["a"].future, table["a"].future)
    assert joined.select(["b"]).missing_future(1) == ()


def test_rows_ahead_may_begin_before_the_series_does(tmp_path):
    (tmp_path / "t.csv").write_text("ds,y,x\n5,1,1\n6,2,2\n")
    (tmp_path / "ahead.csv").write_text("ds,x\n4,40\n5,50\n6,60\n7,70\n")
    table = read(tmp_path / "t.csv", target="y", future="x")
    joined = table.with_ahead(read_ahead(tmp_path / "ahead.csv", like=table.columns, step=table.step))
    np.testing.assert_array_equal(joined["y"].future, [[50], [60], [70]])


def test_rows_ahead_without_times_follow_the_last(tmp_path):
    (tmp_path / "t.csv").write_text("y,x\n5,1\n6,2\n")
    (tmp_path / "ahead.csv").write_text("x\n3\n4\n")
    table = read(tmp_path / "t.csv", target="y", future="x")
    joined = table.with_ahead(read_ahead(tmp_path / "ahead.csv", like=table.columns, step=table.step))
    np.testing.assert_array_equal(joined["y"].future, [[1], [2], [3], [4]])


def test_rows_ahead_off_the_grid(tmp_path):
    (tmp_path / "t.csv").write_text("ds,y,x\n2024-01-01 00:00,5,1\n2024-01-01 01:00,6,2\n")
    (tmp_path / "ahead.csv").write_text("ds,x\n2024-01-01 02:30,5\n")
    table = read(tmp_path / "t.csv", target="y", future="x")
    ahead = read_ahead(tmp_path / "ahead.csv", like=table.columns, step=table.step)
    with pytest.raises(DataError) as raised:
        table.with_ahead(ahead)
    assert str(raised.value) == (
        "series 'y': rows known in advance must stand whole steps of 1 hour after 2024-01-01 00:00:00, and "
        "the first is 2024-01-01 02:30:00."
    )


def test_a_long_table_with_covariates_reads_back(table):
    again = read(table.to_polars(), **ROLES)
    assert again.columns == table.columns and again.step == table.step
    for before, after in zip(table, again, strict=True):
        for what in ("time", "target", "past", "future", "static"):
            np.testing.assert_array_equal(getattr(after, what), getattr(before, what))


def test_nobody_writes_into_a_series(table):
    for what in ("time", "target", "past", "future", "static"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(table["a"], what)[:] = 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target": np.zeros(4)}, "Series 's': `target` must be (10,), got (4,)."),
        ({"past": np.zeros((9, 1))}, "Series 's': `past` must be (10, P), got (9, 1)."),
        ({"future": np.zeros((9, 1))}, "Series 's': `future` must be (at least 10, K), got (9, 1)."),
        ({"static": np.zeros((1, 1))}, "Series 's': `static` must be (S,), got (1, 1)."),
    ],
)
def test_a_series_has_its_shapes(change, message):
    with pytest.raises(ShapeError) as raised:
        replace(numbers(10)["s"], **change)
    assert str(raised.value) == message


def numbers(T):
    """One series that counts, with two rows of its future covariate beyond its end."""
    t = np.arange(T, dtype=float)
    series = Series("s", np.arange(T), t, t[:, None].copy(), np.arange(T + 2.0)[:, None], np.zeros(0))
    return SeriesTable((series,), Step(), Columns(("s",), past=("p",), future=("f",)))
