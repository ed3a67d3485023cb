"""What products read, copied as they read it in one kernel: a matrix with zeros behind columns and rows, or
transposed; sequences step by step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from .machine import Machine
from .sources import Entry, Program, layout

THREADS: Final = 256
"""Of a block."""
TILE: Final = 64
"""Rows and columns that a block transposes."""
ROWS: Final = 4
"""Rows that a thread copies."""
_OF_SIZE: Final = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}
"""The dtype whose program copies all elements of a size."""


def transposed(machine: Machine, w_hh: Tensor, gates: int, columns: int) -> Tensor:
    """Return W_hh' as blocks of the way back load what they keep.

    Args:
        machine: that of W_hh's device, which is the current one.
        w_hh:    (G H, P).
        gates:   G.
        columns: H with padding.

    Returns:
        (P, G, `columns`), dense, zeros in the padding, of an address that 16 bytes divide.
    """
    w_hh = _by_row(w_hh)
    units, P = w_hh.shape[0] // gates, w_hh.shape[1]
    out = w_hh.new_empty(P, gates, columns)
    if out.numel():
        size = w_hh.element_size()
        blocks = -(-P // TILE) * -(-columns // TILE)
        argument = _argument(w_hh, out, (w_hh.stride(0), gates, units, P, columns, units, 1))
        shared = TILE * (TILE + max(1, 4 // size)) * size
        machine.kernel(program(w_hh.dtype, "transposed"), "transposed", shared).bind(
            argument, blocks, gates
        )()
    return out


def padded(
    machine: Machine, matrix: Tensor, columns: int, gates: int = 1, units: int | None = None
) -> Tensor:
    """Return a copy of a matrix with zeros behind its columns, and behind the rows of each gate.

    Args:
        machine: that of its device, which is the current one.
        matrix:  (G H, P).
        columns: of the copy, at least P.
        gates:   G.
        units:   rows of a gate of the copy, at least H and by default H.

    Returns:
        (G `units`, `columns`), dense, of an address that 16 bytes divide.
    """
    matrix = _by_row(matrix)
    (rows, P), pitch = matrix.shape, matrix.stride(0)
    H = rows // gates
    units = H if units is None else units
    out = matrix.new_empty(gates * units, columns)
    if not out.numel():
        return out
    place = (matrix.data_ptr() | out.data_ptr()) % 16
    adjacent = _adjacent(P | columns | pitch, place, matrix.element_size())
    threads = -(-len(out) // ROWS) * (columns // adjacent)
    if _many(threads, len(out)):
        return pad(matrix.unflatten(0, (gates, H)), (0, columns - P, 0, units - H)).flatten(0, 1)
    argument = _argument(matrix, out, (pitch, gates, H, P, columns, units, adjacent))
    machine.kernel(program(matrix.dtype, "padded"), "padded").bind(argument, -(-threads // THREADS))()
    return out


def by_step(
    machine: Machine, x: Tensor, columns: int, lengths: Tensor | None = None, fresh: bool = False
) -> Tensor:
    """Return sequences step by step, with zeros behind their columns and in the padding.

    Args:
        machine: that of x's device, which is the current one.
        x:       (N, T, C), of any strides.
        columns: of the copy, at least C.
        lengths: (N,) int64, or None: where a sequence ends. What x holds from there on is not read.
        fresh:   whether it must be a copy, dense and of an address that 16 bytes divide.

    Returns:
        (T N, `columns`); a view of x where it lies so already.
    """
    N, T, C = x.shape
    dense = x.stride(2) == 1 or C < 2
    pitch = x.stride(0 if N > 1 else 1)
    regular = N < 2 or T < 2 or x.stride(1) == N * pitch
    if lengths is None and dense and regular and pitch >= C and not fresh:
        return widened(machine, x.as_strided((T * N, C), (pitch, 1)), columns)
    x = x if dense else x.contiguous()
    out = x.new_empty(T * N, columns)
    if not out.numel():
        return out
    pitches = (x.stride(0), x.stride(1))
    place = (x.data_ptr() | out.data_ptr()) % 16
    adjacent = _adjacent(C | columns | pitches[0] | pitches[1], place, x.element_size())
    threads = -(-len(out) // ROWS) * (columns // adjacent)
    if _many(threads, len(out)):
        x = x.transpose(0, 1)
        if lengths is not None:
            x = torch.where(torch.arange(T, device=x.device)[:, None, None] < lengths[:, None], x, 0)
        return pad(x, (0, columns - C)).flatten(0, 1)
    argument = _argument(x, out, (pitches[0], 1, 0, C, columns, 0, adjacent, N, T, pitches[1]), lengths)
    machine.kernel(program(x.dtype, "sequences"), "sequences").bind(argument, -(-threads // THREADS))()
    return out


def _many(threads: int, rows: int) -> bool:
    """Whether 32 bits do not count them."""
    return threads + THREADS > 1 << 31 or rows + ROWS > 1 << 31


def widened(machine: Machine, matrix: Tensor, columns: int) -> Tensor:
    """Return a matrix with zeros behind its columns, so that it has so many; itself where it has."""
    return padded(machine, matrix, columns) if columns > matrix.shape[1] else matrix


def resident(machine: Machine, w_hh: Tensor, columns: int) -> Tensor:
    """Return W_hh as blocks load what they keep: so many columns, rows dense, 16 bytes divide its address.

    Itself where it is such a matrix.
    """
    fits = columns == w_hh.shape[1] and w_hh.is_contiguous() and w_hh.data_ptr() % 16 == 0
    return w_hh if fits else padded(machine, w_hh, columns)


_TEMPLATES: Final = {"transposed": f"{TILE}, {THREADS}", "padded": str(ROWS), "sequences": str(ROWS)}


@lru_cache(maxsize=64)
def program(dtype: torch.dtype, name: str) -> Program:
    """Return a kernel for elements of a dtype's size, alone: all of them compile for three times as long."""
    entry = Entry(name, THREADS, _TEMPLATES[name])
    return Program("copied.cu", _OF_SIZE[dtype.itemsize], (entry,), argument="Copied")


def _by_row(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] < 2 else matrix.contiguous()


@lru_cache(maxsize=1024)
def _adjacent(lengths: int, place: int, size: int) -> int:
    """How many columns may be loaded at once: 4, 2 or 1; `lengths` and `place` have the bits of all."""
    return next(n for n in (4, 2, 1) if lengths % n == 0 and place % min(16, n * size) == 0)


def _argument(
    matrix: Tensor, out: Tensor, numbers: tuple[int, ...], lengths: Tensor | None = None
) -> bytearray:
    """The argument of a copy; `numbers` are its `pitch` and what follows."""
    packed, fields = bytearray(_sized(numbers)), layout("copied.cu", "Copied")
    fields.put(packed, "from", matrix)
    fields.put(packed, "to", out)
    fields.put(packed, "lengths", lengths)
    return packed


@lru_cache(maxsize=1024)
def _sized(numbers: tuple[int, ...]) -> bytes:
    names = ("pitch", "G", "H", "P", "K", "rows", "adjacent", "N", "T", "pitch_t")
    return bytes(layout("copied.cu", "Copied").pack(dict(zip(names, numbers, strict=False))))
