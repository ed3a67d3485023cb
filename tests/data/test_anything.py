"""Whatever the bytes are, a reader gives series or a DataError; whatever the table is, it reads back."""

import csv
import io

import numpy as np
import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longshort.data import Step, read
from longshort.data.delimited import parse
from longshort.errors import DataError

often = settings(max_examples=200, deadline=None, derandomize=True)
PIECES = [
    "ds", "y", ",", ",", ",", "1", "2.5", "NA", "inf", "1e999", "2024-01-01", "2024-02", "01/02/2024",
    "unique_id", ";", "\t", " ", '"', '"', "\n", "\n", "\r\n", "\r", "\0",
]  # fmt: skip
LIKELY = st.lists(
    st.sampled_from([b" ", b"\xef\xbb\xbf", b"\xe9", b"\0", *(piece.encode() for piece in PIECES)]),
    max_size=40,
).map(b"".join)


@often
@given(st.one_of(LIKELY, st.binary(max_size=80), st.binary(max_size=40).map(lambda b: b"\x1f\x8b" + b)))
@example(b"PAR1")
@example(b"PAR1" + 40 * b"\0" + b"PAR1")
@example(b"\x1f\x8b\x08\x00")
@example(b"ds,y\n0001-01-01 00:00:00,1\n0001-01-01 00:00:01,1\n9999-12-31 23:59:59,2\n")
@example(b"t,y\n-999999999999999999,1\n999999999999999999,2\n")
@example(b"ds,y\n00000-01-01,1\n")
@example(b"ds,y\n2024-01-01 00:00+99:99,1\n2024-01-01 01:00+99:99,2\n")
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = read(path)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(len(s) > 0 and np.isfinite(s.target[[0, -1]]).all() for s in table)


cells = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5).map(float))
steps = st.sampled_from(
    [
        Step(),
        Step(7),
        Step(1, "second"),
        Step(1, "hour"),
        Step(1, "day"),
        Step(1, "month"),
        Step(1, "month", True),
    ]
)


@often
@given(
    st.data(),
    steps,
    st.integers(2, 12),
    st.integers(1, 3),
    st.sampled_from(["csv", "quoted", "parquet", "frame"]),
)
def test_a_table_reads_back(tmp_path_factory, data, step, T, count, kind):
    """Random values at random rows of a random step, shuffled, in any format: nothing lost or moved."""
    start = np.datetime64("2019-10-31" if step.end else "2019-10-15", "us") if step.calendar else np.int64(3)
    columns = {f"c{k}": data.draw(st.lists(cells, min_size=T, max_size=T)) for k in range(count)}
    order = data.draw(st.permutations(range(T)))
    columns = {n: [1.0, *values[1:-1], 2.0] for n, values in columns.items()}
    frame = polars.DataFrame({"ds": step.grid(start, T), **columns})[order]
    folder = tmp_path_factory.getbasetemp()
    path = folder / ("any.parquet" if kind == "parquet" else "any.csv")
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind != "frame":
        frame.write_csv(path, quote_style="always" if kind == "quoted" else "necessary")
    table = read(frame if kind == "frame" else path, step=step)
    assert table.names == tuple(columns)
    for series in table:
        np.testing.assert_array_equal(series.time, step.grid(start, T))
        wanted = np.array([np.nan if v is None else v for v in columns[series.name]])
        np.testing.assert_array_equal(series.target, wanted)


words = st.text(st.sampled_from('ab,;\t"\n\r é'), max_size=6)


@often
@given(st.lists(st.lists(words, min_size=3, max_size=3), min_size=1, max_size=6))
def test_cells_and_lines_are_those_of_the_csv_module(rows):
    """Python's own writer and line count, which nobody here wrote, agree on every cell and every line."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["p", "q", "r"], *rows])
    table = parse(file.getvalue().encode(), "any.csv", "utf-8")
    assert [list(row) for row in table.frame.rows()] == rows
    before = 2
    for row, line in zip(rows, table.lines, strict=True):
        assert line == before
        before += 1 + breaks(row)


def breaks(row):
    """Line breaks within the cells of a row; a carriage return and a line feed in a row are one."""
    return sum(len(cell.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1 for cell in row)


@often
@given(
    st.lists(st.sampled_from(["1,2", "", "  ", "3,4"]), max_size=12), st.sampled_from(["\n", "\r\n", "\r"])
)
def test_blank_lines_are_counted_and_skipped(lines, end):
    text = end.join(["", "a,b", "9,9", *lines])
    table = parse(text.encode(), "any.csv", "utf-8")
    wanted = [k for k, line in enumerate(["", "a,b", "9,9", *lines], start=1) if "," in line][1:]
    assert table.lines.tolist() == wanted
    quoted = parse(text.replace("9,9", '"9",9').encode(), "any.csv", "utf-8")
    assert quoted.lines.tolist() == wanted and quoted.frame.rows() == table.frame.rows()


@pytest.mark.parametrize("bad", ["x", '"x"'])
def test_the_line_of_a_bad_cell_among_blank_and_quoted_lines(bad, tmp_path):
    (tmp_path / "t.csv").write_text(f'\nds,note,y\n\n1,"a\nb\n\nc",5\n\n2,"d",{bad}\n')
    with pytest.raises(DataError, match=r"t\.csv, line 9: column 'y' \(target\) .* this cell is 'x'"):
        read(tmp_path / "t.csv", target="y")
