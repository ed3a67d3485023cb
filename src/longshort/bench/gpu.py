"""The layer on this machine's GPU beside torch.nn.LSTM, which is cuDNN, in one process and in turns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..nn import LSTM
from ..scan import Noise, Variant
from . import timing
from .cpu import Case
from .device_clock import apart, rounds

CASES = (
    Case("64 x 64", 64, 256, 64, 64),
    Case("64 x 128", 64, 256, 128, 128),
    Case("64 x 256", 64, 256, 256, 256),
    Case("64 x 512", 64, 256, 512, 512),
    Case("64 x 1024", 64, 256, 1024, 1024),
    Case("64 x 2048", 64, 128, 2048, 2048),
    Case("256 x 512", 256, 128, 512, 512),
    Case("256 x 1024", 256, 128, 1024, 1024),
    Case("512 x 1024", 512, 128, 1024, 1024),
    Case("128 x 1536", 128, 128, 1536, 1536),
    Case("1 x 512", 1, 256, 512, 512),
    Case("16 x 768", 16, 1024, 768, 768),
    Case("20 x 650", 20, 35, 650, 650),
    Case("80 x 1152", 80, 70, 1152, 1152),
    Case("512 x 128", 512, 128, 128, 128),
    Case("1024 x 128", 1024, 64, 128, 128),
    Case("4096 x 128", 4096, 32, 128, 128),
    Case("pixels", 128, 784, 1, 128),
)
"""N x H; C = H but for the last."""

TYPES: dict[str, tuple[torch.dtype, bool]] = {
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "tf32": (torch.float32, True),
    "float32": (torch.float32, False),
}
"""dtype, and whether float32 products may round to tf32."""

PLANS = ("step", "alone", "persistent")
_OPTIONS: dict[str, dict[str, Any]] = {
    "reset": {},
    "lengths": {},
    "kept cells": {},
    "peephole": {"variant": Variant(peephole=True)},
    "coupled": {"variant": Variant(coupled=True)},
    "zoneout": {"noise": Noise(zoneout_h=0.1, zoneout_c=0.1)},
    "masks": {"noise": Noise(variational_h=0.2, recurrent_dropout=0.2)},
    "layer norm": {"variant": Variant(norm="ba2016")},
}
OPTION_CASES = ("64 x 512", "1024 x 128", "20 x 650")
DIRECTION_CASES = ("64 x 128", "64 x 512", "256 x 512", "80 x 1152")


@dataclass(frozen=True)
class Setup:
    """How to measure."""

    rounds: int = 7
    names: tuple[str, ...] = ()
    "the cases wanted; all if empty"
    plans: tuple[str, ...] = PLANS
    "plans of the kernels, each by its name beside the one chosen"
    seconds: float = 120.0
    "that one case may take: a process that takes longer is ended"
    first_use: bool = True
    "whether to compile a case's kernels anew, and time it"
    options: bool = True
    "whether the cases that have them measure their options"

    def cases(self) -> list[Case]:
        """The cases wanted."""
        return [case for case in CASES if not self.names or case.name in self.names]


@contextlib.contextmanager
def planned(plan: str | None) -> Iterator[None]:
    """Name the kernels' plan for the calls inside."""
    before = os.environ.get("LONGSHORT_CUDA_PLAN")
    if plan is not None:
        os.environ["LONGSHORT_CUDA_PLAN"] = plan
    try:
        yield
    finally:
        if plan is not None:
            os.environ.pop("LONGSHORT_CUDA_PLAN")
            if before is not None:
                os.environ["LONGSHORT_CUDA_PLAN"] = before


def _layer(case: Case, dtype: torch.dtype, **settings: Any) -> torch.nn.Module:
    return LSTM(case.C, case.H, **settings).to("cuda", dtype)


def _forward(layer: torch.nn.Module, x: torch.Tensor, plan: str | None) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode(), planned(plan):
            return layer(x)

    return run


def _training(
    layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor, plan: str | None, **more: Any
) -> Callable[[], object]:
    def run() -> None:
        for weight in layer.parameters():
            weight.grad = None
        x.grad = None
        with planned(plan):
            layer(x, **more)[0].backward(dy)

    return run


def one(case: Case, setup: Setup) -> dict[str, Any]:
    """Measure one case in every type: microseconds a step, ratios, first use; faults are recorded."""
    return {name: typed(case, name, setup) for name in TYPES}


