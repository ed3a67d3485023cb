"""What a backend is: the contract between `scan` and whatever runs it. README.md states it in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from .masks import SILENT, Noise
from .variant import Variant


class Inputs(NamedTuple):
    """Every tensor of a call. G gates are computed and S of them are sigmoids (`Variant.gates`)."""

    x: Tensor
    "(N, T, C); what lies in the padding may be anything, NaN too"
    w_ih: Tensor
    "(G H, C)"
    w_hh: Tensor
    "(G H, P)"
    bias: Tensor | None
    "(G H,)"
    h: Tensor
    "(N, P)"
    c: Tensor
    "(N, H); (N, H + S H) with gate recurrence"
    w_hr: Tensor | None = None
    "(P, H)"
    peephole: Tensor | None = None
    "(S H,)"
    w_gates: Tensor | None = None
    "(S H, S H)"
    gain_ih: Tensor = None  # type: ignore[assignment]
    "(G H,); this and the next three are there exactly when `Variant.weights` names them"
    gain_hh: Tensor = None  # type: ignore[assignment]
    "(G H,)"
    gain_c: Tensor = None  # type: ignore[assignment]
    "(H,)"
    shift_c: Tensor = None  # type: ignore[assignment]
    "(H,)"
    initial_h: Tensor | None = None
    "(N, P), what a reset returns to; zero if None"
    initial_c: Tensor | None = None
    "like c"
    reset: Tensor | None = None
    "(N, T) bool"
    lengths: Tensor | None = None
    "(N,) int64 in [0, T]"
    seed: Tensor | None = None
    "() int64, key of the noise"


DIFFERENTIABLE = Inputs._fields.index("reset")
"""How many fields of `Inputs`, from the first, may have a gradient."""


class Outputs(NamedTuple):
    """What a forward pass returns besides what it saves. All dense, none shares memory with another."""

    y: Tensor
    "(N, T, P); a backend may lay it, cells and gates out step by step where x is"
    h: Tensor
    "(N, P)"
    c: Tensor
    "like the c that went in"
    cells: Tensor | None = None
    "(N, T, H) where the call keeps cells"
    gates: Tensor | None = None
    "(N, T, 4H) where the call keeps gates"


class Grads(NamedTuple):
    """The gradients that arrive at the outputs, field by field; None is zero. Any strides."""

    y: Tensor | None
    h: Tensor | None
    c: Tensor | None
    cells: Tensor | None = None
    gates: Tensor | None = None


class Options(NamedTuple):
    """What stays the same from call to call of one layer."""

    variant: Variant = Variant()
    noise: Noise = SILENT
    "in evaluation only what `Noise.evaluated` leaves"
    training: bool = True
    reverse: bool = False
    keep_cells: bool = False
    keep_gates: bool = False
    checkpoint_every: int | None = None
    backend: str = "auto"


Frozen = TypeVar("Frozen")


def hashed_once(cls: type[Frozen]) -> type[Frozen]:
    """Keep the hash of each object of a class whose objects never change: they are keys of many tables."""
    whole = cls.__hash__

    def once(self: Any) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = whole(self)
        return found

    def state(self: Any) -> dict[str, Any]:  # the hash of a word holds in one process only
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    cls.__hash__, cls.__getstate__ = once, state  # type: ignore[method-assign]
    return cls


class _Call(NamedTuple):
    options: Options
    device: str
    dtype: torch.dtype
    N: int
    T: int
    C: int
    H: int
    P: int
    given: frozenset[str]
    "names of the optional `Inputs` that are there"
    save: bool
    "whether a backward pass will follow"
    first: int = 0
    "the number of step 0 in the counters of the noise"
    ordinal: int | None = None
    "which of several such devices; the current one if None"


@hashed_once
class Call(_Call):
    """All that a backend may know when it decides, and when it runs: no tensor, so no value.

    Equal calls are one object where `checks.agree` describes them. So what follows from a call is worked out
    once: here, or in a table with the call as its key.
    """

    @cached_property
    def variant(self) -> Variant:
        """The layer's variant."""
        return self.options.variant

    @cached_property
    def wide(self) -> torch.dtype:
        """The dtype of the cell and of all sums: float32 for 16 bits."""
        return torch.float32 if self.dtype in (torch.float16, torch.bfloat16) else self.dtype

    @cached_property
    def kind(self) -> Call:
        """The call with all blanked out that a backend may not look at when it decides."""
        return self._replace(N=0, T=0, save=True, first=0)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """The places in `Inputs` of the tensors that are there."""
        always = frozenset(("x", "w_ih", "w_hh", "h", "c"))
        return tuple(k for k, name in enumerate(Inputs._fields) if name in self.given | always)


Refuses = Callable[[Call], str | None]
Forward = Callable[[Call, Inputs], tuple[Outputs, tuple[Tensor, ...]]]
Backward = Callable[
    [Call, Inputs, Outputs, tuple[Tensor, ...], Grads, Sequence[bool]], tuple[Tensor | None, ...]
]
Saves = Callable[[Call], list[tuple[tuple[int, ...], torch.dtype]]]


