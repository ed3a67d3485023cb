"""Run a call on CUDA: what all steps share as matrix products, the recurrence in the kernels of `cuda/`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import LongshortError, SettingError
from . import derivative
from .call import DIFFERENTIABLE, Backend, Call, Grads, Inputs, Options, Outputs, call_of
from .cuda import machine as machines
from .cuda import packing, persistent_plan, step_plan, tiling
from .cuda.machine import Machine

HELD: Final = 256 << 20
"""Bytes of W_ih x that are held at a time: the recurrence takes them a chunk of steps after another."""
FILLS: Final = 1 << 21
"""Numbers of a result that give every multiprocessor work: cuBLAS then cuts no sum in rounded pieces."""


def refuses(call: Call) -> str | None:
    """Say why no kernel can run a call, or None."""
    if call.device != "cuda":
        return f"the tensors are on {call.device}, and the kernels run on CUDA devices"
    return machines.why_not() or proven(torch.device("cuda", torch.cuda.current_device()))


@lru_cache(maxsize=64)
def proven(device: torch.device) -> str | None:
    """Return what `checked` says of a device, asked once in a process.

    The check has a thread of its own: the call may come while torch traces with tensors that hold nothing, or
    inside a transform, and neither reaches another thread.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(checked, device, machines.of(device)).result()


def checked(device: torch.device, machine: Machine) -> str | None:
    """Run a small call, both plans, beside the derivative in plain torch.

    Returns:
        What went wrong, as a clause, or None: `plan()` shows it, and plain torch runs instead.
    """
    rng = torch.Generator().manual_seed(0)
    x, w_ih, w_hh, bias, h, c = (
        torch.randn(shape, generator=rng).to(device) / 2
        for shape in ((3, 4, 5), (24, 5), (24, 6), (24,), (3, 6), (3, 6))
    )
    given = Inputs(x, w_ih, w_hh, bias, h, c)
    call, needs = call_of(Options(), given, save=True), [True] * len(Inputs._fields)
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
    """List gates and cell after each step, then N and 1 / scale of each norm, then where a clip passes."""
    N, T, H, G, wide = call.N, call.T, call.H, len(call.variant.gates), call.wide
    gates = (
        call.dtype if call.variant.norm == "none" else wide
    )  # a norm's sums cancel, and show a gate's rounding
    found: list[tuple[tuple[int, ...], torch.dtype]] = [((T, N, 4 * H), gates), ((T, N, H), wide)]
    if call.variant.norm == "per_gate":
        found += [((T, N, G * H), wide), ((T, N, G), wide)]
    elif call.variant.norm != "none":
        found += [((T, N, G * H), wide), ((T, N), wide), ((T, N, G * H), wide), ((T, N), wide)]
    if call.variant.projection_clip is not None:
        found.append(((T, N, call.P), torch.uint8))
    return found


def _tape(call: Call) -> list[str]:
    """The names of what is saved, in the order of `saves`."""
    names = ["tape_gates", "tape_cells"]
    if call.variant.norm == "per_gate":
        names += ["hat_r", "scale_r"]
    elif call.variant.norm != "none":
        names += ["hat_z", "scale_z", "hat_r", "scale_r"]
    return names + ["unclipped"] * (call.variant.projection_clip is not None)


