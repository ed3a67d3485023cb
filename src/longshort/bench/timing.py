"""Fair timing on a machine that others use too: runners take turns, and only ratios within a round count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Runner = Callable[[], object]
_PAUSE = (
    0.03  # seconds: the threads of whoever ran before spin for a while, on the cores of whoever runs next
)
Clock = Callable[[], float]


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is: the median over rounds, with a 95 % interval by bootstrap."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def rounds(
    runners: Mapping[str, Runner],
    *,
    count: int,
    seconds: float,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Time every runner once a round, in an order drawn anew.

    Args:
        runners: what to call, by name.
        count:   rounds.
        seconds: least time of one measurement; a short runner is called several times in it.
        clock:   the process's own time, `time.process_time`, is fair where others use the machine too, but
            adds up the threads.
        seed:    of the order.

    Returns:
        For each runner its seconds a call, one number a round.

    >>> list(rounds({"nothing": lambda: None}, count=2, seconds=1e-4))
    ['nothing']
    """
    order, random = list(runners), np.random.default_rng(seed)
    calls = {name: _calls(run, seconds, clock) for name, run in runners.items()}
    found: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(count):
        random.shuffle(order)
        for name in order:
            time.sleep(_PAUSE)
            runners[name]()
            start = clock()
            for _ in range(calls[name]):
                runners[name]()
            found[name].append((clock() - start) / calls[name])
    return found


def _calls(run: Runner, seconds: float, clock: Clock) -> int:
    run()  # the first call packs, allocates and compiles
    start = clock()
    run()
    return max(1, round(seconds / max(clock() - start, 1e-7)))


def ratio(theirs: list[float], ours: list[float], seed: int = 0) -> Ratio:
    """Return how many times faster `ours` is, from the ratios of each round.

    >>> str(ratio([2.0, 4.0], [1.0, 2.0]))
    '2.00 [2.00, 2.00]'
    """
    each = np.array(theirs) / np.array(ours)
    drawn = np.random.default_rng(seed).integers(0, len(each), (2000, len(each)))
    low, high = np.quantile(np.median(each[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(each)), float(low), float(high))
