"""Run a call on CUDA: what all steps share as matrix products, the recurrence in the kernels of `cuda/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from ..errors import BackendError, LongshortError
from . import derivative, operator
from .call import (
    DIFFERENTIABLE,
    Backend,
    Bound,
    Call,
    Grads,
    Inputs,
    Options,
    Outputs,
    Record,
    Site,
    call_of,
    time_major,
)
from .cuda import dropping, packing, persistent_plan, plans, step_plan, team_plan, weights
from .cuda import machine as machines
from .cuda.machine import Machine
from .cuda.rounding import Rounding
from .cuda.weights import AT
from .placed import OWN, ByParts, evaluated
from .variant import Variant

HELD: Final = 256 << 20
"""Bytes of W_ih x that are held at a time: the recurrence takes them a chunk of steps after another."""


def refuses(call: Call) -> str | None:
    """Say why no kernel can run a call, or None."""
    if call.device != "cuda":
        return f"the tensors are on {call.device}, and the kernels run on CUDA devices"
    spans = call.variant.norm != "none" or "w_hr" in call.given
    return machines.why_not(call.ordinal) or proven(machines.device(call.ordinal), spans)


@lru_cache(maxsize=64)
def proven(device: torch.device, spans: bool = False) -> str | None:
    """Return what `checked` says of a device, asked once in a process.

    The check has a thread of its own, which no transform reaches, nor a trace with tensors that hold nothing.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise BackendError("lstm: must be called once before a CUDA graph is captured, to check its kernels.")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(checked, device, machines.of(device), spans).result()


def checked(device: torch.device, machine: Machine, spans: bool = False) -> str | None:
    """Run a small call, both plans, beside the derivative in plain torch.

    Args:
        device:  of the tensors.
        machine: that device.
        spans:   whether the call has what spans units: a norm and a projection.

    Returns:
        What went wrong, as a clause, or None: `plan()` shows it, and plain torch runs instead.
    """
    rng = torch.Generator().manual_seed(0)
    P = 4 if spans else 6
    shapes = {"x": (3, 4, 5), "w_ih": (24, 5), "w_hh": (24, P), "bias": (24,), "h": (3, P), "c": (3, 6)}
    if spans:
        shapes |= {"w_hr": (P, 6), "gain_ih": (24,), "gain_hh": (24,), "gain_c": (6,), "shift_c": (6,)}
    tensors = {name: torch.randn(shape, generator=rng).to(device) / 2 for name, shape in shapes.items()}
    given = Inputs(*map(tensors.get, Inputs._fields))  # type: ignore[arg-type]  # x and the like are there
    options = Options(Variant(norm="ba2016")) if spans else Options()
    call, needs = call_of(options, given, save=True), [True] * len(Inputs._fields)
    try:
        outputs, saved = derivative.forward(call, given)
        grads = Grads(outputs.y, outputs.h, outputs.c)
        want = (*outputs, *derivative.backward(call, given, outputs, saved, grads, needs))
        for plan in ("step", "alone"):
            found, tape = forward(call, given, machine, plan)
            got = (*found, *backward(call, given, found, tape, grads, needs, machine, plan))
            for mine, theirs in zip(got, want, strict=True):
                if mine is not None and theirs is not None and not _close(mine, theirs):
                    return f"a check at their first use found wrong numbers in plan {plan!r}"
    except (LongshortError, RuntimeError) as error:
        return f"a check at their first use failed: {error}"
    return None


def _close(mine: Tensor, theirs: Tensor) -> bool:
    """Whether two results are the same formula's, rounded to tf32 or not."""
    return torch.allclose(mine, theirs, rtol=1e-2, atol=1e-2)


