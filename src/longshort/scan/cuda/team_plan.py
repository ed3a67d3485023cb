"""All steps in one launch, forward, of many sequences: teams of four warps multiply W_hh in shared memory.

For Hopper (sm_90a), whose products of four warps read both operands there. The way back has another plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from ..call import Call, Inputs, hashed_once
from . import tiling
from .copying import Copies
from .machine import Machine, Properties, Runnable
from .packing import InputProducts, Packed, flags, sized
from .persistent_plan import fitting, waits
from .sources import Entry, Program
from .step_plan import aligned, span, way_back_ahead

CAPABILITY: Final = (9, 0)
"""The compute capability whose products these are: newer ones have others."""
TEAM: Final = 128
"""Threads of a team."""
UNITS: Final = 16
"""Units of a block: 64 rows of W_hh, which one product has."""
COLUMNS: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
"""Sequences of a team that a product is compiled for."""
MOST_STAGES: Final = 8
LEAST_STAGES: Final = 3
"""Tiles on their way at once: with two a product waits for each."""
ROW: Final = 128
"""Bytes of a row of a tile."""
POSTS: Final = 128
"""Blocks that a set may have."""


@hashed_once
@dataclass(frozen=True)
class Teams:
    """How the blocks are cut: the numbers of `Team` in team_forward.cu, and how many groups of blocks run."""

    K: int
    "H, padded"
    columns: int
    sets: int
    "of a block"
    splits: int
    "teams of a set"
    stages: int
    size: int
    "bytes of one element"
    groups: int
    sequences: int
    "of a set"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return TEAM * self.sets * self.splits

    @property
    def grid(self) -> int:
        """Blocks of the launch."""
        return self.groups * self.K // UNITS

    @property
    def shared(self) -> int:
        """Bytes of shared memory: weights, stages, two barriers of each stage, one of each set."""
        weights = 4 * UNITS * self.K * self.size
        stages = self.sets * self.splits * self.stages * (self.columns * ROW + 16)
        return weights + stages + self.sets * 8

    def template(self, units: int) -> str:
        """Return the arguments of the kernel's template, for a thread of so many adjacent units."""
        numbers = self.K, self.columns, self.sets, self.splits, self.stages, units
        return f"longshort::Team<{', '.join(map(str, numbers))}>"


def refuses(call: Call) -> str | None:
    """Say why teams do not run a call, whatever the device, or None. May not look at N and T."""
    if call.variant.norm != "none":
        return "a norm spans the units, which lie in several blocks"
    if "w_hr" in call.given:
        return "the projection is a second product between the cell and the next step"
    return tiling.refuses(call)


def cut(properties: Properties, call: Call, tf32: bool) -> Teams | None:
    """Return how a call is cut, or None where it does not fit.

    Args:
        properties: of the device.
        call:       one that `refuses` lets pass.
        tf32:       whether float32 operands may be rounded to tf32.
    """
    return next(cuts(properties, call, tf32), None)


def cuts(properties: Properties, call: Call, tf32: bool) -> Iterator[Teams]:
    """The ways to cut a call that fit, the best first."""
    if properties.capability != CAPABILITY or (call.dtype == torch.float32 and not tf32):
        return
    size, K = call.dtype.itemsize, -(-call.H // 64) * 64
    blocks, chunks = K // UNITS, K * size // ROW
    groups = min(properties.multiprocessors // blocks, -(-call.N // COLUMNS[0]))
    if groups < 1 or blocks > POSTS:
        return
    each = -(-call.N // groups)
    for sets, splits in ((1, 2), (2, 1), (1, 1)):
        sequences = -(-each // sets)
        columns = next((columns for columns in COLUMNS if columns >= sequences), None)
        if columns is None:
            continue
        most = -(-chunks // splits)
        left = properties.shared - 4 * UNITS * K * size - 8 * sets
        stages = min(MOST_STAGES, left // (sets * splits * (columns * ROW + 16)), max(LEAST_STAGES, most))
        if stages >= LEAST_STAGES and most * (splits - 1) < chunks:
            yield Teams(
                K, columns, sets, splits, stages, size, -(-call.N // (sequences * sets)), sequences,
            )  # fmt: skip


def program(call: Call, teams: Teams, units: int, specialises: bool) -> Program:
    """Return the program, compiled for the call's options and sizes if it `specialises`."""
    options = f"longshort::Fixed<{flags(call)}u>" if specialises else "longshort::Open"
    entry = Entry("team_forward", teams.threads, f"{options}, {teams.template(units)}")
    return Program("team_forward.cu", call.dtype, (entry,), sized(call) if specialises else ())


def kernel(machine: Machine, call: Call, teams: Teams, units: int) -> Runnable:
    """Return the kernel; refuse one whose blocks do not fit at once."""
    kind = call, teams, units
    return fitting(
        machine, kind, lambda: program(call, teams, units, machine.specialises), teams.shared, teams.grid
    )


def forward(
    machine: Machine,
    call: Call,
    given: Inputs,
    packed: Packed,
    chunk: int,
    teams: Teams,
) -> None:
    """Run the steps, a chunk of them in each launch; the arguments are those of `step_plan.forward`.

    `packed` points to where the first operand goes too, if anywhere.
    """
    new, size = given.x.new_zeros, teams.size
    copies = Copies(machine, call.dtype)
    packed.put("weights", copies.resident(given.w_hh, teams.K))
    inputs_of = InputProducts(machine, call, given, copies)
    packed.number("weight_pitch", teams.K)
    packed.number("sequences", teams.sequences)
    waits(machine, packed)
    if call.save:
        way_back_ahead(machine, call, packed)
    units = next(units for units in (4, 2, 1) if units <= aligned(packed) and call.H % units == 0)
    launch = kernel(machine, call, teams, units).bind(packed.bytes, teams.grid, 1, True)
    copies.run()
    sets = teams.groups * teams.sets
    operand, posts = sets * 2 * teams.K * teams.columns, sets * POSTS * 4 // size
    for s in range(0, call.T, chunk):
        last = min(s + chunk, call.T)
        low, high = span(call, s, last)
        packed.put("z", inputs_of(low, high))
        packed.number("z_first", low)
        packed.number("step", s)
        packed.number("steps", last - s)
        room = new(operand + posts)
        packed.put("exchange", room)
        packed.put("posted", room[operand:])
        launch()
