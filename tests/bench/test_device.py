"""The script for who has a device, without one: its order, its budget, what it does with faults."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import pytest

from longshort.bench import gpu
from longshort.scan.cuda.machine import Properties

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("device", BENCHMARKS / "device.py")
device = sys.modules["device"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(device)
Job = device.Job


@pytest.fixture(autouse=True)
def found_by_processes(monkeypatch):
    """Processes that a test starts import the script by name; no other test sees its folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_fault_ends_one_answer_and_nothing_else(tmp_path, capsys):
    jobs = [
        Job("one", "right", dict, ({"x": 1},)),
        Job("one", "raises", int, ("many",)),
        Job("two", "hangs", time.sleep, (60,), seconds=3),
        Job("two", "dies", os._exit, (3,)),
        Job("three", "right again", dict, ({"x": 2},)),
    ]
    found = device.run(iter(jobs), tmp_path, 60)
    assert found["one"]["right"]["x"] == 1 and found["three"]["right again"]["x"] == 2
    assert found["one"]["raises"]["failed"].startswith("ValueError: invalid literal")
    assert found["two"]["hangs"]["failed"] == "no answer in 3 s"
    assert found["two"]["dies"]["failed"] == "the process ended without an answer"
    assert json.loads((tmp_path / "device.json").read_text()).keys() == found.keys()
    assert len(capsys.readouterr().out.splitlines()) == len(jobs)


def test_what_is_done_is_written_before_the_next_begins(tmp_path, monkeypatch):
    seen = []

    class Servant:
        def ask(self, job, seconds):
            path = tmp_path / "device.json"
            seen.append(list(json.loads(path.read_text())) if path.exists() else [])
            return {}

        def end(self):
            pass

    monkeypatch.setattr(device, "Servant", Servant)
    device.run(iter([Job("one", "a", dict), Job("two", "b", dict)]), tmp_path, 60)
    assert seen == [[], ["command", "one"]]


def test_when_the_time_is_over_the_rest_is_named(tmp_path):
    found = device.run(iter([Job("one", "a", dict), Job("two", "b", dict)]), tmp_path, 4)
    assert found["no time left for"] == ["one: a", "two: b"]


def test_a_case_that_one_plan_took_down_is_measured_without_it(tmp_path, monkeypatch):
    asked = []

    class Servant:
        def ask(self, job, seconds):
            asked.append(job.arguments[2].plans)
            return {"failed": "the process ended without an answer"} if len(asked) == 1 else {"training": {}}

        def end(self):
            pass

    monkeypatch.setattr(device, "Servant", Servant)
    setup = gpu.Setup(plans=("step", "persistent"))
    job = Job("table", "a case", gpu.typed, (gpu.CASES[0], "bfloat16", setup))
    found = device.run(iter([job]), tmp_path, 60)
    assert asked == [("step", "persistent"), ("step",)]
    assert found["table"]["a case"]["with all plans"] == "the process ended without an answer"


def test_correctness_comes_first_and_every_part_comes():
    order = list(dict.fromkeys(job.part for job in device.jobs(Path("out"))))
    assert order == list(device.PARTS)
    table = [job.name for job in device.jobs(Path("out")) if job.part == "table"]
    assert table == [f"{case.name}, {kind}" for kind in gpu.TYPES for case in gpu.CASES]


def test_the_binaries_are_those_of_table_options_and_stacks():
    by_name = {case.name: case for case in gpu.CASES}
    cases = [by_name[name] for name in ("64 x 64", "20 x 650", "64 x 512")]
    texts = device.texts(Properties("H200", (9, 0), 132, 227 * 1024), cases)
    kinds = (
        "step_begin",
        "step_forward",
        "step_backward",
        "persistent_forward",
        "persistent_backward",
        "dropped",
        "transposed",
        "copied",
    )
    for kind in kinds:
        assert any(f"KERNEL({kind}," in text for text in texts), kind
    types = {
        kind for text in texts for kind in device.sources.TYPES.values() if f"<{', '.join(kind)}>" in text
    }
    assert len(types) == 3, "float32, bfloat16, float16"
    alone = [text for text in texts if "Tiling<512, 128, 1, 4, 4, 4, 0, 1, 1, false>" in text]
    assert not alone, "a case that is not asked for"


@pytest.mark.parametrize("way, forward, backward", [
    ("as they are", 16, 8), ("alone", 16, 8), ("16 units", 32, 32), ("32 units", 16, 16), ("64 units", 8, 8),
])  # fmt: skip
def test_a_case_is_cut_as_the_way_says(way, forward, backward):
    """By the blocks of a group; what does not fit stays as it is."""
    case = next(case for case in gpu.CASES if case.name == "64 x 512")
    found = device.cut(Properties("H200", (9, 0), 132, 227 * 1024), case, "bfloat16", way)
    assert (found.forward.blocks, found.backward.blocks) in ((forward, backward), (16, backward))


def test_the_verdict_names_the_best_plan():
    times = {"ours": 2.0, "ours, step": 3.0, "ours, persistent": 1.0, "cudnn": 8.0}
    answer = {"training": {"microseconds a step": {who: {"median": took} for who, took in times.items()}}}
    said = list(device.verdict({"table": {"64 x 64, bfloat16": answer, "broken": {"failed": "a fault"}}}))
    assert said == [
        "64 x 64, bfloat16        training     8.00x cuDNN by ours, persistent, default 4.00x",
    ]  # fmt: skip
    assert "ours, persistent 1.00" in device.line(answer)


def test_without_a_device_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["device.py", "--out", str(tmp_path)])
    monkeypatch.setattr(device.machine, "why_not", lambda: "torch finds no CUDA device")
    with pytest.raises(SystemExit, match=r"^device: no kernel can run here: torch finds no CUDA device\.$"):
        device.main()