Dropped = Callable[[Tensor, str, float, Tensor, torch.dtype | None], Tensor]
"""What `masks.dropped` is: x (N, T, K), kind, rate, seed and the dtype of the factor -> x under its mask."""

Bound = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""x, and h (L, N, P) and c (L, N, H) of all layers -> y, and h (1, N, P) and c (1, N, H) of one."""


class Site(NamedTuple):
    """Where a call stands in a layer's: what a backend needs to bind it."""

    row: int
    "of the state (L, N, ...)"
    time_first: bool
    "whether x and y are (T, N, ...)"
    biases: tuple[Tensor, ...]
    "the one or two whose sum is the bias"


BoundAll = Callable[[Tensor, Tensor, Tensor], list[tuple[Tensor, Tensor, Tensor]]]
"""The same for all directions of a layer."""
Placing = tuple[Options, "Inputs", Site]
"""A call of a layer, where it stands."""
Layered = Sequence[Tensor]
"""A call's tensors as a layer has them: x, h (N, P), c (N, H), w_ih, w_hh, the site's biases, and those of
`Inputs` after c."""


class Record(Protocol):
    """One call of a layer with gradients, bound to its weights."""

    call: Call
    backend: Backend
    site: Site

    def forward(self, tensors: Layered) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Return y, h (1, N, P), c (1, N, H), none a view of another, and what `Backend.forward` saves."""

    def backward(
        self,
        tensors: Layered,
        rest: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Return the tensors' gradients, from the outputs and what was saved (`rest`), and theirs."""


Works = Callable[[torch.device, Sequence[Callable[[], Any]]], list[Any]]
"""Works that do not depend on each other, on the current stream of a device -> what each returns."""


class Backend(NamedTuple):
    """One implementation. README.md says what each of the functions gets and returns."""

    name: str
    refuses: Refuses
    "why it cannot run the call, as a clause; None when it can. May not look at N, T, save or first."
    forward: Forward
    backward: Backward
    saves: Saves
    "shape and dtype of each saved tensor, in order; N and T may be symbols"
    step: Callable[[Call, Inputs], Callable[[Tensor, Tensor, Tensor], Any]] | None = None
    "optional: a prepared single step, (x, h, c) -> (h, c), for evaluation without gradients"
    bind: Callable[[Call, Inputs, Site], Bound] | None = None
    "optional: a call without resets and lengths for evaluation without gradients, with these very weights"
    record: Callable[[Call, Inputs, Site], Record] | None = None
    "optional: the same with gradients"
    said: Callable[[Call], str | None] | None = None
    "optional: how it runs a call, where there are several ways, as a clause for `plan`"
    device: str | None = None
    "the only type of device it runs on: for a call elsewhere nobody expects it, and `plan` leaves it out"
    dropped: Dropped | None = None
    "optional: `masks.dropped`, with its bits, for real tensors where the backend refuses no call"
    beside: Works | None = None
    "optional: do works that do not depend on each other at once, and return what they return"
    reads_bias: bool = True
    "whether `backward` reads the numbers of the bias, and not only whether there is one"


def time_major(x: Tensor, n: int = 0) -> bool:
    """Whether x lies step by step: then y and the gradient of x do as well, as in torch.nn.LSTM.

    Args:
        x: (N, T, C), or (T, N, C).
        n: the axis of the sequences, 0 or 1.
    """
    return bool(x.shape[0] > 1 and x.shape[1] > 1 and x.stride(n) < x.stride(1 - n))


def version(tensor: Tensor) -> int:
    """Return a number that changes with a write into a tensor, but for writes through `.data`.

    What was made in inference mode counts no writes: its number stays.
    """
    return -1 if tensor.is_inference() else tensor._version


def scattered(call: Call, tensors: Sequence[Tensor]) -> Inputs:
    """Return the inputs of a call from those that are there, in order."""
    found: list[Any] = [None] * len(Inputs._fields)
    for k, tensor in zip(call.places, tensors, strict=True):
        found[k] = tensor
    return Inputs(*found)


def inputs_given(inputs: Inputs) -> frozenset[str]:
    """Return the names of the optional inputs that are there."""
    return frozenset(name for name, value in zip(Inputs._fields, inputs, strict=True) if value is not None)


def call_of(options: Options, inputs: Inputs, save: bool, first: int = 0) -> Call:
    """Describe a call by its metadata.

    Args:
        options: the layer's.
        inputs:  tensors that agree (see `checks.py`).
        save:    whether a backward pass will follow.
        first:   the number of step 0 in the counters of the noise.
    """
    x = inputs.x
    N, T = x.shape[:2]
    rows, C = map(int, inputs.w_ih.shape)  # not x's own: in a graph of torch.compile those may be symbols,
    P = int(inputs.w_hh.shape[1])  # and of weights that are symbols as well a graph is made for each size
    H = rows // len(options.variant.gates)
    given, ordinal = inputs_given(inputs), x.device.index
    return Call(options, x.device.type, x.dtype, N, T, C, H, P, given, save, first, ordinal)
