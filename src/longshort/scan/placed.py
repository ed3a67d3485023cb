"""A call on a layer's own tensors, as one node of autograd's graph.

What parts them from a call's, views and the sum of the biases, is made inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .call import Backend, Call, Inputs, Record, Site
from .operator import WIDTH, Maybe, differentiated, ran, transformed

FIRST: Final = Inputs._fields.index("c") + 1
"""How many fields of `Inputs` every layer gives alike: the others belong to a variant or an option."""
OWN: Final = 5
"""How many tensors of `Layered` stand before the biases."""


class Placed(torch.autograd.Function):
    """(record, *`Layered`) -> y, h (1, N, P), c (1, N, H)."""

    @staticmethod
    def forward(ctx: Any, record: Record, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the backend, and keep what `Recorded` keeps."""
        output, saved = record.forward(tensors)
        ctx.record = record
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output, *saved)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Maybe) -> tuple[Any, ...]:
        """Run the backend's derivative, as `Scan` does."""
        record, tensors, needs = ctx.record, ctx.saved_tensors, ctx.needs_input_grad[1:]
        count = len(needs)
        if torch.is_grad_enabled() or transformed():
            record = ByParts(record.call, record.backend, record.site)
        return (None, *record.backward(tensors[:count], tensors[count:], grads, needs))


class ByParts:
    """A `Record` for any backend: a layer's tensors become a call's, and back."""

    def __init__(self, call: Call, backend: Backend, site: Site) -> None:
        self.call, self.backend, self.site = call, backend, site
        self.others = [k for k in call.places if k >= FIRST]

    def forward(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Run the backend."""
        out, saved = ran(self.backend, self.call, self._inputs(tensors))
        y = out.y.transpose(0, 1) if self.site.time_first else out.y
        h, c = out.h.unsqueeze(0), out.c.unsqueeze(0)
        return (y.data, h.data, c.data), saved  # no views, to autograd: a caller may write there

    def backward(
        self, tensors: Sequence[Tensor], rest: Sequence[Tensor], grads: Sequence[Maybe], needs: Sequence[bool]
    ) -> tuple[Maybe, ...]:
        """Run the backend's derivative; where gradients are recorded, as something to differentiate again."""
        y, h, c, *saved = rest
        dy, dh, dc = grads
        if self.site.time_first:
            y, dy = y.transpose(0, 1), None if dy is None else dy.transpose(0, 1)
        arriving = (dy, None if dh is None else dh[0], None if dc is None else dc[0])
        last = OWN + len(self.site.biases)
        wanted = self._spread(needs[:OWN], any(needs[OWN:last]), needs[last:])
        given, rest = self._inputs(tensors), (y, h[0], c[0], *saved)
        found = differentiated(self.call, self.backend, 3, given, rest, arriving, tuple(map(bool, wanted)))
        dx, dw_ih, dw_hh, dbias, dh0, dc0 = found[:FIRST]
        dx = dx.transpose(0, 1) if dx is not None and self.site.time_first else dx
        more = [found[k] for k in self.others]
        return (dx, dh0, dc0, dw_ih, dw_hh, *(dbias,) * len(self.site.biases), *more)

    def _inputs(self, tensors: Sequence[Tensor]) -> Inputs:
        last = OWN + len(self.site.biases)
        x, *rest = tensors[:OWN]
        biases = tensors[OWN:last]
        bias = biases[0] + biases[1] if len(biases) == 2 else biases[0] if biases else None
        x = x.transpose(0, 1) if self.site.time_first else x
        return Inputs(*self._spread([x, *rest], bias, tensors[last:]))

    def _spread(self, first: Sequence[Any], bias: Any, others: Sequence[Any]) -> list[Any]:
        x, h, c, w_ih, w_hh = first
        found = [x, w_ih, w_hh, bias, h, c, *(None,) * (WIDTH - FIRST)]
        for k, value in zip(self.others, others, strict=True):
            found[k] = value
        return found
