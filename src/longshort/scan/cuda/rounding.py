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
FIELDS: Final = ("from", "to", "again", "factor", "rows", "count", "end", "width", "pitch", "units", "padded")
"""Of a part, as `rounded.cu` has them."""
_FORM: Final = struct.Struct("<" + "".join(layout("rounded.cu", "Part").formats[name][1] for name in FIELDS))


class _Part(NamedTuple):
    """(rows, count) numbers in the wide type of the sums -> (count,), their sum times a factor."""

    values: Tensor
    out: Tensor
    factor: float
    within: tuple[int, int, int, int] = (0, 0, 0, 0)
    "of a matrix whose padding is cut off: `width` and what follows in FIELDS"
    again: Tensor | None = None
    "where the same goes once more"

    def whole(self) -> Tensor:
        """Their sum, as plain torch makes it."""
        width, _, units, padded = self.within
        if width:
            within: Tensor = self.values.unflatten(0, (-1, padded))[:, :units, :width]
            return within.flatten(0, 1)
        return self.values.sum(0) if len(self.values) > 1 else self.values[0]


class Rounding:
    """Gradients that are to be rounded when all are made.

    Args:
        machine: that of the tensors' device, which is the current one when they are rounded.
        dtype:   to round to.
    """

    def __init__(self, machine: Machine, dtype: torch.dtype) -> None:
        self.machine, self.dtype = machine, dtype
        self._parts: list[_Part] = []

    def add(
        self, values: Tensor, out: Tensor | None = None, factor: float = 1, again: Tensor | None = None
    ) -> Tensor:
        """Return what will hold the sum over the rows of dense numbers (rows, count), times a factor.

        Args:
            values: (rows, count), wide; of an address that 16 bytes divide, and so is `out`'s.
            out:    (count,), dense; by default a new one.
            factor: of all.
            again:  where the same goes once more, if anywhere; as `out`.
        """
        out = values.new_empty(values.shape[1], dtype=self.dtype) if out is None else out
        if values.shape[0] > MOST_ADDED or values.dtype == torch.float64:
            values = values.sum(0, keepdim=True)
        self._parts.append(_Part(values, out, factor, again=again))
        return out

    def within(self, values: Tensor, gates: int, units: int, width: int, factor: float = 1) -> Tensor:
        """Return what will hold a matrix without its padding, times a factor.

        Args:
            values: (G padded H, at least `width`), dense and wide.
            gates:  G.
            units:  H, of each gate the first rows.
            width:  columns that are left.
            factor: of all.

        Returns:
            (G H, width), dense.
        """
        out = values.new_empty(gates * units, width, dtype=self.dtype)
        place = (width, values.shape[1], units, values.shape[0] // gates)
        if out.numel() >= 1 << 31:  # more than 32 bits count
            place, values = (0, 0, 0, 0), _Part(values, out, factor, place).whole().contiguous().view(1, -1)
        self._parts.append(_Part(values, out, factor, place))
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
        for part in parts:
            if len(part.values) > 1 and not part.within[0] and part.out.dtype == part.values.dtype:
                torch.sum(part.values, 0, out=part.out)
                if part.factor != 1:
                    part.out.mul_(part.factor)
            else:
                whole = part.whole()
                torch.mul(whole, part.factor, out=part.out.view(whole.shape))
            if part.again is not None:
                part.again.copy_(part.out)
        return
    argument, end = bytearray(_FORM.size * PARTS), 0
    for k in range(PARTS):
        values, out, factor, within, again = parts[min(k, len(parts) - 1)]
        rows, count = (1, out.numel()) if within[0] else values.shape
        if k < len(parts):
            end += -(-count // (NUMBERS if rows == 1 else COLUMNS))
        more = 0 if again is None else again.data_ptr()
        words = (values.data_ptr(), out.data_ptr(), more, factor, rows, count, end, *within)
        _FORM.pack_into(argument, k * _FORM.size, *words)
    kernel = machine.kernel(program(dtype), "rounded", THREADS * parts[0].values.element_size())
    kernel.bind(argument, end)()


def ahead(machine: Machine, dtype: torch.dtype, padded: bool = False) -> None:
    """Begin to compile what a way back rounds with, if it does: in 16 bits, or where units are `padded`."""
    if dtype.itemsize == 2 or padded:
        machine.ahead(program(dtype))


@lru_cache(maxsize=8)
def program(dtype: torch.dtype) -> Program:
    """Return the kernel that rounds to a dtype."""
    return Program("rounded.cu", dtype, (Entry("rounded", THREADS, str(THREADS)),), argument="Rounded")
