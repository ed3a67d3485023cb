"""Ten minutes on a CUDA device, in the order of their worth: what runs, whether it is right, how fast it is.

    PYTHONPATH=src python3 benchmarks/device.py --out FOLDER [--minutes 9.5]

Nothing need be installed but torch for CUDA, NumPy and pytest with its plugins xdist and timeout. Every part
runs in a process of its own, which a fault or a wait that does not end takes with it and nothing else;
FOLDER/device.json is written anew after each answer, so that whoever stops this loses nothing. In turn:

1. the machine, and what `plan()` says after the check at first use;
2. every binary that the rest needs, compiled by all cores;
3. tests/gpu: first one call of each plan, then all, several at a time;
4. ours beside cuDNN, training and inference, in bfloat16, float16, TF32, float32, each plan by its name;
5. where the time of some cases goes, kernel by kernel; what options cost, both directions, two
   published stacks, first use;
6. other clocks of the first look, and other ways to cut the kernels, by which `scan/cuda/tiling.py` is to be
   decided;
7. compute-sanitizer, where there is one.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from longshort import LSTM
from longshort.bench import gpu
from longshort.scan import gpu as scan_gpu
from longshort.scan.call import Call, Options
from longshort.scan.cuda import compiler, machine, plans, sources, tiling

ROOT = Path(__file__).parents[1]
SETUP = gpu.Setup(rounds=5, plans=("step",), first_use=False, options=False)
CUT = ("64 x 64", "64 x 128", "512 x 128", "64 x 256", "64 x 512", "64 x 1024", "256 x 512", "16 x 768")
"""The cases on which other cuts are tried, in every type but float16."""
WAYS = ("as they are", "alone", "16 units", "32 units", "64 units")
"""How: one block alone, or several that hold so many units each."""
BROKEN_DOWN = (
    *(("bfloat16", name, "persistent") for name in ("64 x 512", "64 x 1024", "256 x 512", "20 x 650")),
    *(("bfloat16", name, "alone") for name in ("64 x 128", "1024 x 128", "pixels")),
    *(("bfloat16", name, "persistent") for name in ("256 x 1024", "80 x 1152")),  # forward by teams
    *(("bfloat16", name, "step") for name in ("64 x 2048", "512 x 1024", "128 x 1536")),
    *(("float32", name, "persistent") for name in ("64 x 512", "1024 x 128")),
)
"""Type, case and plan whose kernels are timed one by one."""
RESTED = ("64 x 128", "64 x 256", "64 x 512", "64 x 1024", "1 x 512", "16 x 768", "20 x 650")
RESTS = (0, 300, 500, 700, 900, 1200)
"""Clocks from telling to the first look at what others tell: `Tiling.rest`."""
ASKED = {
    "bfloat16": (5.0, 1.3, 2048),
    "float16": (3.2, 1.2, 2048),
    "tf32": (4.0, 1.2, 2048),
    "float32": (2.0, None, 512),
}
"""By type: cuDNN's time over ours in the geometric mean, in every case, and the largest H that counts."""
PARTS = (
    "machine",
    "binaries",
    "smoke",
    "tests",
    "table",
    "breakdown",
    "options",
    "directions",
    "stacks",
    "first use",
    "rests",
    "cuts",
    "sanitizer",
)


@dataclass(frozen=True)
class Job:
    """One answer: a function of this module, or of `bench.gpu`, and how long it may take."""

    part: str
    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    seconds: float = 60.0


# ---- the work of each part; every function runs in a process that has the device to itself


def facts() -> dict[str, Any]:
    """The machine, and which backend a call gets."""
    from longshort.scan import plan

    device = torch.device("cuda")
    x, w, b = (torch.randn(*shape, device=device) for shape in ((3, 4, 5), (24, 5), (24,)))
    start = time.perf_counter()
    said = str(plan(x, w, torch.randn(24, 6, device=device), b))
    took = time.perf_counter() - start
    found = machine.cuda(torch.cuda.current_device()).properties
    return {**gpu.machine(), "properties": str(found), "plan": said, "check at first use, seconds": took}


