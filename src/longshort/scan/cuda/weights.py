"""What waits until the loop is over: gradients that are sums over all steps, one matrix product each."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Final

import torch
from torch import Tensor

from ..call import Call, Inputs
from . import copying, packing
from .machine import Machine
from .rounding import Rounding

FILLS: Final = 1 << 21
"""Numbers of a result that give every multiprocessor work: cuBLAS then cuts no sum in rounded pieces."""
LONGEST: Final = 512
"""Rows of a sum that float32 adds up one after another; up to twice as many, or more where HELD says so."""
HELD: Final = 256 << 20
"""Bytes of such sums in parts."""
AT: Final = {name: k for k, name in enumerate(Inputs._fields)}
"""The place of each input among them, and so in `needs`."""

Shape = tuple[int, ...]


def products(
    machine: Machine,
    call: Call,
    given: Inputs,
    made: dict[str, Any],
    needs: tuple[bool, ...],
    rounding: Rounding,
    twice: bool = False,
) -> dict[str, Tensor]:
    """Return the gradients of x, the matrices and, without a norm, the bias.

    Args:
        machine:  where.
        call:     of T > 0 steps.
        given:    its tensors.
        made:     what a plan made: `dr`, `dz`, `operand`, with T N rows or as (T, N, ...), and the like. A
                  row of dz may hold two parts: z̄ rounded, and what that left.
        needs:    which inputs need a gradient.
        rounding: what is still to be summed or rounded goes there, and is there when it has run.
        twice:    whether the bias's gradient is made once more, a layer's second's, where it is rounded.

    Returns:
        Gradients by name.
    """
    new, gates, found = given.x.new_empty, len(call.variant.gates), {}
    dr, dz = made["dr"].flatten(0, -2), made["dz"].flatten(0, -2)
    padding, parts = dr.shape[1] // gates - call.H, dz.shape[1] // dr.shape[1]
    alone, together, room = _results(call, dr.shape[1], needs, twice)
    copies, C, w_ih = copying.Copies(machine, call.dtype), packing.whole(call, call.C), given.w_ih
    if needs[AT["x"]] and (padding or call.C < C):
        w_ih = copies.padded(w_ih, C, gates, call.H + padding)
    x = packing.inputs(copies, call, given) if needs[AT["w_ih"]] else given.x
    operand = made["operand"].flatten(0, -2)
    operand = copies.widened(operand, packing.whole(call, call.P)) if needs[AT["w_hh"]] else operand
    copies.run()
    if needs[AT["x"]]:
        shape = (dz.shape[0], C)
        dx = machine.product(
            dz, w_ih.repeat(parts, 1) if parts > 1 else w_ih, new(shape, dtype=_dtype(call, shape))
        )
        if call.C < C:
            wider = dx.dtype != call.dtype
            dx = rounding.within(dx, 1, len(dx), call.C) if wider else dx[:, : call.C].contiguous()
        else:
            dx = rounding.of(dx)
        found["x"] = dx.as_strided((call.N, call.T, call.C), (call.C, call.N * call.C, 1))

    out = {name: new(shape, dtype=dtype) for name, (shape, dtype) in alone.items()}
    if together:
        sums, rounded = new(room, dtype=call.wide), new(room)
        out |= {name: sums.as_strided(*piece) for name, piece in together.items()}
    if "w_ih" in out:
        _summed(machine, dz[:, : dr.shape[1]], x, out["w_ih"])
    scales = {"w_hh": 1 / (1 - packing.drawn(call).h)}
    if "w_hh" in out:
        _summed(machine, dr, operand, out["w_hh"])
    bias: Tensor | None = made.get("bias_parts")
    if "bias" in out and bias is None:
        _summed(machine, dr.new_ones(len(dr), 1), dr, out["bias"][None])
    elif bias is not None and "bias" in alone:
        rounding.add(bias, out["bias"])
    places = {name: rounded.as_strided(*piece) for name, piece in together.items()}
    for name in [name for name in together if name != "bias_hh"]:
        values = bias if name == "bias" and bias is not None else out[name].view(1, -1)
        again = places.get("bias_hh") if name == "bias" else None
        rounding.add(values, places[name].view(-1), scales.get(name, 1), again)
    out |= places
    for name, columns in (("w_ih", call.C), ("w_hh", call.P)):
        if name in alone:
            out[name] = _alone(rounding, call, out[name], columns, scales.get(name, 1))

    if given.w_hr is not None and needs[AT["w_hr"]]:
        found["w_hr"] = rounding.of(_summed_wide(machine, made["dprojected"], made["unprojected_all"]))
    if given.w_gates is not None and needs[AT["w_gates"]]:
        found["w_gates"] = rounding.of(_summed_wide(machine, made["da_sigmoid"], made["gates_before"]))
    return found | out


def _alone(rounding: Rounding, call: Call, gradient: Tensor, columns: int, scale: float) -> Tensor:
    """Return a matrix's gradient that shares no array with others: without its padding, and scaled."""
    gates = len(call.variant.gates)
    if gradient.shape == (gates * call.H, columns):
        if scale != 1:
            gradient.mul_(scale)
        return gradient
    if gradient.dtype == call.wide:
        return rounding.within(gradient, gates, call.H, columns, scale)
    rows: Tensor = gradient.unflatten(0, (gates, -1))[:, : call.H, :columns]  # rounded as they were made
    return rows.flatten(0, 1).contiguous()


