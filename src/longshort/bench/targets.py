"""What the engine is asked to reach, beside what a measurement found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .limits import SEEN, limit_of

PEERS = ("torch", "onnxruntime", "openvino")
OPTIONS = {
    "reset": 1.05,
    "lengths": 1.05,
    "kept cells": 1.05,
    "peephole": 1.10,
    "coupled": 1.10,
    "zoneout": 1.10,
    "masks": 1.10,
    "layer norm": 1.35,
}
"A training step with an option beside one without: at most."
STREAMS = {"stream": 1.6, "stream, wide": 1.3}
STEPS = {
    ("one step", "engine full"): 3,
    ("one step, wide", "engine full"): 32,
    ("one step, wide", "engine bfloat16"): 15,
    ("one step, wide", "engine int8"): 6,
}
"Microseconds of one step of the engine alone: at most."
BITS = {"engine full": 32, "engine bfloat16": 16, "engine int8": 8}
"Of a weight."


@dataclass(frozen=True)
class Row:
    """One number that is asked for."""

    what: str
    asked: float
    measured: float
    at_most: bool = False
    bound: float | None = None
    "what it would be if ours multiplied, added and read weights at the cores' full rates, if these bound it"

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured <= self.asked if self.at_most else self.measured >= self.asked

    def to_json(self) -> dict[str, Any]:
        """The row, and of a missed one by how much, what limits it, and what was tried."""
        found = {**asdict(self), "met": self.met}
        if self.met:
            return found
        limit = limit_of(self.what)
        found["missed by"] = abs(self.measured / self.asked - 1)
        return (
            found
            if limit is None
            else found | {"what limits it": limit.limited_by, "tried": limit.tried, "seen on": SEEN}
        )

    def __str__(self) -> str:
        verdict, bound = "met   " if self.met else "MISSED", "at most" if self.at_most else "at least"
        most = "" if self.bound is None else f"; {self.bound:.3g} at the cores' full rates"
        return f"{verdict} {self.what}: {self.measured:.3g}, asked {bound} {self.asked:g}{most}"


def rows(found: Mapping[str, Any], cases: Sequence[Any]) -> list[Row]:
    """Return every number asked for that a measurement can tell.

    Args:
        found: what `longshort bench cpu` writes; parts may be missing.
        cases: the sizes, as in `bench.cpu`.

    >>> [str(row) for row in rows({"first call, milliseconds": 20.0}, [])]
    ['met    first call of a process, ms: 20, asked at most 50']
    """
    batched = [case for case in cases if case.batched]
    made = [
        *_training(found, cases),
        *_shares(found, [case for case in batched if case.H >= 128]),
        *_inference(found, batched, cases),
        *_options(found.get("options", {})),
    ]
    doubled = [numbers["ratio"]["one thread"]["median"] for numbers in found.get("two threads", {}).values()]
    if doubled:
        made.append(Row("two threads beside one, batched, geometric mean", 1.8, geometric_mean(doubled)))
    if "first call, milliseconds" in found:
        made.append(Row("first call of a process, ms", 50, found["first call, milliseconds"], at_most=True))
    return made


def _training(found: Mapping[str, Any], cases: Sequence[Any]) -> list[Row]:
    measured = found.get("training", {})
    each = {case: measured[case.name]["ratio"]["torch"]["median"] for case in cases if case.name in measured}
    if not each:
        return []
    most = {case: ratio * _room(found, "training", case) for case, ratio in each.items()}
    floors = {case: 1.1 if case.name in ("language", "wide") else 1.2 for case in each}
    what = "training beside torch"
    return [
        Row(
            f"{what}, geometric mean",
            2.0,
            geometric_mean(each.values()),
            bound=geometric_mean(most.values()),
        ),
        *(Row(f"{what}, {case.name}", floors[case], each[case], bound=most[case]) for case in each),
    ]


def _share(found: Mapping[str, Any], kind: str, case: Any, passes: int) -> float:
    """The share of the cores' full rate that the products of a call ran at."""
    seconds = found[kind][case.name]["milliseconds"]["ours"]["median"] / 1e3
    rate = passes * case.products / seconds
    return float(rate / (found["gigaflops of one core"] * 1e9 * found["threads"]))


def _room(found: Mapping[str, Any], kind: str, case: Any) -> float:
    """How many times the least time of the cores ours took."""
    rates = found["gigabytes a second of one core"]
    threads, operations = found["threads"], found["gigaflops of one core"] * 1e9
    least = case.least_seconds(threads, operations, lambda size: rates[str(size)] * 1e9)
    if kind == "training":  # back through the recurrence, then the gradients of x and of both weights
        least = 2 * least + case.products / operations / threads
    seconds = found[kind][case.name]["milliseconds"]["ours"]["median"] / 1e3
    return float(seconds / least)


def _shares(found: Mapping[str, Any], cases: Sequence[Any]) -> list[Row]:
    return [
        Row(f"share of peak in training, {case.name}", 0.65, _share(found, "training", case, 3))
        for case in cases
        if case.name in found.get("training", {})
    ]


def best(numbers: Mapping[str, Any], ours: str = "ours") -> float:
    """How many times faster than its fastest peer a runner was, by medians."""
    times = {name: each["median"] for name, each in numbers["milliseconds"].items()}
    return float(min(times[peer] for peer in PEERS if peer in times) / times[ours])


def _inference(measured: Mapping[str, Any], batched: Sequence[Any], cases: Sequence[Any]) -> list[Row]:
    found = measured.get("inference", {})
    each = {case: best(found[case.name]) for case in batched if case.name in found}
    made = []
    if each:
        most = {case: ratio * _room(measured, "inference", case) for case, ratio in each.items()}
        what = "inference beside the best peer"
        made.append(
            Row(
                f"{what}, geometric mean",
                1.2,
                geometric_mean(each.values()),
                bound=geometric_mean(most.values()),
            )
        )
        made += [Row(f"{what}, {case.name}", 0.97, each[case], bound=most[case]) for case in each]
    by_name = {case.name: case for case in cases}
    for name, asked in STREAMS.items():
        if name in found:
            ratio = best(found[name])
            most_of_it = ratio * _room(measured, "inference", by_name[name])
            made.append(Row(f"{name} beside the best peer", asked, ratio, bound=most_of_it))
            made.append(
                Row(f"{name} in bfloat16 beside the best peer", 2.0, best(found[name], "engine bfloat16"))
            )
    for (name, runner), asked in STEPS.items():
        if name in found:
            microseconds = 1e3 * found[name]["milliseconds"][runner]["median"]
            size = by_name[name].read(measured["threads"], BITS[runner])
            least = size / measured["gigabytes a second of one core"][str(size)] / 1e3
            made.append(Row(f"{name}, {runner}, us", asked, microseconds, at_most=True, bound=least))
    return made


def _options(found: Mapping[str, Any]) -> list[Row]:
    made = []
    for name, asked in OPTIONS.items():
        low = [numbers[name]["low"] for numbers in found.values() if name in numbers]
        if low:
            made.append(
                Row(f"training with {name}, lower end, geometric mean", asked, geometric_mean(low), True)
            )
    return made


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
