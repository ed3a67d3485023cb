"""The layer on this machine's processor beside torch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import engine
from ..nn import LSTM
from ..scan import Noise, Variant
from . import peers, timing
from .steps import FORMS, steps


@dataclass(frozen=True)
class Case:
    """One size of the table."""

    name: str
    N: int
    T: int
    C: int
    H: int

    @property
    def batched(self) -> bool:
        """Whether several sequences run at once."""
        return self.N > 1

    @property
    def products(self) -> int:
        """Floating-point operations of the forward pass's products; training has three times as many."""
        return 8 * self.N * self.T * self.H * (self.C + self.H)

    def read(self, threads: int, bits: int = 32) -> int:
        """Bytes of weights that one core must read in a step: a stream's recurrent ones, a single step's all.

        With fewer than three sequences a thread the threads share the weights; else each reads them all.
        """
        depth = self.H if self.T > 1 else self.C + self.H
        return 4 * self.H * depth * bits // 8 // (threads if 3 * threads > self.N else 1)

    def least_seconds(self, threads: int, operations: float, reading: Callable[[int], float]) -> float:
        """Seconds that a forward pass takes the cores at least.

        Args:
            threads: cores.
            operations: floating-point operations a second of one core.
            reading: bytes a second of one core that reads so many over and over.
        """
        size = self.read(threads)
        of_x, of_h = (8 * self.N * self.H * depth / operations / threads for depth in (self.C, self.H))
        return self.T * (of_x + max(of_h, size / reading(size)))


CASES = (
    Case("one step", 1, 1, 64, 128),
    Case("one step, wide", 1, 1, 256, 512),
    Case("stream", 1, 1000, 64, 128),
    Case("stream, wide", 1, 1000, 256, 512),
    Case("small batch", 8, 256, 128, 256),
    Case("batch", 32, 128, 256, 256),
    Case("short batch", 64, 100, 64, 128),
    Case("language", 20, 35, 650, 650),
    Case("pixels", 64, 784, 1, 128),
    Case("wide", 128, 64, 512, 512),
    Case("control", 256, 50, 16, 32),
)

OPTIONS: dict[str, dict[str, Any]] = {
    "reset": {},
    "lengths": {},
    "kept cells": {},
    "peephole": {"variant": Variant(peephole=True)},
    "coupled": {"variant": Variant(coupled=True)},
    "zoneout": {"noise": Noise(zoneout_h=0.1, zoneout_c=0.1)},
    "masks": {"noise": Noise(variational_h=0.2, recurrent_dropout=0.2)},
    "layer norm": {"variant": Variant(norm="ba2016")},
}


@dataclass(frozen=True)
class Setup:
    """How to measure."""

    threads: int = 2
    rounds: int = 15
    seconds: float = 0.02
    names: tuple[str, ...] = ()
    "the cases wanted; all if empty"
    dtype: torch.dtype = torch.float32
    "of the layers and of x"

    @property
    def clock(self) -> timing.Clock:
        """One thread is timed by its own processor time, several by the wall."""
        return time.process_time if self.threads == 1 else time.perf_counter

    def cases(self) -> list[Case]:
        """The cases wanted."""
        return [case for case in CASES if not self.names or case.name in self.names]


def inference(case: Case, setup: Setup) -> dict[str, Any]:
    """Time a forward pass of ours and of each peer; in 16 bits beside both layers in float32, too."""
    x, wide = torch.randn(case.T, case.N, case.C), setup.dtype == torch.float32

    def forward(layer: torch.nn.Module, x: torch.Tensor) -> object:
        with torch.inference_mode():
            return layer(x)

    layers = _layers(case, setup)
    runners: dict[str, timing.Runner] = {}
    for name, layer in layers.items():
        runners[name] = partial(forward, layer, x.to(layer.weight_hh_l0.dtype))
    theirs = layers["torch" if wide else "torch, float32"]
    runners |= peers.runners(theirs, x.numpy(), setup.threads, short=not wide)
    if wide and case.N == 1 and case.T > 1:
        runners |= _engine_streams(theirs, x, setup.threads)
    times = timing.rounds(runners, count=setup.rounds, seconds=setup.seconds, clock=setup.clock)
    if wide and case.T == 1:
        alone = steps(case.C, case.H, threads=setup.threads, rounds=setup.rounds, seconds=setup.seconds)
        times |= {f"engine {form}": each for form, each in alone.items()}
    return _compared(times)


def _engine_streams(layer: torch.nn.LSTM, x: torch.Tensor, threads: int) -> dict[str, timing.Runner]:
    """The engine's steps on weights of each form, over the whole stream."""
    w_ih, w_hh, b_ih, b_hh = (p.detach().numpy() for p in layer.parameters())
    packed = engine.pack(w_ih, w_hh, b_ih + b_hh)
    stream, zeros = x.numpy().transpose(1, 0, 2), np.zeros((1, layer.hidden_size), np.float32)
    found: dict[str, timing.Runner] = {}
    for form in FORMS:
        step = engine.step(packed, stored=form, threads=threads)
        found[f"engine {form}"] = partial(step, stream, zeros, zeros)
    return found


