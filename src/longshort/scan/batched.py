"""Gradients that arrive many at once, under torch's older vmap.

`torch.autograd.grad(is_grads_batched=True)` and `vectorize=True` of torch.autograd.functional run one
backward pass on gradients that have an axis more than their shape says. torch maps each operator over it, by
rules that many lack, and a kernel could not be mapped at all. So a node takes such gradients one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final

import torch
from torch import Tensor

_hides = torch._C._functorch.is_legacy_batchedtensor
_LEVELS: Final = range(64, 0, -1)
"""Of calls of that vmap inside each other, as many as torch allows, the innermost first."""

Back = Callable[..., tuple[Any, ...]]


class _Once:
    """A node's context that looks at what was saved once: torch.utils.checkpoint allows no second look."""

    def __init__(self, ctx: Any) -> None:
        self._ctx, self.saved_tensors = ctx, ctx.saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def one_by_one(backward: Back) -> Back:
    """Return the `backward` of an autograd.Function that is run for each of such gradients by itself.

    What it is given and what it returns have that axis alike. Other gradients go straight through.
    """

    @wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        for gradient in grads:
            if gradient is not None and _hides(gradient):
                return _each(run, ctx, grads)
        return backward(ctx, *grads)

    return run


def _each(run: Back, ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Run over the innermost such axis, of which there is one for a level; `run` sees to the next."""
    there = [g for g in grads if g is not None]
    level, B = next((n, size) for n in _LEVELS if (size := max(len(_shown(g, n, 0)) for g in there)))
    shown = [None if g is None else _shown(g, level, B) for g in grads]
    once = _Once(ctx)
    found = [run(once, *(None if g is None else g[b] for g in shown)) for b in range(B)]
    return tuple(
        None if column[0] is None else torch._add_batch_dim(torch.stack(column), 0, level)
        for column in zip(*found, strict=True)
    )


def _shown(gradient: Tensor, level: int, B: int) -> Tensor:
    """Return a gradient with the hidden axis of a level as its first, or repeated B times if it has none."""
    return torch._remove_batch_dim(gradient, level, B, 0)