def _summed(machine: Machine, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write a' b to `out`, a sum over as many rows as both have.

    cuBLAS adds float32 one after another: 1280 products of one gradient erred 12 times float32's own rounding
    of the result, and more with more. So those sums are made in parts, as far as HELD bytes hold them.
    """
    rows, room = len(a), out.numel() * out.element_size()
    parts = min(rows // LONGEST, HELD // room) if a.dtype == torch.float32 else 0
    if parts < 2:
        return machine.product(a.t(), b, out)
    each = rows // parts
    sums = out.new_empty(parts, *out.shape)
    whole_a, whole_b = (v[: parts * each].unflatten(0, (parts, each)) for v in (a, b))
    machine.product(whole_a.transpose(1, 2), whole_b, sums)
    torch.sum(sums, 0, out=out)
    if parts * each < rows:
        out += machine.product(a[parts * each :].t(), b[parts * each :], torch.empty_like(out))
    return out


def _summed_wide(machine: Machine, a: Tensor, b: Tensor) -> Tensor:
    """Return a' b of (T, N, ...) in their dtype."""
    return _summed(machine, a.flatten(0, 1), b.flatten(0, 1), a.new_empty(a.shape[2], b.shape[2]))


def _dtype(call: Call, shape: tuple[int, ...]) -> torch.dtype:
    """The dtype of a product's result: one that fills the device cuBLAS sums whole, and rounds once."""
    return call.dtype if prod(shape) >= FILLS else call.wide


@lru_cache(maxsize=4096)
def _results(
    call: Call, rows: int, needs: tuple[bool, ...], twice: bool
) -> tuple[dict[str, tuple[Shape, torch.dtype]], dict[str, tuple[Shape, Shape, int]], int]:
    """Return shapes and dtypes of the gradients with an array each; shape, strides and place of the others.

    What is still to be rounded to x's dtype shares an array, as cuDNN's gradients do; its room is last.
    """
    units, scaled = len(call.variant.gates) * call.H, packing.drawn(call).h > 0
    wanted: dict[str, Shape] = {"w_ih": (units, call.C), "w_hh": (units, call.P)}
    shapes: dict[str, Shape] = {name: (rows, packing.whole(call, n)) for name, (_, n) in wanted.items()}
    if "bias" in call.given and call.variant.norm == "none":
        wanted["bias"] = shapes["bias"] = (units,)
    alone, together, room = {}, {}, 0
    for name, shape in shapes.items():
        dtype = call.wide if name == "bias" or scaled else _dtype(call, shape)
        if not needs[AT[name]]:
            continue
        if dtype == call.dtype or shape != wanted[name]:  # padding is cut off as it is rounded
            alone[name] = shape, dtype
            continue
        for each in (name, "bias_hh") if name == "bias" and twice else (name,):
            together[each] = shape, (*shape[1:], 1), room
            room += -(-prod(shape) // 64) * 64  # whole lines of a cache
    return alone, together, room


def summed(call: Call, places: dict[str, int], sums: Tensor, rounding: Rounding) -> dict[str, Tensor]:
    """Return the gradients that the kernels summed over t, (rows, ..., H), to be summed over their rows."""
    v, count, H = call.variant, len(call.variant.gates), call.H
    total = rounding.add(sums.flatten(1))
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
            found[name] = total[first * H : (first + blocks) * H]
    if places["sum_cell"] >= 0:
        found["shift_c"] = total[(places["sum_cell"] + 1) * H :][:H]
    return found
