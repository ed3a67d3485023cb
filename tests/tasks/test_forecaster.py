"""The forecaster as its users see it: what goes in, what comes out, and what must not matter."""

import copy
import os
import signal
from dataclasses import replace

import numpy as np
import polars
import pytest
import torch

from longshort.data.series import part
from longshort.errors import DataError, RunError, SettingError
from longshort.runs import Run
from longshort.tasks import Forecaster
from longshort.tasks.forecast.joining import joined
from longshort.tasks.forecast.objective import ForecastObjective
from longshort.tasks.forecast.reading import answer, start
from longshort.tasks.forecast.windows import Panel
from tasks.making import ROLES, SMALL, full_model, full_table, plain_model, series, table, wave


def cut_at(many, *lengths):
    """The table with each series cut to so many rows; covariates known in advance stay."""
    return replace(many, series=tuple(part(s, 0, n) for s, n in zip(many, lengths, strict=True)))


def changed(many, role, name, rows, value):
    """A copy of the table with some rows of one column of one series set to a value."""
    found = []
    for one in many:
        arrays = {role: np.array(getattr(one, role)) for role in ("target", "past", "future", "static")}
        if one.name == name:
            arrays[role][rows] = value
        found.append(replace(one, **arrays))
    return replace(many, series=tuple(found))


def test_a_forecast_has_every_series_and_step():
    forecast = full_model().predict()
    assert forecast.names == ("s0", "s1")
    assert forecast.median.shape == forecast.mean.shape == (2, 6)
    assert np.array_equal(forecast.times, [np.arange(90, 96), np.arange(100, 106)])
    low, high = forecast.interval(95)
    inner = forecast.interval(80)
    assert (low < inner[0]).all() and (inner[0] < forecast.median).all()
    assert (forecast.median < inner[1]).all() and (inner[1] < high).all()


def test_a_table_of_the_forecast():
    frame = full_model().predict(levels=(80, 95)).to_polars()
    assert frame.columns == ["unique_id", "ds", "mean", "median", "lo-95", "lo-80", "hi-80", "hi-95"]
    assert frame.height == 12 and frame["unique_id"].to_list() == ["s0"] * 6 + ["s1"] * 6
    assert full_model().predict(levels=(50,)).to_polars().columns[4:] == ["lo-50", "hi-50"]


def test_it_and_its_plan_print_themselves():
    assert repr(Forecaster(horizon=12)) == "Forecaster(horizon=12, season=derived): not fitted"
    assert repr(full_model()) == "Forecaster(horizon=6, season=8): fitted, 2 series"
    assert str(full_model().plan) == (
        "horizon    6 steps of 1\n"
        "season     8\n"
        "context    16 steps\n"
        "transform  none\n"
        "target     y\n"
        "past       wind, kind\n"
        "future     heat, day\n"
        "static     size, place"
    )


def test_the_same_seed_gives_the_same_forecast():
    again = Forecaster(**SMALL, seed=1).fit(full_table(), quiet=True).predict()
    assert np.array_equal(again.median, full_model().predict().median)
    other = Forecaster(**SMALL, seed=2).fit(full_table(), quiet=True).predict()
    assert not np.array_equal(other.median, again.median)


def test_nothing_predicted_knows_the_future_of_the_target():
    """Forecasts from row 60 on, made from tables that agree up to row 60 and not after."""
    many = full_table()
    later = many
    for name in many.names:
        later = changed(later, "target", name, slice(60, None), -1e3)
        later = changed(later, "past", name, slice(60, None), 2)
    panels = [Panel(t, full_model().plan) for t in (many, later)]
    windows = [panel.cut([0, 1], [60, 60], 16)[0] for panel in panels]
    model = full_model()._fitted()[1]
    with torch.no_grad():
        answers = [model(each, torch.tensor([15])) for each in windows]
    assert torch.equal(*answers)
    whole = [full_model().backtest(t, stride=5).quantiles.values for t in (many, later)]
    origins = full_model().backtest(many, stride=5)
    count = np.array([o + 1 for o in origins.origins])
    assert np.array_equal(whole[0][count <= 60], whole[1][count <= 60])
    assert not np.array_equal(whole[0][count > 60], whole[1][count > 60])


