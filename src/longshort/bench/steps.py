"""Single steps of the engine in a process without torch: run as `python -m longshort.bench.steps`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import engine
from . import timing

Array = NDArray[Any]
FORMS = ("full", "bfloat16", "int8")


def steps(C: int, H: int, *, threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time one step on weights of each form, in a process of its own.

    Args:
        C: inputs.
        H: units.
        threads: of the engine.
        rounds: as in `timing.rounds`.
        seconds: as in `timing.rounds`.

    Returns:
        For each form its seconds a step, one number a round.
    """
    wanted = json.dumps({"C": C, "H": H, "threads": threads, "rounds": rounds, "seconds": seconds})
    run = subprocess.run([sys.executable, "-m", __name__, wanted], check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(run.stdout)
    return found


def _measured(C: int, H: int, threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    w_ih, w_hh = (_uniform(rng, (4 * H, k), H) for k in (C, H))
    packed, x = engine.pack(w_ih, w_hh), _uniform(rng, (1, C), 1)
    runners: dict[str, Callable[[], object]] = {}
    for form in FORMS:
        step = engine.step(packed, stored=form, threads=threads)
        h, c = np.zeros((1, H), np.float32), np.zeros((1, H), np.float32)
        runners[form] = partial(step.moving(h, c), x)
    return timing.rounds(runners, count=rounds, seconds=seconds)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], H: int) -> Array:
    return rng.uniform(-(H**-0.5), H**-0.5, shape).astype(np.float32)


if __name__ == "__main__":
    print(json.dumps(_measured(**json.loads(sys.argv[1]))))