def plain(case: gpu.Case, dtype: torch.dtype) -> Call:
    """A training call of a case with no option."""
    given = frozenset({"bias"})
    return Call(Options(), "cuda", dtype, case.N, case.T, case.C, case.H, case.H, given, True)


class Recorder:
    """A machine that runs nothing and keeps the text of every program that it is asked for."""

    specialises = True

    def __init__(self, properties: machine.Properties) -> None:
        self.properties, self.texts, self.rounds = properties, set[str](), False

    def kernel(self, program: sources.Program, name: str, shared: int = 0) -> Recorder:
        """Keep the text."""
        self.texts.add(program.text())
        return self

    def ahead(self, program: sources.Program) -> None:
        """Keep the text too."""
        self.texts.add(program.text())

    def bind(self, *words: Any, **more: Any) -> Callable[[], None]:
        """A launch of nothing."""
        return lambda: None

    def resident(self, multiprocessors: int) -> int:
        """Room for all."""
        return 1 << 20

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """No product."""
        return out.zero_()

    def repeated(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[int], None]:
        """No product either."""
        return lambda s: None

    def splits(self, *words: Any) -> bool:
        """Never."""
        return False

    def current(self) -> Any:
        """Nothing to make current."""
        return nullcontext()

    def sharing(self) -> int:
        """Nothing beside it."""
        return 1

    def report(self) -> torch.Tensor:
        """No kernel waits."""
        return torch.zeros(2, dtype=torch.int64)

    def tf32(self) -> bool:
        """As the type of the table says."""
        return self.rounds


def texts(properties: machine.Properties, cases: Sequence[gpu.Case] = gpu.CASES) -> set[str]:
    """The text of every program that table, options and stacks run: their layers take two steps nowhere."""
    found, planning = Recorder(properties), importlib.import_module("longshort.scan.plan")
    backend = scan_gpu.backend("gpu", lambda call: None, lambda device: found)
    before, planning.backends = planning.backends, lambda: (backend,)
    planning._CHOICES.clear()
    try:
        for name, (dtype, found.rounds) in gpu.TYPES.items():
            for case in cases:
                _two_steps(LSTM(case.C, case.H).to(dtype), case.N, case.C)
                if case.name in gpu.OPTION_CASES and name == "bfloat16":
                    for option, settings in gpu._OPTIONS.items():
                        _two_steps(LSTM(case.C, case.H, **settings).to(dtype), case.N, case.C, option)
            for C, H, both, mine, N, _ in gpu.STACKS.values():
                _two_steps(LSTM(C, H, **both, **mine).to(dtype), N, C)
    finally:
        planning.backends = before
        planning._CHOICES.clear()
    return found.texts


def _two_steps(layer: torch.nn.Module, N: int, C: int, option: str = "") -> None:
    """Training, by both plans, and inference."""
    x = torch.zeros(2, N, C, dtype=next(layer.parameters()).dtype, requires_grad=True)
    more: dict[str, Any] = {
        "reset": {"reset": torch.zeros(N, 2, dtype=torch.bool)},
        "lengths": {"lengths": torch.full((N,), 2)},
        "kept cells": {"keep": "cells"},
    }.get(option, {})
    for plan in (None, "step"):
        with gpu.planned(plan):
            y = layer(x, **more)[0]
            y.backward(torch.zeros_like(y))
            with torch.inference_mode():
                layer(x, **more)


def binaries() -> dict[str, Any]:
    """Compile them all, by all cores, to the folder where they are kept."""
    properties = machine.cuda(torch.cuda.current_device()).properties
    start = time.perf_counter()
    all_texts = sorted(texts(properties))
    described = time.perf_counter() - start
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        sizes = list(pool.map(_compiled, all_texts, [properties.architecture] * len(all_texts)))
    return {
        "programs": len(sizes),
        "bytes": sum(sizes),
        "cores": cores,
        "seconds to find them": described,
        "seconds": time.perf_counter() - start,
    }


def _compiled(text: str, architecture: str) -> int:
    return len(compiler.binary(text, architecture))