def test_training_never_sees_the_validation_part():
    """The weights after some steps are the same whatever the validation part holds."""
    many = full_table()
    settings = SMALL | {"transform": "none", "patience": 50}
    found = []
    for value in (None, 1e3):
        given = many
        if value is not None:
            for name, first in (("s0", 90 - 18), ("s1", 100 - 20)):
                given = changed(given, "target", name, slice(first, None), value)
        model = Forecaster(**(settings | {"max_steps": 10, "every": 10})).fit(given, quiet=True)
        found.append(torch.cat([w.flatten() for w in model._fitted()[1].state_dict().values()]))
    assert torch.equal(*found)


def test_a_known_covariate_moves_only_its_own_step():
    many = cut_at(full_table(), 84, 94)
    before = full_model().predict(many).quantiles.values
    after = full_model().predict(changed(many, "future", "s0", (86, 0), 0.0)).quantiles.values
    same = np.isclose(before, after, rtol=0, atol=1e-12).all(-1)
    assert not same[0, 2] and same[0, [0, 1, 3, 4, 5]].all() and same[1].all()


def test_the_newest_row_is_used():
    many = full_table()
    before = full_model().predict(many).median
    for role, rows, value in (("target", -1, 70.0), ("past", (-1, 0), 3.0)):
        after = full_model().predict(changed(many, role, "s0", rows, value)).median
        assert not np.isclose(before[0], after[0]).any(), role
        assert np.array_equal(before[1], after[1]), role


def test_known_covariates_are_not_shifted():
    """y_t = x_t exactly, x white noise: a model that looks one step beside x learns nothing."""
    x = np.random.default_rng(0).normal(size=(600, 1))
    many = table(series(10 + 2 * x[:560, 0], future=x), future=("x",))
    settings = {"horizon": 8, "season": 1, "context": 16, "hidden": 8, "max_steps": 150, "lr": 1e-2}
    forecast = Forecaster(**settings, transform="none", dropout=0.0).fit(many, quiet=True).predict()
    truth = 10 + 2 * x[560:568, 0]
    assert np.abs(forecast.median[0] - truth).mean() < 0.3 * np.abs(truth - 10).mean()


def test_missing_rows_of_known_covariates_are_listed():
    many = changed(full_table(F=6), "future", "s1", (103, 1), np.nan)
    first, second = (replace(s, name=f"new {s.name}") for s in many)  # the model's own it would know
    many = replace(many, series=(replace(first, future=first.future[:94]), second))
    with pytest.raises(DataError) as raised:
        full_model().predict(many)
    assert str(raised.value) == (
        "predict: 5 values of covariates known in advance are missing (series, time, column):\n"
        "  new s0 94 heat\n  new s0 94 day\n  new s0 95 heat\n  new s0 95 day\n  new s1 103 day\n"
        "  Give them with `future` (--future FILE), or as rows of the table with an empty target."
    )
    forecast = full_model().predict(many, horizon=3)
    assert forecast.median.shape == (2, 3)


def test_future_rows_may_come_from_a_frame():
    many = full_table()
    frame = polars.DataFrame(
        {
            "unique_id": ["new s0"] * 6 + ["new s1"] * 6,
            "ds": [*range(90, 96), *range(100, 106)],
            "heat": np.concatenate([s.future[-6:, 0] for s in many]),
            "day": [ROLES["categories"]["day"][int(c)] for s in many for c in s.future[-6:, 1]],
        }
    )
    short = (replace(s, name=f"new {s.name}", future=s.future[: len(s)]) for s in many)
    forecast = full_model().predict(replace(many, series=tuple(short)), future=frame)
    assert np.array_equal(forecast.median, full_model().predict(many).median)


@pytest.mark.parametrize("parts", [(1,), (10,), (1, 2, 7), (1,) * 10])
def test_a_state_that_goes_on_is_the_model_run_over_the_whole(parts):
    """Updates in any portions equal reading context and new rows at once on the scale of the context."""
    model = full_model()
    plan, net, _ = model._fitted()
    many = full_table()
    before = cut_at(many, 80, 90)
    going = Forecaster.__new__(Forecaster)
    going.__dict__.update(model.__dict__, _history=before, _reading=None)
    done = 0
    for rows in parts:
        done += rows
        new = tuple(part(s, len(s) - 10 + done - rows, len(s) - 10 + done) for s in many)
        going.update(replace(many, series=new))
    added = sum(parts)
    whole = Panel(many, plan)
    windows, scale = whole.cut([0, 1], [80, 90], plan.context + added)
    with torch.no_grad():
        h, state = net.read(windows)
        places = torch.tensor([plan.context + added - 1])
        expected = net.answer(windows, h[:, places], places)[:, 0].numpy()
    reading = going._reading
    found = (answer(net, plan, reading, 1.0) - scale.location[:, None, None]) / scale.size[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reading.state.h, state.h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reading.state.c, state.c, rtol=1e-4, atol=1e-5)
    assert len(going.history["s0"]) == 80 + added


