"""The rolling origin: the right windows, and scores that agree with plain loops and with M4."""

import numpy as np
import pytest

from longshort import scores
from longshort.errors import DataError
from longshort.tasks.forecast.plan import make_plan
from longshort.tasks.forecast.scoring import MODEL, rolling, score
from longshort.tasks.forecast.settings import LEVELS, ForecastSettings
from tasks.making import full_model, full_table, plain_model, series, table, wave


@pytest.mark.parametrize(
    ("lengths", "first", "horizon", "stride", "windows", "expected"),
    [
        ((20,), (14,), 3, 1, None, [(0, 14), (0, 15), (0, 16), (0, 17)]),
        ((20,), (14,), 3, 2, None, [(0, 15), (0, 17)]),
        ((20,), (14,), 3, 1, 2, [(0, 16), (0, 17)]),
        ((20,), (18,), 3, 1, None, [(0, 18)]),  # two of three steps can be scored
        ((20, 10), (20, 8), 2, 1, None, [(1, 8)]),
    ],
)
def test_windows_of_a_rolling_origin(lengths, first, horizon, stride, windows, expected):
    many = table(*(series(wave(n), f"s{k}") for k, n in enumerate(lengths)))
    which, count = rolling(many, first, horizon, stride, windows)
    assert list(zip(which.tolist(), count.tolist(), strict=True)) == expected


def test_nothing_to_score():
    with pytest.raises(DataError) as raised:
        rolling(table(series(wave(20))), [20], 3, 1, None)
    assert str(raised.value) == (
        "backtest: no series has a row after the ones that the model was trained on. "
        "Give rows that continue the series."
    )


def scored(many, which, count, horizon=4, error=0.0):
    """The score of quantiles that are the truth plus `error`, with a spread of 1."""
    plan = make_plan(many, ForecastSettings(horizon=horizon, season=8, context=16, transform="none"))
    truth = [many.series[s].target[n : n + horizon] for s, n in zip(which, count, strict=True)]
    truth = np.stack([np.append(t, np.zeros(horizon - len(t))) for t in truth])
    spread = np.array([2 * level - 1 for level in LEVELS])
    values = np.nan_to_num(truth)[..., None] + error + spread
    scales = np.array([scores.naive_scale(s.target[:60], 8) for s in many])
    return plan, score(many, plan, np.array(which), np.array(count), values, scales, (80,))


def test_scores_agree_with_loops():
    many = table(series(wave(100, 1), "a"), series(wave(90, 2, level=500.0), "b"))
    which, count = [0, 0, 0, 1], [60, 70, 80, 60]
    _, found = scored(many, which, count, error=0.5)
    by_series = {0: [], 1: []}
    naive = {0: [], 1: []}
    for s, n in zip(which, count, strict=True):
        target = many.series[s].target
        unit = np.mean(np.abs(target[8:60] - target[:52]))
        by_series[s].append(0.5 / unit)
        naive[s].append(np.mean(np.abs(target[n : n + 4] - target[n - 8 : n - 4])) / unit)
    assert found["MASE"] == pytest.approx(np.mean([np.mean(v) for v in by_series.values()]))
    expected = np.mean([np.mean(v) for v in naive.values()])
    assert found.scores["seasonal naive"]["MASE"] == pytest.approx(expected)
    assert found["MAE"] == found["RMSE"] == pytest.approx(0.5)
    assert found["coverage-80"] == 1.0
    assert list(found.scores) == [MODEL, "seasonal naive", "naive", "drift"]


def test_coverage_counts_what_lies_outside():
    many = table(series(wave(100)))
    assert scored(many, [0], [60], error=0.81)[1]["coverage-80"] == 0.0
    assert scored(many, [0], [60], error=0.79)[1]["coverage-80"] == 1.0


def test_coverage_is_the_mean_over_series():
    """One series of three windows weighs as much as another of one."""
    many = table(series(wave(100, 1), "a"), series(wave(100, 2), "b"))
    error = np.array([0.81, 0.81, 0.81, 0.79])[:, None, None]
    assert scored(many, [0, 0, 0, 1], [60, 70, 80, 60], error=error)[1]["coverage-80"] == 0.5


