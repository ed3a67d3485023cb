"""All steps in one launch: W_hh stays in registers and shared memory. For what spans no units."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call import Call, Inputs
from . import copying
from .machine import Machine, Runnable
from .packing import Packed, flags, sized
from .sources import Entry, Program
from .step_plan import Steps, span
from .tiling import Pair, Tiling

PATIENCE = 10.0
"""Seconds that a block waits for another before the kernel ends with an error. LONGSHORT_CUDA_PATIENCE
overrides it, for debuggers and sanitizers."""


def program(call: Call, tiling: Tiling, specialises: bool, short: bool = True) -> Program:
    """Return the program of one direction, compiled for the call's options and sizes if it `specialises`.

    `short`: whether 32 bits count the elements of every array.
    """
    options = f"longshort::Fixed<{flags(call)}u>" if specialises else "longshort::Open"
    name = "persistent_backward" if tiling.backward else "persistent_forward"
    entry = Entry(name, tiling.threads, f"{options}, {tiling.template}")
    sizes = sized(call) if specialises else ()
    short = short and specialises and tiling.backward  # forward 64 bits are faster: measured, README.md
    return Program(f"{name}.cu", call.dtype, (entry,), sizes, short)


_KERNELS: dict[tuple[Any, ...], Runnable] = {}
"""Kernels that have been asked for: a call of a known kind names no program and counts no blocks."""


def fitting(
    machine: Machine, kind: tuple[Any, ...], asked: Callable[[], Program], shared: int, grid: int
) -> Runnable:
    """Return the one kernel of a program; refuse one whose blocks do not fit at once.

    Args:
        machine: where.
        kind:    what tells it from others.
        asked:   gives the program, at first use.
        shared:  bytes of shared memory.
        grid:    blocks that must be resident together, 0 where none waits for another.
    """
    found = _KERNELS.get((machine, *kind))
    if found is None:
        program = asked()
        name = program.entries[0].name
        found = machine.kernel(program, name, shared)
        room = found.resident(machine.properties.multiprocessors) if grid else 0
        if grid > room:
            raise RuntimeError(f"{grid} blocks of {name} must be resident, and {room} are")
        if len(_KERNELS) >= 4096:
            _KERNELS.clear()
        _KERNELS[machine, *kind] = found
    return found


def kernel(machine: Machine, call: Call, tiling: Tiling, cooperative: bool, short: bool = True) -> Runnable:
    """Return the kernel of one direction; refuse a cooperative one whose blocks do not fit at once."""
    kind, grid = (call, tiling, short), tiling.grid if cooperative else 0
    return fitting(
        machine, kind, lambda: program(call, tiling, machine.specialises, short), tiling.shared, grid
    )


def waits(machine: Machine, packed: Packed) -> None:
    """Set how long a block may wait, and where it reports a wait that is over."""
    seconds = float(os.environ.get("LONGSHORT_CUDA_PATIENCE", PATIENCE))
    packed.number("patience", int(seconds * 1e9))
    packed.put("stuck", machine.report())


def blank(tensor: Tensor) -> Tensor:
    """Set every bit: nothing is there yet."""
    tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).fill_(-1)
    return tensor


def forward(
    machine: Machine,
    call: Call,
    given: Inputs,
    packed: Packed,
    inputs_of: Callable[[int, int], Tensor],
    chunk: int,
    tilings: Pair,
) -> None:
    """Run the steps, a chunk of them in each launch; the arguments are those of `step_plan.forward`.

    `packed` points to where the first operand goes too, if anywhere.
    """
    tiling, H = tilings.forward, tilings.H
    together = tiling.blocks > 1
    packed.number("weight_pitch", H)
    packed.number("sequences", tiling.sequences)
    if together:
        waits(machine, packed)
    if call.save and (machine, call, tiling, packed.short) not in _KERNELS:
        machine.ahead(copying.program(call.dtype))
        machine.ahead(program(call, tilings.backward, machine.specialises, packed.short))
    found = kernel(machine, call, tiling, together, packed.short)
    packed.put("weights", copying.resident(machine, given.w_hh, H))
    launch = found.bind(packed.bytes, tiling.grid, 1, together)
    for s in range(0, call.T, chunk):
        last = min(s + chunk, call.T)
        low, high = span(call, s, last)
        packed.put("z", inputs_of(low, high))
        packed.number("z_first", low)
        packed.number("step", s)
        packed.number("steps", last - s)
        if together:
            packed.put("exchange", blank(given.x.new_empty(last - s + 1, call.N, H)))
        launch()


def backward(
    machine: Machine, call: Call, given: Inputs, packed: Packed, operands: Tensor | None, tilings: Pair
) -> dict[str, Any]:
    """Run the steps backward.

    Args:
        machine:  where.
        call:     of T > 0 steps.
        given:    its tensors.
        packed:   the argument, complete but for what is made here. The arriving `dh` and `dc` are only read.
        operands: of all steps, (T N, P), if they lie somewhere already.
        tilings:  of the call.

    Returns:
        `dr` and `dz`, one tensor (T N, G padded H); `operand` (T N, P); `bias_parts` (some rows, G H), whose
        sum over the rows is the gradient of the bias, where there is one.
    """
    new, tiling, H, G = given.x.new_empty, tilings.backward, tilings.H, len(call.variant.gates)
    together = tiling.blocks > 1
    packed.put("weights", copying.transposed(machine, given.w_hh, G, H))
    packed.number("weight_pitch", G * H)
    packed.number("sequences", tiling.sequences)
    packed.number("pitch", H)
    da = new(call.T * call.N, G * H)
    packed.put("da", blank(da) if together else da)
    made = {"dr": da, "dz": da}
    if given.bias is not None:
        made["bias_parts"] = new(tiling.groups, G * call.H, dtype=call.wide)
        packed.put("bias_sums", made["bias_parts"])
    if together:
        waits(machine, packed)
    copies = None
    if operands is None:
        operands = new(call.T * call.N, call.P)
        packed.put("operand", operands)
        copies = Steps(machine, call, packed, ("step_operands",))
        machine.ahead(copies.program)
    kernel(machine, call, tiling, together, packed.short).bind(packed.bytes, tiling.grid, 1, together)()
    if copies is not None:
        copies.bound("step_operands", call.P, call.T * call.N)(0)
    made["operand"] = operands
    return made