def tests(log: str, seconds: float, *words: str) -> dict[str, Any]:
    """Run pytest; its output is in a file of its own from the first line on."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # many processes compute the equations on the host beside each other: one thread each
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "-rfE",
        "--tb=short",
        f"--session-timeout={max(1, int(seconds) - 15)}",  # what failed is said at the end, which so comes
        *words,
    ]
    with open(log, "w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    lines = Path(log).read_text("utf8", "replace").splitlines()
    wrong = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit code": code, "in time": code is not None, "end": lines[-1:], "wrong": wrong[:60]}


def host_time(run: Callable[[], object]) -> float:
    """Microseconds of the host for a call behind a device that is busy: the median of five."""
    for _ in range(3):
        run()
    host = []
    for _ in range(5):
        torch.cuda.synchronize()
        torch.cuda._sleep(50_000_000)
        start = time.perf_counter()
        run()
        host.append(1e6 * (time.perf_counter() - start))
    torch.cuda.synchronize()
    return round(statistics.median(host), 1)


def where_the_host_is(layer: Any, x: torch.Tensor, dy: torch.Tensor, plan: str | None) -> dict[str, float]:
    """What a training step's host time is made of."""
    stamps: list[float] = []
    whole = scan_gpu.gradients

    def stamped(*words: Any, **more: Any) -> Any:
        stamps.append(time.perf_counter())
        try:
            return whole(*words, **more)
        finally:
            stamps.append(time.perf_counter())

    def run() -> None:
        stamps.append(time.perf_counter())
        y = layer(x)[0]
        stamps.append(time.perf_counter())
        y.backward(dy)
        stamps.append(time.perf_counter())

    scan_gpu.gradients = stamped
    try:
        with gpu.planned(plan):
            host_time(run)
    finally:
        scan_gpu.gradients = whole
    last = [stamps[k : k + 5] for k in range(15, 40, 5)]  # of eight runs, those behind a busy device
    names = ("there", "to autograd's thread", "back", "home")
    each = zip(*[[b - a for a, b in itertools.pairwise(one)] for one in last], strict=True)
    return {name: round(1e6 * statistics.median(took), 1) for name, took in zip(names, each, strict=True)}


def breakdown(
    case: gpu.Case, name: str, plan: str | None, calls: int = 3, option: str | None = None
) -> dict[str, Any]:
    """Where a training step of a case goes: microseconds a step by kernel, and the host's a call."""
    dtype, tf32 = gpu.TYPES[name]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    layer = gpu._layer(case, dtype, **({} if option is None else gpu._OPTIONS[option]))
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=dtype, requires_grad=True)
    dy = torch.randn(case.T, case.N, case.H, device="cuda", dtype=dtype)
    theirs = torch.nn.LSTM(case.C, case.H).to("cuda", dtype)
    runners = {
        "inference": gpu._forward(layer, x.detach(), plan),
        "training": gpu._training(layer, x, dy, plan),
        "training, cudnn": gpu._training(theirs, x, dy, None),
    }
    found: dict[str, Any] = {f"host, {kind}, us": host_time(run) for kind, run in runners.items()}
    found["host, where, us"] = where_the_host_is(layer, x, dy, plan)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(calls):
            runners["training"]()
        torch.cuda.synchronize()
    kernels = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    found["us a step"] = {
        event.key[:90]: [
            round(event.self_device_time_total / calls / case.T, 4),
            f"{event.count / calls:g} of {event.self_device_time_total / event.count:.1f} us",
        ]
        for event in kernels[:16]
    }
    return found


def cut(properties: machine.Properties, case: gpu.Case, kind: str, way: str) -> tiling.Pair | None:
    """Return how a case of a type is cut in one of WAYS; a direction where that does not fit is as it is."""
    dtype, tf32 = gpu.TYPES[kind]
    pair = tiling.pair(properties, plain(case, dtype), tf32)
    if pair is None or way == "as they are":
        return pair
    found = []
    for backward, before in ((False, pair.forward), (True, pair.backward)):
        exact = dtype == torch.float32 and not tf32
        asked = tiling.Asked(properties, case.N, pair.H, 4, dtype.itemsize, exact, False, 0, backward)
        if way == "alone":
            found.append((tiling._alone(asked) if pair.H <= tiling.MOST_UNITS else None) or before)
            continue
        units = int(way.split()[0])
        several = (c for c in tiling._cuts(asked, units) if pair.H % units == 0 and units < pair.H)
        fits = (c for c in several if c.shared <= properties.shared and c.subs <= tiling.MOST_SUBS)
        found.append(next(fits, before))
    return replace(pair, forward=found[0], backward=found[1])


