"""What one call of the layer costs beside torch.nn.LSTM, where the numbers themselves cost next to nothing.

    scripts/bench calls

inference of one step   one sequence with its state, C 64, H 128, under torch.inference_mode()
small training step     y.sum().backward(), N 4, T 20, C 64, H 128
least training step     the same, N 1, T 2, C 4, H 4: what torch and the layer cost without any numbers
one step                `LSTM.step`, C 64, H 128, beside the same call of torch

One thread, processor time, in turns; medians and quartiles of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import longshort as ls
import record

ROUNDS, CALLS = 41, 100


def compared(runs: dict[str, Callable[[], object]]) -> dict[str, Any]:
    """Microseconds of a call of each."""
    times: dict[str, list[float]] = {who: [] for who in runs}
    for who in (ROUNDS + 1) * list(
        runs
    ):  # in turns, for the processor's clock is not one; the first warms up
        start = time.process_time()
        for _ in range(CALLS):
            runs[who]()
        times[who].append((time.process_time() - start) / CALLS * 1e6)
    found = {who: statistics.quantiles(each[1:], n=4) for who, each in times.items()}
    return {
        "microseconds": {who: middle for who, (_, middle, _) in found.items()},
        "quartiles": {who: [low, high] for who, (low, _, high) in found.items()},
        "ratio": found["torch"][1] / found["ours"][1],
    }


def pair(C: int, H: int) -> dict[str, Any]:
    """Both layers with the same weights."""
    theirs, ours = torch.nn.LSTM(C, H), ls.LSTM(C, H)
    ours.load_state_dict(theirs.state_dict())
    return {"ours": ours, "torch": theirs}


def inference(C: int, H: int) -> dict[str, Any]:
    layers, x, state = pair(C, H), torch.randn(1, 1, C), (torch.zeros(1, 1, H), torch.zeros(1, 1, H))

    def call(layer: torch.nn.Module) -> None:
        with torch.inference_mode():
            layer(x, state)

    return compared({who: lambda layer=layer: call(layer) for who, layer in layers.items()})


def training(N: int, T: int, C: int, H: int) -> dict[str, Any]:
    x = torch.randn(T, N, C)
    return compared(
        {who: lambda layer=layer: layer(x)[0].sum().backward() for who, layer in pair(C, H).items()}
    )


def step(C: int, H: int) -> dict[str, Any]:
    layers, x, state = pair(C, H), torch.randn(1, C), (torch.zeros(1, 1, H), torch.zeros(1, 1, H))
    with torch.inference_mode():
        return compared(
            {"ours": lambda: layers["ours"].step(x, state), "torch": lambda: layers["torch"](x[None], state)}
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result = {
        "inference of one step": inference(64, 128),
        "small training step": training(4, 20, 64, 128),
        "least training step": training(1, 2, 4, 4),
        "one step": step(64, 128),
    }
    print(record.write("calls", result).read_text())
