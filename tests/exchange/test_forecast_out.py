"""A run of a forecast, exported by the command line: the same numbers everywhere, whole and row by row."""

import copy
import csv
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

import longshort as ls
from longshort import cli, engine, exchange, runtime
from longshort.data import SeriesTable, Step, embedded, read, read_ahead
from longshort.errors import BackendError, DataError, ShapeError
from longshort.exchange import forecast_graph, onnx_writing
from longshort.exchange.forecast_graph import NAT
from longshort.exchange.forecast_rows import calendar
from longshort.runtime.files import read_folder
from longshort.runtime.rows import next_of
from longshort.tasks.forecast.plan import calendar_channels

needs_engine = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")
NEW = 8
"""Rows that the run was not trained on."""


def export(folder, *words):
    return cli.main(["export", str(folder), *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two series trained by the command line for a few steps, its exports, and the whole table."""
    place = tmp_path_factory.mktemp("runs")
    (series,) = embedded()
    targets = {"co2": series.target[-200:], "other": np.roll(series.target[-200:], 7) * 3}
    times = [str(time)[:10] for time in series.time[-200:]]
    for name, last in (("all", 200), ("known", 200 - NEW)):
        with open(place / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["place", "month", "level"])
            for place_name, target in targets.items():
                writer.writerows(zip([place_name] * last, times, target, strict=False))
    words = ["--target", "level", "--id", "place", "--time", "month", "--horizon", "6", "--max-steps", "3"]
    known, folder = str(place / "known.csv"), str(place / "run")
    assert cli.main(["train", "forecast", known, *words, "--device", "cpu", "--out", folder]) == 0
    assert export(folder, "--to", "onnx") == 0
    assert export(folder, "--to", "onnx", "--streaming") == 0
    if engine.available():
        assert export(folder, "--to", "runtime") == 0
    table = read(place / "all.csv", target="level", id="place", time="month")
    return SimpleNamespace(folder=place / "run", table=table, forecaster=ls.Forecaster.load(folder))


@pytest.fixture
def forecaster(run):
    """The fitted forecaster, to go on with."""
    return copy.deepcopy(run.forecaster)


def part_of(table, first, last):
    """Some rows of each series."""
    rows = {name: slice(first, last) for name in ("time", "target", "past", "future")}
    parts = [replace(one, **{name: getattr(one, name)[k] for name, k in rows.items()}) for one in table]
    return SeriesTable(tuple(parts), table.step, table.columns)


def rows_of(run, last, more=0):
    """The target (2, memory + more) up to the last rows, and their times and those of the horizon."""
    plan, count = run.forecaster.plan, len(next(iter(run.table))) - last
    target = np.stack([one.target[count - plan.memory - more : count] for one in run.table])
    steps = np.arange(count - plan.context - more, count + plan.horizon)
    time = np.stack([run.table.step.add(one.time[0], steps) for one in run.table])
    return {"target": target, "time": time.astype(np.int64)}


def row_of(run, last):
    """One row, and the times from it on."""
    rows = rows_of(run, last)
    return {"target": rows["target"][:, -1], "time": rows["time"][:, -1 - run.forecaster.plan.horizon :]}


def session(run, name):
    return onnxruntime.InferenceSession(run.folder / f"{name}.onnx")


def named(ports):
    return [port.name for port in ports]


def test_what_goes_in_and_comes_out(run):
    whole, step = session(run, "model"), session(run, "step")
    lookback, horizon = run.forecaster.plan.lookback, run.forecaster.plan.horizon
    state = ["values", "known", "location", "size", "h0", "c0"]
    after = ["quantiles", "values_n", "known_n", "location_n", "size_n", "h_n", "c_n"]
    assert named(whole.get_inputs()) == ["target", "time"]
    assert named(step.get_inputs()) == [*state, "target", "time"]
    assert named(whole.get_outputs()) == named(step.get_outputs()) == after
    assert [port.shape for port in whole.get_inputs()] == [
        ["N", f"T + {lookback}"],
        ["N", f"T + {horizon}"],
    ]
    assert {axis for port in (*whole.get_outputs(), *step.get_outputs()) for axis in port.shape[:2]} == {
        "N", 1, horizon, lookback + 1,
    }  # fmt: skip


def test_whole_in_onnxruntime(run, forecaster):
    (quantiles,) = session(run, "model").run(["quantiles"], rows_of(run, NEW))
    np.testing.assert_allclose(quantiles, forecaster.predict().quantiles.values, rtol=1e-6)


def test_row_by_row_in_onnxruntime(run, forecaster):
    """The step goes on from the whole graph; so does the forecaster, and the whole graph over more rows."""
    whole, step = session(run, "model"), session(run, "step")
    _, *state = whole.run(None, rows_of(run, NEW))
    begun = state
    kept = named(step.get_inputs())[: len(state)]
    forecaster.predict()
    for last in range(NEW - 1, -1, -1):
        place = len(next(iter(run.table))) - last
        forecaster.update(part_of(run.table, place - 1, place))
        want = forecaster.predict().quantiles.values
        quantiles, *state = step.run(None, {**dict(zip(kept, state, strict=True)), **row_of(run, last)})
        np.testing.assert_allclose(quantiles, want, rtol=1e-6)
        at_once, *after = whole.run(None, rows_of(run, last, more=NEW - last))
        np.testing.assert_allclose(at_once, want, rtol=1e-6)
        for got, part in zip(state, after, strict=True):
            np.testing.assert_allclose(got, part, rtol=1e-5, atol=1e-6)
    forgetful = {**dict(zip(kept, state, strict=True)), **dict(zip(kept[-2:], begun[-2:], strict=True))}
    assert np.abs(step.run(None, {**forgetful, **row_of(run, 0)})[0] / want - 1).max() > 1e-6


def test_a_target_of_too_few_rows_is_refused(run):
    rows = rows_of(run, NEW)
    short = {name: value[:, 1:] for name, value in rows.items()}
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session(run, "model").run(None, short)


def test_a_step_that_disagrees_is_found(run, forecaster):
    """The file is held against the model for all that it says and keeps: here a step on another scale."""
    graph = forecast_graph.forecast_graph(forecaster)[1].graph
    content = (run.folder / "step.onnx").read_bytes()
    assert onnx_writing.agreement(graph, content, "step.onnx")[0] < 1e-4
    graph.module.rows.widening *= 1.001
    with pytest.raises(
        BackendError, match=r"^step\.onnx, output `quantiles` for N = 2, T = 5: the copy errs"
    ):
        onnx_writing.agreement(graph, content, "step.onnx")


@needs_engine
def test_in_the_runtime(run, forecaster):
    """Whole and row by row, as the forecaster itself goes on, and as the whole does with more rows."""
    model = runtime.load(run.folder / "model")
    rows = rows_of(run, NEW)
    stream = model.stream(**rows)
    np.testing.assert_array_equal(stream.output, model(**rows))
    np.testing.assert_allclose(stream.output, forecaster.predict().quantiles.values, rtol=1e-6)
    for last in range(NEW - 1, -1, -1):
        place = len(next(iter(run.table))) - last
        forecaster.update(part_of(run.table, place - 1, place))
        got = stream.step(**row_of(run, last))
        np.testing.assert_allclose(got, forecaster.predict().quantiles.values, rtol=1e-6)
        np.testing.assert_allclose(model(**rows_of(run, last, more=NEW - last)), got, rtol=1e-6)
    assert np.abs(got / model(**rows_of(run, 0)) - 1).max() > 1e-6  # the scale has stayed


@needs_engine
def test_one_series_of_a_stream_waits_and_states_come_back(run):
    model = runtime.load(run.folder / "model")
    rows, row = rows_of(run, NEW), row_of(run, NEW - 1)
    stream, both = model.stream(**rows), model.stream(**rows)
    begun, saved = stream.output, stream.state
    got, whole = stream.step(**row, mask=np.array([True, False])), both.step(**row)
    np.testing.assert_array_equal(got[0], whole[0])
    np.testing.assert_array_equal(got[1], begun[1])
    np.testing.assert_array_equal(stream.step(**row, mask=np.array([False, True]))[1], whole[1])
    stream.state = saved
    np.testing.assert_array_equal(stream.step(**row), whole)
    stream.reset(np.array([True, False]))
    np.testing.assert_array_equal(stream.output[0], begun[0])
    np.testing.assert_array_equal(stream.output[1], whole[1])
    stream.reset()
    np.testing.assert_array_equal(stream.step(**row), whole)


@needs_engine
def test_what_a_stream_cannot_take_is_named(run):
    model = runtime.load(run.folder / "model")
    rows, row = rows_of(run, NEW), row_of(run, NEW - 1)
    stream, plan = model.stream(**rows), run.forecaster.plan
    short = {name: value[:, 1:] for name, value in rows.items()}
    for call, message in (
        (
            lambda: stream.step(**(row | {"target": np.zeros((2, 1))})),
            "stream.step: `target` must be (N) with N = 2, got (2, 1).",
        ),
        (
            lambda: stream.step(**(row | {"target": np.zeros(3)})),
            "stream.step: `target` must be (N) with N = 2, got (3,).",
        ),
        (
            lambda: stream.step(**(row | {"target": ["a", "b"]})),
            "stream.step: `target` must be of float64, got <U1.",
        ),
        (
            lambda: stream.step(**row, mask=[True]),
            "stream.step: `mask` must be (N,) = (2,) of bool, got (1,) of bool.",
        ),
        (
            lambda: model(**short),
            f"model: `target` must be (N, T + {plan.lookback}) with T at least {plan.context}, got "
            f"(2, {plan.memory - 1}).",
        ),
        (
            lambda: model(**(rows | {"time": short["time"]})),
            f"model: `time` must be (N, T + 6) with N = 2, T = {plan.context}, got (2, {plan.context + 5}).",
        ),
        (
            lambda: stream.step(target=row["target"], values=0),
            "stream.step: must be given target, time, got target, values.",
        ),
        (
            lambda: stream.step(*row.values(), 0),
            "stream.step: must be given target, time, got 3 in order.",
        ),
        (
            lambda: setattr(stream, "state", {"h0": np.zeros(1)}),
            f"stream: `state` must have { ({k: v.shape for k, v in stream.state.items()}) }, "
            f"got { ({'h0': (1,)}) }.",
        ),
    ):
        with pytest.raises(ShapeError) as raised:
            call()
        assert str(raised.value) == message


@needs_engine
def test_the_times_of_a_stream_go_on(run):
    """A row left out or given twice would move all later forecasts by a step, and nothing would show it."""
    model = runtime.load(run.folder / "model")
    stream, first, second = model.stream(**rows_of(run, NEW)), row_of(run, NEW - 1), row_of(run, NEW - 2)
    one = np.array([False, True])
    message = (
        "stream.step: `time` must go on one step, 1 month, after the row before, and that of series {n} goes "
        "from {before} 00:00:00.000000 to {now} 00:00:00.000000. Give every row, with NaN in `target` where "
        "it is missing; a row that was given cannot be given again."
    )
    zeroth, once, twice = (
        str(time.astype("datetime64[us]").astype("datetime64[D]"))
        for time in (rows_of(run, NEW)["time"][0, -7], first["time"][0, 0], second["time"][0, 0])
    )

    def refuses(row, n, before, now, **mask):
        kept = stream.state
        with pytest.raises(DataError) as raised:
            stream.step(**row, **mask)
        assert str(raised.value) == message.format(n=n, before=before, now=now)
        for name, value in stream.state.items():
            np.testing.assert_array_equal(value, kept[name])

    refuses(second, 0, zeroth, twice)
    stream.step(**first, mask=one)
    refuses(first, 1, once, once)
    refuses(first, 1, once, once, mask=one)
    stream.step(**first, mask=~one)
    saved, expected = stream.state, stream.step(**second)
    stream.reset(one)
    refuses(first, 0, twice, once)
    stream.step(**first, mask=one)
    stream.state = saved
    np.testing.assert_array_equal(stream.step(**second), expected)
    refuses(second, 0, twice, twice)


def with_cell(values, place, value):
    """A copy of an array with one number replaced."""
    changed = np.array(values)
    changed[place] = value
    return changed


NO_VALUE = (
    "model: `target` must have at least one value in the context of each series, rows {lookback} to {last}, "
    "which set its scale, and series 1 has none. Leave the series out, or end its rows where it was observed "
    "last."
)
INFINITE = (
    ": `target` must hold finite numbers, and that of series 1 is inf{row}. "
    "Give NaN where nothing was observed."
)
NO_TIME = (
    ": `time` must be a time at every row of a series and of its horizon, and that of series {n} is NaT in "
    "row {row}. Only rows before its first may have none."
)
UNEVEN = (
    ": `time` must rise by one step, 1 month, from row to row, and that of series 0 goes from {now} in row 0 "
    "to {after}. Give datetime64, or int64 microseconds since 1970, and NaN in `target` where a row is "
    "missing."
)


@needs_engine
def test_rows_that_no_forecast_can_be_made_of_are_refused(run):
    """As `Forecaster.predict` and the command line refuse them: numbers made of them would look like any."""
    model = runtime.load(run.folder / "model")
    rows, row = rows_of(run, NEW), row_of(run, NEW - 1)
    stream, plan = model.stream(**rows), run.forecaster.plan
    time, end = rows["time"].astype("datetime64[us]"), rows["time"].shape[1] - 1
    now = time.astype("datetime64[D]")
    in_milliseconds = time[:, :2].astype("datetime64[ms]").astype(np.int64)
    as_read = [str(t).replace("T", " ") for t in in_milliseconds[0].astype("datetime64[us]")]
    no_target = with_cell(rows["target"], 1, np.nan)
    short = with_cell(rows["target"], (1, slice(plan.lookback, None)), np.nan)
    monthly = f"{now[0, 0]} 00:00:00.000000", f"{now[0, 2]} 00:00:00.000000"
    NaT = np.datetime64("NaT")
    for call, given, message in (
        (model, {"target": no_target}, NO_VALUE),
        (model, {"target": short}, NO_VALUE),
        (model, {"target": with_cell(rows["target"], (1, 3), np.inf)}, "model" + INFINITE),
        (model.stream, {"target": with_cell(rows["target"], (1, 3), np.inf)}, "stream" + INFINITE),
        (stream.step, {"target": with_cell(row["target"], 1, np.inf)}, "stream.step" + INFINITE),
        (model, {"time": np.full(time.shape, NaT)}, "model" + NO_TIME.format(n=0, row=0)),
        (model, {"time": with_cell(time, (1, end), NaT)}, "model" + NO_TIME.format(n=1, row=end)),
        (model, {"time": with_cell(time, (1, 0), NaT)}, "model" + NO_TIME.format(n=1, row=0)),
        (
            stream.step,
            {"time": with_cell(row["time"], (0, 0), NAT)},
            "stream.step" + NO_TIME.format(n=0, row=0),
        ),
        (
            model,
            {"time": time.astype("datetime64[ms]").astype(np.int64)},
            "model" + UNEVEN.format(now=as_read[0], after=as_read[1]),
        ),
        (
            model,
            {"time": np.delete(np.concatenate([time, time[:, -1:]], 1), 1, 1)},
            "model" + UNEVEN.format(now=monthly[0], after=monthly[1]),
        ),
    ):
        fed = (row if call == stream.step else rows) | given
        with pytest.raises(DataError) as raised:
            call(**fed)
        row_named = "" if call == stream.step else " in row 3"
        assert str(raised.value) == message.replace("{row}", row_named).replace(
            "{lookback}", str(plan.lookback)
        ).replace("{last}", str(plan.memory - 1))
    waiting = {"target": with_cell(row["target"], 1, np.inf), "time": with_cell(row["time"], 1, NAT)}
    stream.step(**waiting, mask=np.array([True, False]))  # what a series that waits is given, is not read
    missing = {"target": np.full(2, np.nan)}  # a row may be
    stream.step(**(row | missing), mask=np.array([False, True]))
    early = {name: np.array(part) for name, part in rows.items()}
    early["target"][0, : plan.lookback + 5], early["time"][0, :5] = np.nan, NAT
    assert np.isfinite(model(**early)).all()  # a series of few rows


@needs_engine
def test_the_weights_of_a_step_are_stored_once(run):
    settings, arrays = read_folder(run.folder / "model")
    large = [name for name, value in arrays.items() if value.size > 1000]
    assert large and not any(name.startswith("step.") for name in large)
    assert set(settings["step"]["arrays"].values()) <= set(arrays)


@needs_engine
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_on_short_weights(weights, run):
    rows = rows_of(run, NEW)
    short, full = (runtime.load(run.folder / "model", weights=form)(**rows) for form in (weights, None))
    assert 0 < np.abs(short / full - 1).max() < 1e-2


@needs_engine
def test_without_torch(run, forecaster, tmp_path):
    np.savez(tmp_path / "rows.npz", **rows_of(run, NEW))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from longshort import runtime\n"
        f"model = runtime.load({str(run.folder / 'model')!r})\n"
        "np.save('quantiles.npy', model(**np.load('rows.npz')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    want = forecaster.predict().quantiles.values
    np.testing.assert_allclose(np.load(tmp_path / "quantiles.npy"), want, rtol=1e-6)


def test_its_lstm_for_keras_and_torch(run, forecaster, capsys):
    lstm = forecaster._fitted()[1].lstm
    for words, load in (("keras", exchange.load_keras), ("torch", exchange.load_torch)):
        assert export(run.folder, "--to", words, "--out", str(run.folder / words)) == 0
        path = capsys.readouterr().out.strip()
        again = load(path)
        np.testing.assert_array_equal(again.weight_hh_l0.detach().numpy(), lstm.weight_hh_l0.detach().numpy())


def test_a_file_that_is_there_stays(run, capsys):
    (run.folder / "old.keras").write_bytes(b"old")
    assert export(run.folder, "--to", "keras", "--out", str(run.folder / "old.keras")) == 1
    assert capsys.readouterr().err == (
        f"longshort export: {run.folder / 'old.keras'}: exists. Give another name, or overwrite it: "
        f"`overwrite=True`, or --overwrite.\n"
    )
    assert (run.folder / "old.keras").read_bytes() == b"old"
    assert export(run.folder, "--to", "keras", "--out", str(run.folder / "old.keras"), "--overwrite") == 0


def test_a_name_that_is_another_formats(run, capsys):
    assert export(run.folder, "--to", "keras", "--out", "model.onnx") == 1
    assert capsys.readouterr().err == (
        "longshort export: --out names a file of --to onnx, got 'model.onnx' with --to keras.\n"
    )


def test_only_onnx_has_a_graph_of_one_step(run, capsys):
    assert export(run.folder, "--to", "runtime", "--streaming") == 1
    assert capsys.readouterr().err == (
        "longshort export: `streaming` and `reset` are for ONNX; a folder for the runtime streams "
        "anyway. Leave them out.\n"
    )


def test_a_run_of_another_task(tmp_path, capsys):
    from longshort.runs import Run

    Run.create(tmp_path / "book", "sums", {})
    assert export(tmp_path / "book", "--to", "onnx") == 1
    assert (
        "holds a run of `sums`, and only those of `forecast` and `language` can be exported"
        in capsys.readouterr().err
    )


def shops(rows, transform):
    """Hourly sales of two shops with covariates of every role, some missing; the second shop is young."""
    random, frames = np.random.default_rng(0), []
    for shop, count in (("north", rows), ("south", 40)):
        hour = np.arange(rows - count, rows)
        sales = 20 + 5 * np.sin(hour * np.pi / 12) + random.normal(size=count)
        sales[[3, count - 2]] = np.nan
        visitors = np.where(hour % 7 == 0, np.nan, random.normal(100, 20, count))
        frames.append(
            pl.DataFrame(
                {
                    "shop": [shop] * count,
                    "hour": np.datetime64("2024-02-27T00", "us") + hour.astype("timedelta64[h]"),
                    "sales": pl.Series(sales).fill_nan(None),
                    "visitors": pl.Series(visitors).fill_nan(None),
                    "price": random.normal(3, 0.2, count),
                    "sky": random.choice(["sun", "rain", "snow"], count),
                    "size": [1.0 if shop == "north" else 2.0] * count,
                }
            )
        )
    settings = {
        "target": "sales", "id": "shop", "time": "hour", "past": "visitors", "future": ["price", "sky"],
        "static": ["size"], "categorical": "sky", "transform": transform, "horizon": 3, "season": 24,
        "hidden": 8,
    }  # fmt: skip
    known = pl.concat([frame[: len(frame) - 3] for frame in frames])
    model = ls.Forecaster(seed=0, max_steps=2, **settings).fit(known, device="cpu", quiet=True)
    later = pl.concat([frame[len(frame) - 3 :] for frame in frames]).drop("sales", "visitors")
    return model, later


@needs_engine
def test_covariates_that_a_forecast_lacks_are_named(tmp_path):
    """What is known in advance must be there for the horizon, and only there; categories must be known."""
    model, later = shops(400, "none")
    table = model.history.with_ahead(read_ahead(later, like=model.history.columns, step=model.history.step))
    names = ("target", "time", "past", "future", "static")
    given = forecast_graph.last_rows(table, model.plan, names[1:], 2, model.plan.context)
    rows = {name: part.numpy() for name, part in zip(names, given, strict=True)}
    ls.export(model, tmp_path / "m")
    copy, end = runtime.load(tmp_path / "m"), model.plan.context + 3
    stream, future = copy.stream(**rows), rows["future"]
    row = {name: rows[name][:, -part:] for name, part in (("time", 4), ("past", 1), ("future", 4))}
    row |= {"target": rows["target"][:, -1], "static": rows["static"]}
    row["time"] = row["time"] + 3_600_000_000
    stream.step(**row)
    assert np.isfinite(copy(**(rows | {"future": with_cell(future, (0, end - 4), np.nan)}))).all()
    missing = (
        ": 2 values of covariates known in advance are missing (series, row, column):\n"
        "  0, {last}, 'price'\n  1, {last}, 'sky'\n"
        "  Give them in the last 3 rows of `future`, those of the horizon; earlier ones may be NaN."
    )
    two = with_cell(with_cell(future, (0, -1, 0), np.nan), (1, -1, 1), np.nan)
    for call, fed, message in (
        (copy, rows | {"future": two}, "model" + missing.format(last=end - 1)),
        (stream.step, row | {"future": two[:, -4:]}, "stream.step" + missing.format(last=3)),
        (
            copy,
            rows | {"past": with_cell(rows["past"], (1, 2, 0), -np.inf)},
            "model: `past` must hold finite numbers, and that of series 1 is -inf in row 2 in column "
            "'visitors'. Give NaN where nothing was observed.",
        ),
        (
            copy,
            rows | {"static": with_cell(rows["static"], (0, 0), np.inf)},
            "model: `static` must hold finite numbers, and that of series 0 is inf in column 'size'. "
            "Give NaN where nothing was observed.",
        ),
        (
            copy,
            rows | {"future": with_cell(future, (1, end - 1, 1), 3)},
            "model: `future`, column 'sky', must hold the number of a category known since training, in "
            f"[0, 3), and that of series 1 is 3 in row {end - 1}.",
        ),
    ):
        with pytest.raises(DataError) as raised:
            call(**fed)
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("step", "start"),
    [
        ("hour", "2024-02-28T23:00"), ("30 minutes", "2024-02-28T23:30"), ("business day", "2024-02-23"),
        ("month", "2023-11-15T06:00"), ("month end", "2023-12-31"), ("quarter", "2024-01-01"),
        ("2 weeks", "2024-01-01"), ("year", "2024-01-01"), ("microsecond", "2024-01-01"),
    ],
)  # fmt: skip
def test_the_runtime_knows_the_steps_of_the_calendar(step, start):
    known = Step.parse(step)
    time = known.grid(np.datetime64(start, "us"), 40).astype(np.int64)
    np.testing.assert_array_equal(next_of(time, str(known))[:-1], time[1:])


@pytest.mark.parametrize("transform", ["none", "sqrt", "log"])
def test_covariates_go_in_as_they_are(transform, tmp_path):
    """Times and covariates in their own units, and a series of fewer rows than the model reads."""
    model, later = shops(400, transform)
    back = {"none": lambda z: z, "sqrt": np.square, "log": np.exp}[transform]
    want = back(model.predict(future=later).quantiles.values)
    whole, _ = forecast_graph.forecast_graph(model)
    assert whole.inputs == ("target", "time", "past", "future", "static")
    table = model.history.with_ahead(read_ahead(later, like=model.history.columns, step=model.history.step))
    given = forecast_graph.last_rows(table, model.plan, whole.inputs[1:], 2, model.plan.context)
    assert given[0].isnan().sum() > 2
    with torch.no_grad():
        got = whole.module(*given)[0].numpy()
    np.testing.assert_allclose(got, want, rtol=2e-6)
    if transform == "log" and engine.available():
        ls.export(model, tmp_path / "m")
        copy = runtime.load(tmp_path / "m")
        np.testing.assert_allclose(copy(*(part.numpy() for part in given)), want, rtol=2e-6)
        assert copy.about["columns"]["categories"] == {"sky": ["rain", "snow", "sun"]}
        assert copy.about["quantiles"][6] == 0.5
        zeros = {name: part.numpy() for name, part in zip(whole.inputs, given, strict=True)}
        zeros["target"] = np.where(np.isnan(zeros["target"]), np.nan, 0.0)
        with pytest.raises(DataError, match="must have at least one value above 0 in the context of each"):
            copy(**zeros)


def test_the_calendar_in_the_graph_is_the_plan_s():
    days = np.arange(np.datetime64("1896-01-01"), np.datetime64("2104-12-31")).astype("datetime64[us]")
    times = days + (np.arange(len(days)) * 7_919_000_003 % 86_400_000_000).astype("timedelta64[us]")
    cycles = ("hour", "day", "week", "year")
    got = calendar(torch.from_numpy(times.astype(np.int64)), cycles).numpy()
    np.testing.assert_allclose(got, calendar_channels(times, cycles), rtol=0, atol=3e-7)
    assert not calendar(torch.tensor([np.iinfo(np.int64).min]), cycles).any()