def typed(case: Case, name: str, setup: Setup) -> dict[str, Any]:
    """Measure one case in one of TYPES."""
    dtype, tf32 = TYPES[name]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    theirs = torch.nn.LSTM(case.C, case.H).to("cuda", dtype)
    ours = _layer(case, dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=dtype)
    dy = torch.randn(case.T, case.N, case.H, device="cuda", dtype=dtype)
    moving = x.clone().requires_grad_()
    kinds: dict[str, dict[str, Callable[[], object]]] = {"inference": {}, "training": {}}
    for plan in (None, *setup.plans):
        label = "ours" if plan is None else f"ours, {plan}"
        kinds["inference"][label] = _forward(ours, x, plan)
        kinds["training"][label] = _training(ours, moving, dy, plan)
    kinds["inference"]["cudnn"] = _forward(theirs, x, None)
    kinds["training"]["cudnn"] = _training(theirs, moving, dy, None)
    found: dict[str, Any] = {}
    if setup.first_use:
        found["first use, seconds"] = _first_use(kinds["training"]["ours"])
    for kind, runners in kinds.items():
        found[kind] = _compared(case, _working(runners, found), setup)
    if setup.options and case.name in OPTION_CASES and name == "bfloat16":
        found["options"] = _options(case, dtype, moving, dy, setup)
    return found


