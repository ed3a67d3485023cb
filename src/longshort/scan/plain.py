"""The two backends in plain torch: `plain`, the derivative by hand, and `definition`, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Return the gradients by running the definition, in the dtype of the sums; differentiable in turn."""
    places = [k for k in range(DIFFERENTIABLE) if given[k] is not None and needs[k]]

    def run(*moving: Tensor) -> tuple[Tensor, ...]:
        tensors: list[Any] = list(given)
        for k, tensor in zip(places, moving, strict=True):
            tensors[k] = tensor
        return tuple(o for o in definition.lstm(call, Inputs(*tensors), call.wide) if o is not None)

    outputs, pull = pulled(run, [tensor.to(call.wide) for k in places if (tensor := given[k]) is not None])
    arriving = [g for g, wanted in zip(grads, _present(call), strict=True) if wanted]
    found = pull(filled(outputs, arriving))
    result: list[Tensor | None] = [None] * DIFFERENTIABLE
    for k, gradient in zip(places, found, strict=True):
        result[k] = gradient
    return tuple(result)


def pulled(function: Callable[..., tuple[Tensor, ...]], values: Sequence[Any]) -> tuple[Any, Any]:
    """Run a function; return its values, and what pulls gradients back through it, differentiable in turn.

    What torch.func.vjp does, at a fraction of the host's time where none of its transforms is at work. Each
    value enters as a view of its own, so that a tensor passed twice is told apart.
    """
    if torch._C._are_functorch_transforms_active():
        outputs, pull, *_ = torch.func.vjp(function, *values)
        return outputs, pull
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        slots = [v.view_as(v) if again and v.requires_grad else v.detach().requires_grad_() for v in values]
        outputs = function(*slots)

    def pull_back(grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reached = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
        if not reached:  # no steps: nothing came of the values
            return tuple(map(torch.zeros_like, slots))
        ends, starts = zip(*reached, strict=True)
        return torch.autograd.grad(ends, slots, starts, create_graph=again, materialize_grads=True)

    return outputs, pull_back


def filled(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The gradients in the outputs' dtypes, with zeros where there is none."""
    each = zip(outputs, grads, strict=True)
    return tuple(torch.zeros_like(o) if g is None else g.to(o.dtype) for o, g in each)


def _present(call: Call) -> tuple[bool, ...]:
    """Which fields of `Outputs` a call has."""
    return True, True, True, call.options.keep_cells, call.options.keep_gates


PLAIN: Final = Backend(
    "plain", _never, derivative.forward, derivative.backward, derivative.saves, derivative.prepared_step
)
DEFINITION: Final = Backend("definition", _never, _forward, _backward, _nothing)
