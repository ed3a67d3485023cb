"""A run folder is whole or it is not there: atomic writes, a real kill, and damaged or foreign folders."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from longshort.errors import RunError
from longshort.runs import Run, replacing


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", "forecast", {"horizon": 12})


def test_a_run_is_found_again(run):
    again = Run.open(run.folder)
    assert (again.task, again.settings) == ("forecast", {"horizon": 12})
    assert Run.create(run.folder, "forecast", {"horizon": 12}).settings == {"horizon": 12}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 3)),
        np.array(7, dtype=np.int64),
        np.array([True, False]),
        np.arange(12, dtype=np.float64).reshape(3, 4).T,
    ],
    ids=["matrix", "empty", "scalar", "bool", "transposed"],
)
def test_arrays_come_back_equal_with_what_stands_beside_them(run, array):
    run.write_arrays("weights.safetensors", {"a.b": array}, {"step": 3})
    arrays, about = run.read_arrays("weights.safetensors")
    assert about == {"step": 3}
    assert arrays["a.b"].dtype == array.dtype
    np.testing.assert_array_equal(arrays["a.b"], array)


def test_metrics_are_read_without_a_last_line_cut_short(run):
    run.append_metrics({"step": 1, "loss": np.float32(0.5)})
    run.append_metrics({"step": 2})
    with run.path("metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert run.read_metrics() == [{"step": 1, "loss": 0.5}, {"step": 2}]
    run.keep_metrics(lambda line: line["step"] < 2)
    assert run.read_metrics() == [{"step": 1, "loss": 0.5}]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(target) as file:
        file.write(b"half")
        raise KeyError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as raised, replacing(target) as file:
        file.write(b"new")
    assert str(raised.value) == (
        f"{target}: cannot be written: No space left on device. What stood there before is unchanged."
    )
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_kill_in_the_middle_of_saving_leaves_a_whole_checkpoint(run):
    """A process that does nothing but save is killed without warning, at many moments."""
    code = (
        "import sys, numpy as np; from longshort.runs import Run\n"
        "run = Run.open(sys.argv[1]); k = 0\n"
        "while True:\n"
        "    k += 1\n"
        "    run.write_arrays('last.safetensors', {'w': np.full(200_000, k)}, {'step': k})\n"
    )
    newest = 0
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(run.folder)])
        deadline = time.monotonic() + 60
        before = newest
        while time.monotonic() < deadline:
            if run.exists("last.safetensors"):
                newest = run.read_arrays("last.safetensors")[1]["step"]
                if newest not in (0, before):
                    break
            time.sleep(0.002 * (attempt + 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrays, about = run.read_arrays("last.safetensors")
        assert (arrays["w"] == about["step"]).all()
        newest = about["step"]


def test_what_a_kill_left_is_no_run_and_is_cleared_away(tmp_path):
    """Killed before the settings had their name; and, long ago, in the middle of a checkpoint."""
    young, old = tmp_path / ".settings.json.a1b2c3d4.part", tmp_path / ".last.safetensors.e5f6a7b8.part"
    young.write_text("{")
    run = Run.create(tmp_path, "forecast", {})
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert young.exists()  # another process may be at work on it
    Run.create(tmp_path, "forecast", {})
    assert young.exists() and not old.exists() and run.exists("settings.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run: holds no settings.json. A run is what `longshort train ... --out` wrote."),
        ("{", "line 1: is damaged: "),
        ('{"task":\n', "line 1: is damaged: Expecting value."),
        ('{\n"task":,\n', "line 2: is damaged: Expecting value."),
        ("[]", "was not written by longshort: no `task` in it."),
        ('{"task": "forecast", "longshort": 1}', "was not written by longshort: no `task` in it."),
        (
            '{"task": "forecast", "longshort": 99, "settings": {}}',
            "has layout 99, and this longshort reads up to 1. Install a newer longshort.",
        ),
        (
            '{"task": "language", "longshort": 1, "settings": {}}',
            "holds a run of `language`, not of `forecast`. Give another folder.",
        ),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(RunError) as raised:
        Run.open(tmp_path, "forecast")
    assert message in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_no_folder(tmp_path):
    with pytest.raises(RunError) as raised:
        Run.open(tmp_path / "none")
    assert str(raised.value) == (
        f"{tmp_path / 'none'}: is not a run: there is no such folder. "
        "A run is what `longshort train ... --out` wrote."
    )


def test_other_settings_are_refused_by_name(run):
    with pytest.raises(RunError) as raised:
        Run.create(run.folder, "forecast", {"horizon": 24, "seed": 1})
    assert str(raised.value) == (
        f"{run.folder}: holds a run with other settings: horizon 12 -> 24, seed None -> 1. "
        "Give another --out, or repeat the run's own settings to resume it."
    )


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    for name in ("thesis.tex", ".film.mkv.part"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, 0))
        with pytest.raises(RunError, match="is a folder with other files in it, not a run"):
            Run.create(tmp_path, "forecast", {})
    (tmp_path / "thesis.tex").unlink()
    with pytest.raises(RunError, match="is a folder with other files in it, not a run"):
        Run.create(tmp_path, "forecast", {})
    assert (tmp_path / ".film.mkv.part").exists()
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="is a file, not a run"):
        Run.create(tmp_path / "thesis.tex", "forecast", {})


@pytest.mark.parametrize("damage", ["missing", "short", "noise", "foreign"])
def test_a_damaged_checkpoint_is_an_error_that_names_it(run, damage):
    path = run.write_arrays("weights.safetensors", {"w": np.ones(1000)}, {"step": 1})
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "noise":
        path.write_bytes(b"\x80\x04K\x01." * 100)
    else:
        from safetensors.numpy import save_file

        save_file({"w": np.ones(3)}, path, {"format": "pt"})
    message = {
        "missing": "there is no such file. Train the run first.",
        "short": "is damaged or is no safetensors file: ",
        "noise": "is damaged or is no safetensors file: ",
        "foreign": "is a safetensors file, but was not written by longshort.",
    }[damage]
    with pytest.raises(RunError) as raised:
        run.read_arrays("weights.safetensors")
    assert str(raised.value).startswith(f"{path}: {message}")


def test_settings_file_is_plain_json(run):
    assert json.loads(run.path("settings.json").read_text()) == {
        "longshort": 1,
        "task": "forecast",
        "settings": {"horizon": 12},
    }
