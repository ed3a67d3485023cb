"""What the engine is asked for is told from what was measured, and nothing else."""

import json
import subprocess
import sys

import pytest

from longshort import engine
from longshort.bench import cpu, targets
from longshort.bench.limits import limit_of
from longshort.cli import main


def times(**milliseconds):
    return {name: {"median": value} for name, value in milliseconds.items()}


def compared(**milliseconds):
    ours = milliseconds["ours"]
    ratio = {name: {"median": value / ours} for name, value in milliseconds.items() if name != "ours"}
    return {"milliseconds": times(**milliseconds), "ratio": ratio}


FOUND = {
    "threads": 2,
    "gigaflops of one core": 100.0,
    "gigabytes a second of one core": {
        str(case.read(2, bits)): 80.0 for case in cpu.CASES for bits in (32, 16, 8)
    },
    "training": {"batch": compared(ours=50.0, torch=100.0), "wide": compared(ours=200.0, torch=210.0)},
    "inference": {
        "batch": compared(ours=10.0, torch=12.0, onnxruntime=11.0),
        "stream": {
            "milliseconds": {
                **times(ours=1.0, torch=2.0, onnxruntime=1.5),
                "engine bfloat16": {"median": 0.5},
            },
            "ratio": {},
        },
        "one step": {"milliseconds": {"engine full": {"median": 0.004}}, "ratio": {}},
    },
    "options": {"batch": {"reset": {"low": 1.0}}, "control": {"reset": {"low": 1.21}}},
    "first call, milliseconds": 51.0,
}
EXPECTED = {
    "training beside torch, geometric mean": (2.0, (2.0 * 1.05) ** 0.5, False),
    "training beside torch, batch": (1.2, 2.0, True),
    "training beside torch, wide": (1.1, 1.05, False),
    "share of peak in training, batch": (0.65, 3 * 8 * 32 * 128 * 256 * 512 / 0.05 / 200e9, True),
    "share of peak in training, wide": (0.65, 3 * 8 * 128 * 64 * 512 * 1024 / 0.2 / 200e9, True),
    "inference beside the best peer, geometric mean": (1.2, 1.1, False),
    "inference beside the best peer, batch": (0.97, 1.1, True),
    "stream beside the best peer": (1.6, 1.5, False),
    "stream in bfloat16 beside the best peer": (2.0, 3.0, True),
    "one step, engine full, us": (3, 4.0, False),
    "training with reset, lower end, geometric mean": (1.05, 1.1, False),
    "two threads beside one, batched, geometric mean": (1.8, 1.8, True),
    "first call of a process, ms": (50, 51.0, False),
}


def test_each_number_asked_for_is_computed_and_judged():
    rows = targets.rows(
        FOUND | {"two threads": {"batch": compared(ours=5.0, **{"one thread": 9.0})}}, cpu.CASES
    )
    assert {row.what: (row.asked, pytest.approx(row.measured), row.met) for row in rows} == EXPECTED


def test_a_number_says_what_the_cores_full_rates_would_make_of_it():
    rows = {row.what: row for row in targets.rows(FOUND, cpu.CASES)}
    share = rows["share of peak in training, batch"].measured
    assert rows["training beside torch, batch"].bound == pytest.approx(2.0 / share)
    assert rows["first call of a process, ms"].bound is None
    weights = 4 * 4 * 128 * 128 / 2
    inputs = 8 * 128 * 64 / 200e9
    assert rows["stream beside the best peer"].bound == pytest.approx(
        1.5e-3 / (1000 * (inputs + weights / 80e9))
    )
    assert rows["one step, engine full, us"].bound == pytest.approx(1e6 * 4 * 4 * 128 * 192 / 2 / 80e9)
    assert str(rows["inference beside the best peer, batch"]).startswith(
        "met    inference beside the best peer, batch: 1.1, asked at least 0.97; "
    )


def test_what_is_missed_says_by_how_much_and_what_limits_it():
    rows = {row.what: row.to_json() for row in targets.rows(FOUND, cpu.CASES)}
    met, late = rows["training beside torch, batch"], rows["first call of a process, ms"]
    assert met["met"] and not {"missed by", "what limits it", "tried"} & set(met)
    assert late["missed by"] == pytest.approx(51 / 50 - 1) and "tried" not in late
    small = targets.Row("training beside torch, small batch", 1.2, 0.9).to_json()
    assert small["missed by"] == pytest.approx(0.25)
    assert small["what limits it"].startswith("Four sequences a thread")
    silent = {what for what in rows if limit_of(what) is None}
    without = ("training with", "stream in bfloat16", "first call")
    assert all(what.startswith(without) for what in silent)


def test_what_was_not_measured_has_no_row():
    assert targets.rows({}, cpu.CASES) == []


@pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")
def test_the_verb_measures_prints_and_writes(tmp_path):
    out = tmp_path / "cpu.json"
    command = [sys.executable, "-W", "ignore", "-m", "longshort.cli", "bench", "cpu"]
    ran = subprocess.run(
        [*command, "--case", "control", "--rounds", "1", "--out", out],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
    assert "training beside torch, control" in ran.stdout
    content = json.loads(out.read_text())
    assert set(content["training"]) == set(content["inference"]) == {"control"}
    assert {row["what"] for row in content["asked"]} >= {"first call of a process, ms"}
    assert content["command"] == 'longshort bench cpu --threads 2 --rounds 1 --case "control"'


@pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")
def test_in_bfloat16_every_row_stands_beside_float32(tmp_path, capsys):
    out = tmp_path / "short.json"
    words = ["bench", "cpu", "--dtype", "bfloat16", "--case", "control", "--rounds", "1", "--out", str(out)]
    assert main(words) == 0
    content = json.loads(out.read_text())
    assert {"torch", "ours, float32", "torch, float32"} <= set(content["inference"]["control"]["ratio"])
    assert set(content["training"]["control"]["ratio"]) == {"torch", "ours, float32", "torch, float32"}
    assert "asked" not in content and "options" not in content
    assert "torch, geometric mean of 1 batched cases" in capsys.readouterr().out
