"""Times on a CUDA device's own clock, runners in turns; and work in a process apart, which may fail alone."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_CLOCKS = 2.0e9
"""Of a device in a second, at most: what `_sleep` counts in."""
_LONGEST = 0.02
"""Seconds that the device idles before a measurement, at most, so that the host is ahead of it."""


def rounds(runners: Mapping[str, Callable[[], object]], count: int, seed: int = 0) -> dict[str, list[float]]:
    """Time every runner once a round on the device's own clock, in an order drawn anew: milliseconds."""
    order, random = list(runners), np.random.default_rng(seed)
    for run in runners.values():
        run()
    ahead = {name: _ahead(run) for name, run in runners.items()}
    found: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(count):
        random.shuffle(order)
        for name in order:
            torch.cuda._sleep(ahead[name])
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            runners[name]()
            end.record()
            torch.cuda.synchronize()
            found[name].append(start.elapsed_time(end))
    return found


def _ahead(run: Callable[[], object]) -> int:
    """Clocks that the device must idle until the host has put all of `run` into its queue, and half more."""
    took = []
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda._sleep(int(_CLOCKS * _LONGEST))
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return int(_CLOCKS * min(_LONGEST, 0.0002 + 1.5 * took[-1]))


def _child(connection: Any, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    try:
        connection.send(work(*arguments))
    except Exception as error:
        connection.send({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})


def apart(work: Callable[..., dict[str, Any]], *arguments: Any, seconds: float) -> dict[str, Any]:
    """Run work in a process of its own, so that a kernel's fault or hang ends that one alone."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there, work, arguments))
    process.start()
    there.close()
    found: dict[str, Any] = {"failed": f"no answer in {seconds:.0f} s"}
    if here.poll(seconds):
        try:
            found = here.recv()
        except EOFError:
            found = {"failed": "the process ended without an answer"}
    else:
        process.kill()
    process.join()
    return found
