"""What is derived from the data, and what is refused."""

import json

import numpy as np
import pytest

from longshort.data import Step
from longshort.errors import DataError, SettingError
from longshort.tasks import Forecaster
from longshort.tasks.forecast.plan import (
    Plan,
    calendar_channels,
    calendar_cycles,
    cut,
    make_plan,
    restored,
    transformed,
)
from longshort.tasks.forecast.settings import ForecastSettings
from tasks.making import full_table, series, table, wave

HOURS = np.datetime64("2024-01-01T00", "us") + np.arange(24 * 70) * np.timedelta64(1, "h")


def daily(amplitude=1.0, weekly=0.0, T=24 * 70):
    t, random = np.arange(T), np.random.default_rng(0)
    day = np.sin(2 * np.pi * t / 24)
    return 10 + day * (amplitude + weekly * (t // 24 % 7 == 5)) + 0.1 * random.normal(size=T)


@pytest.mark.parametrize(
    ("why", "values", "time", "settings", "seasons"),
    [
        ("given", daily(), None, {"season": 12}, (12, 24)),
        ("from the data", daily(), None, {}, (24,)),
        ("a week in the data, without a calendar", daily(weekly=3.0), None, {"season": 24}, (24, 168)),
        ("a week in the data, by the calendar", daily(weekly=3.0), HOURS, {"season": 24}, (24, 168)),
        ("the days of a week", daily(weekly=9.0), HOURS, {"season": 168}, (168, 24)),
        ("no week", daily(), HOURS, {}, (24,)),
        ("none at all", np.cumsum(np.random.default_rng(1).normal(size=300)), None, {}, (1,)),
    ],
)
def test_seasons(why, values, time, settings, seasons):
    step = Step() if time is None else Step(1, "hour")
    plan = make_plan(table(series(values, time=time), step=step), ForecastSettings(horizon=5, **settings))
    assert plan.seasons == seasons, why
    assert plan.context == max(*seasons, 24)
    assert plan.memory == plan.context + 2 * max(seasons)


GROWTH = np.exp(np.arange(200) / 60)
SHAPE = np.sin(2 * np.pi * np.arange(200) / 10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (100 + 5 * SHAPE, "none"),
        (GROWTH * (10 + 3 * SHAPE), "log"),
        ((np.sqrt(GROWTH) * 5 + SHAPE) ** 2, "sqrt"),
        (GROWTH * 10 + 3 * SHAPE, "none"),
        (GROWTH * (10 + 3 * SHAPE) - 20, "none"),
        (np.where(np.arange(200) < 3, 0, GROWTH * (10 + 3 * SHAPE)), "sqrt"),
    ],
    ids=["level", "growing with its level", "between", "growing alone", "negative", "log but for a zero"],
)
def test_transform(values, expected):
    plan = make_plan(table(series(values)), ForecastSettings(horizon=5, season=10))
    assert plan.transform == expected


@pytest.mark.parametrize("transform", ["none", "sqrt", "log"])
def test_transforms_are_undone(transform):
    values = np.array([0.5, 1.0, 30.0, 1e6, np.nan])
    back = restored(transformed(values, transform), transform)
    np.testing.assert_allclose(back, values, rtol=1e-12)
    line = restored(np.linspace(-50, 800, 200), transform)
    assert np.isfinite(line).all() and (np.diff(line) >= 0).all()


def test_transform_looks_at_nothing_of_the_validation_part():
    values = 100 + 5 * SHAPE
    settings = ForecastSettings(horizon=5, season=10, transform="auto")
    changed = values.copy()
    changed[cut(200, settings) :] *= np.linspace(1, 50, 200 - cut(200, settings))
    plans = [make_plan(table(series(v)), settings) for v in (values, changed)]
    assert plans[0].transform == plans[1].transform == "none"


def test_covariates_are_standardised_by_what_precedes_the_validation():
    settings = ForecastSettings(horizon=6, season=8, context=16)
    before = make_plan(full_table(), settings)
    many = full_table()
    for one in many:
        for array in (one.past, one.future):
            array.flags.writeable = True
            array[cut(len(one), settings) :, 0] = 1e6
    after = make_plan(many, settings)
    assert before.numeric == after.numeric
    assert [name for name, _, _ in before.numeric["past"]] == ["wind"]
    assert before.coded == {"past": (("kind", 3),), "future": (("day", 3),), "static": (("place", 2),)}


def test_a_plan_survives_json():
    plan = make_plan(full_table(), ForecastSettings(horizon=6, season=8, context=16))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("step", "cycles"),
    [
        (Step(), ()),
        (Step(15, "minute"), ("hour", "day", "week", "year")),
        (Step(1, "hour"), ("day", "week", "year")),
        (Step(1, "day"), ("week", "year")),
        (Step(1, "month"), ("year",)),
        (Step(1, "year"), ()),
    ],
)
def test_calendar_cycles(step, cycles):
    assert calendar_cycles(step) == cycles


def test_calendar_channels_repeat_with_their_cycle():
    hours = HOURS[:: 24 * 7][:5]
    week = calendar_channels(hours, ("day", "week"))
    assert week.shape == (5, 4)
    np.testing.assert_allclose(week, np.broadcast_to(week[0], week.shape), atol=1e-9)
    months = calendar_channels(
        np.array(["2023-01-01", "2023-07-01", "2024-01-01"], "datetime64[us]"), ("year",)
    )
    np.testing.assert_allclose(months, [[0, 1], [0, -1], [0, 1]], atol=1e-9)


def refusal(values, settings=None, **options):
    with pytest.raises((DataError, SettingError)) as raised:
        options = {"horizon": 6, "season": 8, "context": 16} | options
        Forecaster(**options).fit(table(*[series(v, name) for name, v in values.items()]), quiet=True)
    return str(raised.value)


def test_a_horizon_of_zero():
    assert refusal({"y": wave(100)}, horizon=0) == (
        "forecast: `horizon` must be in [1, inf), got 0.\n  Steps to forecast."
    )


def test_an_unknown_setting():
    message = refusal({"y": wave(100)}, horizn=3)
    assert message.startswith(
        "Forecaster: `horizn` is no setting of forecast. Known: max_steps, optimiser, lr, "
    )


def test_a_series_that_is_too_short():
    assert refusal({"long": wave(100), "short": wave(21)}) == (
        "series 'short' has 21 rows, and must have at least 22 (context 16 + horizon 6). "
        "Give a smaller `horizon` or `context`, or leave the series out."
    )
    assert refusal({"y": wave(52)}, horizon=26) == (
        "series 'y' has 52 rows, and must have at least 53 (2 x horizon 26 + 1). "
        "Give a smaller `horizon` or `context`, or leave the series out."
    )


def test_the_shortest_series_that_is_long_enough():
    options = {"season": 8, "hidden": 4, "max_steps": 2}
    for length, horizon, context in ((22, 6, 16), (53, 26, 16)):
        model = Forecaster(horizon=horizon, context=context, **options)
        forecast = model.fit(table(series(wave(length))), quiet=True).predict()
        assert np.isfinite(forecast.median).all()


def test_a_series_without_a_value():
    assert refusal({"a": wave(100), "b": np.full(100, np.nan)}) == (
        "series 'b': all 100 values are missing. Leave it out, or give a target column that has values."
    )


def test_a_transform_that_the_values_do_not_allow():
    values = wave(100)
    values[7] = -3.5
    assert refusal({"y": values}, transform="log") == (
        "series 'y': `transform` 'log' needs values above 0, got -3.5 at 7. Use 'auto' or 'none'."
    )
