"""Baselines against loops, against R's decomposition written out, and against M4's own score sheet."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest

from longshort import scores

NAN = float("nan")
rng = np.random.default_rng(11)


def loop_naive(history, horizon):
    found = [y for y in history if not math.isnan(y)]
    return [found[-1] if found else NAN] * horizon


def loop_seasonal(history, horizon, season):
    out = []
    for h in range(horizon):
        place = len(history) + h % season - season
        while place >= 0 and math.isnan(history[place]):
            place -= season
        out.append(history[place] if place >= 0 else loop_naive(history, 1)[0])
    return out


def loop_drift(history, horizon):
    places = [t for t, y in enumerate(history) if not math.isnan(y)]
    if not places:
        return [NAN] * horizon
    first, last = places[0], places[-1]
    slope = (history[last] - history[first]) / (last - first) if last > first else 0.0
    return [history[last] + slope * (len(history) + h - last) for h in range(horizon)]


def loop_seasonal_test(history, season):
    """The test of M4's R code, on a series without missing values."""
    n = len(history)
    if n < 3 * season or len(set(history)) == 1:
        return False
    m = sum(history) / n
    size = sum((y - m) ** 2 for y in history)
    r = [sum((history[t] - m) * (history[t + k] - m) for t in range(n - k)) / size for k in range(season + 1)]
    return abs(r[season]) > 1.645 / math.sqrt(n) * math.sqrt(1 + 2 * sum(x * x for x in r[1:season]))


def loop_naive2(history, horizon, season):
    """R's decompose(type = "multiplicative") step by step, then Naive2 as M4 computes it."""
    n, half = len(history), season // 2
    if season == 1 or not loop_seasonal_test(history, season):
        return loop_naive(history, horizon)
    weights = [1.0] * season if season % 2 else [0.5] + [1.0] * (season - 1) + [0.5]
    trend = [NAN] * n
    for t in range(half, n - half):
        trend[t] = sum(w * history[t - half + k] for k, w in enumerate(weights)) / season
    figure = []
    for place in range(season):
        ratios = [history[t] / trend[t] for t in range(place, n, season) if not math.isnan(trend[t])]
        figure.append(sum(ratios) / len(ratios))
    middle = sum(figure) / season
    figure = [f / middle for f in figure]
    level = history[-1] / figure[(n - 1) % season]
    return [level * figure[(n + h) % season] for h in range(horizon)]


def wave(T, season, noise):
    t = np.arange(T)
    return 50 + 0.1 * t + 20 * np.sin(2 * np.pi * t / season) + noise * rng.normal(size=T)


WHOLE = {
    "even season": (wave(75, 12, 3), 12),
    "odd season": (wave(60, 7, 3), 7),
    "no season in it": (50 + rng.normal(size=60), 12),
    "too short for the test": (wave(35, 12, 1), 12),
    "one step short of three seasons": (np.where(np.arange(35) % 12, 1.0, 9.0) + 0.1 * rng.random(35), 12),
    "three seasons of the same": (np.where(np.arange(36) % 12, 1.0, 9.0) + 0.1 * rng.random(36), 12),
    "shorter than a season": (wave(5, 12, 1), 12),
    "season of one": (wave(20, 5, 1), 1),
    "season of two": (wave(40, 2, 1), 2),
    "constant": (np.full(60, 4.0), 12),
    "exactly three seasons": (wave(36, 12, 1), 12),
}
HOLES = {name: (np.where(rng.random(len(y)) < 0.3, NAN, y), m) for name, (y, m) in WHOLE.items()}
HOLES |= {
    "nothing known": (np.full(9, NAN), 3),
    "one value": (np.array([NAN, 3.0, NAN]), 4),
    "no steps": (np.zeros(0), 4),
}
whole = pytest.mark.parametrize("history, season", WHOLE.values(), ids=[n.replace(" ", "-") for n in WHOLE])
each = pytest.mark.parametrize(
    "history, season", [*WHOLE.values(), *HOLES.values()], ids=[*WHOLE, *(f"{n} with holes" for n in HOLES)]
)


@each
def test_naive_drift_and_seasonal_naive(history, season):
    for horizon in (1, 5, 30):
        rows = history.tolist()
        np.testing.assert_array_equal(scores.naive(history, horizon), loop_naive(rows, horizon))
        np.testing.assert_allclose(scores.drift(history, horizon), loop_drift(rows, horizon), rtol=1e-12)
        np.testing.assert_array_equal(
            scores.seasonal_naive(history, horizon, season), loop_seasonal(rows, horizon, season)
        )


