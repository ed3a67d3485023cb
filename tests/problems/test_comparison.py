"""Trials and comparisons: solved in seconds, killed and continued, tuned alike, told in table and picture."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from longshort.errors import DataError, Diverged, RunError, SettingError
from longshort.figures import figure_bytes
from longshort.problems import report, story, trial
from longshort.problems.catalogue import PROBLEMS, problem_named
from longshort.problems.cells import CELLS
from longshort.problems.comparison import TUNING_SEED, Interrupted, compare
from longshort.problems.copy import Copy
from longshort.problems.mnist import Mnist
from longshort.problems.samosa import Samosa
from longshort.problems.settings import ComparisonSettings, TrialSettings
from longshort.problems.wolf import Wolf
from longshort.runs import Run

TINY = [  # the tiniest setting of each problem: lag, cell, H, rate, steps
    ("recall", 2, "lstm-chrono", 12, 0.02, 200),
    ("adding", 4, "lstm-bias1", 16, 0.02, 900),
    ("temporal", 10, "lstm-chrono", 16, 0.02, 300),
    ("temporal-4", 10, "lstm-chrono", 16, 0.02, 400),
    ("reber", 5, "lstm-chrono", 24, 0.02, 500),
    ("reber-continual", 1, "lstm-bias1", 24, 0.01, 400),
    ("anbn", 10, "lstm-1997", 4, 0.03, 600),
    ("anbncn", 10, "lstm-1997", 6, 0.03, 800),
    ("echo", 1, "lstm-bias1", 16, 0.03, 200),
    ("flipflop", 3, "lstm-bias1", 24, 0.03, 400),
    ("timing", 1, "lstm-peephole", 24, 0.02, 600),
    ("loan", 4, "lstm-chrono", 16, 0.02, 200),
]
FAST = TrialSettings(problem="recall", lag=2, cell="lstm", hidden=8, rate=0.02, max_steps=100)
FEW = ComparisonSettings(
    cells=("lstm-chrono", "rnn"), lags=(2, 3), seeds=2, hidden=8, max_steps=100, rates=(0.03, 1e-4)
)


def without_seconds(value):
    """Results but for what the clock says."""
    if isinstance(value, dict):
        return {name: without_seconds(part) for name, part in value.items() if "seconds" not in name}
    return [without_seconds(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "lag", "cell", "hidden", "rate", "steps"), TINY, ids=[t[0] for t in TINY])
def test_the_tiniest_setting_is_solved_in_seconds(tmp_path, name, lag, cell, hidden, rate, steps):
    settings = TrialSettings(problem=name, lag=lag, cell=cell, hidden=hidden, rate=rate, max_steps=steps)
    result = trial.run_trial(PROBLEMS[name], settings, tmp_path / "run")
    assert result["score"] <= max(PROBLEMS[name].bound, 0.05 * PROBLEMS[name].trivial(lag)), result


@pytest.mark.parametrize(("problem", "steps"), [(Copy(1), 500), (Samosa(1), 300)], ids=["copy", "samosa"])
def test_one_of_several_is_solved_in_seconds(tmp_path, problem, steps):
    lag = problem.least
    settings = TrialSettings(
        problem=problem.name, lag=lag, cell="lstm-bias1", hidden=32, rate=0.02, max_steps=steps
    )
    result = trial.run_trial(problem, settings, tmp_path / "run")
    assert result["score"] <= 0.05 * problem.trivial(lag), result


def test_the_tiniest_wolf_is_told_from_a_dog_in_seconds(tmp_path):
    """Pictures without noise; half the errors of one without memory are gone."""
    settings = TrialSettings(problem="wolf", lag=8, cell="lstm-bias1", hidden=32, rate=0.003, max_steps=400)
    result = trial.run_trial(Wolf(0.0), settings, tmp_path / "run")
    assert result["score"] <= 0.25, result


def test_the_tiniest_mnist_is_solved_in_seconds(tmp_path, digits):
    settings = TrialSettings(problem="mnist", lag=28, cell="lstm-bias1", hidden=24, rate=0.01, max_steps=400)
    result = trial.run_trial(Mnist(digits), settings, tmp_path / "run")
    assert result["score"] <= 0.05, result


def test_a_trial_keeps_what_is_needed_to_look_into_it(tmp_path):
    result = trial.run_trial(PROBLEMS["recall"], FAST, tmp_path / "run")
    learner = trial.load_trial(tmp_path / "run")[1]
    batch = PROBLEMS["recall"].draw(2, 200, np.random.default_rng(5), "test")
    out = learner(torch.from_numpy(batch.x))[:, -1]
    wrong = (out.argmax(1).numpy() != batch.target[:, -1]).mean()
    assert abs(wrong - result["score"]) < 0.05
    assert result["units"] == 8 and result["sequences"] == 16 * result["steps"]
    assert result["parameters"] == sum(weight.numel() for weight in learner.cell.parameters())


def test_the_same_settings_give_the_same_result(tmp_path):
    first, again = (trial.run_trial(PROBLEMS["recall"], FAST, tmp_path / name) for name in "ab")
    other = trial.run_trial(
        PROBLEMS["recall"], TrialSettings(**{**FAST.to_json(), "seed": 1}), tmp_path / "c"
    )
    assert without_seconds(first) == without_seconds(again)
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (
        tmp_path / "b/weights.safetensors"
    ).read_bytes()
    assert (tmp_path / "a/weights.safetensors").read_bytes() != (
        tmp_path / "c/weights.safetensors"
    ).read_bytes()
    assert other["seed"] == 1


def test_a_trial_that_is_over_is_not_run_again(tmp_path, monkeypatch):
    first = trial.run_trial(PROBLEMS["recall"], FAST, tmp_path / "run")
    monkeypatch.setattr(trial, "fit", None)
    assert trial.run_trial(PROBLEMS["recall"], FAST, tmp_path / "run") == first


def test_a_trial_that_diverges_has_failed_and_does_not_end_the_comparison(tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise Diverged("fit: the loss must stay finite, and is inf at step 4.")

    monkeypatch.setattr(trial, "fit", diverge)
    (first, *_) = compare(PROBLEMS["recall"], FEW, Run.create(tmp_path / "run", "problems", {}), quiet=True)
    assert first.solved == 0 and first.scores == [0.875, 0.875]
    assert first.to_json()["steps to solve"] is None


def compared(folder, settings=FEW):
    """Every row of a comparison of recall, as plain values without times."""
    run = Run.create(folder, "problems", settings.to_json())
    return [without_seconds(row.to_json()) for row in compare(PROBLEMS["recall"], settings, run, quiet=True)]


def test_each_cell_is_tuned_on_a_seed_of_its_own(tmp_path):
    rows = compared(tmp_path / "run")
    assert [(row["lag"], row["cell"]) for row in rows] == [
        (2, "lstm-chrono"), (2, "rnn"), (3, "lstm-chrono"), (3, "rnn"),
    ]  # fmt: skip
    for row in rows:
        assert row["rate"] == 0.03 and [t["seed"] for t in row["trials"]] == [0, 1]
        assert row["solved"] == sum(t["solved"] for t in row["trials"]) and row["trivial"] == 0.875
        for rate in (0.03, 0.0001):
            folder = tmp_path / f"run/recall/lag-{row['lag']}/{row['cell']}/rate-{rate:g}"
            assert json.loads((folder / "result.json").read_text())["seed"] == TUNING_SEED
    assert rows[0]["solved"] == 2


def test_a_cell_that_never_solved_a_lag_is_not_tried_beyond_it(tmp_path):
    slow = ComparisonSettings(**{**FEW.to_json(), "rates": [1e-5], "cells": ["rnn"], "max_steps": 20})
    rows = compared(tmp_path / "run", slow)
    assert [(row["tried"], row.get("solved")) for row in rows] == [(True, 0), (False, None)]
    all_the_same = ComparisonSettings(**{**slow.to_json(), "beyond": True})
    assert [row["tried"] for row in compared(tmp_path / "beyond", all_the_same)] == [True, True]


def test_interrupted_and_continued_equals_uninterrupted(tmp_path, monkeypatch):
    whole = compared(tmp_path / "whole")
    real, calls = trial.fit, []

    def interrupted(module, objective, settings, **options):
        calls.append(1)
        if len(calls) == 6:  # Ctrl-C at the tenth batch of the sixth trial
            batch = objective.batch
            objective.batch = lambda step: (step == 10 and os.kill(os.getpid(), signal.SIGINT), batch(step))[
                1
            ]
        return real(module, objective, settings, **options)

    monkeypatch.setattr(trial, "fit", interrupted)
    with pytest.raises(Interrupted):
        compared(tmp_path / "parts")
    monkeypatch.setattr(trial, "fit", real)
    assert compared(tmp_path / "parts") == whole
    for path in (tmp_path / "whole").rglob("weights.safetensors"):
        assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()


COMMAND = ["recall", "--cells", "lstm-chrono,rnn", "--lags", "2,3", "--seeds", "2", "--hidden", "8"]
COMMAND += ["--rates", "0.02", "--max-steps", "150"]


def command(folder):
    return [sys.executable, "-m", "longshort.cli", "problems", *COMMAND, "--out", str(folder)]


def test_killed_and_continued_equals_uninterrupted(tmp_path):
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": one_thread}
    seen = tmp_path / "parts/recall/lag-2/rnn/seed-1/last.safetensors"
    with subprocess.Popen(command(tmp_path / "parts"), **silent) as killed:
        while not seen.exists() and killed.poll() is None:
            time.sleep(0.01)
        killed.kill()
    assert not (tmp_path / "parts/results.json").exists()
    outputs = []
    for name in ("parts", "whole"):
        ended = subprocess.run(command(tmp_path / name), capture_output=True, text=True, env=one_thread)
        assert ended.returncode == 0, ended.stderr
        outputs.append(json.loads((tmp_path / name / "results.json").read_text()))
        text = (tmp_path / name / "table.txt").read_text()
        assert ended.stdout.startswith(text) and "without memory" in text
        assert ended.stdout.endswith(f"{tmp_path / name}: tables, pictures and the trained models\n")
    assert without_seconds(outputs[0]) == without_seconds(outputs[1])
    assert (tmp_path / "whole/recall.png").read_bytes()[:4] == b"\x89PNG"


def stored(solved=(2, 0), scores=((0.0, 0.0, 0.01), (0.8, 0.7, 0.9))):
    """A comparison as results.json holds it."""
    rows = [
        {
            "problem": "recall", "lag": lag, "cell": cell, "trivial": 0.875, "tried": True, "units": 64,
            "parameters": 21248, "rate": 0.01, "solved": count, "seeds": 2,
            "score": dict(zip(("median", "least", "most"), score, strict=True)),
            "steps to solve": 150.0 if count else None, "seconds to solve": 1234.5 if count else None,
        }
        for lag in (10, 1000)
        for cell, count, score in zip(("lstm-chrono", "rnn"), solved, scores, strict=True)
    ]  # fmt: skip
    rows[-1] = {"problem": "recall", "lag": 1000, "cell": "rnn", "trivial": 0.875, "tried": False}
    return {
        "name": "recall", "about": "which came first", "source": "", "lag": "steps",
        "measure": "wrong answers", "bound": 0.01, "rows": rows,
    }  # fmt: skip


TABLE = """\
recall: which came first
score: wrong answers; lag: steps

  lag  cell            units  weights  rate     solved   score     least to most  steps  seconds
   10  without memory                                    0.875
   10  lstm-chrono        64   21,248  0.01     2 of 2  0.0000  0.0000 to 0.0100    150    1,234
   10  rnn                64   21,248  0.01     0 of 2   0.800    0.700 to 0.900      -        -
