"""Every score against its definition written as a loop; wrong scores must fail the same comparison."""

import math

import numpy as np
import pytest

from longshort import scores
from longshort.errors import SettingError, ShapeError

NAN = float("nan")


def known(truth, *others):
    return [(y, *o) for y, *o in zip(truth, *others, strict=True) if not math.isnan(y)]


def average(values):
    values = list(values)
    return sum(values) / len(values) if values else NAN


def loop_mae(truth, forecast):
    return average(abs(y - f) for y, f in known(truth, forecast))


def loop_rmse(truth, forecast):
    return average((y - f) ** 2 for y, f in known(truth, forecast)) ** 0.5


def loop_smape(truth, forecast):
    return average(
        0 if y == f == 0 else 200 * abs(y - f) / (abs(y) + abs(f)) for y, f in known(truth, forecast)
    )


def loop_scale(history, season):
    pairs = zip(history[season:], history[:-season], strict=True)
    return average(abs(a - b) for a, b in pairs if not math.isnan(a) and not math.isnan(b))


def loop_pinball(truth, forecast, q):
    return average((y - f) * q if y >= f else (f - y) * (1 - q) for y, f in known(truth, forecast))


def loop_coverage(truth, low, high):
    return average(float(a <= y <= b) for y, a, b in known(truth, low, high))


rng = np.random.default_rng(5)
SHAPE = (4, 3, 11)
TRUTH = np.where(rng.random(SHAPE) < 0.3, NAN, np.round(rng.normal(size=SHAPE) * 3))
TRUTH[0, 0], TRUTH[1, 1, :5] = NAN, 0
FORECAST = np.round(rng.normal(size=SHAPE) * 3)
FORECAST[1, 1, :5] = 0
LOW, HIGH = FORECAST - 2, FORECAST + 1

CASES = {
    "mae": (scores.mae, loop_mae, (TRUTH, FORECAST), ()),
    "rmse": (scores.rmse, loop_rmse, (TRUTH, FORECAST), ()),
    "smape": (scores.smape, loop_smape, (TRUTH, FORECAST), ()),
    "scale 1": (scores.naive_scale, loop_scale, (TRUTH,), (1,)),
    "scale 4": (scores.naive_scale, loop_scale, (TRUTH,), (4,)),
    "pinball .1": (scores.pinball, loop_pinball, (TRUTH, FORECAST), (0.1,)),
    "pinball .9": (scores.pinball, loop_pinball, (TRUTH, FORECAST), (0.9,)),
    "coverage": (scores.coverage, loop_coverage, (TRUTH, LOW, HIGH), ()),
}
each_score = pytest.mark.parametrize("score, loop, arrays, rest", CASES.values(), ids=list(CASES))


def compare(score, loop, arrays, rest):
    got = score(*arrays, *rest)
    rows = [a.reshape(-1, a.shape[-1]) for a in arrays]
    wanted = [loop(*(row.tolist() for row in group), *rest) for group in zip(*rows, strict=True)]
    np.testing.assert_allclose(got, np.reshape(wanted, arrays[0].shape[:-1]), rtol=1e-12, atol=1e-12)


@each_score
def test_the_definition(score, loop, arrays, rest):
    compare(score, loop, arrays, rest)


WRONG = {
    "missing counts as zero": ("mae", lambda y, f: np.nan_to_num(np.abs(y - f)).mean(-1)),
    "no root": ("rmse", lambda y, f: scores.rmse(y, f) ** 2),
    "half the percentage": ("smape", lambda y, f: scores.smape(y, f) / 2),
    "zero over zero is missing": ("smape", lambda y, f: scores.smape(np.where(f == 0, NAN, y), f)),
    "one step short": ("scale 4", lambda y, m: scores.naive_scale(y, m - 1)),
    "quantile turned round": ("pinball .1", lambda y, f, q: scores.pinball(y, f, 1 - q)),
    "ends excluded": ("coverage", lambda y, a, b: scores.coverage(y, a + 1e-9, b - 1e-9)),
}


@pytest.mark.parametrize("name, wrong", WRONG.values(), ids=list(WRONG))
def test_a_wrong_score_is_caught(name, wrong):
    _, loop, arrays, rest = CASES[name]
    with pytest.raises(AssertionError):
        compare(wrong, loop, arrays, rest)


@each_score
def test_no_truth_gives_no_score(score, loop, arrays, rest):
    nothing = np.full(SHAPE, NAN)
    assert np.isnan(score(nothing, *arrays[1:], *rest)).all()


def test_a_forecast_that_is_missing_is_no_good_one():
    truth, missing = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]]), np.array([[1.0, np.nan, 7], [3, 4, 5]])
    for score in (scores.mae, scores.rmse, scores.smape, lambda t, f: scores.pinball(t, f, 0.3)):
        np.testing.assert_array_equal(score(truth, missing), [np.nan, 0])
    np.testing.assert_array_equal(scores.mase(truth, missing, np.ones(2)), [np.nan, 0])
    fan = np.stack([missing, missing], -1)
    assert np.isnan(scores.weighted_quantile_loss(truth, fan, (0.1, 0.9)))
    assert scores.weighted_quantile_loss(truth[1:], fan[1:], (0.1, 0.9)) == 0