def test_missing_truth_does_not_count():
    values = wave(100)
    values[62] = np.nan
    _, found = scored(table(series(values)), [0, 0], [60, 98], error=0.5)
    assert found["MAE"] == pytest.approx(0.5)
    assert np.isnan(found.truth).sum() == 3


def test_owa_of_naive2_is_one():
    """OWA measures against Naive2: a model that is Naive2 has 1."""
    many = table(series(wave(100)))
    plan, _ = scored(many, [0], [60])
    point = scores.naive2(many.series[0].target[None, :60], 4, 8)
    values = point[..., None] + np.zeros(len(LEVELS))
    found = score(many, plan, np.array([0]), np.array([60]), values, np.array([1.0]), ())
    assert found["OWA"] == pytest.approx(1)


def test_a_backtest_is_its_windows_one_by_one():
    """All windows in one pass give what each gives alone, cut off at its origin."""
    many = full_table()
    model = full_model()
    found = model.backtest(many, stride=7, windows=4)
    assert found.names == ("s0",) * 4 + ("s1",) * 4
    plan, net, factor = model._fitted()
    from longshort.tasks.forecast.reading import answer, start
    from tasks.test_forecaster import cut_at

    for w, name in enumerate(found.names):
        number, known = int(name[1]), int(found.origins[w]) + 1
        lengths = [90, 100]
        lengths[number] = known
        alone = answer(net, plan, start(net, plan, cut_at(many, *lengths)), factor)[number]
        np.testing.assert_allclose(found.quantiles.values[w], alone, rtol=1e-5)
        np.testing.assert_array_equal(found.truth[w], many.series[number].target[known : known + 6])


def test_scoring_later_rows_equals_scoring_the_whole_series():
    from tasks.test_forecaster import cut_at

    many = full_table()
    model = full_model()
    history = cut_at(many, 70, 80)
    known = type(model).__new__(type(model))
    known.__dict__.update(model.__dict__, _history=history, _reading=None)
    from dataclasses import replace

    from longshort.data.series import part

    rows = replace(many, series=tuple(part(s, len(s) - 20, len(s)) for s in many))
    both = [known.score(given) for given in (rows, many)]
    assert both[0].scores == both[1].scores
    assert both[0].names == ("s0",) * 15 + ("s1",) * 15
    assert both[0].origins.min() == 69


def test_the_backtest_of_the_fit_is_its_validation_part():
    found = plain_model().backtest()
    assert found.origins.min() == 120 - 24 - 1 and found.origins.max() == 120 - 6 - 1


def test_the_picture_is_the_last_window_of_each_series():
    found = full_model().backtest(full_table(), stride=7, windows=4)
    figure = found.figure()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["s0", "s1"]
    for axes, one, w in zip(figure.axes, full_table(), (3, 7), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
        np.testing.assert_array_equal(drawn["forecast"], found.quantiles.median[w])
        np.testing.assert_array_equal(drawn["observed"][-18:], one.target[-18:])


def test_as_json_and_as_tables(tmp_path):
    found = plain_model().backtest()
    saved = found.to_json()
    assert (saved["windows"], saved["series"], saved["horizon"]) == (19, 1, 6)
    assert saved["scores"]["naive"]["MASE"] == found.scores["naive"]["MASE"]
    frame = found.to_polars()
    assert frame.columns[:4] == ["unique_id", "cutoff", "ds", "y"] and frame.height == 19 * 6
    assert (frame["ds"] > frame["cutoff"]).all()
    text = repr(found)
    lines = text.split("\n")
    assert lines[0] == "19 windows of 6 steps, 1 series" and lines[-1].startswith("drift ")
    assert [line for line in lines if line != line.rstrip()] == []
    for word in ("LSTM", "seasonal naive", "drift", "MASE", "OWA", "in 80 %"):
        assert word in text
