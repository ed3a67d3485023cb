"""The two backends in plain torch: `plain`, the derivative by hand, and `definition`, by autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from . import definition, derivative
from .call import DIFFERENTIABLE, Backend, Call, Grads, Inputs, Outputs


def _nothing(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return []


def _never(call: Call) -> str | None:
    return None


def _forward(call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
    return definition.lstm(call, given), ()


def _backward(
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    return pullback(call, given, grads, needs)


def pullback(call: Call, given: Inputs, grads: Grads, needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return the gradients by running the definition under torch.func.vjp; differentiable in turn."""
    places = [k for k in range(DIFFERENTIABLE) if given[k] is not None and needs[k]]

    def run(*moving: Tensor) -> tuple[Tensor, ...]:
        tensors: list[Any] = list(given)
        for k, tensor in zip(places, moving, strict=True):
            tensors[k] = tensor
        return tuple(o for o in definition.lstm(call, Inputs(*tensors)) if o is not None)

    pulled: Any = torch.func.vjp(run, *(given[k] for k in places))
    outputs, pull = pulled
    arriving = [g for g, wanted in zip(grads, _present(call), strict=True) if wanted]
    found = pull(filled(outputs, arriving))
    result: list[Tensor | None] = [None] * DIFFERENTIABLE
    for k, gradient in zip(places, found, strict=True):
        result[k] = gradient
    return tuple(result)


def filled(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The gradients, with zeros where there is none."""
    return tuple(torch.zeros_like(o) if g is None else g for o, g in zip(outputs, grads, strict=True))


def _present(call: Call) -> tuple[bool, ...]:
    """Which fields of `Outputs` a call has."""
    return True, True, True, call.options.keep_cells, call.options.keep_gates


PLAIN: Final = Backend(
    "plain", _never, derivative.forward, derivative.backward, derivative.saves, derivative.prepared_step
)
DEFINITION: Final = Backend("definition", _never, _forward, _backward, _nothing)