@whole
def test_naive2_is_r_s_decomposition(history, season):
    wanted = loop_naive2(history.tolist(), 30, season)
    np.testing.assert_allclose(scores.naive2(history, 30, season), wanted, rtol=1e-9)


@whole
def test_the_seasonal_test_is_m4_s(history, season):
    wanted = season > 1 and loop_seasonal_test(history.tolist(), season)
    assert bool(scores.is_seasonal(history, season)) == wanted


def test_the_cases_show_a_season_and_none():
    assert {bool(scores.is_seasonal(history, season)) for history, season in WHOLE.values()} == {True, False}


@each
@pytest.mark.parametrize("front", [1, 5, 40])
def test_missing_values_in_front_change_nothing(history, season, front):
    longer = np.concatenate([np.full(front, NAN), history])
    for baseline in (scores.naive, scores.drift):
        np.testing.assert_allclose(baseline(longer, 9), baseline(history, 9), rtol=1e-9)
    for baseline in (scores.seasonal_naive, scores.naive2):
        np.testing.assert_allclose(baseline(longer, 9, season), baseline(history, 9, season), rtol=1e-9)


@whole
def test_missing_values_at_the_end_only_shift_the_forecast(history, season):
    longer = np.concatenate([history, np.full(5, NAN)])
    for baseline in (scores.naive, scores.drift):
        np.testing.assert_allclose(baseline(longer, 9), baseline(history, 14)[5:], rtol=1e-9)
    for baseline in (scores.seasonal_naive, scores.naive2):
        np.testing.assert_allclose(baseline(longer, 9, season), baseline(history, 14, season)[5:], rtol=1e-9)


def test_many_windows_at_once_are_each_window_alone():
    values = np.where(rng.random(200) < 0.1, NAN, wave(200, 12, 2))
    origins = np.array([0, 3, 40, 77, 150, 200])
    windows = scores.histories(values, origins)
    assert windows.shape == (6, 200)
    for baseline in (
        scores.naive,
        scores.drift,
        lambda y, h: scores.seasonal_naive(y, h, 12),
        lambda y, h: scores.naive2(y, h, 12),
    ):
        together = baseline(windows.reshape(2, 3, 200), 20).reshape(6, 20)
        alone = np.stack([baseline(values[:o], 20) for o in origins])
        np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_histories_end_where_they_must():
    values = np.arange(10.0)
    np.testing.assert_array_equal(scores.histories(values, np.array([2, 4]), 3), [[NAN, 0, 1], [1, 2, 3]])
    np.testing.assert_array_equal(scores.histories(values, np.array([4])), [[0, 1, 2, 3]])


def test_values_below_zero_take_the_additive_decomposition():
    history = wave(96, 12, 0.5) - 60
    forecast = scores.naive2(history, 24, 12)
    truth = wave(120, 12, 0)[96:] - 60
    assert scores.mae(truth, forecast) < 0.4 * scores.mae(truth, scores.naive(history, 24))
    shifted = scores.naive2(history + 7, 24, 12) if (history + 7 <= 0).any() else None
    assert shifted is not None
    np.testing.assert_allclose(shifted, forecast + 7, rtol=1e-9)


@pytest.mark.parametrize(
    "history", [np.zeros(60), np.tile([0.0, 0.0, 5.0], 20), np.tile([-1.0, 0.0, 1.0], 20)]
)
def test_zeros_are_values_like_any_other(history):
    """No warning, no NaN: pytest makes an error of either division by zero."""
    for forecast in (
        scores.naive2(history, 6, 3),
        scores.seasonal_naive(history, 6, 3),
        scores.drift(history, 6),
    ):
        assert np.isfinite(forecast).all()
    np.testing.assert_allclose(scores.naive2(history, 6, 3), history[:6], atol=1e-12)


class Steps:
    def __init__(self, *seasons):
        self.seasons = seasons


T = np.arange(600)
DAY = 30 + 10 * np.sin(2 * np.pi * T / 24) + 0.5 * rng.normal(size=600)
TIDE = np.zeros(600)
for t, noise in enumerate(np.random.default_rng(0).normal(size=599), start=1):
    TIDE[t] = 0.98 * TIDE[t - 1] + 0.3 * noise
