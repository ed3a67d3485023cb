"""A call becomes the kernels' one argument: sizes, options, and every tensor dense and in its place."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from ..call import Call, Grads, Inputs
from .copying import Copies
from .machine import Machine
from .sources import FLAGS, Layout, layout


class Drawn(NamedTuple):
    """Which noise a call has: in training the masks of its seed, in evaluation what mixes."""

    h: float = 0.0
    g: float = 0.0
    zone_h: float = 0.0
    zone_c: float = 0.0
    mix_h: float = 0.0
    mix_c: float = 0.0


@lru_cache(maxsize=4096)
def drawn(call: Call) -> Drawn:
    """Return the rates at work in a call."""
    noise = call.options.noise
    if not call.options.training:
        return Drawn(mix_h=noise.zoneout_h, mix_c=noise.zoneout_c)
    if "seed" not in call.given:
        return Drawn()
    return Drawn(noise.variational_h, noise.recurrent_dropout, noise.zoneout_h, noise.zoneout_c)


@lru_cache(maxsize=4096)
def flags(call: Call) -> int:
    """Return the bits of `arguments.cuh` that a call sets."""
    v, noise = call.variant, drawn(call)
    wanted = {
        "Peephole": v.peephole,
        "Coupled": v.coupled,
        "NoInputGate": not v.input_gate,
        "NoForgetGate": not v.forget_gate,
        "NoOutputGate": not v.output_gate,
        "LinearInput": not v.input_activation,
        "LinearOutput": not v.output_activation,
        "HardSigmoid": v.gate_activation == "hard_sigmoid",
        "ClipsCell": v.cell_clip is not None,
        "ClipsProjection": v.projection_clip is not None,
        "Projected": "w_hr" in call.given,
        "NormsProducts": v.norm in ("ba2016", "products"),
        "NormsGates": v.norm == "per_gate",
        "NormsOutput": v.norm == "ba2016",
        "GateRecurrence": v.gate_recurrence,
        "MasksHidden": noise.h > 0,
        "MasksCandidate": noise.g > 0,
        "ZonesHidden": noise.zone_h > 0,
        "ZonesCell": noise.zone_c > 0,
        "MixesHidden": noise.mix_h > 0,
        "MixesCell": noise.mix_c > 0,
        "Reversed": call.options.reverse,
        "Ragged": "lengths" in call.given,
        "Resets": "reset" in call.given,
        "Tapes": call.save,
        "KeepsCells": call.options.keep_cells,
        "KeepsGates": call.options.keep_gates,
    }
    return sum(FLAGS[name] for name, on in wanted.items() if on)


def sizes(call: Call) -> dict[str, Any]:
    """Return the sizes and options of a call by the names of `arguments.cuh`."""
    v, noise = call.variant, drawn(call)
    gate = {name: v.gates.index(name) if name in v.gates else -1 for name in "ifgo"}
    sigmoid = {name: v.sigmoids.index(name) if name in v.sigmoids else -1 for name in "ifo"}
    return {
        "N": call.N,
        "T": call.T,
        "H": call.H,
        "P": call.P,
        "G": len(v.gates),
        "S": len(v.sigmoids),
        "flags": flags(call),
        "first": call.first,
        **{f"slot_{name}": place for name, place in gate.items()},
        **{f"sigmoid_{name}": place for name, place in sigmoid.items()},
        "pitch": call.H,
        "operand_pitch": call.P,
        "dh_pitch": call.P,
        "cell_clip": v.cell_clip or 0.0,
        "projection_clip": v.projection_clip or 0.0,
        "norm_eps": v.norm_eps,
        "least_h": int(noise.h * (1 << 32)),
        "least_g": int(noise.g * (1 << 32)),
        "least_zone_h": int(noise.zone_h * (1 << 32)),
        "least_zone_c": int(noise.zone_c * (1 << 32)),
        "scale_h": 1 / (1 - noise.h),
        "scale_g": 1 / (1 - noise.g),
        "share_h": 1 - noise.mix_h,
        "share_c": 1 - noise.mix_c,
        **sums(call),
    }


SIZED: Final = (
    "H", "P", "G", "S", "slot_i", "slot_f", "slot_g", "slot_o", "sigmoid_i", "sigmoid_f", "sigmoid_o",
)  # fmt: skip
"""The numbers of `Sized` in arguments.cuh, in its order."""


@lru_cache(maxsize=4096)
def sized(call: Call) -> tuple[int, ...]:
    """Return what a program compiled for the sizes of a call is compiled for: all but N and T."""
    found = sizes(call)
    return tuple(found[name] for name in SIZED)


@lru_cache(maxsize=4096)
def _sized(call: Call) -> bytes:
    """The argument of a call with no pointer in it: what one call of a size has of the one before."""
    return bytes(layout().pack(sizes(call)))


_POINTED: Final = {"h": "h_given", "c": "c_given"} | {
    name: name
    for name in (
        "seed", "bias", "peephole", "gain_ih", "gain_hh", "gain_c", "shift_c", "initial_h", "initial_c",
        "reset", "lengths",
    )
}  # fmt: skip
"""Which of `Inputs` the argument points to, and by what name."""


@lru_cache(maxsize=4096)
def _pointed(given: frozenset[str]) -> tuple[tuple[int, str], ...]:
    """Place in `Inputs` and name of what the argument of a call points to, of what it is given."""
    names = enumerate(Inputs._fields)
    return tuple((k, _POINTED[name]) for k, name in names if name in given and name in _POINTED)


@lru_cache(maxsize=4096)
def _short(call: Call) -> bool:
    """Whether 32 bits count the elements of every array that a call's kernels make or keep."""
    # of a sequence's step: z̄ or r̄ of four gates, in two parts or three, or outputs in three, all of them
    # padded. Four steps more are 20 N H at least, for `sums` has up to 17.
    H, P = (-(-n // 32) * 32 for n in (call.H, call.P))
    most = 4 * max(P, H * (2 if call.variant.norm == "none" else 3))
    return (call.T + 4) * call.N * most < 1 << 31


class Packed:
    """The argument of a call's kernels, and a hold on every tensor that it points to.

    Every call packs one, so no field costs more than a write to its place.

    short: whether 32 bits count the elements of every array in it.
    """

    def __init__(self, call: Call, given: Inputs) -> None:
        self.layout: Layout = layout()
        self.held: dict[str, Tensor | None] = {}
        self.short = _short(call)
        self.bytes = bytearray(_sized(call))
        self._word, self._words = self.layout.word, memoryview(self.bytes).cast("q")
        for k, name in _pointed(call.given):
            value: Tensor = given[k]  # type: ignore[assignment]  # it is there: `call.given` names it
            self.put(name, value.contiguous())

    def put(self, name: str, value: Tensor | None) -> Tensor | None:
        """Point a field to a tensor, and hold the tensor."""
        self.held[name] = value
        self._words[self._word[name]] = 0 if value is None else value.data_ptr()
        return value

    def number(self, name: str, value: int) -> None:
        """Write a whole number, or the address of what the caller holds."""
        self._words[self._word[name]] = value

    def points(self, name: str) -> bool:
        """Whether a field is not null."""
        return self._words[self._word[name]] != 0

    def rows(self, y: Tensor) -> Tensor:
        """Say how the rows of y, cells and gates lie; return y, whose rows lie so."""
        P, (n, t, k) = y.shape[2], y.stride()
        if k != 1 or n % P or t % P:
            y = y.contiguous()
            n, t, k = y.stride()
        self.number("row_n", n // P)
        self.number("row_t", t // P)
        return y

    def alike(self, tensor: Tensor) -> Tensor:
        """Return a tensor (N, T, ...) laid out as `rows` said of y: itself if it lies so."""
        N, T, K = tensor.shape
        n, t = (self._words[self._word[name]] * K for name in ("row_n", "row_t"))
        if tensor.stride(2) == 1 and (N < 2 or tensor.stride(0) == n) and (T < 2 or tensor.stride(1) == t):
            return tensor
        return tensor.new_empty_strided((N, T, K), (n, t, 1)).copy_(tensor)

    def arriving(self, call: Call, grads: Grads) -> None:
        """Point to the gradients that arrive at every step, with their strides."""
        for name, value, dtype in (
            ("dy", grads.y, call.dtype),
            ("dcells", grads.cells, call.wide),
            ("dgates", grads.gates, call.wide),
        ):
            if value is None:
                continue
            value = value.to(dtype)
            if value.stride(-1) != 1:
                value = value.contiguous()
            self.put(name, value)
            self.number(f"{name}_n", value.stride(0))
            self.number(f"{name}_t", value.stride(1))
            reach = call.N * value.stride(0) + call.T * value.stride(1) + value.shape[2]
            self.short = self.short and reach < 1 << 31


@lru_cache(maxsize=4096)
def sums(call: Call) -> dict[str, int]:
    """Return the blocks of `sums` that a backward pass collects: the name of each field, its first block.

    `sum_count` is how many there are.
    """
    v, G, S = call.variant, len(call.variant.gates), len(call.variant.sigmoids)
    found, count = {}, 0
    for name, blocks in (
        ("sum_peephole", S if v.peephole else 0),
        ("sum_cell", 2 if v.norm in ("ba2016", "per_gate") else 0),
        ("sum_ih", G if v.norm in ("ba2016", "products") else 0),
        ("sum_hh", G if v.norm != "none" else 0),
        ("sum_bias", G if v.norm != "none" else 0),
    ):
        found[name] = count if blocks else -1
        count += blocks
    return {**found, "sum_count": count}


WIDENED: Final = 1 << 20
"""Numbers of W_ih x from which rows of x, h and weights of an odd width are worth a copy of one that 16 bytes
divide: cuBLAS multiplies the others at a third of its speed."""


def whole(call: Call, columns: int) -> int:
    """Return the columns that a matrix of a call's products gets: so many that 16 bytes divide a row."""
    each = 16 // call.dtype.itemsize
    odd = columns % each and call.N * call.T * len(call.variant.gates) * call.H >= WIDENED
    return -(-columns // each) * each if odd and call.dtype != torch.float64 else columns


def inputs(copies: Copies, call: Call, given: Inputs, sums: bool = True) -> Tensor:
    """Return x as (T N, `whole` C), step by step; a copy only where needed.

    Args:
        copies: makes it.
        call:   of its sizes.
        given:  its tensors.
        sums:   whether a sum over steps is made of it: then the padding is zeros, else what stands there, of
                which the padding's own W_ih x is made alone.
    """
    return copies.by_step(given.x, whole(call, call.C), given.lengths if sums else None)


class InputProducts:
    """Makes W_ih x of the times [low, high), (steps N, G H) and wide, from x and W_ih as products read them.

    Args:
        machine: that of x's device, which is the current one.
        call:    of its sizes.
        given:   its tensors.
        copies:  where x and W_ih go that have to be copied first; what copies begins to compile.
    """

    def __init__(self, machine: Machine, call: Call, given: Inputs, copies: Copies) -> None:
        self.machine, self.call = machine, call
        # with a norm the way back sums what became of W_ih x
        self.x = inputs(copies, call, given, sums=call.variant.norm != "none")
        self.w_ih = copies.widened(given.w_ih, self.x.shape[1])
        copies.ahead()

    def __call__(self, low: int, high: int) -> Tensor:
        """Make those of some times, once the copies are made."""
        N, rows = self.call.N, len(self.w_ih)
        part = self.x if high - low == self.call.T else self.x[low * N : high * N]
        out = part.new_empty((len(part), rows), dtype=self.call.wide)
        return self.machine.product(part, self.w_ih.t(), out)


# The operand of the recurrent product at step t is h_{t-1}, and the gradient of W_hh reads all of them. y
# holds them one step late. So where y lies step by step, y and N more rows in front of it (reversed: behind
# it) are the operands, and nothing is copied. The forward pass writes the first operand there.


@lru_cache(maxsize=4096)
def _is_shifted(call: Call) -> bool:
    """Whether y of the step before is the operand of every step but the first."""
    odd = "reset" in call.given or drawn(call).h > 0 or call.variant.gate_recurrence
    ends = (
        call.options.reverse and "lengths" in call.given
    )  # the first step of each sequence stands elsewhere
    return not odd and not ends and call.N * call.P * call.dtype.itemsize % 16 == 0


def y_after_first(call: Call, like: Tensor) -> tuple[Tensor, int] | None:
    """Return an empty y that lies step by step behind a row for the first operand, and that row's address.

    None where the operands are not y shifted by a step.
    """
    if not _is_shifted(call):
        return None
    N, T, P = call.N, call.T, call.P
    whole, row, reverse = like.new_empty(T + 1, N, P), N * P, call.options.reverse
    y = whole.as_strided((N, T, P), (P, row, 1), 0 if reverse else row).data  # no view, to autograd
    vars(y.untyped_storage())["of_operands"] = True
    return y, whole.data_ptr() + reverse * T * row * call.dtype.itemsize


def operands(call: Call, y: Tensor) -> Tensor | None:
    """Return the operands (T N, P) of the steps of t, where `y_after_first` made y; None where it did not.

    The storage says so itself: what a hook on saved tensors gives back in place of y has another one.
    """
    if not _is_shifted(call) or "of_operands" not in vars(y.untyped_storage()):
        return None
    return all_operands(call, y).flatten(0, 1)


def all_operands(call: Call, y: Tensor) -> Tensor:
    """Return the operands (T, N, P) that y of `y_after_first` and the row beside it are."""
    row = call.N * call.P
    place = y.storage_offset() + (row if call.options.reverse else -row)
    return y.as_strided((call.T, call.N, call.P), (row, call.P, 1), place)
