"""All steps in one launch: W_hh stays in registers and shared memory. Not for gate recurrence."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call import Call, Inputs
from . import copying, rounding
from .copying import Copies, blank
from .machine import Machine, Runnable
from .packing import InputProducts, Packed, flags, sized
from .sources import Entry, Program
from .step_plan import RESIDENT_ROWS, Steps, aligned, span, way_back_ahead
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
    # forward and without a norm 64 bits are faster: measured, README.md; with one registers are too few
    short = short and specialises and (tiling.backward or tiling.normed)
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


def waits(machine: Machine, packed: Packed, rest: int = 0) -> None:
    """Set how long a block may wait, where it reports a wait that is over, and when it looks first."""
    packed.number("rest", rest)
    seconds = float(os.environ.get("LONGSHORT_CUDA_PATIENCE", PATIENCE))
    packed.number("patience", int(seconds * 1e9))
    packed.put("stuck", machine.report())


def meetings(call: Call) -> int:
    """Return how often the blocks of a norm meet in a step: for the products, and for the cell."""
    return {"none": 0, "products": 1}.get(call.variant.norm, 2)


def _meet(call: Call, given: Inputs, packed: Packed, steps: int, blocks: int) -> None:
    """Make room for what the blocks tell each other at their meetings."""
    if meetings(call):
        room = given.x.new_empty(steps * meetings(call), call.N, blocks, 8, dtype=torch.float32)
        packed.put("meetings", blank(room))


def _tell_second(call: Call, given: Inputs, packed: Packed, steps: int, width: int) -> None:
    """Make room for the operand of a projection's product: wide, so in 16 bits in three parts."""
    if given.w_hr is not None:
        parts = 3 if call.dtype.itemsize == 2 else 1
        packed.put("exchange_second", blank(given.x.new_empty(steps, call.N, parts, width)))