def test_mase_is_the_error_in_units_of_the_scale():
    truth, forecast = (
        np.array([[1.0, NAN, 4.0], [1.0, 2.0, 3.0]]),
        np.array([[2.0, 0.0, 1.0], [1.0, 2.0, 6.0]]),
    )
    np.testing.assert_array_equal(scores.mase(truth, forecast, np.array([4.0, 0.5])), [0.5, 2.0])
    np.testing.assert_array_equal(scores.mase(truth, forecast, np.array([0.0, NAN])), [NAN, NAN])
    assert scores.mean(scores.mase(truth, forecast, np.array([0.0, 0.5]))) == 2.0


def test_rolling_scale_is_the_scale_of_each_history():
    values = np.where(rng.random(60) < 0.2, NAN, rng.normal(size=60))
    for season in (1, 7, 59, 60, 80):
        origins = np.array([0, 1, 2, 7, 8, 9, 30, 60, 30])
        wanted = [scores.naive_scale(values[:o], season) for o in origins]
        np.testing.assert_allclose(scores.rolling_scale(values, season, origins), wanted, rtol=1e-12)


def test_rolling_scale_knows_nothing_of_what_follows():
    values = rng.normal(size=60)
    changed = np.append(values[:40], 1e6 * rng.normal(size=20))
    origins = np.arange(41)
    np.testing.assert_array_equal(
        scores.rolling_scale(values, 12, origins), scores.rolling_scale(changed, 12, origins)
    )


def test_owa_is_the_mean_of_two_ratios():
    assert scores.owa(11.0, 1.2, 10.0, 2.0) == pytest.approx(0.5 * (1.1 + 0.6))
    assert math.isnan(scores.owa(1.0, 1.0, 0.0, 1.0)) and math.isnan(scores.owa(1.0, 1.0, 1.0, NAN))


def test_weighted_quantile_loss_pools_all_windows():
    quantiles = (0.1, 0.5, 0.9)
    forecast = np.stack([LOW, FORECAST, HIGH], axis=-1)
    flat = TRUTH.reshape(-1)
    total = sum(abs(y) for (y,) in known(flat.tolist()))
    wanted = average(
        2 * loop_pinball(flat.tolist(), f.reshape(-1).tolist(), q) * np.isfinite(flat).sum() / total
        for q, f in zip(quantiles, (LOW, FORECAST, HIGH), strict=True)
    )
    assert scores.weighted_quantile_loss(TRUTH, forecast, quantiles) == pytest.approx(wanted, rel=1e-12)
    assert math.isnan(scores.weighted_quantile_loss(0 * TRUTH, forecast, quantiles))


def test_the_median_halves_the_absolute_error():
    np.testing.assert_allclose(scores.pinball(TRUTH, FORECAST, 0.5), scores.mae(TRUTH, FORECAST) / 2)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_the_true_quantile_loses_least(q):
    truth = rng.normal(size=4001)
    at = np.quantile(truth, q)
    loss = [float(scores.pinball(truth, np.full(4001, at + shift), q)) for shift in (-0.2, 0.0, 0.2)]
    assert loss[1] < min(loss[0], loss[2])


A, B = np.zeros((2, 3)), np.zeros((2, 4))
SAME = "`forecast` must have the shape (..., T) = (2, 3) of `truth`, got (2, 4)."


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: scores.mae(A, B), ShapeError, f"mae: {SAME}"),
        (lambda: scores.rmse(A, B), ShapeError, f"rmse: {SAME}"),
        (lambda: scores.smape(A, B), ShapeError, f"smape: {SAME}"),
        (lambda: scores.pinball(A, B, 0.5), ShapeError, f"pinball: {SAME}"),
        (
            lambda: scores.mase(A, A, np.zeros(3)),
            ShapeError,
            "mase: `scale` must be (2,), one number a window, got (3,).",
        ),
        (
            lambda: scores.coverage(A, A, B),
            ShapeError,
            "coverage: `high` must be (..., T) = (2, 3) like `truth`, got (2, 4).",
        ),
        (
            lambda: scores.weighted_quantile_loss(A, A, (0.1, 0.9)),
            ShapeError,
            "weighted_quantile_loss: `forecast` must be (..., T, Q) = (2, 3, 2), got (2, 3).",
        ),
        (lambda: scores.pinball(A, A, 1.0), SettingError, "pinball: a quantile must be in (0, 1), got 1.0."),
        (lambda: scores.naive_scale(A, 0), SettingError, "naive_scale: `season` must be at least 1, got 0."),
        (lambda: scores.naive(A, 0), SettingError, "naive: `horizon` must be at least 1, got 0."),
        (lambda: scores.drift(A, 0), SettingError, "drift: `horizon` must be at least 1, got 0."),
        (
            lambda: scores.seasonal_naive(A, 1, 0),
            SettingError,
            "seasonal_naive: `season` must be at least 1, got 0.",
        ),
        (lambda: scores.naive2(A, 1, 0), SettingError, "naive2: `season` must be at least 1, got 0."),
        (
            lambda: scores.naive(np.float64(3), 1),
            ShapeError,
            "naive: `history` must be (..., T), got a single number.",
        ),
    ],
)
def test_messages_in_full(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