def test_an_update_of_one_series_leaves_the_others():
    model = full_model()
    before = cut_at(full_table(), 80, 90)
    going = Forecaster.__new__(Forecaster)
    going.__dict__.update(model.__dict__, _history=before, _reading=None)
    first = going.predict().median
    going.update(replace(before, series=(part(full_table().series[1], 90, 95),)))
    second = going.predict()
    assert np.array_equal(first[0], second.median[0])
    assert not np.array_equal(first[1], second.median[1])
    assert np.array_equal(second.times[1], np.arange(95, 101))


def test_updates_that_do_not_continue_are_refused():
    model = full_model()
    going = Forecaster.__new__(Forecaster)
    going.__dict__.update(model.__dict__, _history=cut_at(full_table(), 80, 90), _reading=None)
    again = replace(full_table(), series=(part(full_table().series[0], 79, 85),))
    with pytest.raises(DataError) as raised:
        going.update(again)
    assert str(raised.value) == (
        "update: series 's0' has been read up to 79, and its new rows begin at 79. "
        "Give rows that follow, or use `restart`."
    )
    stranger = replace(full_table(), series=(replace(part(full_table().series[0], 80, 85), name="s7"),))
    with pytest.raises(DataError) as raised:
        going.update(stranger)
    assert str(raised.value).startswith("no series is named 's7'; there are 's0', 's1'.")


def test_a_table_of_another_step_is_refused():
    from longshort.data import Step

    with pytest.raises(DataError) as raised:
        joined(full_table(), replace(full_table(), step=Step(2)))
    assert str(raised.value) == ("the new rows are 2 apart, and the model's 1. Give rows of the same step.")


def test_rows_without_times_follow_unless_they_repeat_what_is_known():
    frame = polars.DataFrame({"y": wave(60)})
    model = Forecaster(**SMALL).fit(frame[:40], quiet=True)
    both = [model.score(given) for given in (frame[40:], frame)]
    assert both[0].scores == both[1].scores
    assert np.array_equal(both[0].origins, np.arange(39, 54))


def test_a_missing_row_without_a_time_is_still_a_step():
    frame = polars.DataFrame({"y": wave(60)})
    model = Forecaster(**SMALL).fit(frame[:40], quiet=True)
    missing = polars.DataFrame({"y": [None]}, schema={"y": polars.Float64})
    assert np.array_equal(model.update(missing).predict().times[0], np.arange(41, 47))
    assert np.isnan(model.history["y"].target[40])


def test_restart_and_reading_from_scratch_agree():
    model = full_model()
    plan, net, factor = model._fitted()
    values = answer(net, plan, start(net, plan, full_table()), factor)
    np.testing.assert_allclose(model.predict(full_table()).quantiles.values, values)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = full_model()
    folder = model.save(tmp_path / "run")
    loaded = Forecaster.load(folder)
    assert loaded.plan == model.plan and loaded.settings == model.settings
    assert np.array_equal(loaded.predict().quantiles.values, model.predict().quantiles.values)
    for one, other in zip(loaded.history, model.history, strict=True):
        for role in ("time", "target", "past", "future", "static"):
            np.testing.assert_array_equal(getattr(one, role), getattr(other, role))


def test_an_interrupted_fit_continued_is_the_uninterrupted_one(tmp_path, monkeypatch):
    """All of it: batches, dropout, moments, early stopping, the calibration."""
    whole = Forecaster(**SMALL).fit(full_table(), quiet=True)
    batch = ForecastObjective.batch

    def interrupted(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastObjective, "batch", interrupted)
        first = Forecaster(**SMALL).fit(full_table(), run=tmp_path / "run", quiet=True)
    assert first.fitted.interrupted and first.fitted.step == 14
    second = Forecaster(**SMALL).fit(full_table(), run=tmp_path / "run", quiet=True)
    assert second.fitted.step == 30
    assert np.array_equal(second.predict().quantiles.values, whole.predict().quantiles.values)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions(precision):
    settings = SMALL | {"precision": precision, "max_steps": 20}
    found = Forecaster(**settings).fit(full_table(), quiet=True).predict().median
    exact = Forecaster(**(settings | {"precision": "32-true"})).fit(full_table(), quiet=True).predict().median
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert not np.array_equal(found, exact)