def _first_use(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of a first call with nothing on disk, and of one with the binaries there."""
    from ..scan.cuda import machine, persistent_plan

    found, before = {}, os.environ.get("LONGSHORT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LONGSHORT_CACHE"] = folder
        try:
            for name in ("compiled", "from the disk"):
                machine.cuda(torch.cuda.current_device()).forget()
                persistent_plan._KERNELS.clear()
                torch.cuda.synchronize()
                start = time.perf_counter()
                run()
                torch.cuda.synchronize()
                found[name] = time.perf_counter() - start
        finally:
            os.environ.pop("LONGSHORT_CACHE")
            if before is not None:
                os.environ["LONGSHORT_CACHE"] = before
    return found


def _working(runners: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The runners that run; the others' errors are recorded."""
    left = {}
    for name, run in runners.items():
        try:
            run()
            torch.cuda.synchronize()
            left[name] = run
        except RuntimeError as error:
            found.setdefault("failed", {})[name] = str(error).splitlines()[0]
    return left


def _compared(case: Case, runners: dict[str, Any], setup: Setup) -> dict[str, Any]:
    times = rounds(runners, setup.rounds)
    return {
        "microseconds a step": {
            name: {"median": 1e3 * float(np.median(each)) / case.T, "least": 1e3 * min(each) / case.T}
            for name, each in times.items()
        },
        "ratio": {
            name: vars(timing.ratio(times["cudnn"], each)) for name, each in times.items() if name != "cudnn"
        },
    }


def options(case: Case, setup: Setup) -> dict[str, Any]:
    """Measure what each option costs in bfloat16: a training step with it over one without, for each plan."""
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn(case.T, case.N, case.H, device="cuda", dtype=torch.bfloat16)
    return _options(case, torch.bfloat16, x, dy, setup)


def _options(
    case: Case, dtype: torch.dtype, x: torch.Tensor, dy: torch.Tensor, setup: Setup
) -> dict[str, Any]:
    """A training step with each option over one without, by the plan it gets and by each named one."""
    more: dict[str, dict[str, Any]] = {
        "reset": {"reset": torch.rand(case.N, case.T, device="cuda") < 0.02},
        "lengths": {"lengths": torch.full((case.N,), case.T, device="cuda")},
        "kept cells": {"keep": "cells"},
    }
    found: dict[str, Any] = {}
    for plan in (None, *setup.plans):
        runners = {"plain": _training(_layer(case, dtype), x, dy, plan)}
        for name, settings in _OPTIONS.items():
            runners[name] = _training(_layer(case, dtype, **settings), x, dy, plan, **more.get(name, {}))
        failed: dict[str, Any] = {}
        times = rounds(_working(runners, failed), setup.rounds)
        found[plan or "ours"] = failed | {
            name: vars(timing.ratio(each, times["plain"])) for name, each in times.items() if name != "plain"
        }
    return found


STACKS: dict[str, tuple[int, int, dict[str, Any], dict[str, Any], int, int]] = {
    "ptb medium": (650, 650, {"num_layers": 2, "dropout": 0.5}, {}, 20, 35),
    "awd-lstm": (400, 1150, {"num_layers": 3}, {"noise": Noise(weight_drop=0.5)}, 80, 70),
    "projected": (512, 1024, {"num_layers": 2, "proj_size": 512}, {}, 64, 128),
}
"""C, H, what both layers get, what ours gets, N, T."""


def stacks(setup: Setup) -> dict[str, Any]:
    """A training step of two language models' layers, and of projected ones, beside torch.nn.LSTM's."""
    found: dict[str, Any] = {}
    for name, (C, H, both, mine, N, T) in STACKS.items():
        case = Case(name, N, T, C, H)
        for kind, (dtype, tf32) in TYPES.items():
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            x = torch.randn(T, N, C, device="cuda", dtype=dtype, requires_grad=True)
            dy = torch.randn(T, N, both.get("proj_size", H), device="cuda", dtype=dtype)
            theirs = torch.nn.LSTM(C, H, **both).to("cuda", dtype)
            runners = {
                "ours": _training(_layer(case, dtype, **both, **mine), x, dy, None),
                **{
                    f"ours, {plan}": _training(_layer(case, dtype, **both, **mine), x, dy, plan)
                    for plan in setup.plans
                },
                "cudnn": _training(theirs, x, dy, None),
            }
            failed: dict[str, Any] = {}
            found.setdefault(name, {})[kind] = failed | _compared(case, _working(runners, failed), setup)
    return found


def directions(case: Case, setup: Setup) -> dict[str, Any]:
    """Measure both directions of a layer in bfloat16: side by side, in turns, and torch.nn.LSTM's.

    "Whole each" cuts the kernels of each direction for the whole device, so that two that exchange have no
    room together.
    """
    dtype = torch.bfloat16
    theirs = torch.nn.LSTM(case.C, case.H, bidirectional=True).to("cuda", dtype)
    ours = _layer(case, dtype, bidirectional=True)
    x = torch.randn(case.T, case.N, case.C, device="cuda", dtype=dtype)
    dy = torch.randn(case.T, case.N, 2 * case.H, device="cuda", dtype=dtype)
    moving = x.clone().requires_grad_()
    found: dict[str, Any] = {}
    for kind, run, run_theirs in (
        ("inference", _forward(ours, x, None), _forward(theirs, x, None)),
        ("training", _training(ours, moving, dy, None), _training(theirs, moving, dy, None)),
    ):
        ways = {"ours, in turns": _in_turns(run), "ours, whole each": _whole_each(run)}
        runners = {"ours": run, **ways, "cudnn": run_theirs}
        found[kind] = _compared(case, _working(runners, found), setup)
    return found


def _in_turns(run: Callable[[], object]) -> Callable[[], object]:
    from ..scan.cuda import streams

    def one_after_the_other() -> None:
        before = streams.side_by_side
        streams.side_by_side = lambda device, works: [work() for work in works]
        try:
            run()
        finally:
            streams.side_by_side = before

    return one_after_the_other


def _whole_each(run: Callable[[], object]) -> Callable[[], object]:
    from ..scan.cuda import streams

    def cut_for_all() -> None:
        before = streams.sharing
        streams.sharing = lambda: 1
        try:
            run()
        finally:
            streams.sharing = before

    return cut_for_all


def machine() -> dict[str, Any]:
    """What the numbers hold for."""
    from ..scan.cuda import compiler, driver

    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    packages = {package: importlib.metadata.version(package) for package in ("torch", "numpy")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{found.name}, {found.multi_processor_count} multiprocessors; {cores} cores",
        "versions": {
            "python": platform.python_version(),
            **packages,
            "cuda of torch": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvrtc": ".".join(map(str, compiler.version())),
            "driver's cuda": driver.version(),
        },
    }


def measure(setup: Setup) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (case, numbers) for every case, as each is done, and last the stacks."""
    for case in setup.cases():
        yield case.name, apart(one, case, setup, seconds=setup.seconds)
    for case in setup.cases():
        if case.name in DIRECTION_CASES:
            yield f"{case.name}, both directions", apart(directions, case, setup, seconds=setup.seconds)
    if not setup.names:
        yield "stacks", apart(stacks, setup, seconds=setup.seconds)


def lines(case: str, numbers: dict[str, Any]) -> Iterator[str]:
    """Say a case in lines for a terminal."""
    if "failed" in numbers and isinstance(numbers["failed"], str):
        yield f"{case:12} FAILED: {numbers['failed']}"
        return
    for name, found in numbers.items():
        for kind in ("inference", "training"):
            if kind in found:
                ours = found[kind]["microseconds a step"].get("ours")
                each = "  ".join(f"{who} {r['median']:.2f}x" for who, r in found[kind]["ratio"].items())
                took = f"{ours['median']:8.2f} us a step" if ours else "       failed        "
                yield f"{case:12} {name:9} {kind:10} {took}   cuDNN's time over: {each}"
        for who, why in found.get("failed", {}).items():
            yield f"{case:12} {name:9} FAILED {who}: {why}"