1,000  without memory                                    0.875
1,000  lstm-chrono        64   21,248  0.01     2 of 2  0.0000  0.0000 to 0.0100    150    1,234
1,000  rnn                                   not tried"""


def test_the_table_of_a_stored_run():
    assert report.table(stored()) == TABLE


def test_the_picture_of_a_stored_run():
    (axes,) = report.figure(stored()).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lag 10", "lag 1,000"]
    assert [round(place) for place in lines["lstm-chrono"].get_xdata()] == [0, 1]
    assert [round(place) for place in lines["rnn"].get_xdata()] == [0]
    assert list(lines["rnn"].get_ydata()) == [0.8]
    assert list(lines["without memory"].get_ydata()) == [0.875] * 3
    assert len(axes.collections) == 2 and axes.get_ylabel() == "wrong answers"
    assert figure_bytes(report.figure(stored()), "svg") == figure_bytes(report.figure(stored()), "svg")


def test_equal_scores_at_one_lag_do_not_hide_each_other():
    """One lag: every mark and the line of one without memory are to be seen."""
    found = stored(scores=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    (axes,) = report.figure({**found, "rows": found["rows"][:2]}).axes
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in "os"]
    left, right = axes.get_xlim()
    assert left < marks[0] < 0 < marks[1] < right and marks[1] - marks[0] > 0.03 * (right - left)
    (trivial,) = (line for line in axes.lines if line.get_label() == "without memory")
    assert trivial.get_xdata()[0] < marks[0] and trivial.get_xdata()[-1] > marks[1]


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_the_weights_it_says_and_about_those_of_the_lstm(name):
    cell = CELLS[name]
    units = cell.units(17, 32)
    layer = cell.build(17, units, 50)
    count = sum(weight.numel() for weight in layer.parameters())
    assert cell.parameters(17, units) == count
    assert abs(count / CELLS["lstm"].parameters(17, 32) - 1) < 0.04
    y = layer(torch.zeros(2, 5, 17))[0]
    assert y.shape == (2, 5, units)


@pytest.mark.parametrize("name", CELLS)
def test_a_start_is_what_it_is_called(name):
    layer = CELLS[name].build(17, 12, 50)
    recurrent = layer.weight_hh_l0.detach()
    biases = [b.detach() for n, b in layer.named_parameters() if n.startswith("bias")]
    if name in ("rnn", "gru", "lstm"):
        assert recurrent.abs().max() <= 12**-0.5 and biases[0].abs().max() > 0
        return
    for block in recurrent.split(12):
        torch.testing.assert_close(block @ block.T, torch.eye(12), atol=1e-5, rtol=0)
    bias = sum(biases).split(12)
    chrono = {"gru-chrono": (1, 1), "lstm-chrono": (1, 1), "lstm-coupled-chrono": (-1, 0)}  # sign, place
    sign, place = chrono.get(name, (0, 0))
    keep = sign * bias[place] if sign else None
    if keep is not None:
        assert (keep >= 0).all() and (keep <= torch.tensor(49.0).log()).all() and keep.std() > 0.1
    elif name in ("lstm-bias1", "lstm-peephole", "lstm-counter"):
        torch.testing.assert_close(bias[1], torch.ones(12))
    else:
        assert not torch.cat(bias).any()


def ask(names=("recall",), device="cpu", **settings):
    return lambda folder: story.compare_all(
        list(names), ComparisonSettings(**settings), folder / "out", device=device, quiet=True
    )


KNOWN = ", ".join(PROBLEMS)
BAD = [
    (ask(["recal"]), SettingError, f"NAME must be of {KNOWN}, got 'recal'. Did you mean recall?"),
    (
        ask(cells=("lstm", "transformer")),
        SettingError,
        f"`cells` must be of {', '.join(CELLS)}, got 'transformer'.",
    ),
    (
        ask(["adding"], lags=(10, 1)),
        SettingError,
        "adding: a lag must be at least 2, got 1. "
        "Here it means: steps of a sequence, at least one in each half.",
    ),
    (
        ask(seeds=0),
        SettingError,
        "ComparisonSettings: `seeds` must be in [1, inf), got 0.\n  Trials of each cell at each lag.",
    ),
    (ask(cells=()), SettingError, "`cells` must name at least one, got none."),
    (ask(cells=("gru", "lstm", "gru")), SettingError, "`cells` must name each once, got gru 2 times."),
    (
        ask(["anbn"], lags=(9,)),
        SettingError,
        "anbn: a lag must be at least 10, got 9. "
        "Here it means: the largest n of the test; the training's is 10.",
    ),
    (
        ask(device="tpu"),
        SettingError,
        "fit: `device` must be one of 'auto', 'cpu', 'cuda', 'mps', got 'tpu'.",
    ),
    (ask(["recall", "recall"]), SettingError, "each NAME may stand once, got recall recall."),
    (
        ask(["mnist"]),
        DataError,
        "mnist: needs the folder with its idx files. Give --data FOLDER (train-images-idx3-ubyte.gz ...).",
    ),
    (
        ask(["mnist"], data="nowhere"),
        DataError,
        "mnist: looked for train-images-idx3-ubyte, train-images-idx3-ubyte.gz, "
        "mnist-train-images-idx3-ubyte, mnist-train-images-idx3-ubyte.gz in nowhere, and found none of them.",
    ),
    (
        ask(["mnist"], lags=(10,), data="nowhere"),
        SettingError,
        "mnist: its only lag is 28, the number of steps of a picture; got 10.",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[str(k) for k in range(len(BAD))])
def test_messages_in_full(tmp_path, call, kind, message):
    with pytest.raises(kind) as raised:
        call(tmp_path)
    assert str(raised.value) == message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_comparison_is_refused(tmp_path):
    wanted = {"cells": ("rnn",), "lags": (2,), "seeds": 1, "max_steps": 5, "rates": (0.01,)}
    ask(**wanted)(tmp_path)
    with pytest.raises(RunError) as raised:
        ask(**{**wanted, "seeds": 2})(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path / 'out'}: holds a run with other settings: seeds 1 -> 2. "
        f"Give another --out, or repeat the run's own settings to resume it."
    )


IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
DAMAGED = [
    (b"\0\0\x08\x03" + b"\0\0\0\x02" * 3, "must have 8 bytes after its head, got 0. Is it cut short?"),
    (b"\0\0\x08\x01\0\0", "is no idx file of unsigned bytes with 3 axes."),
    (b"PK", "is no idx file of unsigned bytes with 3 axes."),
]


@pytest.mark.parametrize(("content", "what"), DAMAGED)
def test_a_damaged_idx_file_is_named(tmp_path, content, what):
    path = tmp_path / f"{IDX[0]}-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        problem_named("mnist", str(tmp_path)).check(28)
    assert str(raised.value) == f"{path}: {what}"


def test_a_packed_file_that_is_cut_short_is_named(tmp_path):
    import gzip

    path = tmp_path / f"{IDX[0]}-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:15])
    with pytest.raises(DataError, match="cannot be read, or is cut short"):
        problem_named("mnist", str(tmp_path)).check(28)


def test_without_a_name_problems_and_cells_are_listed(capsys):
    from longshort import cli

    assert cli.main(["problems"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in (*PROBLEMS, *CELLS))