SEASONS = {
    "a day in hours": (wave(600, 24, 3), Steps(24, 168), 24),
    "a week in hours": (DAY * np.where((T // 24) % 7 > 4, 0.7, 1.0), Steps(24, 168), 168),
    "a day that no week changes": (wave(600, 24, 0.5), Steps(24, 168), 24),
    "a week too short for the series": (np.tile(wave(168, 24, 2), 3)[:503], Steps(24, 168), 24),
    "a week that is hardly better": (DAY + 0.3 * ((T // 24) % 7 > 4), Steps(24, 168), 24),
    "a ripple on a tide": (TIDE + 0.5 * np.sin(2 * np.pi * T / 10), None, 1),
    "a wave on a tide": (TIDE + np.sin(2 * np.pi * T / 10), None, 10),
    "found without a calendar": (wave(600, 31, 5), None, 31),
    "found without a calendar's help": (wave(600, 31, 5), Steps(), 31),
    "not what the calendar says": (wave(600, 31, 5), Steps(12), 1),
    "noise": (rng.normal(size=600), Steps(24, 168), 1),
    "noise without a calendar": (rng.normal(size=600), None, 1),
    "a random walk": (rng.normal(size=600).cumsum(), Steps(24, 168), 1),
    "a random walk without a calendar": (rng.normal(size=600).cumsum(), None, 1),
    "a straight line": (T * 2.0, Steps(24), 1),
    "a straight line without a calendar": (T * 2.0, None, 1),
    "constant": (np.full(100, 3.0), Steps(12), 1),
    "constant without a calendar": (np.full(100, 3.0), None, 1),
    "too short": (wave(40, 24, 0), Steps(24), 1),
    "holes": (np.where(rng.random(600) < 0.1, NAN, wave(600, 24, 3)), Steps(24, 168), 24),
    "holes without a calendar": (np.where(rng.random(600) < 0.3, NAN, wave(600, 24, 3)), None, 24),
    "nothing known": (np.full(50, NAN), None, 1),
    "nothing at all": (np.zeros(0), None, 1),
    "most of several": ([wave(200, 12, 1), wave(90, 12, 1), rng.normal(size=80)], Steps(12), 12),
    "as many with one as without": (
        [wave(200, 12, 1), np.arange(80.0), wave(90, 12, 1), T * 2.0],
        Steps(12),
        12,
    ),
    "two equally common ones": ([wave(200, 24, 1), wave(200, 12, 1)], None, 12),
    "no series": ([], None, 1),
}


@pytest.mark.parametrize("values, step, season", SEASONS.values(), ids=[n.replace(" ", "-") for n in SEASONS])
def test_the_season(values, step, season):
    assert scores.season_of(values, step) == season


def test_autocorrelation_is_its_definition():
    y = wave(50, 7, 2)
    m = y.mean()
    wanted = [((y[: 50 - k] - m) * (y[k:] - m)).sum() / ((y - m) ** 2).sum() for k in range(21)]
    np.testing.assert_allclose(scores.autocorrelation(y, 20), wanted, rtol=1e-9, atol=1e-12)
    assert np.isnan(scores.autocorrelation(np.full(9, 0.1), 3)).all()


def test_holes_hide_no_resemblance():
    """With a third of the values missing the autocorrelation is the same but for chance."""
    y = wave(4000, 24, 2)
    holes = np.where(rng.random(4000) < 1 / 3, NAN, y)
    np.testing.assert_allclose(scores.autocorrelation(holes, 48), scores.autocorrelation(y, 48), atol=0.08)


def m4(name):
    folder = Path(os.environ.get("LONGSHORT_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "series" / name
    if not path.exists():
        pytest.skip(f"{path} is absent: set LONGSHORT_DATA to the folder that holds series/{name}")
    with path.open(newline="") as file:
        return [np.array([float(cell) for cell in row[1:] if cell]) for row in list(csv.reader(file))[1:]]


@pytest.mark.data
def test_m4_hourly_has_the_official_scores():
    """The organisers' own sheet: Naive2 18.383 / 2.395 / 1.000, seasonal naive 13.912 / 1.193 / 0.627."""
    train, test = m4("m4-hourly-train.csv"), np.array(m4("m4-hourly-test.csv"))
    longest = max(map(len, train))
    history = np.stack([np.concatenate([np.full(longest - len(y), NAN), y]) for y in train])
    scale = scores.naive_scale(history, 24)
    found = {}
    for name, forecast in {
        "naive2": scores.naive2(history, 48, 24),
        "seasonal naive": scores.seasonal_naive(history, 48, 24),
    }.items():
        smape = scores.mean(scores.smape(test, forecast))
        found[name] = (smape, scores.mean(scores.mase(test, forecast, scale)))
    assert [f"{v:.3f}" for v in found["naive2"]] == ["18.383", "2.395"]
    assert [f"{v:.3f}" for v in found["seasonal naive"]] == ["13.912", "1.193"]
    assert scores.owa(*found["seasonal naive"], *found["naive2"]) == pytest.approx(0.627, abs=6e-4)