def test_float16_on_a_cpu_is_refused_before_a_run_is_made(tmp_path):
    with pytest.raises(
        SettingError, match=r"^fit: `precision` '16-mixed' is for a GPU\. On a CPU use 'bf16-mixed'\.$"
    ):
        Forecaster(**SMALL | {"precision": "16-mixed"}).fit(
            full_table(), run=tmp_path / "run", quiet=True, device="cpu"
        )
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_task_is_refused(tmp_path):
    Run.create(tmp_path / "book", "language", {})
    message = f"{tmp_path / 'book'}: holds a run of `language`, not of `forecast`. Give another folder."
    with pytest.raises(RunError) as raised:
        Forecaster.load(tmp_path / "book")
    assert str(raised.value) == message
    with pytest.raises(RunError) as raised:
        Forecaster(**SMALL).fit(table(series(wave(60))), run=tmp_path / "book", quiet=True)
    assert str(raised.value) == message


def test_a_damaged_run_is_refused(tmp_path):
    folder = full_model().save(tmp_path / "run")
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=f"^{path}: is damaged or is no safetensors file: "):
        Forecaster.load(folder)
    Run.open(folder).write_arrays("weights.safetensors", {"w": np.zeros(3)}, {"plan": {}})
    with pytest.raises(RunError) as raised:
        Forecaster.load(folder)
    assert str(raised.value) == f"{path}: holds no weights of this run's forecaster. Train the run again."


def test_a_run_goes_on_only_with_its_own_rows(tmp_path):
    settings = SMALL | {"max_steps": 10}
    Forecaster(**settings).fit(table(series(wave(60))), run=tmp_path / "run", quiet=True)
    with pytest.raises(RunError) as raised:
        Forecaster(**settings).fit(table(series(wave(61))), run=tmp_path / "run", quiet=True)
    assert str(raised.value) == (
        f"{tmp_path / 'run'}: was trained on other rows (60 of 1 series; now 61 of 1). "
        "Give another folder to train on the new ones."
    )


@pytest.mark.parametrize("value", [0.0, 7.0, -3e8, 1e-9])
def test_a_constant_series_stays_constant(value):
    forecast = Forecaster(**SMALL).fit(table(series(np.full(80, value))), quiet=True).predict()
    assert np.isfinite(forecast.quantiles.values).all()
    np.testing.assert_allclose(forecast.median, value, atol=0.2 * max(abs(value), 1))


def test_gaps_and_short_histories_are_no_obstacle():
    values = wave(120)
    values[np.random.default_rng(0).random(120) < 0.4] = np.nan
    model = Forecaster(**SMALL).fit(table(series(values)), quiet=True)
    assert np.isfinite(model.predict().quantiles.values).all()
    short = table(series(wave(3)), series(np.full(5, np.nan), "unknown"))
    assert np.isfinite(model.predict(short).quantiles.values[0]).all()


@pytest.mark.parametrize("begins", [0, 20, 59])
def test_rows_of_the_training_are_not_scored(begins, tmp_path):
    """Whatever row the file begins at: the first that follows the history is the first that is scored."""
    values, hours = wave(140), np.datetime64("2024-01-01T00", "us") + np.arange(140) * np.timedelta64(1, "h")
    frame = polars.DataFrame({"ds": hours, "y": values})
    model = Forecaster(**SMALL).fit(frame[20:110], quiet=True)
    found = model.score(frame[begins:])
    assert found.origins[0] == hours[109] and len(found.origins) == 140 - 110 - 5
    with pytest.raises(DataError, match="no series has a row after the ones that the model was trained on"):
        model.score(frame[begins:110])


def test_rows_without_times_follow_whatever_they_begin_with():
    """A constant or periodic series begins as its own past does."""
    values = np.tile(np.arange(8.0), 20)
    model = Forecaster(**SMALL).fit(polars.DataFrame({"y": values[:96]}), quiet=True)
    once = copy.deepcopy(model).update(polars.DataFrame({"y": values[96:136]}))
    for row in values[96:136]:
        model.update(polars.DataFrame({"y": [row]}))
    for one in (once, model):
        assert len(one.history["y"]) == 136 and one.predict().times[0].tolist() == list(range(136, 142))
    np.testing.assert_allclose(once.predict().median, model.predict().median, rtol=1e-5)


