"""The small gradients of a call, summed over rows and rounded to the call's type by one kernel."""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

from .machine import Machine
from .sources import FOLDER, Entry, Program, layout

THREADS: Final = 256
"""Of a block."""
NUMBERS: Final = 4 * THREADS
"""That a block rounds, of a part with one row."""
COLUMNS: Final = 32
"""That a block adds up, of a part with several."""
MOST_ADDED: Final = 512
"""Rows of a sum that one thread of eight adds up fast enough; torch adds more."""
PARTS: Final = int(re.findall(r"MostParts = (\d+)", (FOLDER / "rounded.cu").read_text("utf8"))[0])
"""Of a launch."""


FIELDS: Final = ("from", "to", "factor", "rows", "count", "end")
"""Of a part, as `rounded.cu` has them."""
_FORM: Final = struct.Struct("<" + "".join(layout("rounded.cu", "Part").formats[name][1] for name in FIELDS))


class _Part(NamedTuple):
    """(rows, count) numbers in the wide type of the sums -> (count,), their sum times a factor."""

    values: Tensor
    out: Tensor
    factor: float


class Rounding:
    """Gradients that are to be rounded when all are made.

    Args:
        machine: that of the tensors' device, which is the current one when they are rounded.
        dtype:   to round to.
    """

    def __init__(self, machine: Machine, dtype: torch.dtype) -> None:
        self.machine, self.dtype = machine, dtype
        self._parts: list[_Part] = []

    def add(self, values: Tensor, out: Tensor | None = None, factor: float = 1) -> Tensor:
        """Return what will hold the sum over the rows of dense numbers (rows, count), times a factor.

        Args:
            values: (rows, count), wide; of an address that 16 bytes divide, and so is `out`'s.
            out:    (count,), dense; by default a new one.
            factor: of all.
        """
        out = values.new_empty(values.shape[1], dtype=self.dtype) if out is None else out
        if values.shape[0] > MOST_ADDED or values.dtype == torch.float64:
            values = values.sum(0, keepdim=True)
        self._parts.append(_Part(values, out, factor))
        return out

    def of(self, values: Tensor) -> Tensor:
        """Return what will hold dense numbers, rounded; themselves, if they have the type already."""
        return values if values.dtype == self.dtype else self.add(values.view(1, -1)).view(values.shape)

    def run(self) -> None:
        """Round all that were added."""
        parts, self._parts = [part for part in self._parts if part.out.numel()], []
        for first in range(0, len(parts), PARTS):
            _launched(self.machine, self.dtype, parts[first : first + PARTS])


def _launched(machine: Machine, dtype: torch.dtype, parts: list[_Part]) -> None:
    if len(parts) == 1 or dtype == torch.float64:  # one launch of torch's does the same
        for values, out, factor in parts:
            if len(values) > 1 and out.dtype == values.dtype and factor == 1:
                torch.sum(values, 0, out=out)
            else:
                torch.mul(values.sum(0) if len(values) > 1 else values[0], factor, out=out)
        return
    argument, end = bytearray(_FORM.size * PARTS), 0
    for k in range(PARTS):
        values, out, factor = parts[min(k, len(parts) - 1)]
        rows, count = values.shape
        if k < len(parts):
            end += -(-count // (NUMBERS if rows == 1 else COLUMNS))
        words = (values.data_ptr(), out.data_ptr(), factor, rows, count, end)
        _FORM.pack_into(argument, k * _FORM.size, *words)
    kernel = machine.kernel(program(dtype), "rounded", THREADS * parts[0].values.element_size())
    kernel.bind(argument, end)()


def ahead(machine: Machine, dtype: torch.dtype) -> None:
    """Begin to compile what the way back of most calls will round with."""
    if dtype.itemsize == 2:
        machine.ahead(program(dtype))


@lru_cache(maxsize=8)
def program(dtype: torch.dtype) -> Program:
    """Return the kernel that rounds to a dtype."""
    return Program("rounded.cu", dtype, (Entry("rounded", THREADS, str(THREADS)),), argument="Rounded")