def cut_otherwise(case: gpu.Case, kind: str, way: str) -> dict[str, Any]:
    """Microseconds a step of the two kernels of a training step, cut in one of WAYS."""
    dtype, tf32 = gpu.TYPES[kind]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    scan_gpu.proven(torch.device("cuda", torch.cuda.current_device()))  # before cuts are changed
    chosen = cut(machine.cuda(torch.cuda.current_device()).properties, case, kind, way)
    if chosen is None:
        return {"does not fit": way}
    plans._cut = lambda *words: chosen  # type: ignore[assignment]  # its process ends with the answer
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=dtype, requires_grad=True)
    dy = torch.randn(case.T, case.N, case.H, device="cuda", dtype=dtype)
    run, calls = gpu._training(gpu._layer(case, dtype), x, dy, None), 3
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    took = {
        event.key: [round(event.self_device_time_total / calls / case.T, 3), f"{calls} calls"]
        for event in profile.key_averages()
        if event.key.startswith("persistent")
    }
    return {"forward": chosen.forward.template, "backward": chosen.backward.template, "us a step": took}


def rested(case: gpu.Case, kind: str) -> dict[str, Any]:
    """Microseconds a step of a training call's two kernels, forward and backward, by RESTS."""
    dtype, tf32 = gpu.TYPES[kind]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=dtype, requires_grad=True)
    dy = torch.randn(case.T, case.N, case.H, device="cuda", dtype=dtype)
    run, took = gpu._training(gpu._layer(case, dtype), x, dy, None), {}
    for clocks in RESTS:
        with patch.object(tiling.Tiling, "rest", clocks):
            run()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                for _ in range(3):
                    run()
                torch.cuda.synchronize()
        events = [e for e in profile.events() if e.name.startswith("persistent")]
        took[clocks] = [
            round(min((e.device_time_total for e in events if way in e.name), default=0) / case.T, 3)
            for way in ("forward", "backward")
        ]
    return {"by clocks": took}


def sanitized(tool: str, plan: str, N: int, H: int, seconds: float) -> dict[str, Any]:
    """Run one small training step under compute-sanitizer."""
    if shutil.which("compute-sanitizer") is None:
        return {"skipped": "compute-sanitizer is not installed"}
    script = (
        "import torch, longshort as ls\n"
        f"layer = ls.LSTM(8, {H}).to('cuda', torch.bfloat16)\n"
        f"x = torch.randn(5, {N}, 8, device='cuda', dtype=torch.bfloat16)\n"
        "layer(x)[0].float().sum().backward()\n"
        "torch.cuda.synchronize()\n"
    )
    environment = {**os.environ, "LONGSHORT_CUDA_PLAN": plan, "LONGSHORT_CUDA_PATIENCE": "1000"}
    named = "step_" if plan == "step" else "team" if H > tiling.MOST_TOGETHER else "persistent"
    kernels = ["--kernel-name", f"kns={named}"]
    command = [
        "compute-sanitizer",
        "--tool",
        tool,
        *kernels,
        "--error-exitcode",
        "9",
        sys.executable,
        "-c",
        script,
    ]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
    )
    return {"exit code": found.returncode, "end": found.stdout[-1500:]}


# ---- the parts


