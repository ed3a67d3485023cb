"""After the backward loop: the gradients of x and of the weights, one matrix product each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .call import DIFFERENTIABLE, Inputs
from .definition import State3
from .tape import Tape


class Record(NamedTuple):
    """What one step of the backward loop leaves; zero in the padding."""

    a: Tensor
    "(N, G H) ā of (16)"
    h: Tensor | None
    "(N, P) h̄' of (11), where there is a projection"
    c: Tensor | None
    "(N, H) gradient of γ_c N(c̃) + β_c, where there is that norm"


def gradients(
    tape: Tape,
    records: Sequence[Record],
    first: State3,
    initial: State3 | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradient of each differentiable input, None where `needs` does not name it.

    Args:
        tape:    of the call.
        records: one for each step, in order of time.
        first:   gradients of the state before the first step.
        initial: gradients of what a reset returns to; None if there was no reset.
        needs:   one bool for each field of `Inputs`, in order.
    """
    call, w, v = tape.call, tape.w, tape.call.variant
    wanted = dict(zip(Inputs._fields, needs, strict=True))
    a = _stacked(call.T, [r.a for r in records], w.h.new_zeros(call.N, 0, w.w_ih.shape[0]))
    z, r = _through_norms(tape, a)
    found: dict[str, Tensor] = {"h": first[0], "c": torch.cat(first[1:], dim=1)}
    if initial is not None:
        found |= {"initial_h": initial[0], "initial_c": torch.cat(initial[1:], dim=1)}
    if wanted["x"]:
        found["x"] = z @ w.w_ih
    if wanted["w_ih"]:
        found["w_ih"] = _product(z, w.x)
    h_before, c_before, s_before = tape.before
    if wanted["w_hh"]:
        found["w_hh"] = _product(r, h_before if tape.noise.h is None else h_before * tape.noise.h[:, None])
    found["bias"] = a.sum((0, 1))
    block = dict(zip(v.gates, a.chunk(len(v.gates), dim=-1), strict=True))
    if w.peephole is not None:
        seen = {k: tape.cell if k == "o" else c_before for k in v.sigmoids}
        found["peephole"] = torch.cat([(block[k] * seen[k]).sum((0, 1)) for k in v.sigmoids])
    if w.w_gates is not None:
        found["w_gates"] = _product(torch.cat([block[k] for k in v.sigmoids], dim=-1), s_before)
    if tape.norm_z is not None:
        found["gain_ih"] = (a * tape.norm_z.hat).sum((0, 1))
    if tape.norm_r is not None:
        found["gain_hh"] = (a * tape.norm_r.hat).sum((0, 1))
    if w.w_hr is not None:
        dh = _stacked(call.T, [rec.h for rec in records], w.h.new_zeros(call.N, 0, call.P))
        found["w_hr"] = _product(dh, tape.unprojected)
    if tape.norm_c is not None:
        dc = _stacked(call.T, [rec.c for rec in records], w.h.new_zeros(call.N, 0, call.H))
        found["gain_c"], found["shift_c"] = (dc * tape.norm_c.hat).sum((0, 1)), dc.sum((0, 1))
    return _finished(tape, found, wanted)


def _finished(tape: Tape, found: dict[str, Tensor], wanted: dict[str, bool]) -> tuple[Tensor | None, ...]:
    """Undo the padding. The dtype stays that of the sums: only what leaves a whole call is rounded."""
    given = tape.given
    if tape.active is not None and "x" in found:
        found["x"] = torch.where(tape.active[..., None], found["x"], 0)
    result: list[Tensor | None] = []
    for name, value in zip(Inputs._fields[:DIFFERENTIABLE], given, strict=False):
        if value is None or not wanted[name]:
            result.append(None)
        else:
            result.append(found[name] if name in found else torch.zeros_like(value))
    return tuple(result)


def _through_norms(tape: Tape, a: Tensor) -> tuple[Tensor, Tensor]:
    """(18) for all steps: the gradients of z and of r from that of a, all (N, T, G H)."""
    w = tape.w
    if tape.norm_r is None:
        return a, a
    r = tape.norm_r.derivative(a * w.gain_hh)
    if tape.norm_z is None:
        return r, r  # per_gate: one norm of the sum
    return tape.norm_z.derivative(a * w.gain_ih), r


def _product(d: Tensor, x: Tensor) -> Tensor:
    """Sum over n and t of d (N, T, K) times x (N, T, J): (K, J)."""
    return d.flatten(0, 1).T @ x.flatten(0, 1)


def _stacked(T: int, steps: Sequence[Tensor | None], empty: Tensor) -> Tensor:
    return torch.stack([s for s in steps if s is not None], dim=1) if T else empty