def _spans(machine: Machine, call: Call) -> int:
    """Return the spans of eight steps or more of each sequence that `norms_back` shares out to blocks."""
    blocks = 2 * machine.properties.multiprocessors * max(1, 4 * RESIDENT_ROWS[4] // call.H)
    return min(-(-call.T // 8), -(-blocks // call.N))


def rows(machine: Machine, call: Call) -> int:
    """Return the rows of `sums` on the way back."""
    return call.N if call.variant.norm == "none" else call.N * _spans(machine, call)


def _norms(machine: Machine, call: Call, packed: Packed) -> Steps:
    """Return what a norm runs before and after the steps, compiled together."""
    names = ("norm_inputs",) * (call.variant.norm != "per_gate") + ("norms_back",) * call.save
    return Steps(machine, call, packed, names, aligned(packed, ("hat_z", "hat_r")))


def _way_back_ahead(machine: Machine, call: Call, packed: Packed, tilings: Pair) -> None:
    """Begin to compile what will run backward."""
    if tilings.backward is None:
        way_back_ahead(machine, call, packed)
        return
    rounding.ahead(machine, call.dtype, tilings.H > call.H)
    machine.ahead(copying.program(call.dtype, "transposed"))
    if not packed.points("operand"):
        machine.ahead(_copies(machine, call, packed).program)
    machine.ahead(program(call, tilings.backward, machine.specialises, packed.short))
    if call.variant.norm != "none":
        machine.ahead(_norms(machine, call, packed).program)


def _copies(machine: Machine, call: Call, packed: Packed) -> Steps:
    """Return what copies the operands of all steps."""
    return Steps(machine, call, packed, ("step_operands",), aligned(packed, ("h_given", "initial_h", "y")))


def _normed(machine: Machine, call: Call, packed: Packed, z: Tensor, low: int) -> None:
    """Put N of W_ih x in its place: on the tape, if there is one."""
    packed.put("z", z)
    hats = packed.held.get("hat_z")
    to = z if hats is None else hats[low:]
    packed.put("normed_z", to)
    _norms(machine, call, packed).bound("norm_inputs", call.H, len(z))(0)
    packed.put("z", to)


def _inputs_in_kernel(copies: Copies, call: Call, given: Inputs, packed: Packed, width: int) -> None:
    """Point to x as it lies, if 16 bytes divide its rows, else to a copy; to W_ih, `width` columns wide."""
    x, each = given.x, 16 // call.dtype.itemsize
    odd = x.stride(2) != 1 or any(n % each for n in (call.C, x.stride(0), x.stride(1)))
    if odd or x.data_ptr() % 16:
        x = copies.by_step(x, -(-call.C // each) * each, fresh=True)
        x = x.unflatten(0, (call.T, call.N)).transpose(0, 1)
    packed.put("x", x)
    packed.number("x_n", x.stride(0))
    packed.number("x_t", x.stride(1))
    packed.number("x_vectors", x.shape[2] // each)
    packed.put("input_weights", copies.resident(given.w_ih, width))


def forward(
    machine: Machine,
    call: Call,
    given: Inputs,
    packed: Packed,
    chunk: int,
    tilings: Pair,
) -> None:
    """Run the steps, a chunk of them in each launch; the arguments are those of `step_plan.forward`.

    `packed` points to where the first operand goes too, if anywhere. Where the kernel multiplies x itself,
    all steps are one launch.
    """
    tiling, H = tilings.forward, tilings.H
    together = tiling.blocks > 1
    packed.number("weight_pitch", tiling.K)
    packed.number("sequences", tiling.sequences)
    if together:
        waits(machine, packed, tiling.rest)
    if call.save and (machine, call, tiling, packed.short) not in _KERNELS:
        _way_back_ahead(machine, call, packed, tilings)
    copies, K = Copies(machine, call.dtype), tiling.K
    packed.put("weights", copies.resident(given.w_hh, K))
    if given.w_hr is not None:
        packed.put("projection", copies.resident(given.w_hr, H))
    if tiling.inputs:
        _inputs_in_kernel(copies, call, given, packed, tiling.inputs)
        copies.ahead()
        found = kernel(machine, call, tiling, together, packed.short)
        copies.run()
        packed.number("steps", call.T)
        found.bind(packed.bytes, tiling.grid, 1, together)()
        return
    inputs_of = InputProducts(machine, call, given, copies)
    found = kernel(machine, call, tiling, together, packed.short)
    launch = found.bind(packed.bytes, tiling.grid, 1, together)
    for s in range(0, call.T, chunk):
        last = min(s + chunk, call.T)
        low, high = span(call, s, last)
        if together:
            packed.put("exchange", copies.blank(given.x.new_empty(last - s + 1, call.N, K)))
        copies.run()
        z = inputs_of(low, high)
        packed.number("z_first", low)
        if call.variant.norm in ("ba2016", "products"):
            _normed(machine, call, packed, z, low)
        else:
            packed.put("z", z)
        packed.number("step", s)
        packed.number("steps", last - s)
        if together:
            _tell_second(call, given, packed, last - s, H)
            _meet(call, given, packed, last - s, tiling.blocks)
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
        `dr` and `dz`, one tensor (T N, G padded H), but for a norm of products; `operand` (T N, P);
        `bias_parts` (some rows, G H), whose sum over the rows is the gradient of the bias, where there is one
        and no norm.
    """
    new, H, G = given.x.new_empty, tilings.H, len(call.variant.gates)
    tiling: Tiling = tilings.backward  # type: ignore[assignment]  # the caller has seen that there is one
    together = tiling.blocks > 1
    da = new(call.T * call.N, tiling.parts * G * H)
    packed.put("weights", copying.transposed(machine, given.w_hh, G, H, da if together else None))
    made: dict[str, Any] = {}
    if given.w_hr is not None:
        made |= _project_back(machine, call, given, packed, tiling)
    packed.number("weight_pitch", G * H)
    packed.number("sequences", tiling.sequences)
    packed.number("pitch", H)
    packed.put("da", da)
    dr = da[:, : G * H]
    made |= {"dr": dr, "dz": dr}
    if packed.held.get("dy") is None:
        packed.put("dy", given.x.new_zeros(call.P))  # of every step of every sequence: its strides are 0
    normed = call.variant.norm != "none"
    if normed:
        packed.put("da_wide", new(call.T * call.N, G * call.H, dtype=call.wide))
    elif given.bias is not None:
        made["bias_parts"] = new(tiling.groups, G * call.H, dtype=call.wide)
        packed.put("bias_sums", made["bias_parts"])
    if together:
        waits(machine, packed, tiling.rest)
        _meet(call, given, packed, call.T, tiling.blocks)
    copies = None
    if operands is None:
        operands = new(call.T * call.N, call.P)
        packed.put("operand", operands)
        copies = _copies(machine, call, packed)
        machine.ahead(copies.program)
    kernel(machine, call, tiling, together, packed.short).bind(packed.bytes, tiling.grid, 1, together)()
    if copies is not None:
        copies.copy_operands()
    made["operand"] = operands
    if normed:
        _norms_back(machine, call, given, packed, made, H)
    return made


def _project_back(
    machine: Machine, call: Call, given: Inputs, packed: Packed, tiling: Tiling
) -> dict[str, Any]:
    """Point to W_hr' and to what its product needs; return what the gradient of W_hr needs."""
    w_hr: Any = given.w_hr
    new, outputs, made = given.x.new_empty, tiling.all_outputs, {}
    packed.put("projection", copying.transposed(machine, w_hr, 1, outputs))
    if tiling.blocks > 1:
        _tell_second(call, given, packed, call.T, outputs)
    for name, width in (("dprojected", call.P), ("unprojected_all", call.H)):
        made[name] = packed.put(name, new(call.T, call.N, width, dtype=call.wide))
    return made


def _norms_back(
    machine: Machine, call: Call, given: Inputs, packed: Packed, made: dict[str, Any], H: int
) -> None:
    """Make z̄ where the norm was of products, and the sums over t of bias and gains."""
    if call.variant.norm != "per_gate":
        parts, G = 2 if call.dtype.itemsize == 2 else 1, len(call.variant.gates)
        make = given.x.new_empty if call.H == H else given.x.new_zeros
        made["dz"] = packed.put("dz", make((call.T * call.N, parts * G * H)))
    packed.number("steps", -(-call.T // _spans(machine, call)))
    _norms(machine, call, packed).bound("norms_back", call.H, rows(machine, call))(0)
