"""Calls that do not depend on each other, such as both directions of a layer, side by side.

One node of autograd's graph holds all of them, so that what a backend runs apart meets again before anybody
sees it, on the way there and on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks
from .batched import one_by_one
from .call import Backend, Call, Inputs, Outputs
from .modes import transformed
from .operator import Maybe, kept, led_back, ran, run, unpacked


class Chosen(NamedTuple):
    """A call and who runs it."""

    backend: Backend
    call: Call
    given: Inputs


def run_all(calls: Sequence[Chosen]) -> list[Outputs]:
    """Run calls in eager mode, side by side where one backend runs all of them and has a way to.

    Args:
        calls: each as for `operator.run`.

    Returns:
        The outputs of each: those of `operator.run`, to the bit where a backend cuts them alike.
    """
    backend, save = calls[0].backend, calls[0].call.save
    alike = all(one.backend is backend and one.call.save == save for one in calls)
    if len(calls) == 1 or backend.beside is None or not alike or transformed():
        return [run(*one) for one in calls]
    for one in calls:
        if one.given.lengths is not None:
            checks.values("lstm", one.given.lengths, one.call.T)
    if not save:
        works = [partial(ran, *one) for one in calls]
        return [outputs for outputs, _ in backend.beside(calls[0].given.x.device, works)]
    there = [one.given[k] for one in calls for k in one.call.places]
    flat = Beside.apply(backend, [one.call for one in calls], *there)  # type: ignore[no-untyped-call]
    found, start = [], 0
    for one in calls:
        found.append(unpacked(one.call, flat[start:]))
        start += sum(output is not None for output in found[-1])
    return found


class Beside(torch.autograd.Function):
    """`operator.Recorded` of several calls: (backend, calls, *their Inputs that are there) -> outputs."""

    @staticmethod
    def forward(ctx: Any, backend: Backend, calls: Sequence[Call], *there: Tensor) -> tuple[Tensor, ...]:
        """Run the backend, and keep what `Recorded` keeps."""
        parts = cut(there, [len(call.places) for call in calls])
        works = [partial(kept, backend, call, part) for call, part in zip(calls, parts, strict=True)]
        done = backend.beside(there[0].device, works)  # type: ignore[misc]  # `run_all` has looked
        ctx.backend, ctx.calls = backend, calls
        ctx.counts = [len(output) for output, _ in done]
        ctx.saves = [len(saved) for _, saved in done]
        ctx.set_materialize_grads(False)
        flat = [tensor for output, _ in done for tensor in output]
        ctx.save_for_backward(*there, *flat, *(tensor for _, saved in done for tensor in saved))
        return tuple(flat)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *grads: Maybe) -> tuple[Any, ...]:
        """Run the backend's derivative of each; where gradients are recorded, one after the other."""
        tensors, calls, given = ctx.saved_tensors, ctx.calls, [len(call.places) for call in ctx.calls]
        inputs, outputs, saved = cut(tensors, [sum(given), sum(ctx.counts), sum(ctx.saves)])
        each = zip(
            calls, cut(inputs, given), cut(outputs, ctx.counts), cut(saved, ctx.saves),
            cut(grads, ctx.counts), cut(ctx.needs_input_grad[2:], given), strict=True,
        )  # fmt: skip
        works = [
            partial(led_back, ctx.backend, call, mine, (*made, *rest), arriving, needs)
            for call, mine, made, rest, arriving, needs in each
        ]
        if torch.is_grad_enabled() or transformed():
            found = [work() for work in works]
        else:
            found = ctx.backend.beside(tensors[0].device, works)
        return (None, None, *(gradient for part in found for gradient in part))


def cut(values: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    """Return a sequence in parts of so many each."""
    ends = list(accumulate(sizes))
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]
