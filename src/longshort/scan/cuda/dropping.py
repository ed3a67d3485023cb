"""A tensor under its mask in one kernel, where plain torch takes some sixty over whole numbers of 64 bits."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .. import masks
from .machine import MOST_ROWS, Machine
from .sources import Entry, Program, layout

THREADS = 256
"""Of a block."""
RESIDENT = 2048
"""Threads that a multiprocessor holds at most: with so many in all, a thread takes further steps instead."""


def dropped(
    machine: Machine,
    x: Tensor,
    kind: str,
    rate: float,
    seed: Tensor,
    factor: torch.dtype | None = None,
) -> Tensor:
    """Do what `masks.dropped` does, with the same bits; see there. The result is laid out as x.

    Args:
        machine: that of x's device.
        x:       (N, T, K); copied first where its units do not lie side by side.
        kind:    as in `masks.dropped`.
        rate:    as in `masks.dropped`.
        seed:    () int64, on x's device.
        factor:  as in `masks.dropped`.
    """
    N, T, K = x.shape
    threads = N * -(-K // 4)
    if threads >= 1 << 31:  # more than 32 bits count
        return masks.dropped(x, kind, rate, seed, factor)
    if K > 1 and x.stride(2) != 1:
        x = x.contiguous()
    out = torch.empty_like(x)
    if K > 1 and out.stride(2) != 1:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    argument = layout("dropped.cu", "Dropped").pack(
        {
            "seed": seed,
            "x": x,
            "out": out,
            "x_n": x.stride(0),
            "x_t": x.stride(1),
            "out_n": out.stride(0),
            "out_t": out.stride(1),
            "N": N,
            "T": T,
            "K": K,
            "stream": masks.STREAM[kind],
            "each_step": kind in masks.EACH_STEP,
            "least": int(rate * (1 << 32)),
            "scale": scale(rate, factor or x.dtype),
        }
    )
    blocks = -(-threads // THREADS)
    rows = -(-machine.properties.multiprocessors * RESIDENT // (blocks * THREADS))
    kernel = machine.kernel(program(x.dtype, adjacent(x, out)), "dropped")
    with machine.current():
        kernel.bind(argument, blocks, min(rows, T, MOST_ROWS))()
    return out


def adjacent(*tensors: Tensor) -> int:
    """Return how many units of (N, T, K) may be loaded at once: 4, 2 or 1."""

    def fits(x: Tensor, units: int) -> bool:
        strides = [stride for size, stride in zip(x.shape[:2], x.stride()[:2], strict=True) if size > 1]
        whole = x.data_ptr() % min(16, units * x.element_size()) == 0
        return whole and all(length % units == 0 for length in (x.shape[2], *strides))

    return next((units for units in (4, 2) if all(fits(x, units) for x in tensors)), 1)


@lru_cache(maxsize=64)
def program(dtype: torch.dtype, adjacent: int) -> Program:
    """Return the kernel for tensors of a type that are loaded so many units at once."""
    return Program("dropped.cu", dtype, (Entry("dropped", THREADS, str(adjacent)),), argument="Dropped")


@lru_cache(maxsize=1024)
def scale(rate: float, dtype: torch.dtype) -> float:
    """Return 1 / (1 - rate) as a tensor of this dtype holds it."""
    return (torch.ones((), dtype=dtype, device="cpu") / (1 - rate)).item()