def saves(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """List gates and cell after each step, N and scale of each norm, c̃'s mean and scale, where clips pass.

    No cell where the call returns all of them.
    """
    N, T, H, G, wide = call.N, call.T, call.H, len(call.variant.gates), call.wide
    gates = (
        call.dtype if call.variant.norm == "none" else wide
    )  # a norm's sums cancel, and show a gate's rounding
    found: list[tuple[tuple[int, ...], torch.dtype]] = [((T, N, 4 * H), gates)]
    found += [((T, N, H), wide)] * (not call.options.keep_cells)
    if call.variant.norm == "per_gate":
        found += [((T, N, G * H), wide), ((T, N, G), wide)]
    elif call.variant.norm != "none":
        found += [((T, N, G * H), wide), ((T, N), wide), ((T, N, G * H), wide), ((T, N), wide)]
    if call.variant.norm in ("ba2016", "per_gate"):
        found.append(((T, N, 2), wide))
    if call.variant.projection_clip is not None:
        found.append(((T, N, call.P), torch.uint8))
    return found


@lru_cache(maxsize=4096)
def _tape(call: Call) -> tuple[tuple[str, tuple[int, ...], torch.dtype], ...]:
    """Name, shape and dtype of what is saved, in the order of `saves`."""
    names = ["tape_gates"] + ["tape_cells"] * (not call.options.keep_cells)
    if call.variant.norm == "per_gate":
        names += ["hat_r", "scale_r"]
    elif call.variant.norm != "none":
        names += ["hat_z", "scale_z", "hat_r", "scale_r"]
    names += ["stats_c"] * (call.variant.norm in ("ba2016", "per_gate"))
    names += ["unclipped"] * (call.variant.projection_clip is not None)
    return tuple((name, *what) for name, what in zip(names, saves(call), strict=True))


def forward(
    call: Call,
    given: Inputs,
    machine: Machine,
    plan: str | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Run a call; what it saves is its tape.

    Args:
        call:     its options and sizes.
        given:    its tensors.
        machine:  that of their device.
        plan:     that of `plans.persistent`.
        bias_hh:  where `given` has one of a layer's two biases, the other.
    """
    N, T, H, wide, new = call.N, call.T, call.H, call.wide, given.x.new_empty
    by_step, tilings = time_major(given.x), plans.persistent(call, machine, plan) if N * T else None
    together = plans.teams(call, machine, plan) if N * T else None

    def rows(width: int, dtype: torch.dtype) -> Tensor:
        if by_step:
            return given.x.new_empty_strided((N, T, width), (width, N * width, 1), dtype=dtype)
        return new((N, T, width), dtype=dtype)

    # one launch a step multiplies y itself, if its rows are such that cuBLAS does so fast
    serves = by_step and call.save and (bool(tilings or together) or packing.whole(call, call.P) == call.P)
    shifted = packing.y_after_first(call, given.x) if serves else None
    y = rows(call.P, call.dtype) if shifted is None else shifted[0]
    outputs = Outputs(
        y,
        torch.empty_like(given.h, memory_format=torch.contiguous_format),
        torch.empty_like(given.c, memory_format=torch.contiguous_format),
        rows(H, wide) if call.options.keep_cells else None,
        rows(4 * H, wide) if call.options.keep_gates else None,
    )
    tape = _tape(call) if call.save else ()
    saved = tuple([new(shape, dtype=dtype) for _, shape, dtype in tape])
    if N * T == 0:
        outputs.h.copy_(given.h)
        outputs.c.copy_(given.c)
        return outputs, saved
    machine.report()  # of an earlier kernel, before torch says no more than that the context is lost
    if bias_hh is not None and not (tilings or together):  # each step would read both
        given, bias_hh = given._replace(bias=given.bias + bias_hh), None  # type: ignore[operator]
    packed = packing.Packed(call, given)
    packed.put("bias_hh", bias_hh)
    for name, tensor in zip(Outputs._fields, outputs, strict=True):
        if tensor is not None:
            packed.put(name, tensor)
    packed.rows(y)
    for (name, _, _), tensor in zip(tape, saved, strict=True):
        packed.put(name, tensor)
    chunk = max(1, HELD // (N * given.w_ih.shape[0] * wide.itemsize))
    if shifted is not None:
        packed.number("operand", shifted[1])
    with machine.current():
        if together is not None:
            team_plan.forward(machine, call, given, packed, chunk, together)
        elif tilings is None:
            operands = None if shifted is None else packing.all_operands(call, y)
            step_plan.forward(machine, call, given, packed, chunk, operands)
        else:
            persistent_plan.forward(machine, call, given, packed, chunk, tilings)
    return outputs, saved


def backward(
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
    machine: Machine,
    plan: str | None = None,
) -> tuple[Tensor | None, ...]:
    """Run the derivative: the loop in the kernels, then one product for each weight."""
    if call.N * call.T == 0:
        nothing = tuple(given.x.new_empty(shape, dtype=dtype) for shape, dtype in derivative.saves(call))
        return derivative.backward(call, given, outputs, nothing, grads, needs)
    return _finished(given, gradients(call, given, outputs, saved, grads, needs, machine, plan), needs)


def gradients(
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
    machine: Machine,
    plan: str | None = None,
    twice: bool = False,
) -> dict[str, Tensor]:
    """Return the gradients of a call of T > 0 steps by name; `twice` is that of `weights.products`."""
    wide, N, H = call.wide, call.N, call.H
    machine.report()
    packed = packing.Packed(call, given)
    packed.put("y", packed.rows(outputs.y))
    for (name, _, _), tensor in zip(_tape(call), saved, strict=True):
        packed.put(name, tensor.contiguous())
    if outputs.cells is not None:
        packed.put("tape_cells", packed.alike(outputs.cells))
    packed.arriving(call, grads)
    places, summed, cut = packing.sums(call), None, plans.persistent(call, machine, plan)
    tilings = None if cut is None or cut.backward is None else cut
    if places["sum_count"]:
        rows = N if tilings is None else persistent_plan.rows(machine, call)
        summed = packed.put("sums", given.x.new_zeros((rows, places["sum_count"], H), dtype=wide))
    found: dict[str, Any] = _state(call, given, grads, packed, needs, writes=tilings is None)
    for name, like in (("initial_h", given.h), ("initial_c", given.c)):
        if getattr(given, name) is not None:
            found[name] = given.x.new_zeros(like.shape, dtype=wide)
            packed.put(f"d{name[-1]}_initial", found[name])
    with machine.current():
        operands = packing.operands(call, outputs.y)
        if tilings is None:
            made: dict[str, Any] = step_plan.backward(machine, call, given, packed, operands)
        else:
            made = persistent_plan.backward(machine, call, given, packed, operands, tilings)
        rounding = Rounding(machine, call.dtype)
        found |= weights.products(machine, call, given, made, tuple(needs), rounding, twice)
        if summed is not None:
            found |= weights.summed(call, places, summed, rounding)
        rounding.run()
    return found


def _state(
    call: Call, given: Inputs, grads: Grads, packed: packing.Packed, needs: Sequence[bool], writes: bool
) -> dict[str, Tensor]:
    """Point to the gradients of the last state, and to where those of the first state go; return the second.

    Where no kernel `writes` to the first, null is zero there, and null again what nobody needs.
    """
    like, found = given.x, {}
    for name, value, first in (("h", grads.h, given.h), ("c", grads.c, given.c)):
        if writes:
            last = like.new_zeros(first.shape, dtype=call.wide) if value is None else _own(value, call.wide)
            if name == "c" and call.variant.gate_recurrence:
                packed.put("ds", last[:, call.H :].contiguous())
                last = last[:, : call.H].contiguous()
            packed.put(f"d{name}", last)
        elif value is not None:
            packed.put(f"d{name}", value.to(call.wide).contiguous())
        if writes or needs[AT[name]]:
            found[name] = like.new_empty(first.shape, dtype=call.wide)
            packed.put(f"d{name}_first", found[name])
    return found


def _own(value: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(value, dtype=dtype, memory_format=torch.contiguous_format).copy_(value)


def _finished(given: Inputs, found: dict[str, Tensor], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return the gradients in the order of the inputs, zeros where nothing arrived, h's not rounded."""
    result: list[Tensor | None] = [None] * DIFFERENTIABLE
    for k, wanted in enumerate(needs[:DIFFERENTIABLE]):
        value = given[k]
        if not wanted or value is None:
            continue
        gradient = found.get(Inputs._fields[k])
        result[k] = torch.zeros_like(value) if gradient is None else gradient
    return tuple(result)


def _apart(call: Call, given: Inputs, site: Site) -> bool:
    """Whether kernels can add a layer's two biases up: torch would also widen a number, or a narrower one."""
    like = (given.w_ih.shape[:1], call.dtype, given.x.device)
    return len(site.biases) == 2 and all((b.shape, b.dtype, b.device) == like for b in site.biases)


class _Recording(ByParts):
    """A call of a layer with two biases: the kernels add them up, and their gradient is made twice.

    Args:
        call:    of the layer.
        site:    where it stands.
        backend: this one.
        machine: that of the tensors' device.
    """

    def __init__(self, call: Call, site: Site, backend: Backend, machine: Machine) -> None:
        super().__init__(call, backend, site)
        self.machine = machine

    def _ran(self, tensors: Sequence[Tensor]) -> tuple[Outputs, tuple[Tensor, ...]]:
        call, given = operator.outside(self.backend, self.call, self._inputs(tensors, summed=False))
        with operator.exact(call):
            return forward(call, given, self.machine, bias_hh=tensors[OWN + 1])

    def _led_back(
        self,
        given: Inputs,
        rest: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: tuple[bool, ...],
    ) -> tuple[Sequence[Tensor | None], Tensor | None]:
        if given.x.shape[0] * given.x.shape[1] == 0:
            return super()._led_back(given, rest, grads, needs)
        call, given = operator.outside(self.backend, self.call, given)
        outputs, arriving = operator.unpacked(call, rest), Grads(*operator.unpacked(call, grads))  # type: ignore[arg-type]
        with operator.exact(call):
            found = gradients(
                call, given, outputs, tuple(rest[3:]), arriving, needs, self.machine, twice=True
            )
        each = zip(_finished(given, found, needs), given, strict=False)
        finished = tuple(None if g is None or t is None else g.to(t.dtype) for g, t in each)
        again = found.get("bias_hh", finished[AT["bias"]])
        return (*finished, *(None,) * (len(needs) - len(finished))), again


def backend(
    name: str,
    why_not: Callable[[Call], str | None],
    machine_of: Callable[[torch.device], Machine],
    device: str | None = None,
) -> Backend:
    """Return a backend that runs on the machine of a tensor's device, which is of the type `device`."""

    def run(call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
        return forward(call, given, machine_of(given.x.device))

    def pull(
        call: Call,
        given: Inputs,
        outputs: Outputs,
        saved: tuple[Tensor, ...],
        grads: Grads,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        return backward(call, given, outputs, saved, grads, needs, machine_of(given.x.device))

    def masked(x: Tensor, kind: str, rate: float, seed: Tensor, factor: torch.dtype | None = None) -> Tensor:
        return dropping.dropped(machine_of(x.device), x, kind, rate, seed, factor)

    def bind(call: Call, given: Inputs, site: Site) -> Bound:
        machine, apart = machine_of(given.x.device), _apart(call, given, site)
        bias_hh = site.biases[1] if apart else None

        def advance(now: Inputs) -> Outputs:
            inner, there = operator.outside(found, call, now)
            return forward(inner, there, machine, bias_hh=bias_hh)[0]

        return evaluated(given, site, advance, summed=not apart)

    def record(call: Call, given: Inputs, site: Site) -> Record:
        if not _apart(call, given, site):
            return ByParts(call, found, site)
        return _Recording(call, site, found, machine_of(given.x.device))

    def beside(where: torch.device, works: Sequence[Callable[[], Any]]) -> list[Any]:
        return machine_of(where).side_by_side(works)

    found = Backend(name, why_not, run, pull, saves, bind=bind, record=record, reads_bias=False)
    found = found._replace(device=device, dropped=masked, beside=beside)
    return found


BACKEND: Final = backend("gpu", refuses, machines.of, "cuda")
