"""A run of a forecast, exported by the command line: the same numbers from onnxruntime alone."""

import numpy as np
import onnxruntime
import pytest

import longshort as ls
from longshort import cli, exchange
from longshort.data import embedded


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A forecaster fitted for a few steps, saved."""
    folder = tmp_path_factory.mktemp("runs") / "co2"
    forecaster = ls.Forecaster(horizon=6, seed=0, max_steps=3).fit(embedded(), quiet=True, device="cpu")
    forecaster.save(folder)
    return forecaster, folder


def export(folder, *words):
    return cli.main(["export", str(folder), *words])


def test_rows_in_quantiles_out(run, capsys):
    forecaster, folder = run
    assert export(folder, "--to", "onnx") == 0
    assert capsys.readouterr().out.startswith(f"{folder / 'model.onnx'}: ")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    plan, series = forecaster.plan, next(iter(forecaster.history))
    from longshort.data import SeriesTable
    from longshort.tasks.forecast.windows import Panel

    table = SeriesTable((series,), forecaster.history.step, forecaster.history.columns)
    windows, _ = Panel(table, plan).cut([0], [len(series)], plan.context)
    fed = {"target": series.target[None, -plan.memory :], "ahead": windows.ahead.numpy()}
    (quantiles,) = session.run(None, fed)
    want = forecaster.predict().quantiles.values
    np.testing.assert_allclose(quantiles, want, rtol=1e-6)


def test_its_lstm_for_keras_and_torch(run, capsys):
    forecaster, folder = run
    lstm = forecaster._fitted()[1].lstm
    for words, load in (("keras", exchange.load_keras), ("torch", exchange.load_torch)):
        assert export(folder, "--to", words, "--out", str(folder / words)) == 0
        path = capsys.readouterr().out.strip()
        again = load(path)
        np.testing.assert_array_equal(again.weight_hh_l0.detach().numpy(), lstm.weight_hh_l0.detach().numpy())


def test_a_file_that_is_there_stays(run, capsys):
    _, folder = run
    (folder / "old.keras").write_bytes(b"old")
    assert export(folder, "--to", "keras", "--out", str(folder / "old.keras")) == 1
    assert capsys.readouterr().err == (
        f"longshort export: {folder / 'old.keras'}: exists. Give another name, or overwrite it: "
        f"`overwrite=True`, or --overwrite.\n"
    )
    assert (folder / "old.keras").read_bytes() == b"old"
    assert export(folder, "--to", "keras", "--out", str(folder / "old.keras"), "--overwrite") == 0


def test_a_run_of_another_task(tmp_path, capsys):
    from longshort.runs import Run

    Run.create(tmp_path / "book", "sums", {})
    assert export(tmp_path / "book", "--to", "onnx") == 1
    assert (
        "holds a run of `sums`, and only those of `forecast` and `language` can be exported"
        in capsys.readouterr().err
    )
