"""What the layer costs beyond its kernels: second derivative, single steps through torch, compilation.

    scripts/bench scan

derivative  a second derivative beside the definition's own forward and backward pass (N 16, T 50, C 32, H 64)
step        `LSTM.step` beside `torch.nn.LSTM` on one step of one sequence (C 64, H 128)
compile     seconds until the first answer of a compiled model of two layers, in a new process, no cache:
            tracing alone (aot_eager), and Inductor; and the same of `x * 2`, which pays for the compiler

One thread; processor time where nothing else is said, medians of the repeats.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import longshort as ls
import record
from longshort.scan import lstm

REPEATS = 15


def median(make: Callable[[], Callable[[], object]], count: int = REPEATS) -> float:
    """Processor seconds of what `make` prepares."""
    found = []
    for _ in range(count):
        run = make()
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return statistics.median(found)


def derivative() -> dict[str, Any]:
    N, T, C, H = 16, 50, 32, 64
    shapes = {"x": (N, T, C), "w_ih": (4 * H, C), "w_hh": (4 * H, H), "bias": (4 * H,)}
    given = {name: (torch.randn(shape) / 8).requires_grad_() for name, shape in shapes.items()}
    inputs = list(given.values())

    def first() -> object:
        return torch.autograd.grad(lstm(**given, backend="definition")[0].sum(), inputs)

    def penalty() -> torch.Tensor:
        y = lstm(**given)[0]
        return torch.autograd.grad(y.square().sum(), given["x"], create_graph=True)[0].square().sum()

    def second() -> Callable[[], object]:
        value = penalty()
        return lambda: torch.autograd.grad(value, inputs)

    first()
    second()()
    before, after = median(lambda: first), median(second)
    whole = median(lambda: lambda: torch.autograd.grad(penalty(), inputs))
    return {
        "milliseconds, definition forward and backward": 1e3 * before,
        "milliseconds, second derivative": 1e3 * after,
        "ratio": after / before,
        "ratio with the passes before it": whole / before,
        "asked at most": 3.0,
    }


def steps() -> dict[str, Any]:
    theirs, ours = torch.nn.LSTM(64, 128).eval(), ls.LSTM(64, 128).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 64)
    state, pair = None, None
    with torch.inference_mode():
        _, state = ours.step(x, state)
        _, pair = theirs(x[None])

        def microseconds(run: Callable[[], object]) -> float:
            def many() -> None:
                for _ in range(1000):
                    run()

            return 1e3 * median(lambda: many)

        found = {
            "ours": microseconds(lambda: ours.step(x, state)),
            "torch": microseconds(lambda: theirs(x[None], pair)),
        }
    return {"microseconds": found, "ratio": found["torch"] / found["ours"], "asked at most": 20}


FIRST_ANSWER = """
import resource, sys, time, torch, longshort as ls
kind, what, training = sys.argv[1], sys.argv[2], sys.argv[3] == "training"
model = ls.LSTM(32, 64, num_layers=2) if what == "layer" else torch.nn.Identity()
run = (lambda x: model(x)[0]) if what == "layer" else (lambda x: x * 2)
x = torch.randn(20, 4, 32, requires_grad=training)
run(x)
compiled = torch.compile(run, fullgraph=True, dynamic=True, backend=kind)
def spent():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime
before = spent()
with torch.set_grad_enabled(training):
    y = compiled(x)
    if training:
        y.sum().backward()
print(*(b - a for a, b in zip(before, spent())))
"""


def compilation() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, what in itertools.product(("aot_eager", "inductor"), ("layer", "x * 2")):
        for mode in ("inference", "training"):
            with tempfile.TemporaryDirectory() as cache:
                ran = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", FIRST_ANSWER, kind, what, mode],
                    env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
                    check=True,
                    capture_output=True,
                    text=True,
                )
            wall, own, children = map(float, ran.stdout.split())
            found[f"{what}, {kind}, {mode}"] = {
                "seconds": wall,
                "processor seconds": own,
                "processor seconds of C++ compilers": children,
            }
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result = {"derivative": derivative(), "step": steps(), "compile": compilation()}
    print(record.write("scan", result).read_text())