@pytest.mark.parametrize(("transform", "kind"), [("log", "logarithms"), ("sqrt", "square roots")])
def test_values_that_the_transform_cannot_take_are_noted(transform, kind):
    reach = {"log": "above 0", "sqrt": "of at least 0"}[transform]
    model = Forecaster(**SMALL | {"transform": transform}).fit(polars.DataFrame({"y": wave(120)}), quiet=True)
    for count in (3, 16):
        later = model.table(polars.DataFrame({"y": np.r_[wave(60), np.full(count, -1.0)]}))
        assert later.notes == (
            f"series 'y': {count} values that are not {reach} count as missing, for the model is of {kind}",
        )
        assert np.isnan(model.predict(later).median).all() == (count == 16)  # the whole context


@pytest.mark.parametrize("context", [8, 16])
def test_series_that_the_model_does_not_know_have_a_unit_for_mase(context):
    model = Forecaster(**SMALL | {"context": context}).fit(table(series(wave(120))), quiet=True)
    found = model.backtest(table(series(wave(60, 2), "other")))
    assert found.origins[0] == 15 and np.isfinite(found.scores["LSTM"]["MASE"])
    short = model.backtest(table(series(wave(18, 2), "other")))
    assert short.origins[0] == max(context, 12) - 1


def test_numbers_of_numpy_are_numbers():
    small = {name: np.int64(value) for name, value in SMALL.items()} | {"dropout": np.float32(0)}
    settings = Forecaster(**small).settings
    assert settings == Forecaster(**SMALL, dropout=0.0).settings and type(settings.horizon) is int
    assert len(plain_model().predict(horizon=np.int64(3)).times[0]) == 3


def test_scale_and_shift_of_a_series_do_not_matter():
    """The window's own scale: 1000 y + 5 is forecast as 1000 times the forecast of y, plus 5."""
    model = plain_model()
    base = model.predict(table(series(wave(100, 3), "a"))).median
    moved = model.predict(table(series(1000 * wave(100, 3) + 5, "a"))).median
    np.testing.assert_allclose(moved, 1000 * base + 5, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.predict(levels=(80, 100)),
            "levels: a level is the percentage an interval covers, in [1, 100), got 100.",
        ),
        (
            lambda m: m.predict(horizon=7),
            "Forecaster: `horizon` must be a whole number in [1, 6], the model's own, got 7.",
        ),
        (lambda m: m.predict(levels=80), "levels: must be a list of percentages, such as (80, 95), got 80."),
        (
            lambda m: m.predict(levels=("80",)),
            "levels: a level is a number, the percentage an interval covers, got '80'.",
        ),
        (
            lambda m: m.predict(horizon=3.0),
            "Forecaster: `horizon` must be a whole number in [1, 6], the model's own, got 3.0.",
        ),
        (
            lambda m: m.backtest(stride=2.0),
            "backtest: `stride` must be a whole number of at least 1, got 2.0.",
        ),
        (lambda m: m.backtest(stride=0), "backtest: `stride` must be a whole number of at least 1, got 0."),
        (lambda m: m.backtest(windows=0), "backtest: `windows` must be a whole number of at least 1, got 0."),
        (
            lambda m: Forecaster().predict(),
            "Forecaster: must be fitted first. Call `fit`, or `Forecaster.load` a run.",
        ),
        (
            lambda m: Forecaster().history,
            "Forecaster: must be fitted first. Call `fit`, or `Forecaster.load` a run.",
        ),
    ],
)
def test_arguments_out_of_range(call, message):
    with pytest.raises(SettingError) as raised:
        call(plain_model())
    assert str(raised.value) == message


def test_pandas_and_polars_frames_give_the_same():
    frame = polars.DataFrame({"ds": range(120), "y": wave(120)})
    given = [frame, frame.to_pandas()]
    found = [Forecaster(**SMALL, seed=1).fit(f, quiet=True).predict().median for f in given]
    assert np.array_equal(*found)


def test_unknown_categories_are_unknown_not_an_error():
    many = full_table()
    strange = changed(many, "past", "s0", (-1, 1), np.nan)
    assert np.isfinite(full_model().predict(strange).median).all()
