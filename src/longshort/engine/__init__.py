"""The compiled core: NumPy arrays in, arrays out; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .machine import available, isa, isas, join_openmp, meeting, pairs, peak, reading, there, trim, why_not
from .matrices import cross_entropy, multiply

__all__ = [
    "Forward",
    "available",
    "backward",
    "cross_entropy",
    "forward",
    "isa",
    "isas",
    "join_openmp",
    "meeting",
    "multiply",
    "pack",
    "pairs",
    "peak",
    "reading",
    "step",
    "trim",
    "why_not",
]

Array = NDArray[Any]


class Forward(NamedTuple):
    """What a pass over a sequence returns."""

    y: Array
    "(N, T, P)"
    h: Array
    "(N, P) after the last step"
    c: Array
    "(N, H); (N, H + S H) with gate recurrence"
    cells: Array | None
    "(N, T, H), if kept"
    gates: Array | None
    "(N, T, 4H), i, f, g, o, if kept"
    tape: Array | None
    "what `backward` needs, if asked for"


def tape_row(
    H: int, P: int, *, double: bool = False, projected: bool = False, variant: Any = None, noise: Any = None
) -> int:
    """Return how many values a tape holds for each sequence and step."""
    core = there()
    row = core.tape_row64 if double else core.tape_row32
    count: int = row(H, P, projected, _variant(variant), noise or core.Noise())
    return count


_FLAGS = (
    "peephole", "coupled", "gate_recurrence", "input_gate", "forget_gate", "output_gate", "input_activation",
    "output_activation", "norm", "norm_eps",
)  # fmt: skip


@lru_cache(maxsize=256)
def _variant(given: Any) -> Any:
    variant = there().Variant()
    if given is None:
        return variant
    for name in _FLAGS:
        setattr(variant, name, getattr(given, name))
    variant.hard_sigmoid = given.gate_activation == "hard_sigmoid"
    for name in ("cell_clip", "projection_clip"):
        if getattr(given, name) is not None:
            setattr(variant, name, getattr(given, name))
    return variant


def noise(rates: Any = None, *, seed: int = 0, first: int = 0, training: bool = True) -> Any:
    """Describe the noise of a call; of the `rates`, a `scan.Noise`, the caller masks x and w_hh."""
    made = there().Noise()
    made.training, made.seed, made.first = training, seed % (1 << 64), first
    if rates is not None:
        for name in ("variational_h", "recurrent_dropout", "zoneout_h", "zoneout_c"):
            setattr(made, name, getattr(rates, name))
    return made


def pack(
    w_ih: Array,
    w_hh: Array,
    bias: Array | None = None,
    *,
    w_hr: Array | None = None,
    peephole: Array | None = None,
    w_gates: Array | None = None,
    gain_ih: Array | None = None,
    gain_hh: Array | None = None,
    gain_c: Array | None = None,
    shift_c: Array | None = None,
    variant: Any = None,
    rounding: str = "none",
    back: bool = False,
    threads: int = 1,
) -> Any:
    """Lay weights out as the products read them: a copy, which later writes into them do not change.

    Args:
        w_ih:      (G H, C), the G gates that the variant computes, stacked as i, f, g, o. float32 or float64,
            and all others of the same type. Or the bits of bfloat16 as uint16, as `w_hh` then is: see below.
        w_hh:      (G H, P), P = H without a projection.
        bias:      (G H), one for both products: torch's two, added. None: zero.
        w_hr:      (P, H), the projection.
        peephole:  (S H), of the S gates other than g.
        w_gates:   (S H, S H), full gate recurrence.
        gain_ih:   (G H), and so is gain_hh: of a layer norm.
        gain_hh:   see there.
        gain_c:    (H), and so is shift_c.
        shift_c:   see there.
        variant:   a `scan.Variant`; that of torch.nn.LSTM if None.
        rounding:  "bfloat16" or "float16": h, and y with it, takes the values of this type after each step,
            as in a layer of this type, where x and the weights hold its values too. "none": it does not.
        back:      for `backward` too.
        threads:   1 to 1,024.

    Weights in bfloat16 are multiplied in pairs, where `pairs()` says that the processor can. x, h, y,
    initial_h and the gradients of x and y are then uint16 with the bits of bfloat16 too, C, P, strides and
    addresses are even, and all else is float32. They serve neither a projection, gate recurrence, a norm,
    nor `variational_h`, and no `step`.

    Returns:
        What `forward`, `backward` and `step` take.

    Raises:
        ShapeError: arrays that do not fit each other or the variant.
    """
    return there().pack(
        w_ih,
        w_hh,
        bias,
        w_hr,
        peephole,
        w_gates,
        gain_ih,
        gain_hh,
        gain_c,
        shift_c,
        _variant(variant),
        rounding,
        back,
        threads,
    )


def step(packed: Any, *, stored: str = "full", threads: int = 1) -> Any:
    """Prepare single steps and streams, for the variant of torch.nn.LSTM.

    Args:
        packed:  what `pack` returned; with short weights it is not needed afterwards.
        stored:  the weights' own form. "full": as packed. "bfloat16": 16 bits; where the processor multiplies
                 pairs of them, x and h are rounded to 16 bits too. "int8": 8 bits with one scale a gate and
                 unit; x and h become 8 bits at each step, with one scale a sequence for each. Short weights
                 are read two and four times as fast; cells and sums stay as they are.
        threads: used where a step is long enough to pay for them.

    Returns:
        An object with `(x, h, c) -> (y, c)` for x (N, T, C), and `move(x, h, c, only=None)`, which takes one
        step on x (N, C) and writes the new state into h and c (N, H); h is y's last step. only: (N,) bool,
        the sequences that step. `moving(h, c)` gives a function of (x, only=None) that does the same to
        these arrays with less work for each call. A sequence's bits depend neither on the others nor on the
        threads. Calls from several threads take turns.

    Raises:
        ShapeError: another variant, an unknown form, short float64 weights, or arrays that do not fit.
    """
    core = there()
    kind = core.Step64 if isinstance(packed, core.Packed64) else core.Step32
    return kind(packed, stored, threads)


def forward(
    packed: Any,
    x: Array,
    h: Array | None = None,
    c: Array | None = None,
    *,
    bias: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    reverse: bool = False,
    noise: Any = None,
    keep_cells: bool = False,
    keep_gates: bool = False,
    tape: bool = False,
    time_major: bool = False,
    threads: int = 1,
) -> Forward:
    """Run a sequence through one layer in one direction.

    Args:
        packed:     what `pack` returned.
        x:          (N, T, C), its last axis contiguous, the others with any stride.
        h:          (N, P) before the first step, and c (N, H); None: zeros.
        c:          see there.
        bias:       (G H), in place of the packed one; None: that one.
        reset:      (N, T) bool: this step begins from the initial state.
        lengths:    (N) int64 in [0, T]: steps of each sequence; y behind them is zero, and the state stays.
        initial_h:  (N, P), what a reset returns to, and initial_c (N, H); None: zeros.
        initial_c:  see there.
        reverse:    from the last step to the first.
        noise:      what `noise` returned; none if None.
        keep_cells: return every cell, and keep_gates every gate.
        keep_gates: see there.
        tape:       return what `backward` needs.
        time_major: y lies step by step in memory; its shape stays (N, T, P).
        threads:    1 to 1,024.

    Raises:
        ShapeError: arrays that do not fit.
    """
    core = there()
    return Forward(
        *core.forward(
            packed, x, h, c, reset, lengths, initial_h, initial_c, reverse, noise or core.Noise(), keep_cells,
            keep_gates, tape, time_major, threads, bias,
        )
    )  # fmt: skip


def backward(
    packed: Any,
    tape: Array,
    x: Array,
    y: Array,
    h: Array | None = None,
    c: Array | None = None,
    *,
    reset: Array | None = None,
    lengths: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    reverse: bool = False,
    noise: Any = None,
    dy: Array | None = None,
    dh: Array | None = None,
    dc: Array | None = None,
    dcells: Array | None = None,
    dgates: Array | None = None,
    wanted: Sequence[str] = ("x", "w_ih", "w_hh", "bias", "h", "c"),
    time_major: bool = False,
    threads: int = 1,
) -> dict[str, Array]:
    """Return the gradients of what `wanted` names, by its name.

    Args:
        packed: what `pack` returned with `back=True`.
        tape:   that of `forward`.
        x:      as it was given to `forward`, and so are h to noise, and threads.
        y:      what `forward` returned.
        h:      as there.
        c:      as there.
        reset:  as there.
        lengths: as there.
        initial_h: as there.
        initial_c: as there.
        reverse: as there.
        noise:  as there.
        dy:     (N, T, P), gradient of y; None: zero, as for all below.
        dh:     (N, P), of the last h.
        dc:     (N, H), of the last c.
        dcells: (N, T, H), of the kept cells.
        dgates: (N, T, 4H), of the kept gates.
        wanted: of "x", "h", "c", "initial_h", "initial_c" and the weights' names in `pack`.
        time_major: the gradient of x lies step by step in memory.
        threads: as there.

    Raises:
        ShapeError: arrays that do not fit, or a name that has no gradient in this variant.
    """
    core = there()
    found: dict[str, Array] = core.backward(
        packed, tape, x, y, h, c, reset, lengths, initial_h, initial_c, reverse, noise or core.Noise(), dy,
        dh, dc, dcells, dgates, list(wanted), time_major, threads,
    )  # fmt: skip
    return found
