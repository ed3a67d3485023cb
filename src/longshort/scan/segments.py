"""`checkpoint_every=k`: keep the state at every k-th step only, and run each segment again for its gradient.

A training call then keeps N (P + H) numbers for each segment instead of several N H for each step, for one
more forward pass. The numbers are the same, but for the order in which a weight's gradient is added up: a
segment starts from the very state that the first pass left, the noise counts its steps from the start of the
whole, and the gradient of h is not rounded between segments. Only the kernels of a device round a segment's
share of a weight's gradient to 16 bits, where the weight has no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .call import DIFFERENTIABLE, Backend, Call, Grads, Inputs, Outputs


@lru_cache(maxsize=256)
def segmented(inner: Backend, every: int) -> Backend:
    """Return `inner` with a memory of one segment of `every` steps."""

    def forward(call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
        states, parts = [], []
        h, c = given.h, given.c
        for start, stop in _spans(call, every):
            states.append((h, c))
            part, _ = inner.forward(*_segment(call, given, start, stop, h, c, save=False))
            h, c = part.h, part.c
            parts.append(part)
        joined = _joined(call, parts, given)
        if not call.save or not states:
            return joined, ()
        return joined, tuple(torch.stack(column) for column in zip(*states, strict=True))

    def backward(
        call: Call,
        given: Inputs,
        outputs: Outputs,
        saved: tuple[Tensor, ...],
        grads: Grads,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        total = _Sum(call, given, needs)
        dh: Tensor | None = grads.h
        dc: Tensor | None = grads.c
        spans = list(enumerate(_spans(call, every)))
        needed = [n or name in ("h", "c") for n, name in zip(needs, Inputs._fields, strict=True)]
        for k, (start, stop) in reversed(spans):
            part_call, part = _segment(call, given, start, stop, saved[0][k], saved[1][k], save=True)
            out, kept = inner.forward(part_call, part)
            y, cells, gates = (
                None if g is None else g[:, start:stop].contiguous()
                for g in (grads.y, grads.cells, grads.gates)
            )
            arriving = Grads(y, dh, dc, cells, gates)
            found = inner.backward(part_call, part, out, kept, arriving, needed)
            dh, dc = found[Inputs._fields.index("h")], found[Inputs._fields.index("c")]
            total.add(found, start, stop)
        return total.result(dh, dc)

    def saves(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
        count = -(-call.T // every)
        width = call.H * (1 + len(call.variant.sigmoids)) if call.variant.gate_recurrence else call.H
        if call.T == 0:
            return []
        return [((count, call.N, call.P), call.dtype), ((count, call.N, width), call.wide)]

    segmented = inner._replace(forward=forward, backward=backward, saves=saves, bind=None, record=None)
    return segmented._replace(reads_bias=True)  # for the way back runs forward again


def _spans(call: Call, every: int) -> list[tuple[int, int]]:
    """(start, stop) of each segment, in the order in which they are run."""
    spans = [(start, min(start + every, call.T)) for start in range(0, call.T, every)]
    return spans[::-1] if call.options.reverse else spans


def _segment(
    call: Call, given: Inputs, start: int, stop: int, h: Tensor, c: Tensor, save: bool
) -> tuple[Call, Inputs]:
    part = given._replace(
        x=given.x[:, start:stop].contiguous(),
        h=h,
        c=c,
        reset=None if given.reset is None else given.reset[:, start:stop].contiguous(),
        lengths=None if given.lengths is None else (given.lengths - start).clamp(0, stop - start),
    )
    return call._replace(T=stop - start, save=save, first=call.first + start), part


def _joined(call: Call, parts: list[Outputs], given: Inputs) -> Outputs:
    """Put the segments' outputs together in order of time."""
    o, like = call.options, given.x.new_empty(0, dtype=call.wide)
    if not parts:
        cells = like.new_zeros(call.N, 0, call.H) if o.keep_cells else None
        gates = like.new_zeros(call.N, 0, 4 * call.H) if o.keep_gates else None
        return Outputs(given.x.new_zeros(call.N, 0, call.P), given.h.clone(), given.c.clone(), cells, gates)
    ordered = parts[::-1] if o.reverse else parts
    return Outputs(
        torch.cat([p.y for p in ordered], dim=1),
        parts[-1].h,
        parts[-1].c,
        torch.cat([p.cells for p in ordered if p.cells is not None], dim=1) if o.keep_cells else None,
        torch.cat([p.gates for p in ordered if p.gates is not None], dim=1) if o.keep_gates else None,
    )


class _Sum:
    """Gradients added up over segments: in float32 for 16-bit weights, which many small terms would lose."""

    def __init__(self, call: Call, given: Inputs, needs: Sequence[bool]) -> None:
        self.call, self.given, self.needs = call, given, needs
        self.total: list[Tensor | None] = [None] * DIFFERENTIABLE
        self.x: list[tuple[int, Tensor]] = []

    def add(self, found: Sequence[Tensor | None], start: int, stop: int) -> None:
        for k, (name, gradient) in enumerate(zip(Inputs._fields[:DIFFERENTIABLE], found, strict=True)):
            if gradient is None or name in ("h", "c"):
                continue
            if name == "x":
                self.x.append((start, gradient))
            else:
                so_far = self.total[k]
                wide = gradient.to(self.call.wide)
                self.total[k] = wide if so_far is None else so_far + wide

    def result(self, dh: Tensor | None, dc: Tensor | None) -> tuple[Tensor | None, ...]:
        self.total[Inputs._fields.index("h")], self.total[Inputs._fields.index("c")] = dh, dc
        if self.x:
            self.total[0] = torch.cat([g for _, g in sorted(self.x, key=lambda pair: pair[0])], dim=1)
        finished: list[Tensor | None] = []
        for value, need, tensor in zip(self.total, self.needs, self.given, strict=False):
            if not need or tensor is None:
                finished.append(None)
            else:
                finished.append(torch.zeros_like(tensor) if value is None else value.to(tensor.dtype))
        return tuple(finished)
