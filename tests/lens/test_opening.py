"""Forecasters, run folders and the verb; and the recorder of a training."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import Reader
from torch import nn

from longshort import Forecaster, look
from longshort.errors import RunError, SettingError
from longshort.lens import Recorder
from longshort.runs import Run


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    import polars

    steps = np.arange(160)
    rows = {"y": 10 + np.sin(steps * np.pi / 6) + 0.1 * np.random.default_rng(0).normal(size=160)}
    model = Forecaster(horizon=4, season=12, hidden=8, max_steps=5, target=("y",), seed=0)
    model.fit(polars.DataFrame(rows), quiet=True)
    folder = tmp_path_factory.mktemp("runs") / "wave"
    model.save(folder)
    return model, folder


def test_a_forecaster(forecaster):
    made = look(forecaster[0])
    assert list(made.trace.layers) == ["lstm.l0"]
    assert made.trace.difference < 1e-5
    assert made.used is not None and made.surgery is not None
    assert made.channels[:3] == ["value", "known", "change in 12 steps"]
    assert len(made.channels) == made.trace["lstm.l0.x"].shape[2]
    assert made.influence.answer.shape == (len(made.names),)
    assert "Three horizons" in str(made)


def verb(*words):
    command = [sys.executable, "-m", "longshort.cli", "look", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_the_verb_writes_the_page_and_prints_the_findings(forecaster, tmp_path):
    _, folder = forecaster
    result = verb(folder, "--out", tmp_path / "look.html", "--words", "torch")
    assert result.returncode == 0, result.stderr
    assert "c_t" in result.stdout and "Three horizons" in result.stdout
    assert f"{tmp_path / 'look.html'}: the page, " in result.stdout
    assert (tmp_path / "look.html").read_text("utf8").count("<title>wave</title>") == 1


@pytest.mark.parametrize(("words", "message"), [
    (["nowhere"], "nowhere"),
    (["RUN", "missing.csv"], "missing.csv"),
    (["RUN", "--out", "missing/look.html"], "missing"),
])  # fmt: skip
def test_what_fails_says_what(forecaster, words, message):
    result = verb(*[forecaster[1] if word == "RUN" else word for word in words])
    assert result.returncode == 1
    assert result.stderr.startswith("longshort look: ") and message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_of_another_task(tmp_path):
    from longshort.lens.opening import open_run

    Run.create(tmp_path / "other", "language", {})
    with pytest.raises(
        RunError, match=r"must be a run of the task forecast, and is one of language\. From Python"
    ):
        open_run(tmp_path / "other")


def test_neither_a_module_nor_a_forecaster():
    with pytest.raises(SettingError) as raised:
        look("model")
    assert str(raised.value) == (
        "look: `model` must be a torch module or a fitted longshort.Forecaster, got str."
    )


def test_a_recorder_sees_memory_being_learnt_and_disturbs_nothing():
    def train(recorded):
        torch.manual_seed(0)
        model, rng = Reader(nn.LSTM, 1, 8, 1), torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(model.parameters(), 2e-2)
        watched = torch.randn(6, 16, 1, generator=rng)
        recorder = Recorder(model, watched, every=20)
        for step in range(81):
            x = torch.randn(32, 16, 1, generator=rng)
            optimiser.zero_grad()
            (model(x)[:, 0] - x[:, 0, 0]).square().mean().backward()
            if recorded:
                recorder.note(step)
            optimiser.step()
        return model, recorder

    model, recorder = train(recorded=True)
    plain, _ = train(recorded=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert model.training
    assert [frame["step"] for frame in recorder.film] == [0, 20, 40, 60, 80]
    assert recorder.film[0]["full"] != recorder.film[-1]["full"]
    with torch.no_grad():
        model.rnn.bias_ih_l0[8:16] += 3.0
    recorder.note(100)
    assert recorder.film[-1]["half"] > 2 * recorder.film[-2]["half"]
    assert recorder.film[-1]["full"][-1] > recorder.film[-2]["full"][-1]
    assert json.loads(json.dumps(recorder.film)) == recorder.film
    with pytest.raises(SettingError, match=r"^Recorder: `every` must be at least 1, got 0\.$"):
        Recorder(model, torch.zeros(1, 2, 1), every=0)