def jobs(folder: Path, types: Sequence[str] = tuple(gpu.TYPES)) -> Iterator[Job]:
    """Everything, in order; `types` are those of the table."""
    yield Job("machine", "facts", facts, seconds=60)
    yield Job("binaries", "all", binaries, seconds=90)
    first = "auto_runs or agrees_with_torch or (one_block_alone_at_size and bf16 and 64-128)"
    yield Job(
        "smoke", "one call of each plan", tests, (str(folder / "smoke.log"), 50.0, "-x", "-k", first), 60
    )
    # one test takes most of the device's memory, one counts it: they come later and have it to themselves
    most = ("-v", "-n", "16", "-k", "not sanitizer and not out_of_memory and not memory_stays")
    yield Job("tests", "most", tests, (str(folder / "tests.log"), 175.0, *most), 185)
    for kind in types:
        for case in gpu.CASES:
            yield Job("table", f"{case.name}, {kind}", gpu.typed, (case, kind, replace(SETUP, plans=())), 30)
    by_name = {case.name: case for case in gpu.CASES}
    for kind, name, plan in BROKEN_DOWN:
        yield Job("breakdown", f"{name}, {kind}, {plan}", breakdown, (by_name[name], kind, plan), 30)
    for name in gpu.OPTION_CASES:
        work = (by_name[name], "bfloat16", None, 3, "layer norm")
        yield Job("breakdown", f"{name}, bfloat16, layer norm", breakdown, work, 30)
    for case in gpu.CASES:
        if case.name in gpu.OPTION_CASES:
            yield Job("options", case.name, gpu.options, (case, replace(SETUP, plans=())), 40)
    for name in gpu.DIRECTION_CASES:
        yield Job("directions", name, gpu.directions, (by_name[name], SETUP), 30)
    yield Job("stacks", "both", gpu.stacks, (SETUP,), 60)
    for case in gpu.CASES[1:4:2]:
        fresh = replace(SETUP, first_use=True, plans=())
        yield Job("first use", case.name, gpu.typed, (case, "bfloat16", fresh), 30)
    for kind in ("bfloat16", "tf32", "float32"):
        for name in RESTED:
            yield Job("rests", f"{name}, {kind}", rested, (by_name[name], kind), 30)
    for kind in ("bfloat16", "tf32", "float32"):
        for name in CUT:
            for way in WAYS:
                yield Job("cuts", f"{name}, {kind}, {way}", cut_otherwise, (by_name[name], kind, way), 30)
    last = (str(folder / "memory.log"), 50.0, "-k", "out_of_memory or memory_stays")
    yield Job("tests", "memory", tests, last, 60)
    for tool, plan, N, H in (
        ("memcheck", "persistent", 9, 1088),
        ("memcheck", "alone", 9, 64),
        ("racecheck", "persistent", 25, 150),
    ):
        yield Job("sanitizer", f"{tool}, {plan}, {N} x {H}", sanitized, (tool, plan, N, H, 70.0), 80)


def _serve(connection: Any) -> None:
    """Answer one request after another, until none comes."""
    with suppress(EOFError):
        while True:
            work, arguments = connection.recv()
            try:
                answer = work(*arguments)
            except Exception as error:
                said = f"{type(error).__name__}: {error}".splitlines()[0][:400]
                answer = {"failed": said, "where": traceback.format_exc()[-1500:]}
            connection.send(answer)