def forward(
    call: Call, given: Inputs, machine: Machine, plan: str | None = None
) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Run a call; what it saves is its tape. `plan` is that of `persistent`."""
    new, options = given.x.new_empty, call.options
    N, T, H, wide = call.N, call.T, call.H, call.wide
    outputs = Outputs(
        new(N, T, call.P),
        torch.empty_like(given.h, memory_format=torch.contiguous_format),
        torch.empty_like(given.c, memory_format=torch.contiguous_format),
        new(N, T, H, dtype=wide) if options.keep_cells else None,
        new(N, T, 4 * H, dtype=wide) if options.keep_gates else None,
    )
    saved = tuple(new(shape, dtype=dtype) for shape, dtype in saves(call)) if call.save else ()
    if N * T == 0:
        outputs.h.copy_(given.h)
        outputs.c.copy_(given.c)
        return outputs, saved
    machine.report()  # of an earlier kernel, before torch says no more than that the context is lost
    packed = packing.Packed(call, given)
    for name, tensor in zip(("y", "h", "c", "cells", "gates"), outputs, strict=True):
        packed.put(name, tensor)
    for name, tensor in zip(_tape(call), saved, strict=False):
        packed.put(name, tensor)
    x, w_ih = packing.time_first(call, given), given.w_ih.T
    chunk = max(1, HELD // (N * given.w_ih.shape[0] * wide.itemsize))

    def inputs_of(low: int, high: int) -> Tensor:
        out = new((high - low) * N, given.w_ih.shape[0], dtype=wide)
        return machine.product(x[low:high].reshape(-1, call.C), w_ih, out)

    with machine.current():
        tilings = persistent(call, machine, plan)
        if tilings is None:
            step_plan.forward(machine, call, given, packed, inputs_of, chunk)
        else:
            persistent_plan.forward(machine, call, given, packed, inputs_of, chunk, tilings)
    return outputs, saved


def persistent(call: Call, machine: Machine, plan: str | None = None) -> tiling.Pair | None:
    """Return how a call is cut to run in one launch, or None where one launch a step runs it.

    LONGSHORT_CUDA_PLAN, or `plan`, names one: "step", "persistent" (where it fits), the default, or "alone":
    persistent only where no block waits for another.
    """
    wanted = plan or os.environ.get("LONGSHORT_CUDA_PLAN") or "persistent"
    if wanted not in ("step", "alone", "persistent"):
        raise SettingError(
            f"LONGSHORT_CUDA_PLAN must be 'step', 'alone' or 'persistent', got {wanted!r}. Unset it."
        )
    if wanted == "step" or tiling.refuses(call) is not None:
        return None
    if call.H > tiling.MOST_UNITS and (wanted == "alone" or call.N * call.H > tiling.MOST_CELLS):
        return None
    return tiling.pair(machine.properties, call, machine.tf32())


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
    new, wide, N, H = given.x.new_empty, call.wide, call.N, call.H
    if N * call.T == 0:
        nothing = tuple(new(shape, dtype=dtype) for shape, dtype in derivative.saves(call))
        return derivative.backward(call, given, outputs, nothing, grads, needs)
    machine.report()
    packed = packing.Packed(call, given)
    packed.put("y", outputs.y)
    for name, tensor in zip(_tape(call), saved, strict=True):
        packed.put(name, tensor)
    packed.arriving(call, grads)
    last_h, last_c = _last(call, given, grads)
    packed.put("dh", last_h)
    packed.put("dc", last_c[:, :H].contiguous())
    packed.put("ds", last_c[:, H:].contiguous())
    places = packing.sums(call)
    for name, place in places.items():
        packed.number(name, place)
    summed = packed.put("sums", new(N, places["sum_count"], H, dtype=wide).zero_())
    found: dict[str, Any] = {"h": new(given.h.shape, dtype=wide), "c": new(given.c.shape, dtype=wide)}
    packed.put("dh_first", found["h"])
    packed.put("dc_first", found["c"])
    for name, like in (("initial_h", given.h), ("initial_c", given.c)):
        if getattr(given, name) is not None:
            found[name] = new(like.shape, dtype=wide).zero_()
            packed.put(f"d{name[-1]}_initial", found[name])
    with machine.current():
        tilings = persistent(call, machine, plan)
        if tilings is None:
            made = step_plan.backward(machine, call, given, packed)
        else:
            made = persistent_plan.backward(machine, call, given, packed, tilings)
        found |= _weights(machine, call, given, made, needs)
    found |= _summed(call, places, summed)
    return _finished(call, given, found, needs)


def _last(call: Call, given: Inputs, grads: Grads) -> tuple[Tensor, Tensor]:
    """The gradients of the state after the last step, in arrays that the kernels may write."""
    new = given.x.new_zeros
    h = new(given.h.shape, dtype=call.wide) if grads.h is None else _own(grads.h, call.wide)
    c = new(given.c.shape, dtype=call.wide) if grads.c is None else _own(grads.c, call.wide)
    return h, c


def _own(value: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(value, dtype=dtype, memory_format=torch.contiguous_format).copy_(value)


def _weights(
    machine: Machine, call: Call, given: Inputs, made: dict[str, Tensor], needs: Sequence[bool]
) -> dict[str, Tensor]:
    """Return the gradients that are one matrix product over all steps."""
    wanted = dict(zip(Inputs._fields, needs, strict=True))
    wide, new = call.wide, given.x.new_empty
    dr, dz = (made[name].flatten(0, 1) for name in ("dr", "dz"))
    gates, padding = len(call.variant.gates), dr.shape[1] // len(call.variant.gates) - call.H
    w_ih = given.w_ih
    if padding:
        w_ih = pad(w_ih.view(gates, call.H, call.C), (0, 0, 0, padding)).flatten(0, 1)

    def product(a: Tensor, b: Tensor, dtype: torch.dtype = wide) -> Tensor:
        return machine.product(a, b, new(a.shape[0], b.shape[1], dtype=dtype))

    found: dict[str, Tensor] = {}
    if wanted["x"]:
        # a result that fills the device is summed in one piece, and then rounded once, as it will be anyway
        whole = call.T * call.N * call.C >= FILLS
        found["x"] = (
            product(dz, w_ih, call.dtype if whole else wide).view(call.T, call.N, call.C).transpose(0, 1)
        )
    if wanted["w_ih"]:
        found["w_ih"] = product(dz.T, packing.time_first(call, given).flatten(0, 1))
    if wanted["w_hh"]:
        found["w_hh"] = product(dr.T, made["operand"].flatten(0, 1))
        if rate := packing.drawn(call).h:
            found["w_hh"] *= 1 / (1 - rate)
    if wanted["bias"] and given.bias is not None and call.variant.norm == "none" and "bias" not in made:
        found["bias"] = product(dr.new_ones(1, len(dr)), dr)[0]
    if padding:
        for name in found.keys() - {"x"}:
            rows = found[name].unflatten(0, (gates, call.H + padding))
            found[name] = rows[:, : call.H].flatten(0, 1)
    if "bias" in made:
        found["bias"] = made["bias"]
    if wanted["w_hr"] and given.w_hr is not None:
        found["w_hr"] = made["dprojected"].flatten(0, 1).T @ made["unprojected_all"].flatten(0, 1)
    if wanted["w_gates"] and given.w_gates is not None:
        found["w_gates"] = made["da_sigmoid"].flatten(0, 1).T @ made["gates_before"].flatten(0, 1)
    return found


def _summed(call: Call, places: dict[str, int], summed: Any) -> dict[str, Tensor]:
    """Return the gradients that the kernels summed over t, summed over n."""
    v, count = call.variant, len(call.variant.gates)
    total = summed.sum(0)
    found = {}
    for field, name, blocks in (
        ("sum_peephole", "peephole", len(v.sigmoids)),
        ("sum_cell", "gain_c", 1),
        ("sum_ih", "gain_ih", count),
        ("sum_hh", "gain_hh", count),
        ("sum_bias", "bias", count),
    ):
        first = places[field]
        if first >= 0:
            found[name] = total[first : first + blocks].flatten()
    if places["sum_cell"] >= 0:
        found["shift_c"] = total[places["sum_cell"] + 1]
    return found


def _finished(
    call: Call, given: Inputs, found: dict[str, Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients in the order of the inputs, zeros where nothing arrived."""
    result: list[Tensor | None] = []
    for name, value, wanted in zip(Inputs._fields[:DIFFERENTIABLE], given, needs, strict=False):
        if value is None or not wanted:
            result.append(None)
        else:
            result.append(found[name].to(value.dtype) if name in found else torch.zeros_like(value))
    return tuple(result)


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

    return Backend(name, why_not, run, pull, saves, device=device)


BACKEND: Final = backend("gpu", refuses, machines.of, "cuda")
