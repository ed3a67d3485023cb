"""Weights as the engine reads them: packed once, and again when they have changed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from operator import is_
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from .. import engine
from .arrays import Form, Memory, marks
from .call import Call, Inputs, version

_WEIGHTS: Final = (
    "w_ih", "w_hh", "w_hr", "peephole", "w_gates", "gain_ih", "gain_hh", "gain_c", "shift_c"
)  # fmt: skip
_PLACES: Final = tuple(map(Inputs._fields.index, _WEIGHTS))

_REMEMBERED: Final = 1024
"""Packed layers kept at most: more than an ensemble has. Those whose weights are gone are gone too."""


class _Packing(NamedTuple):
    packed: Any
    versions: list[int]
    watched: list[weakref.ref[Tensor]]
    marks: list[Tensor]


_PACKED: OrderedDict[tuple[Any, ...], _Packing] = OrderedDict()


class Weights:
    """The weights of a call but for the bias, a sum of each call."""

    def __init__(self, call: Call, given: Inputs) -> None:
        self.all = [given[k] for k in _PLACES]
        self.variant, self.tensors = call.variant, [t for t in self.all if t is not None]
        self.places = tuple(map(id, self.tensors))
        self.memory = Memory(self.all)

    def arrays(self, form: Form) -> list[Any]:
        """What they hold now, in the same order."""
        if form.name == "whole":
            return self.memory.arrays()
        return [*map(form.values, self.all[:2]), *map(form.sums, self.all[2:])]

    def packed(self, form: Form, back: bool, threads: int, looks: bool = True) -> Any:
        """Return them as the engine reads them, packed anew only when they have changed.

        Identity and version show most changes. A write through `.data` shows in neither, so a call that
        `looks` compares the sums of all rows as well; a way back needs no second look. A layer has one
        packing: that of weights which an optimiser has moved on from is given back before the new one is
        made. It has no bias, for threads may share it whose biases differ.
        """
        key = (self.variant, form.name, back, engine.isa(), self.places)
        versions = [version(t) for t in self.tensors]
        found = _PACKED.pop(key, None)
        if (
            found is not None
            and found.versions == versions
            and all(map(is_, [seen() for seen in found.watched], self.tensors))
            and (not looks or self._unchanged(form, found, threads))
        ):
            _PACKED[key] = found
            return found.packed
        del found
        named = dict(zip(_WEIGHTS, self.arrays(form), strict=True))
        packed = engine.pack(
            **named,
            variant=self.variant,
            rounding=form.rounding,
            back=back,
            threads=threads,
        )
        forget = partial(_PACKED.pop, key, None)
        watched = [weakref.ref(t, lambda _: forget()) for t in self.tensors]  # dropped weights: for one call
        seen = [mark for t in self.tensors for mark in marks(t)] if form.copies else []
        _PACKED[key] = _Packing(packed, versions, watched, seen)
        while len(_PACKED) > _REMEMBERED:
            _PACKED.popitem(last=False)
        return packed

    def _unchanged(self, form: Form, found: _Packing, threads: int) -> bool:
        """Whether the weights have the marks that they were packed with."""
        if form.copies:
            now = (mark for t in self.tensors for mark in marks(t))
            return all(torch.equal(*both) for both in zip(found.marks, now, strict=True))
        same: bool = found.packed.holds(*self.arrays(form), threads)
        return same


def forget(weights: Iterable[Tensor]) -> None:
    """Give back what was packed of these tensors: torch exchanges none that somebody watches."""
    gone = set(map(id, weights))
    for key in [key for key in list(_PACKED) if gone.intersection(key[-1])]:
        _PACKED.pop(key, None)


class Bias:
    """The one or two tensors whose sum is the bias."""

    def __init__(self, biases: Sequence[Tensor]) -> None:
        self.biases, self.memory = biases, Memory(biases)

    def sum(self, form: Form) -> Any:
        """What they add up to now, in their own dtype."""
        if not self.biases:
            return None
        if form.name != "whole":
            first, *rest = self.biases
            return form.sums(first + rest[0] if rest else first)
        arrays = self.memory.arrays()
        return arrays[0] if len(arrays) == 1 else arrays[0] + arrays[1]
