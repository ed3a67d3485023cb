"""One launch a step: a product by cuBLAS, then one kernel with everything else. Every option, every type.

Forward, at each step:   r = operand W_hh',  [r_gates = s W_gates'],  step_forward,  [W_hr, step_finish].
Backward, at each step:  [step_project_back, W_hr'],  step_backward,  dr W_hh,  [da W_gates].
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from ..call import Call, Inputs
from . import rounding
from .copying import Copies, widened
from .machine import MOST_ROWS, Machine
from .packing import InputProducts, Packed, flags, sized, whole
from .sources import Entry, Program

THREADS = 128
"""Of a block, at most, where no norm spans the row: small blocks spread evenly over the multiprocessors."""
ROW_THREADS = 512
"""Of the one block that a norm's row has, at most: more have too few registers for what each holds."""
ROW_SHARED = 128
"""Bytes for each of its warps, where the sums of `row.cuh` meet."""
RESIDENT: Final = {2: 1024, 4: 768, 8: 512}
"""Threads that must fit a multiprocessor, by bytes of an element: each then has 64, 80 or 128 registers."""
RESIDENT_ROWS: Final = {2: 384, 4: 384, 8: 256}
"""The same where a norm's row stays in registers."""
UNITS = 4
"""Adjacent units of a thread, at most: their loads and stores then are of 8 and 16 bytes."""
OVERLAPPING = (9, 0)
"""The first compute capability on which a kernel may start while the one before it ends."""
TURNS = 4
"""Steps of a sequence that a thread of the operands' copy has on their way together."""
AHEAD = ("step_begin", "step_forward", "step_finish")
BACK = ("step_project_back", "step_backward", "step_end", "step_operands")
NORMS = ("norm_inputs", "norms_back")
ROWS = ("step_forward", "step_backward", *NORMS)
"""The kernels that a norm gives one block a row."""


def width(call: Call, name: str) -> int:
    """Return how many elements of a row a kernel shares out to threads."""
    return {
        "step_begin": max(call.P, call.H),
        "step_forward": call.H,
        "step_finish": call.P,
        "step_project_back": call.P,
        "step_backward": call.H,
        "step_end": max(call.P, call.H),
        "step_operands": call.P,
        "norm_inputs": call.H,
        "norms_back": call.H,
    }[name]


def adjacent(call: Call, name: str, most: int = UNITS) -> int:
    """Return how many adjacent units a thread of a kernel owns; `most` is what alignment allows."""
    if name in ("step_begin", "step_end"):
        return 1
    return next(units for units in (4, 2, 1) if units <= most and width(call, name) % units == 0)


