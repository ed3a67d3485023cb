"""A call on a layer's own tensors, as one node of autograd's graph.

What parts them from a call's, views and the sum of the biases, is made inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from .batched import one_by_one
from .call import Backend, Bound, Call, Inputs, Outputs, Record, Site, Works
from .modes import transformed
from .operator import WIDTH, Maybe, differentiated, ran

FIRST: Final = Inputs._fields.index("c") + 1
"""How many fields of `Inputs` every layer gives alike: the others belong to a variant or an option."""
OWN: Final = 5
"""How many tensors of `Layered` stand before the biases."""


class Placed(torch.autograd.Function):
    """(record, *`Layered`) -> y, h (1, N, P), c (1, N, H); of `Both` records, both after each other."""

    @staticmethod
    def forward(ctx: Any, record: Record, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the backend, and keep what `Recorded` keeps."""
        output, saved = record.forward(tensors)
        ctx.record = record
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output, *saved)
        return output

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *grads: Maybe) -> tuple[Any, ...]:
        """Run the backend's derivative, as `Scan` does."""
        record, tensors, needs = ctx.record, ctx.saved_tensors, ctx.needs_input_grad[1:]
        count = len(needs)
        if torch.is_grad_enabled() or transformed():
            record = record.apart() if isinstance(record, Both) else by_parts(record)
        return (None, *record.backward(tensors[:count], tensors[count:], grads, needs))


def evaluated(given: Inputs, site: Site, forward: Callable[[Inputs], Outputs], summed: bool = True) -> Bound:
    """Return what runs a call of a layer without gradients.

    Args:
        given:   its tensors, of which x, h and c are examples and are not held.
        site:    where it stands.
        forward: runs the call, whatever x, h and c are.
        summed:  whether the bias it is given is the sum of the site's, or the first of them.
    """
    k, biases, w_ih, w_hh = site.row, site.biases, given.w_ih, given.w_hh
    more: Any = given[FIRST:]

    def run(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = x.transpose(0, 1) if site.time_first else x
        bias = biases[0] + biases[1] if len(biases) == 2 and summed else biases[0] if biases else None
        out = forward(Inputs(rows, w_ih, w_hh, bias, h[k], c[k], *more))
        y = out.y.transpose(0, 1) if site.time_first else out.y
        return y, out.h.unsqueeze(0), out.c.unsqueeze(0)

    return run


def by_parts(record: Record) -> Record:
    """Return the same call for any backend, and to be differentiated again."""
    return ByParts(record.call, record.backend, record.site)


class Both:
    """Both directions of a layer as one record: the tensors of one after those of the other.

    Args:
        first:  of one direction.
        second: of the other, and of the same backend.
        beside: the backend's.
    """

    def __init__(self, first: Record, second: Record, beside: Works) -> None:
        self.records, self.beside = (first, second), beside

    def apart(self) -> Both:
        """Return both `by_parts`, one after the other."""
        first, second = map(by_parts, self.records)
        return Both(first, second, lambda device, works: [work() for work in works])

    def forward(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run both."""
        works = [partial(one.forward, own) for one, own in zip(self.records, halves(tensors), strict=True)]
        (output, saved), (output2, saved2) = self.beside(tensors[0].device, works)
        return (*output, *output2), (*saved, *saved2)

    def backward(
        self, tensors: Sequence[Tensor], rest: Sequence[Tensor], grads: Sequence[Maybe], needs: Sequence[bool]
    ) -> tuple[Maybe, ...]:
        """Run the derivatives of both, which save as much as each other."""
        outputs, saved = halves(rest[:6]), halves(rest[6:])
        works = [
            partial(
                one.backward, halves(tensors)[k], (*outputs[k], *saved[k]), halves(grads)[k], halves(needs)[k]
            )
            for k, one in enumerate(self.records)
        ]
        first, second = self.beside(tensors[0].device, works)
        return (*first, *second)


def halves(values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the first half of a sequence and the second."""
    middle = len(values) // 2
    return values[:middle], values[middle:]


class ByParts:
    """A `Record` for any backend: a layer's tensors become a call's, and back."""

    def __init__(self, call: Call, backend: Backend, site: Site) -> None:
        self.call, self.backend, self.site = call, backend, site
        self.others = [k for k in call.places if k >= FIRST]

    def forward(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Run the backend."""
        out, saved = self._ran(tensors)
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
        again = torch.is_grad_enabled() or transformed() or not saved  # whatever runs forward again
        given = self._inputs(tensors, summed=self.backend.reads_bias or again)
        rest = (y, h[0], c[0], *saved)
        found, dbias_hh = self._led_back(given, rest, arriving, tuple(map(bool, wanted)))
        dx, dw_ih, dw_hh, dbias, dh0, dc0 = found[:FIRST]
        dx = dx.transpose(0, 1) if dx is not None and self.site.time_first else dx
        more = [found[k] for k in self.others]
        return (dx, dh0, dc0, dw_ih, dw_hh, *(dbias, dbias_hh)[: len(self.site.biases)], *more)

    def _ran(self, tensors: Sequence[Tensor]) -> tuple[Outputs, tuple[Tensor, ...]]:
        return ran(self.backend, self.call, self._inputs(tensors))

    def _led_back(
        self, given: Inputs, rest: Sequence[Tensor], grads: Sequence[Maybe], needs: tuple[bool, ...]
    ) -> tuple[Sequence[Maybe], Maybe]:
        """Return the gradient of every field of `Inputs`, and that of a second bias."""
        found = differentiated(self.call, self.backend, 3, given, rest, grads, needs)
        return found, found[Inputs._fields.index("bias")]

    def _inputs(self, tensors: Sequence[Tensor], summed: bool = True) -> Inputs:
        """The call's tensors; unless `summed`, one bias stands for the sum of both."""
        last = OWN + len(self.site.biases)
        x, *rest = tensors[:OWN]
        biases = tensors[OWN:last]
        bias = biases[0] + biases[1] if len(biases) == 2 and summed else biases[0] if biases else None
        x = x.transpose(0, 1) if self.site.time_first else x
        return Inputs(*self._spread([x, *rest], bias, tensors[last:]))

    def _spread(self, first: Sequence[Any], bias: Any, others: Sequence[Any]) -> list[Any]:
        x, h, c, w_ih, w_hh = first
        found = [x, w_ih, w_hh, bias, h, c, *(None,) * (WIDTH - FIRST)]
        for k, value in zip(self.others, others, strict=True):
            found[k] = value
        return found
