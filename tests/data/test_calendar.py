"""Steps: one table of steps, one test for each law; hypothesis for the calendar."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort.data import Step
from longshort.data.regular import infer
from longshort.errors import SettingError

STEPS = [
    # step, how it is written, seasons, a time on its grid
    (Step(), "1", (), 7),
    (Step(5), "5", (), -3),
    (Step(1, "microsecond"), "1 microsecond", (), "2024-01-01T00:00:00.000001"),
    (Step(1, "second"), "1 second", (60, 3600, 86400), "2024-01-01T00:00:01"),
    (Step(10, "second"), "10 seconds", (360, 8640, 60480), "2024-01-01T00:00:10"),
    (Step(1, "minute"), "1 minute", (60, 1440, 10080), "2024-01-01T00:01"),
    (Step(15, "minute"), "15 minutes", (96, 672), "2024-01-01T00:15"),
    (Step(30, "minute"), "30 minutes", (48, 336), "2024-01-01T00:30"),
    (Step(1, "hour"), "1 hour", (24, 168), "2024-01-01T01"),
    (Step(5, "hour"), "5 hours", (), "2024-01-01T05"),
    (Step(12, "hour"), "12 hours", (2, 14), "2024-01-01T12"),
    (Step(1, "day"), "1 day", (7,), "2024-01-01"),
    (Step(2, "day"), "2 days", (), "2024-01-01"),
    (Step(1, "business day"), "1 business day", (5,), "2024-01-05T09:30"),
    (Step(1, "week"), "1 week", (52,), "2024-01-03"),
    (Step(1, "month"), "1 month", (12,), "2024-01-15T06"),
    (Step(2, "month"), "2 months", (6,), "2024-01-01"),
    (Step(1, "month", end=True), "1 month end", (12,), "2024-01-31"),
    (Step(1, "quarter"), "1 quarter", (4,), "2024-01-01"),
    (Step(1, "quarter", end=True), "1 quarter end", (4,), "2023-12-31"),
    (Step(1, "year"), "1 year", (), "2024-07-01"),
]
each_step = pytest.mark.parametrize("step, text, seasons, start", STEPS, ids=[row[1] for row in STEPS])


def moment(start):
    return np.datetime64(start, "us") if isinstance(start, str) else np.int64(start)


@each_step
def test_written_and_read_back(step, text, seasons, start):
    assert str(step) == text
    assert Step.parse(text) == Step.parse(step) == Step.parse(text.upper()) == step


@each_step
def test_seasons(step, text, seasons, start):
    assert step.seasons == seasons


@each_step
def test_adding_and_counting_undo_each_other(step, text, seasons, start):
    k = np.arange(-40, 400)
    times = step.add(moment(start), k)
    assert (np.diff(times.astype(np.int64)) > 0).all()
    index, on_grid = step.places(moment(start), times)
    np.testing.assert_array_equal(index, k)
    assert on_grid.all()
    np.testing.assert_array_equal(step.add(step.add(moment(start), 17), 5), step.add(moment(start), 22))
    assert step.steps(moment(start), times[-1]) == 399


@each_step
def test_a_moment_off_the_grid_is_seen(step, text, seasons, start):
    if step == Step() or step.unit == "microsecond":
        return  # every moment is on these grids
    times = step.grid(moment(start), 5)
    moved = times + 1
    index, on_grid = step.places(times[0], moved)
    assert not on_grid.any()
    np.testing.assert_array_equal(index, np.arange(5))


@each_step
def test_the_step_is_found_from_its_own_grid(step, text, seasons, start):
    whole = step.grid(moment(start), 60)
    gaps = whole[np.sort(np.random.default_rng(3).permutation(60)[:50])]
    assert infer([whole]) == infer([gaps]) == infer([whole[:20], gaps[30:]]) == step


def test_two_rows_are_enough_and_one_is_not():
    day = np.array(["2024-01-31", "2024-02-29"], "datetime64[us]")
    assert infer([day[:1], day[1:]]) is None
    assert infer([day]) == Step(1, "month", end=True)


def test_the_last_of_february_alone_does_not_make_month_ends():
    days = np.array(["2021-02-28", "2022-02-28", "2023-02-28"], "datetime64[us]")
    assert infer([days]) == Step(1, "year")
    assert infer([np.array(["2023-02-28", "2024-02-29"], "datetime64[us]")]) == Step(1, "year", end=True)


def test_business_days_that_begin_on_a_weekend_begin_on_monday():
    saturday = np.datetime64("2024-01-06")
    assert Step(1, "business day").add(saturday, 0) == np.datetime64("2024-01-08")


@pytest.mark.parametrize(
    "text, step",
    [
        ("hour", Step(1, "hour")), ("h", Step(1, "hour")), ("30min", Step(30, "minute")),
        ("90 minutes", Step(90, "minute")), ("60 minutes", Step(1, "hour")), ("D", Step(1, "day")),
        ("7d", Step(1, "week")), ("B", Step(1, "business day")), ("business days", Step(1, "business day")),
        ("MS", Step(1, "month")), ("ME", Step(1, "month", True)), ("month end", Step(1, "month", True)),
        ("3 months", Step(1, "quarter")), ("12mo", Step(1, "year")), ("QS", Step(1, "quarter")),
        ("YE", Step(1, "year", True)), (5, Step(5)), ("s", Step(1, "second")),
    ],
)  # fmt: skip
def test_other_ways_of_writing(text, step):
    assert Step.parse(text) == step


@pytest.mark.parametrize(
    "text", ["", "fortnight", "end", "5 end", "-1 day", "1.5 hours", "2 business", "day month"]
)
def test_what_is_no_step(text):
    with pytest.raises(SettingError) as raised:
        Step.parse(text)
    assert str(raised.value) == (
        "step: a step is a count and a unit (microsecond, second, minute, hour, day, week, business day, "
        f"month, quarter, year) such as 'hour', '30 minutes' or 'month end', or a whole number, got {text!r}."
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, "day"), "Step: `count` must be at least 1, got 0."),
        ((1, "day", True), "Step: `end` needs a step of whole months, got 'day'."),
        ((2, "business day"), "Step: `count` must be 1 for business days, got 2."),
        (
            (1, "moon"),
            "Step: `unit` must be one of integer, microsecond, second, minute, hour, day, week, business "
            "day, "
            "month, quarter, year, got 'moon'.",
        ),
    ],
)
def test_what_is_no_step_from_python(arguments, message):
    with pytest.raises(SettingError) as raised:
        Step(*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "step, time, text",
    [
        (Step(), 5, "5"),
        (Step(1, "month"), "2024-01-01", "2024-01"),
        (Step(1, "month", True), "2024-01-31", "2024-01-31"),
        (Step(1, "day"), "2024-01-31", "2024-01-31"),
        (Step(1, "day"), "2024-01-31T06:00", "2024-01-31 06:00:00"),
        (Step(1, "hour"), "2024-01-31", "2024-01-31 00:00:00"),
        (Step(250000, "microsecond"), "2024-01-31T00:00:00.25", "2024-01-31 00:00:00.250000"),
    ],
)
def test_a_time_as_a_person_writes_it(step, time, text):
    assert step.text(time) == text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.datetimes(),
    st.sampled_from(["second", "minute", "hour", "day", "week", "month", "quarter", "year"]),
    st.integers(1, 40),
    st.integers(-30, 30),
)
def test_any_moment_any_step(stamp, unit, count, k):
    """On every calendar step from every moment that the month allows, adding k and counting give k."""
    step = Step(count, unit)
    start = np.datetime64(stamp.replace(day=min(stamp.day, 28)), "us")
    index, on_grid = step.places(start, step.add(start, k))
    assert (int(index), bool(on_grid)) == (k, True)