def block(call: Call, name: str, units: int) -> int:
    """Return the threads of a block of a kernel: warps that share out a row with few to spare."""
    if name == "step_operands":
        return THREADS
    threads = -(-width(call, name) // units)
    blocks = chunks(call, name, units) or -(-threads // THREADS)
    return -(-threads // (32 * blocks)) * 32


def chunks(call: Call, name: str, units: int) -> int:
    """Return how many times `units` a thread holds of a norm's row, one block's; 0 where no norm spans it."""
    if call.variant.norm == "none" or name not in ROWS:
        return 0
    return -(-width(call, name) // (units * ROW_THREADS))


def resident(call: Call) -> int:
    """Return the threads that must fit a multiprocessor: as many as have the registers that they load to."""
    return (RESIDENT if call.variant.norm == "none" else RESIDENT_ROWS)[call.dtype.itemsize]


def program(
    machine: Machine, call: Call, names: tuple[str, ...], most: int = UNITS, short: bool = True
) -> Program:
    """Return kernels of a call, compiled for its options; all where the machine does not specialise.

    The kernels of the steps are compiled for its sizes too, and count in 32 bits if its arrays are `short`;
    those of a whole call serve every size.
    """
    return _program(machine.specialises, call, names, most, short)


@lru_cache(maxsize=4096)
def _program(specialises: bool, call: Call, names: tuple[str, ...], most: int, short: bool) -> Program:
    options = f"longshort::Fixed<{flags(call)}u>" if specialises else "longshort::Open"
    alone = set(names) <= set(NORMS)
    names = names if specialises else NORMS if alone else AHEAD + BACK
    file = "norms.cu" if alone else "step_forward.cu" if set(names) <= set(AHEAD) else "step_backward.cu"
    entries = []
    for name in names:
        units = adjacent(call, name, most)
        threads, held = block(call, name, units), chunks(call, name, units)
        template = options if name in ("step_begin", "step_end") else f"{options}, {units}"
        if name == "step_operands":
            template = f"{template}, {TURNS}"
        if held:
            template = f"{template}, {held}, {threads // 32}"
        entries.append(Entry(name, threads, template, max(1, resident(call) // threads)))
    each_step = specialises and set(ROWS) & set(names)
    return Program(
        file, call.dtype, tuple(entries), sized(call) if each_step else (), bool(each_step) and short
    )


@lru_cache(maxsize=4096)
def needed(call: Call, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the kernels that a call runs."""
    projection = {"step_finish", "step_project_back"}
    return tuple(name for name in names if "w_hr" in call.given or name not in projection)


_GIVEN: Final = (
    "bias",
    "bias_hh",
    "h_given",
    "c_given",
    "initial_h",
    "initial_c",
    "gain_ih",
    "gain_hh",
    "gain_c",
    "shift_c",
    "tape_gates",
    "tape_cells",
    "hat_z",
    "hat_r",
    "y",
    "dy",
)
"""What the steps read with wide loads and this package has not made just now."""


def aligned(packed: Packed, names: tuple[str, ...] = _GIVEN) -> int:
    """Return how many adjacent units the tensors of these names allow to load at once."""
    held = [tensor for tensor in map(packed.held.get, names) if tensor is not None]
    dy = packed.held.get("dy") if "dy" in names else None
    strides = () if dy is None else dy.stride()[:-1]

    def fits(units: int) -> bool:
        whole = all(tensor.data_ptr() % min(16, units * tensor.element_size()) == 0 for tensor in held)
        return whole and all(stride % units == 0 for stride in strides)

    return next((units for units in (4, 2) if fits(units)), 1)


class Steps:
    """The launches of a call, bound to its argument.

    Args:
        machine: where.
        call:    of T > 0 steps.
        packed:  the argument.
        names:   the kernels to compile together.
        most:    adjacent units of a thread; by default what all tensors allow.
    """

    def __init__(
        self, machine: Machine, call: Call, packed: Packed, names: tuple[str, ...], most: int | None = None
    ) -> None:
        self.machine, self.call, self.packed = machine, call, packed
        self.most = aligned(packed) if most is None else most
        self.program = program(machine, call, needed(call, names), self.most, packed.short)
        self.step = ctypes.c_longlong.from_buffer(packed.bytes, packed.layout.place["step"])

    def bound(self, name: str, width: int, rows: int | None = None) -> Callable[[int], None]:
        """Return a launch by the number of its step.

        Args:
            name:  of the kernel.
            width: elements of a row that its threads share, in several blocks where no norm spans it.
            rows:  how many; by default one for each sequence.
        """
        launch, number = self._launch(name, width, rows or self.call.N, early=False), self.step

        def run(step: int) -> None:
            number.value = step
            launch()

        return run

    def after_product(self, name: str, width: int) -> Callable[[int, bool], None]:
        """Return a launch by the number of its step, which may be `early`.

        Where the device can, an early one starts while the product right before it ends, and waits for it.
        What the kernel reads without waiting must have been there before the kernel before that product.
        """
        launch = later = self._launch(name, width, self.call.N, early=False)
        if self.machine.properties.capability >= OVERLAPPING:
            launch = self._launch(name, width, self.call.N, early=True)
        number = self.step

        def run(step: int, early: bool) -> None:
            number.value = step
            if early:
                launch()
            else:
                later()

        return run

    def copy_operands(self) -> None:
        """Launch the kernel that copies what the products of all steps read."""
        call, name = self.call, "step_operands"
        threads = -(-call.P // adjacent(call, name, self.most))
        if call.variant.gate_recurrence:
            threads = max(threads, len(call.variant.sigmoids) * call.H)
        blocks, turns = -(-call.N * threads // THREADS), -(-call.T // TURNS)
        kernel = self.machine.kernel(self.program, name)
        kernel.bind(self.packed.bytes, blocks, min(turns, MOST_ROWS))()

    def _launch(self, name: str, width: int, rows: int, early: bool) -> Callable[[], None]:
        units = adjacent(self.call, name, self.most)
        threads, row = block(self.call, name, units), chunks(self.call, name, units) > 0
        kernel = self.machine.kernel(self.program, name, threads // 32 * ROW_SHARED if row else 0)
        blocks = 1 if row else -(-width // (units * threads))
        return kernel.bind(self.packed.bytes, rows, blocks, early=early)


def way_back_ahead(machine: Machine, call: Call, packed: Packed) -> None:
    """Begin to compile what will run backward."""
    rounding.ahead(machine, call.dtype)
    machine.ahead(program(machine, call, needed(call, BACK), aligned(packed), packed.short))


def forward(
    machine: Machine,
    call: Call,
    given: Inputs,
    packed: Packed,
    chunk: int,
    operands: Tensor | None,
) -> None:
    """Run the steps; the state, outputs and tape that `packed` points to are written.

    Args:
        machine:   where.
        call:      of T > 0 steps.
        given:     its tensors.
        packed:    the argument, complete but for the products.
        chunk:     steps whose W_ih x is held at a time.
        operands:  (T, N, P), where y is the operand of the step after it; `packed` points to the first.
    """
    new, steps, copies = given.x.new_empty, Steps(machine, call, packed, AHEAD), Copies(machine, call.dtype)
    inputs_of = InputProducts(machine, call, given, copies)
    if call.save:
        way_back_ahead(machine, call, packed)
    N, H, P, GH, v, wide = call.N, call.H, call.P, given.w_ih.shape[0], call.variant, call.wide
    r, columns = new(N, GH, dtype=wide), whole(call, P)
    packed.put("r", r)
    operand = given.x.new_zeros(1, N, columns) if operands is None else operands
    if operands is None:
        packed.put("operand", operand)
        packed.number("operand_pitch", columns)
    w_hh = copies.widened(given.w_hh, operand.shape[2])
    copies.run()  # a first product of a shape is tried when it is prepared
    multiply = machine.repeated(operand, w_hh.T, r[None])
    state: Any = packed.held["c"]
    if v.gate_recurrence and given.w_gates is not None:
        r_gates = new(N, len(v.sigmoids) * H, dtype=wide)
        packed.put("r_gates", r_gates)
        multiply_gates = machine.repeated(state[None, :, H:], given.w_gates.to(wide).T, r_gates[None])
    if given.w_hr is not None:
        unprojected, projected = new(N, H, dtype=wide), new(N, P, dtype=wide)
        packed.put("unprojected", unprojected)
        packed.put("projected", projected)
        project = machine.repeated(unprojected[None], given.w_hr.to(wide).T, projected[None])
        finish = steps.after_product("step_finish", P)
    begin, move = steps.bound("step_begin", max(P, state.shape[1])), steps.after_product("step_forward", H)
    begin(0)
    if operands is not None:
        packed.put("operand", None)
    for s in range(call.T):
        if s % chunk == 0:
            low, high = span(call, s, min(s + chunk, call.T))
            packed.put("z", inputs_of(low, high))
            packed.number("z_first", low)
            packed.number("steps", min(s + chunk, call.T))
        multiply(0 if operands is None else call.T - 1 - s if call.options.reverse else s)
        if v.gate_recurrence:
            multiply_gates(0)
        move(s, s % chunk > 0)  # z is new at the first step of a chunk
        if given.w_hr is not None:
            project(0)
            finish(s, True)


def span(call: Call, first: int, last: int) -> tuple[int, int]:
    """Return the times [low, high) of the steps [first, last) in the order of computation."""
    return (call.T - last, call.T - first) if call.options.reverse else (first, last)


def _multiplied(
    machine: Machine, call: Call, given: Inputs, packed: Packed, dr: Tensor
) -> tuple[Callable[[int], object], Tensor]:
    """Return what multiplies r̄ of a time by W_hh, and the parts (parts, N, P or more) of its result."""
    new, (T, N, GH), columns = given.x.new_empty, dr.shape, whole(call, call.P)
    arriving, w_hh, parts = dr, widened(machine, given.w_hh, columns), 1
    if call.variant.norm != "none" and call.dtype == torch.bfloat16:  # 24 bits of a wide r̄ in three times 8
        parts, dr_parts = 3, new(N, 3 * GH)
        packed.put("dr_parts", dr_parts)
        arriving, w_hh = dr_parts.expand(T, N, 3 * GH), w_hh.repeat(3, 1)
    elif call.variant.norm != "none" and call.dtype != call.wide:
        dr_wide = new(N, GH, dtype=call.wide)
        packed.put("dr_wide", dr_wide)
        arriving, w_hh = dr_wide.expand(T, N, GH), w_hh.to(call.wide)
    dh_product = new(parts, N, columns, dtype=call.wide)
    packed.number("dh_pitch", columns)
    # by gate where the library would split the sum, for the step adds up what no kernel need; in float32 too,
    # where four short sums err less than a long one
    by_gate = parts * len(call.variant.gates)
    if call.dtype == torch.float32 or machine.splits(arriving, w_hh, dh_product, by_gate):
        dh_product = new(by_gate, N, columns, dtype=call.wide)
    packed.number("dh_parts", len(dh_product))
    return machine.repeated(arriving, w_hh, dh_product), dh_product


def backward(
    machine: Machine, call: Call, given: Inputs, packed: Packed, operands: Tensor | None
) -> dict[str, Tensor]:
    """Run the steps backward.

    Args:
        machine:  where.
        call:     of T > 0 steps.
        given:    its tensors.
        packed:   the argument, complete but for what is made here.
        operands: of all steps, (T N, P), if they lie somewhere already.

    Returns:
        By name: `da`, `dr`, `dz` (T, N, G H), the last with a norm of products in 16 bits (T, N, 2 G H), as
        a sum; `operand` (T, N, P); `dprojected`, `unprojected_all`, `da_sigmoid`, `gates_before` where the
        variant has them.
    """
    new, steps = given.x.new_empty, Steps(machine, call, packed, BACK)
    N, T, H, P, GH, v, wide = call.N, call.T, call.H, call.P, given.w_ih.shape[0], call.variant, call.wide
    SH = len(v.sigmoids) * H
    made: dict[str, Tensor] = {}

    def make(name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        made[name] = new(*shape, dtype=dtype)
        packed.put(name, made[name])
        return made[name]

    dr = make("da" if v.norm == "none" else "dr", T, N, GH, dtype=call.dtype)
    if v.norm in ("ba2016", "products"):
        make("dz", T, N, (2 if call.dtype.itemsize == 2 else 1) * GH, dtype=call.dtype)
    multiply, dh_product = _multiplied(machine, call, given, packed, dr)
    if given.w_hr is not None:
        dprojected, m = make("dprojected", T, N, P, dtype=wide), new(N, H, dtype=wide)
        make("unprojected_all", T, N, H, dtype=wide)
        packed.put("m", m)
        project = steps.after_product("step_project_back", P)
        multiply_projected = machine.repeated(dprojected, given.w_hr.to(wide), m[None])
    if v.gate_recurrence and given.w_gates is not None:
        da_sigmoid, ds_product = make("da_sigmoid", T, N, SH, dtype=wide), new(N, SH, dtype=wide)
        make("gates_before", T, N, SH, dtype=wide)
        multiply_gates = machine.repeated(da_sigmoid, given.w_gates.to(wide), ds_product[None])
    state: Any = packed.held["c_given"]
    move, end = steps.after_product("step_backward", H), steps.bound("step_end", max(P, state.shape[1]))
    for s in reversed(range(T)):
        t = T - 1 - s if call.options.reverse else s
        if given.w_hr is not None:
            project(s, s + 1 < T)
            multiply_projected(t)
        move(s, s + 1 < T or given.w_hr is not None)
        multiply(t)
        if v.gate_recurrence:
            multiply_gates(t)
        if s + 1 == T:  # the last step had none behind it
            packed.put("dh_product", dh_product)
            if v.gate_recurrence:
                packed.put("ds_product", ds_product)
    end(0)
    if operands is None:
        make("operand", T, N, P, dtype=call.dtype)
        steps.copy_operands()
    else:
        made["operand"] = operands
    made.setdefault("dr", dr)
    made.setdefault("dz", dr)
    return made
