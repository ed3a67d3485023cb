"""How the persistent kernels are cut, from sizes and a device's properties alone: pure functions.

A block keeps its part of W_hh for all steps. What that takes in registers and shared memory, and how many
blocks are resident at once, decides how many sequences a block works on, or that the plan does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import torch

from ..call import Call, hashed_once
from .machine import Properties

MOST_UNITS: Final = 128
"""Up to here one block holds all of W_hh, and no block waits for another."""
MOST_BY_ROW: Final = 64
"""H up to which a block of one sequence multiplies exact float32 row by row: its lanes hold whole rows."""
MOST_TOGETHER: Final = 1024
"""H beyond which one product a step is the better plan, where the other fits at all."""
MOST_CELLS: Final = 128 * 1024
"""N x H from which one product a step is the better plan: measured on the prototype, README.md."""
MOST_SUBS: Final = 4
MOST_OUTPUTS: Final = 64
"""Of a projection, in one of several blocks: sums of more tiles take too many registers."""
_MULTIPLIES: Final = 8
"""Sequences that a block alone needs to multiply x itself, in 16 bits: fewer share what that reads."""
_HELD: Final = 16
"""Tiles of weights, 16 rows by one chunk, that a thread of 255 registers holds."""
_MOST_WIDE: Final = 512
"""H up to which a block has 64 units backward in 16 bits: half as many blocks then read the operand."""
_HELD_SCARCE: Final = 12
"""As many backward with two column tiles, or with a norm and four tiles of rows, where shared memory holds
the rest anyway: more would spill what is loaded for the step, and a spill waits for its load."""
_HELD_NORM: Final = 8
"""As many backward with a norm: read in machine code of NVRTC 13.0, which spills more than 13.5."""
_HELD_EXACT: Final = 14
"""As many backward in exact float32, likewise."""
_REGISTERS: Final = 8
"""That a thread needs for a tile."""
_MANY_EXACT: Final = 28
"""Registers for each tile that a thread of exact float32 holds with two column tiles: 20 spill its loads."""
_NORM_AHEAD: Final = 80
"""Registers that a step with a norm needs beside the weights, in 16 bits: with fewer it spills its loads."""
_NORM_BACK: Final = 112
"""The same of a step back."""


@hashed_once
@dataclass(frozen=True)
class Tiling:
    """The numbers of `tiling.cuh`, and how many groups of blocks run.

    `backward` decides which of the two kernels' memory is counted.
    """

    K: int
    units: int
    column_tiles: int
    warps_rows: int
    warps_k: int
    in_registers: int
    in_shared: int
    subs: int
    blocks: int
    exact: bool
    size: int
    "bytes of one element"
    groups: int
    sequences: int
    "of a sub-batch"
    backward: bool
    row_by_row: bool = False
    "without tensor cores"
    normed: bool = False
    "whether there is a norm, which spans the units"
    outputs: int = 0
    "of a block, where there is a projection"
    all_outputs: int = 0
    "padded"
    inputs: int = 0
    "of x, padded, where W_ih x is made in the kernel"
    single: bool = False
    "whether a block has one sequence, whose cells four lanes share"

    @cached_property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_rows * self.warps_k

    @property
    def tiles(self) -> int:
        """Tiles of 16 rows that a warp multiplies."""
        rows = self.outputs or self.units if self.backward else 4 * self.units
        return rows // 16 // self.warps_rows

    @property
    def parts(self) -> int:
        """Numbers whose sum an operand is: r̄ of a norm in bfloat16."""
        return 3 if self.normed and self.backward and self.size == 2 else 1

    @cached_property
    def grid(self) -> int:
        """Blocks of the launch."""
        return self.groups * self.blocks

    @property
    def arrives(self) -> bool:
        """Whether the operand of other blocks goes straight into registers, not through shared memory."""
        return self.blocks > 1 and (self.backward or self.column_tiles == 1)

    @property
    def rest(self) -> int:
        """Clocks from telling to the first look at what others tell: measured on an H200, README.md.

        A look that comes too soon takes as long as one that finds all, and holds the others up. More blocks
        are further apart, and what is more takes longer to arrive.
        """
        many, operand = self.blocks >= 24, self.sequences * self.K * self.size
        if self.size == 2:
            return 500 + self.backward * many * (400 if operand > 1 << 16 else 200)
        if operand <= 1 << 11:
            return 500
        return 900 if many and 1 << 13 < operand <= 1 << 17 else 700

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory: weights, staged operand, sums along K, Σ ā, state, what a norm sums."""
        chunks = self.warps_k * (self.in_registers + self.in_shared)
        pitch = 64 * chunks + (64 if chunks % 2 == 0 else 0)
        weights = 1024 * self.in_shared * self.tiles * self.warps_rows * self.warps_k
        columns = 8 * self.column_tiles
        alone = self.subs if self.backward else 2 * self.subs
        stages = (0 if self.arrives else 1 if self.blocks > 1 else alone) * columns * self.parts * pitch
        sums = self.warps_k * columns * (1 + self.arrives)
        cells, scarce = -(-self.units * columns // self.threads), self.blocks > 1 and self.column_tiles > 1
        carried = 8 * self.subs * cells * self.threads if scarce or self.subs > 1 else 0
        if self.outputs:
            carried += self._second
        if self.inputs:  # W_ih, and x of two steps
            held = self.inputs * self.size // 64
            carried += 1024 * held * self.tiles * self.warps_rows + 2 * columns * 64 * (held + 1 - held % 2)
        if self.normed:  # and no Σ ā
            carried += 4 * columns * ((8 if self.backward else 4) * (self.units + 2) + 8)
        if self.backward:
            bias = 0 if self.normed else 16 * self.threads
            return weights + stages + sums * ((self.outputs or self.units) + 4) * 4 + bias + carried
        return weights + stages + (0 if self.warps_k == 1 else sums * (self.units + 1) * 16) + carried

    @property
    def _second(self) -> int:
        """Bytes of the projection's product, and of what is handed on of h: `Second` of projection.cuh."""
        held, across = self.outputs, self.units * self.blocks
        if self.backward:
            held, across = self.units, self.all_outputs
        warps, tiles, columns = self.threads // 32, held // 16, 8 * self.column_tiles
        parts = 1 if self.size == 4 else 3
        rows = next(n for n in (4, 2, 1) if tiles % n == 0 and warps % n == 0)
        warps_k = warps // rows
        chunks = warps_k * -(-across * self.size // 64 // warps_k)
        pitch = 64 * chunks + (64 if chunks % 2 == 0 else 0)
        stage = 0 if self.blocks > 1 else parts * columns * pitch
        own = -(-self.outputs * columns // self.threads)
        return (
            1024 * tiles * chunks
            + stage
            + 4 * warps_k * columns * (held + 4)
            + 4 * self.subs * own * self.threads
        )

    @property
    def template(self) -> str:
        """The arguments of the kernel's template."""
        last = self.inputs or self.single
        numbers = (
            self.K, self.units, self.column_tiles, self.warps_rows, self.warps_k, self.in_registers,
            self.in_shared, self.subs, self.blocks, str(self.exact).lower(), str(self.row_by_row).lower(),
            *((str(self.normed).lower(), self.parts) if self.normed or self.outputs or last else ()),
            *((self.outputs, self.all_outputs) if self.outputs or last else ()),
            *((self.inputs,) if last else ()),
            *(("true",) if self.single else ()),
        )  # fmt: skip
        return f"longshort::Tiling<{', '.join(map(str, numbers))}>"


class Asked(NamedTuple):
    """What a kernel is to hold, and where."""

    properties: Properties
    N: int
    H: int
    "padded"
    G: int
    size: int
    "bytes of one element"
    exact: bool
    normed: bool
    P: int = 0
    "0 without a projection"
    backward: bool = False
    C: int = 0
    "of x, where a kernel could make W_ih x; else 0"

    def outputs(self, blocks: int, warps_rows: int = 1) -> int:
        """Return the outputs of each block where there is a projection: whole tiles for each warp."""
        whole = blocks * math.lcm(16 * warps_rows, 32 if blocks == 1 else 16)
        return -(-self.all_outputs // whole) * whole // blocks

    @property
    def all_outputs(self) -> int:
        """Those of a projection, padded."""
        return -(-self.P // 32) * 32

    @property
    def K(self) -> int:
        """Numbers of the operand."""
        return self.G * self.H if self.backward else self.all_outputs or self.H


@dataclass(frozen=True)
class Pair:
    """The two kernels of a call."""

    H: int
    "padded"
    forward: Tiling
    backward: Tiling | None
    "None where one launch a step runs backward: with a norm or a projection that does not fit, or in float16"

    @property
    def exchanges(self) -> bool:
        """Whether blocks wait for each other in every kernel."""
        return all(cut is None or cut.blocks > 1 for cut in (self.forward, self.backward))


def refuses(call: Call) -> str | None:
    """Say why a call does not run in one launch, whatever the device, or None. May not look at N and T."""
    if call.dtype == torch.float64:
        return "float64 has no tensor-core product here"
    if call.variant.gate_recurrence:
        return "the gates' recurrence is a second product of a wider operand"
    return None


def pair(properties: Properties, call: Call, tf32: bool, waits: bool = True) -> Pair | None:
    """Return the tilings of a call that `refuses` lets pass, or None where they do not fit or do not pay.

    Args:
        properties: of the device.
        call:       its sizes and dtype.
        tf32:       whether float32 operands may be rounded to tf32.
        waits:      whether blocks may wait for each other.
    """
    size, G = call.dtype.itemsize, len(call.variant.gates)
    exact, normed = call.dtype == torch.float32 and not tf32, call.variant.norm != "none"
    P = call.P if "w_hr" in call.given else 0
    if max(call.H, P) > MOST_TOGETHER:
        return None
    H, found = -(-call.H // 32) * 32, []
    C = call.C if size == 2 and not normed and not P else 0
    for backward in (False, True):
        asked = Asked(properties, call.N, H, G, size, exact, normed, P, backward, C)
        together = _together(asked) if H > MOST_UNITS or (waits and _shared_out(asked)) else None
        alone = _alone(asked) if together is None and H <= MOST_UNITS else None
        found.append(together or alone or (_together(asked) if waits and (P or normed) else None))
    forward, back = found
    # r̄ of a norm and h̄' of a projection need 24 bits, and parts of 11 end where float16 does; so does h̃ where
    # it is the cell
    if (P or normed) and call.dtype == torch.float16:
        back, forward = None, None if P and not call.variant.output_activation else forward
    if forward is None or (back is None and not P and not normed):
        return None
    return Pair(H, forward, back)


def _shared_out(asked: Asked) -> bool:
    """Whether several blocks run a call faster that one alone could hold: measured, README.md.

    Weights of four bytes fill a block's registers and more, and few sequences are few columns of a product.
    """
    most = 4 if asked.exact else 0 if asked.size == 2 else 1 / 2 if asked.backward else 4
    return asked.H > 64 and most * asked.properties.multiprocessors >= asked.N


def _alone(asked: Asked) -> Tiling | None:
    """One block holds all of W_hh; more blocks than multiprocessors run in waves."""
    properties, N, H, _, size, exact, normed, P, backward, C = asked
    if P > MOST_UNITS:
        return None
    K, wanted = asked.K, -(-N // properties.multiprocessors)
    by_row = exact and wanted == 1 and H <= MOST_BY_ROW and not P
    warps_k = 4 if backward else 1
    warps_rows = {32: 1 if by_row else 2, 64: 4 if size == 2 else 2, 96: 3, 128: 4}[H] if backward else H // 8
    outputs = asked.outputs(1, warps_rows if backward else 1)
    tiles = (outputs or H if backward else 4 * H) // 16 // warps_rows
    chunks = -(-K * size // 64 // warps_k)
    registers = properties.registers // (32 * warps_rows * warps_k)
    inputs = -(-C // 32) * 32 if not backward and wanted >= _MULTIPLIES else 0
    most = 2 if wanted > 8 and not backward and not normed else 1  # else two column tiles spill
    for columns, of_x in ((most, inputs), (most, 0), (1, 0)):
        for room in _rooms(asked, registers, columns):
            held = chunks if by_row else min(chunks, max(1, min(_HELD, room) // tiles))
            found = Tiling(
                K, H, columns, warps_rows, warps_k, held, chunks - held, 1, 1, exact, size,
                -(-N // min(8 * columns, max(wanted, 1))), min(8 * columns, max(wanted, 1)), backward,
                by_row, normed, outputs, asked.all_outputs, of_x,
                wanted == 1 and not (normed or P),
            )  # fmt: skip
            if found.shared <= properties.shared:
                return found
    return None


def _rooms(asked: Asked, registers: int, columns: int) -> tuple[int, ...]:
    """Tiles of weights that a thread holds beside what a step needs; then, if the rest has no room, more."""
    most = registers // (16 if asked.size == 2 else 20)
    if asked.normed and asked.size == 2:
        return (registers - (_NORM_BACK if asked.backward else _NORM_AHEAD)) // _REGISTERS, most
    return (registers // _MANY_EXACT, most) if columns == 2 and asked.exact else (most,)


def _rooms_together(asked: Asked, columns: int, tiles: int, all_tiles: int) -> tuple[int, ...]:
    """The same where blocks hold W_hh between them: a thread has 255 registers, and so many tiles in all."""
    if asked.backward and asked.normed and asked.size == 2 and columns == 1 and tiles <= 2:
        return _HELD_NORM, _HELD
    if not asked.backward or all_tiles <= _HELD:
        return (_HELD,)
    if columns == 2:
        return (_HELD_SCARCE,)
    if asked.normed and tiles > 2:
        return _HELD_SCARCE, _HELD
    return (_HELD_EXACT, _HELD) if asked.exact else (_HELD,)


def _together(asked: Asked) -> Tiling | None:
    """Several blocks hold W_hh between them; all must be resident."""
    properties, H = asked.properties, asked.H
    few = properties.multiprocessors // (H // 32) >= 2 * asked.N
    most = _MOST_WIDE if asked.backward and asked.size == 2 else 0
    for units in (16, 32) if few else (64, 32, 16) if most >= H and H % 64 == 0 else (32, 16):
        for found in _cuts(asked, units):
            if found.shared <= properties.shared and found.subs <= MOST_SUBS:
                return found
    return None


def _cuts(asked: Asked, units: int) -> Iterator[Tiling]:
    """The cuts for a number of units, more columns first."""
    properties, N, H, _, size, exact, normed, _, backward, _ = asked
    blocks = H // units
    K, outputs = asked.K, asked.outputs(blocks)
    groups = min(properties.multiprocessors // blocks, N)
    if groups < 1 or outputs > MOST_OUTPUTS:
        return
    each = -(-N // groups)
    for columns in (2, 1) if each > 8 else (1,):
        # an operand that goes into registers is read by every warp along the rows: by one
        warps_rows = 1 if backward or columns == 1 else units // 8
        warps_k = 8 // warps_rows
        tiles = (outputs or units if backward else 4 * units) // 16 // warps_rows
        chunks = -(-K * size // 64 // warps_k)
        subs = -(-each // (8 * columns))
        sequences = -(-each // subs)
        for room in _rooms_together(asked, columns, tiles, chunks * tiles):
            held = min(chunks, room // tiles)
            yield Tiling(
                K, units, columns, warps_rows, warps_k, held, chunks - held, subs, blocks, exact, size,
                -(-N // (sequences * subs)), sequences, backward, False, normed,
                outputs, asked.all_outputs,
            )  # fmt: skip
