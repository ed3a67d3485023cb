"""The first complaint: "an LSTM is complex". Parameters, time and memory beside a plain RNN and a GRU.

Each cell is measured twice: with as many units as the LSTM, and with as many weights. One training step is
one batch forwards and backwards; what it keeps is the bytes of every tensor that autograd holds for the way
back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .cells import CELLS

ROUNDS = 7
USUAL = ("rnn", "gru", "lstm", "lstm-peephole")
"""The cells that are measured where none is named; how their weights begin costs nothing."""


def complexity(
    cells: Sequence[str] = USUAL, *, C: int = 64, H: int = 128, N: int = 32, T: int = 100
) -> list[dict[str, Any]]:
    """Measure cells in turns on this machine, with as many threads as torch has.

    Args:
        cells: names of cells.
        C: inputs.
        H: units of the LSTM.
        N: sequences.
        T: steps.

    Returns:
        One object a cell and size ("units" or "weights" equal to the LSTM's): its units, weights,
        milliseconds of a training step and of a forward pass (medians), and bytes kept for the way back.
    """
    x = torch.randn(N, T, C, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, Any]] = []
    layers = []
    for equal in ("units", "weights"):
        for name in cells:
            units = H if equal == "units" else CELLS[name].units(C, H)
            layer = CELLS[name].build(C, units, T)
            layers.append(layer)
            rows.append(
                {
                    "cell": name, "equal": equal, "units": units,
                    "weights": sum(weight.numel() for weight in layer.parameters()),
                    "bytes kept": kept_bytes(layer, x),
                }
            )  # fmt: skip
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in layers]
    for _ in range(ROUNDS + 1):  # the first round loads what loads at first use, and is dropped
        for (training, forward), layer in zip(times, layers, strict=True):
            training.append(_milliseconds(layer, x, backward=True))
            forward.append(_milliseconds(layer, x, backward=False))
    for row, (training, forward) in zip(rows, times, strict=True):
        row["training ms"] = statistics.median(training[1:])
        row["forward ms"] = statistics.median(forward[1:])
    return rows


def kept_bytes(layer: nn.Module, x: torch.Tensor) -> int:
    """The bytes of all tensors, other than weights and input, that a forward pass keeps for the way back."""
    own = {weight.data_ptr() for weight in layer.parameters()} | {x.data_ptr()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x)[0]
    del y
    return sum(kept.values())


def _milliseconds(layer: nn.Module, x: torch.Tensor, *, backward: bool) -> float:
    started = time.perf_counter()
    with torch.set_grad_enabled(backward):
        y = layer(x)[0]
        if backward:
            y.sum().backward()
    spent = 1e3 * (time.perf_counter() - started)
    layer.zero_grad()
    return spent


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = []
    for equal in ("units", "weights"):
        lines += [f"as many {equal}", f"  {'cell':14} units  weights  training ms  forward ms  kept MB"]
        for row in (row for row in rows if row["equal"] == equal):
            lines.append(
                f"  {row['cell']:14} {row['units']:5}  {row['weights']:7,}  {row['training ms']:11.1f}  "
                f"{row['forward ms']:10.1f}  {row['bytes kept'] / 1e6:7.1f}"
            )
    return "\n".join(lines)