class Servant:
    """A process that works, replaced when it fell silent, fell over, or was told to end."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None

    def ask(self, job: Job, seconds: float) -> dict[str, Any]:
        """Return the answer, or what became of the process; never later than `seconds`."""
        if self.process is None or not self.process.is_alive():
            self.connection, there = self.context.Pipe()
            self.process = self.context.Process(target=_serve, args=(there,), daemon=False)
            self.process.start()
            there.close()
        try:
            self.connection.send((job.work, job.arguments))
            if self.connection.poll(seconds):
                answer: dict[str, Any] = self.connection.recv()
                if job.work is cut_otherwise or "failed" in answer:
                    self.end()  # with cuts that were changed, or a context that may be lost
                return answer
            answer = {"failed": f"no answer in {seconds:.0f} s"}
        except (EOFError, OSError):
            answer = {"failed": "the process ended without an answer"}
        self.end()
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def run(all_jobs: Iterator[Job], folder: Path, seconds: float) -> dict[str, Any]:
    """Do the jobs within `seconds`; write the file and say a line after each."""
    folder.mkdir(parents=True, exist_ok=True)
    path, servant, start = folder / "device.json", Servant(), time.monotonic()
    found: dict[str, Any] = {"command": " ".join(["benchmarks/device.py", *sys.argv[1:]])}
    for job in all_jobs:
        left = seconds - (time.monotonic() - start)
        if left < 5:
            found.setdefault("no time left for", []).append(f"{job.part}: {job.name}")
            continue
        before = time.monotonic()
        answer = servant.ask(job, min(job.seconds, left))
        if job.work is gpu.typed and isinstance(
            answer.get("failed"), str
        ):  # one plan's fault took all with it
            case, kind, setup = job.arguments
            again = replace(job, arguments=(case, kind, replace(setup, plans=("step",))))
            answer = {**servant.ask(again, job.seconds), "with all plans": answer["failed"]}
        answer = {**answer, "seconds of it all": round(time.monotonic() - before, 2)}
        found.setdefault(job.part, {})[job.name] = answer
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(found, indent=1, default=str) + "\n")
        fresh.replace(path)
        print(f"{time.monotonic() - start:6.0f} s  {job.part:9} {job.name:28} {line(answer)}", flush=True)
        if job.work is facts and "gpu" not in str(answer.get("plan", "")).split(",")[0]:
            break
    servant.end()
    if "table" in found:
        found["summary"] = summary(found["table"])
    path.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return found


def line(answer: dict[str, Any]) -> str:
    """An answer in a line."""
    if "us a step" in answer:
        host = {name: took for name, took in answer.items() if name.startswith("host")}
        rows = "".join(
            f"\n{took[0]:10.3f}  {took[1]:22} {name}" for name, took in answer["us a step"].items()
        )
        return f"{host}{rows}"
    if "training" in answer or "inference" in answer:
        words = []
        for kind in ("training", "inference"):
            times = answer.get(kind, {}).get("microseconds a step", {})
            words.append(
                f"{kind}: " + "  ".join(f"{name} {each['median']:.2f}" for name, each in times.items())
            )
        return " | ".join(
            [*words, *(f"FAILED {who}: {why}" for who, why in answer.get("failed", {}).items())]
        )
    return json.dumps(answer, default=str)[:300]


def verdict(found: dict[str, Any]) -> Iterator[str]:
    """Which plan each case of the table wants, and its ratio over cuDNN, by type."""
    for name, answer in found.get("table", {}).items():
        for kind in ("training", "inference"):
            times = {
                who: each["median"]
                for who, each in answer.get(kind, {}).get("microseconds a step", {}).items()
            }
            ours = {who: took for who, took in times.items() if who != "cudnn"}
            if ours and "cudnn" in times:
                best = min(ours, key=lambda who: ours[who])
                yield f"{name:24} {kind:10} {times['cudnn'] / ours[best]:6.2f}x cuDNN by {best}" + (
                    f", default {times['cudnn'] / ours['ours']:.2f}x" if "ours" in ours else ""
                )


def summary(table: dict[str, Any]) -> dict[str, Any]:
    """The numbers asked of the table beside what the default plan reached: cuDNN's time over ours."""
    found: dict[str, Any] = {}
    for kind, (mean, least, most_units) in ASKED.items():
        for way in ("training", "inference"):
            ratios = {
                case.name: table[name][way]["ratio"]["ours"]["median"]
                for case in gpu.CASES
                if (name := f"{case.name}, {kind}") in table
                and most_units >= case.H
                and "ours" in table[name].get(way, {}).get("ratio", {})
            }
            if ratios:
                low = min(ratios, key=lambda name: ratios[name])
                found[f"{kind}, {way}"] = {
                    "asked: geometric mean, none below": (mean, least),
                    "geometric mean": round(statistics.geometric_mean(ratios.values()), 2),
                    "lowest": (low, round(ratios[low], 2)),
                    "cases": len(ratios),
                    "below": sorted(name for name, ratio in ratios.items() if least and ratio < least),
                }
    return found


def main() -> None:
    """Read the words, run, and say which plan won where."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where device.json and logs go"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="of it all (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may repeat")
    parser.add_argument("--type", action="append", choices=gpu.TYPES, help="of the table; may repeat")
    words = parser.parse_args()
    why = machine.why_not()
    if why is not None:
        sys.exit(f"device: no kernel can run here: {why}.")
    wanted = (
        job
        for job in jobs(words.out, words.type or tuple(gpu.TYPES))
        if not words.only or job.part in words.only
    )
    found = run(wanted, words.out, 60 * words.minutes)
    print(*verdict(found), sep="\n")


if __name__ == "__main__":
    main()