def training(case: Case, setup: Setup) -> dict[str, Any]:
    """Time forward and backward with every gradient, the weights written in between as an optimiser does."""
    x, dy = torch.randn(case.T, case.N, case.C), torch.randn(case.T, case.N, case.H)
    runners = {}
    for name, layer in _layers(case, setup).items():
        dtype = layer.weight_hh_l0.dtype
        runners[name] = _step_of(layer, x.to(dtype).clone().requires_grad_(), dy.to(dtype))
    return _compared(timing.rounds(runners, count=setup.rounds, seconds=setup.seconds, clock=setup.clock))


def _layers(case: Case, setup: Setup) -> dict[str, Any]:
    """Ours and torch's with the same weights; where those have 16 bits, both in float32 beside them."""
    theirs = torch.nn.LSTM(case.C, case.H)
    ours = LSTM(case.C, case.H)
    ours.load_state_dict(theirs.state_dict())
    if setup.dtype == torch.float32:
        return {"ours": ours, "torch": theirs}
    wide = {"ours, float32": ours, "torch, float32": theirs}
    return {
        "ours": copy.deepcopy(ours).to(setup.dtype),
        "torch": copy.deepcopy(theirs).to(setup.dtype),
        **wide,
    }


def _step_of(layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor, **more: Any) -> timing.Runner:
    weights = list(layer.parameters())

    def step() -> None:
        for weight in weights:
            weight.grad = None
            torch.autograd.graph.increment_version(weight)
        x.grad = None
        y = layer(x, **more)[0]
        y.backward(dy)

    return step


def options(case: Case, setup: Setup) -> dict[str, Any]:
    """Time a training step with each option beside one without."""
    x, dy = torch.randn(case.T, case.N, case.C, requires_grad=True), torch.randn(case.T, case.N, case.H)
    more: dict[str, dict[str, Any]] = {
        "reset": {"reset": torch.rand(case.N, case.T) < 0.02},
        "lengths": {"lengths": torch.full((case.N,), case.T)},
        "kept cells": {"keep": "cells"},
    }
    runners = {"plain": _step_of(LSTM(case.C, case.H), x, dy)}
    for name, settings in OPTIONS.items():
        runners[name] = _step_of(LSTM(case.C, case.H, **settings), x, dy, **more.get(name, {}))
    times = timing.rounds(runners, count=setup.rounds, seconds=setup.seconds, clock=setup.clock)
    return {name: vars(timing.ratio(times[name], times["plain"])) for name in OPTIONS}


def doubled(case: Case, setup: Setup) -> dict[str, Any]:
    """Time a training step of ours with one thread and with two."""
    x, dy = torch.randn(case.T, case.N, case.C, requires_grad=True), torch.randn(case.T, case.N, case.H)
    step = _step_of(LSTM(case.C, case.H), x, dy)

    def one() -> None:
        torch.set_num_threads(1)
        try:
            step()
        finally:
            torch.set_num_threads(2)

    return _compared(
        timing.rounds({"ours": step, "one thread": one}, count=setup.rounds, seconds=setup.seconds)
    )


FIRST_CALL = """
import time
import numpy as np
from longshort import engine
w, x = [np.full((512, k), 0.01, np.float32) for k in (64, 128)], np.zeros((1, 1, 64), np.float32)
start = time.perf_counter()
engine.forward(engine.pack(*w), x)
print(time.perf_counter() - start)
"""


def first_call() -> float:
    """Milliseconds that the first call of a process takes beyond the import, the median of five processes."""
    runs = [
        subprocess.run([sys.executable, "-c", FIRST_CALL], check=True, capture_output=True, text=True)
        for _ in range(5)
    ]
    return 1e3 * float(np.median([float(run.stdout) for run in runs]))


def _compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and spreads in milliseconds, and the ratio of each to ours."""
    return {
        "milliseconds": {
            name: {"median": 1e3 * float(np.median(each)), "least": 1e3 * min(each), "most": 1e3 * max(each)}
            for name, each in times.items()
        },
        "ratio": {
            name: vars(timing.ratio(each, times["ours"])) for name, each in times.items() if name != "ours"
        },
    }


def machine(threads: int) -> dict[str, Any]:
    """What the numbers hold for, and what `threads` of its cores can do at most."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "onnxruntime", "openvino"):
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{platform.machine()}, {cores} cores, {engine.isa()}",
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gigaflops of one core": engine.peak() / 1e9,
        "gigaflops of one core, bfloat16 in pairs": engine.peak(paired=True) / 1e9
        if engine.pairs()
        else None,
        "gigabytes a second of one core": _reading(threads),
        "nanoseconds in which two threads meet": engine.meeting() * 1e9,
        "versions": versions,
    }


def _reading(threads: int) -> dict[str, float]:
    """How fast a core reads as many bytes as the cases make it read, by their number."""
    sizes = {case.read(threads, bits) for case in CASES for bits in (32, 16, 8)}
    return {str(size): engine.reading(size) / 1e9 for size in sorted(sizes)}


def measure(setup: Setup) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (kind, case, numbers) for every measurement, as each is done."""
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads)
    try:
        for case in setup.cases():
            yield "inference", case.name, inference(case, setup)
            if case.T > 1:
                yield "training", case.name, training(case, setup)
            if setup.dtype != torch.float32:
                continue
            if case.batched and case.N * case.T * case.H < 1 << 20:
                yield "options", case.name, options(case, setup)
            if case.batched and setup.threads == 2:
                yield "two threads", case.name, doubled(case, setup)
    finally:
        torch.set_num_threads(before)
