"""What products read, copied as they read it: matrices with zeros behind columns and rows, or transposed;
sequences step by step. And what blocks tell each other, before it is there.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .machine import Machine
from .sources import FOLDER, Entry, Layout, Program, layout

THREADS: Final = 256
"""Of a block."""
TILE: Final = 64
"""Rows and columns that a block transposes."""
ROWS: Final = 4
"""Rows that a thread copies."""
VECTORS: Final = 4
"""Times 16 bytes that a thread of `transposed` sets."""
PARTS: Final = int(re.findall(r"MostParts = (\d+)", (FOLDER / "copied.cu").read_text("utf8"))[0])
"""Of a launch."""
_OF_SIZE: Final = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}
"""The dtype whose program copies all elements of a size."""
_NUMBERS: Final = ("inner", "limit", "pitch", "pitch_outer", "P", "K", "rows", "adjacent")
_FORM: Final = struct.Struct(f"<{3 + len(_NUMBERS) + 1}q")


class _Part(NamedTuple):
    """A copy to be made; `numbers` are those of `_NUMBERS` in `copied.cu`, between `lengths` and `end`."""

    matrix: Tensor | None
    out: Tensor
    lengths: Tensor | None
    blocks: int
    numbers: tuple[int, ...]


class Copies:
    """Copies that are made together.

    Args:
        machine: that of the tensors' device, which is the current one when they are made.
        dtype:   of all of them.
    """

    def __init__(self, machine: Machine, dtype: torch.dtype) -> None:
        self.machine, self.dtype = machine, dtype
        self._parts: list[_Part] = []

    def __len__(self) -> int:
        return len(self._parts)

    def padded(self, matrix: Tensor, columns: int, gates: int = 1, units: int | None = None) -> Tensor:
        """Return what will be a matrix with zeros behind its columns, and behind the rows of each gate.

        Args:
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
        adjacent = _adjacent(
            P | columns | pitch, (matrix.data_ptr() | out.data_ptr()) % 16, out.element_size()
        )
        if not self._add(matrix, out, None, (units, H, pitch, H * pitch, P, columns, len(out), adjacent)):
            out = pad(matrix.unflatten(0, (gates, H)), (0, columns - P, 0, units - H)).flatten(0, 1)
        return out

    def by_step(self, x: Tensor, columns: int, lengths: Tensor | None = None, fresh: bool = False) -> Tensor:
        """Return what will be sequences step by step, with zeros behind their columns and in the padding.

        Args:
            x:       (N, T, C), of any strides.
            columns: of the copy, at least C.
            lengths: (N,) int64 of any stride, or None: where a sequence ends. What x holds from there on is
                not read.
            fresh:   whether it must be a copy, dense and of an address that 16 bytes divide.

        Returns:
            (T N, `columns`); a view of x where it lies so already.
        """
        N, T, C = x.shape
        dense = x.stride(2) == 1 or C < 2
        pitch = x.stride(0 if N > 1 else 1)
        regular = N < 2 or T < 2 or x.stride(1) == N * pitch
        if lengths is None and dense and regular and pitch >= C and not fresh:
            return self.widened(x.as_strided((T * N, C), (pitch, 1)), columns)
        x, lengths = x if dense else x.contiguous(), None if lengths is None else lengths.contiguous()
        out = x.new_empty(T * N, columns)
        n, t = x.stride(0), x.stride(1)
        adjacent = _adjacent(C | columns | n | t, (x.data_ptr() | out.data_ptr()) % 16, x.element_size())
        if not self._add(x, out, lengths, (N, N, n, t, C, columns, len(out), adjacent)):
            x = x.transpose(0, 1)
            if lengths is not None:
                x = torch.where(torch.arange(T, device=x.device)[:, None, None] < lengths[:, None], x, 0)
            out = pad(x, (0, columns - C)).flatten(0, 1)
        return out

    def widened(self, matrix: Tensor, columns: int) -> Tensor:
        """Return what will be a matrix with zeros behind its columns: so many; itself where it has them."""
        return self.padded(matrix, columns) if columns > matrix.shape[1] else matrix

    def resident(self, w_hh: Tensor, columns: int) -> Tensor:
        """Return what will be W_hh as blocks load what they keep: dense, so many columns wide.

        Itself where it is such a matrix already, and 16 bytes divide its address.
        """
        fits = columns == w_hh.shape[1] and w_hh.is_contiguous() and w_hh.data_ptr() % 16 == 0
        return w_hh if fits else self.padded(w_hh, columns)

    def blank(self, out: Tensor) -> Tensor:
        """Return a dense tensor (..., K) in which all bits will be set: nothing is there yet.

        Where nothing else is copied that is torch's launch, now.
        """
        K, rows, size = out.shape[-1], out.numel() // out.shape[-1], out.element_size()
        adjacent = _adjacent(K, out.data_ptr() % 16, size)
        if not self._parts or size != self.dtype.itemsize or size > 4:
            return blank(out)
        if not self._add(None, out, None, (rows, rows, 0, 0, K, K, rows, adjacent)):
            return blank(out)
        return out

    def ahead(self) -> None:
        """Begin to compile what makes the copies, if there are any."""
        if self._parts:
            self.machine.ahead(program(self.dtype, "copied"))

    def run(self) -> None:
        """Make all of them."""
        parts, self._parts = self._parts, []
        for first in range(0, len(parts), PARTS):
            argument, end = bytearray(_FORM.size * PARTS), 0
            for k in range(PARTS):
                part = parts[min(first + k, len(parts) - 1)]
                end += part.blocks if first + k < len(parts) else 0
                to, lengths = part.out.data_ptr(), 0 if part.lengths is None else part.lengths.data_ptr()
                # a matrix without columns has no address, and null would set bits
                matrix = 0 if part.matrix is None else part.matrix.data_ptr() or to
                words = (matrix, to, lengths, *part.numbers, end)
                _FORM.pack_into(argument, k * _FORM.size, *words)
            self.machine.kernel(program(self.dtype, "copied"), "copied").bind(argument, end)()

    def _add(
        self, matrix: Tensor | None, out: Tensor, lengths: Tensor | None, numbers: tuple[int, ...]
    ) -> bool:
        """Note a copy; false where 32 bits do not count its threads."""
        *_, columns, rows, adjacent = numbers
        threads = -(-rows // ROWS) * (columns // adjacent)
        if threads + THREADS > 1 << 31 or rows + ROWS > 1 << 31:
            return False
        if out.numel():
            self._parts.append(_Part(matrix, out, lengths, -(-threads // THREADS), numbers))
        return True


def blank(tensor: Tensor) -> Tensor:
    """Set every bit: nothing is there yet."""
    tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).fill_(-1)
    return tensor


def widened(machine: Machine, matrix: Tensor, columns: int) -> Tensor:
    """Return what `Copies.widened` does, alone."""
    copies = Copies(machine, matrix.dtype)
    found = copies.widened(matrix, columns)
    copies.run()
    return found


def transposed(
    machine: Machine, w_hh: Tensor, gates: int, columns: int, empty: Tensor | None = None
) -> Tensor:
    """Return W_hh' as blocks of the way back load what they keep.

    Args:
        machine: that of W_hh's device, which is the current one.
        w_hh:    (G H, P).
        gates:   G.
        columns: H with padding.
        empty:   dense, of whole 16 bytes and an address that they divide: all its bits are set meanwhile.

    Returns:
        (P, G, `columns`), dense, zeros in the padding, of an address that 16 bytes divide.
    """
    w_hh = _by_row(w_hh)
    units, P = w_hh.shape[0] // gates, w_hh.shape[1]
    out = w_hh.new_empty(P, gates, columns)
    if not out.numel():
        if empty is not None:
            blank(empty)
        return out
    size = w_hh.element_size()
    tiles = -(-P // TILE) * -(-columns // TILE)
    vectors = 0 if empty is None else empty.numel() * size // 16
    argument, fields = (
        bytearray(_sized((w_hh.stride(0), gates, units, P, columns, tiles, vectors))),
        _fields(),
    )
    for name, tensor in (("from", w_hh), ("to", out), ("blank", empty)):
        fields.put(argument, name, tensor)
    blocks = tiles + -(-vectors // (THREADS * VECTORS * gates))
    shared = TILE * (TILE + max(1, 4 // size)) * size
    machine.kernel(program(w_hh.dtype, "transposed"), "transposed", shared).bind(argument, blocks, gates)()
    return out


_TEMPLATES: Final = {"transposed": f"{TILE}, {THREADS}, {VECTORS}", "copied": str(ROWS)}


@lru_cache(maxsize=64)
def program(dtype: torch.dtype, name: str) -> Program:
    """Return a kernel for elements of a dtype's size, alone: no pass waits for the other to compile."""
    entry = Entry(name, THREADS, _TEMPLATES[name])
    return Program("copied.cu", _OF_SIZE[dtype.itemsize], (entry,), argument=name.capitalize())


def _by_row(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] < 2 else matrix.contiguous()


@lru_cache(maxsize=1024)
def _adjacent(lengths: int, place: int, size: int) -> int:
    """How many columns may be loaded at once: 4, 2 or 1; `lengths` and `place` have the bits of all."""
    return next(n for n in (4, 2, 1) if lengths % n == 0 and place % min(16, n * size) == 0)


def _fields() -> Layout:
    return layout("copied.cu", "Transposed")


@lru_cache(maxsize=1024)
def _sized(numbers: tuple[int, ...]) -> bytes:
    names = ("pitch", "G", "H", "P", "K", "tiles", "vectors")
    return bytes(_fields().pack(dict(zip(names, numbers, strict=True))))
