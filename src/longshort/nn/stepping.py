"""One step at a time, with little work on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules import module

from ..errors import SettingError, ShapeError
from ..scan import Options, State, checks
from ..scan.functional import gathered, prepared_step
from .binding import Stamp, bindable, captured, ordinary, stamp_of
from .reading import check_step

if TYPE_CHECKING:
    from .layer import LSTM

SCAN_NAME = {"weight_hr": "w_hr", "weight_peephole": "peephole", "weight_gates": "w_gates"}
"""Name of a parameter -> its name in `longshort.scan`, where they differ."""

Advance = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Prepared(NamedTuple):
    """A step of every layer, made once for weights, sizes and mode that it names."""

    stamp: Stamp
    layers: list[Advance]
    biases: list[tuple[Tensor, Tensor, Tensor]]
    "b_ih, b_hh and their sum: added anew at each step, for a write through `.data` leaves no trace"


def step(layer: LSTM, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, State]:
    """Run `LSTM.step`."""
    observed = torch.is_grad_enabled() or not ordinary(layer, x) or _hooked(layer)
    if observed or state is None or layer.bidirectional or x.dim() != 2:
        return _general(layer, x, state)
    try:
        h, c = state
        stamp = stamp_of(layer, x, h, c)
    except (TypeError, ValueError, AttributeError):
        return _general(layer, x, state)  # says what is wrong with it
    prepared: Prepared | None = layer.__dict__.get("_prepared")
    if prepared is None or prepared.stamp != stamp:
        y, new = _general(layer, x, state)  # checks every argument
        if bindable(layer) and not captured(x):
            layer.__dict__["_prepared"] = _prepare(layer, stamp, x, h, c)
        return y, new
    if captured(x):  # the graph adds up, into memory that no layer gives away
        prepared = _prepare(layer, stamp, x, h, c)
    else:
        for b_ih, b_hh, both in prepared.biases:
            torch.add(b_ih, b_hh, out=both)
    if len(prepared.layers) == 1:
        y, cell = prepared.layers[0](x, h[0], c[0])
        return y.clone(), State(y[None], cell[None])  # who changes y leaves the state alone
    hs, cs, y = [], [], x
    for k, advance in enumerate(prepared.layers):
        y, cell = advance(y, h[k], c[k])
        hs.append(y)
        cs.append(cell)
    return y, State(torch.stack(hs), torch.stack(cs))


def _hooked(layer: LSTM) -> bool:
    """Whether somebody asked to see the calls of the layer."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or module._global_forward_hooks
        or module._global_forward_pre_hooks
    )


def _prepare(layer: LSTM, stamp: tuple[Any, ...], x: Tensor, h: Tensor, c: Tensor) -> Prepared:
    noise = layer.noise if layer.noise.silent else layer.noise.evaluated
    options = Options(layer.variant, noise, training=False, backend=layer.backend)
    steps: list[Advance] = []
    biases: list[tuple[Tensor, Tensor, Tensor]] = []
    for k in range(len(layer._names)):
        w = layer._weights(k)
        for name in ("initial_h", "initial_c"):
            w.pop(name, None)
        bias = None
        if layer.bias:
            b_ih, b_hh = w.pop("bias_ih"), w.pop("bias_hh")
            bias = b_ih + b_hh
            biases.append((b_ih, b_hh, bias))
        w_ih, w_hh, below = w.pop("weight_ih"), w.pop("weight_hh"), x if k == 0 else h[k - 1]
        more: dict[str, Any] = {SCAN_NAME.get(name, name): weight for name, weight in w.items()}
        given = gathered(options, below[:, None], w_ih, w_hh, bias, h[k], c[k], **more)
        steps.append(prepared_step(options, given))
    return Prepared(stamp, steps, biases)


def _general(layer: LSTM, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, State]:
    if layer.bidirectional:
        raise SettingError(
            "LSTM.step: a bidirectional layer needs the whole sequence. "
            "Call the layer itself, or use one direction."
        )
    given: Any = x
    x = given if isinstance(given, Tensor) else checks.tensor("LSTM.step", "x", given)
    if x.dim() not in (1, 2):
        raise ShapeError(f"LSTM.step: `x` must be (N, C), or (C,) for one sequence, got {tuple(x.shape)}.")
    time = -2 if x.dim() == 1 or layer.batch_first else 0
    try:
        y, new = layer(x.unsqueeze(time), state)
    except ShapeError:
        check_step(layer, x, state)  # the same, by the names of a step
        raise
    return y.squeeze(time), new


def initial(layer: LSTM, N: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """H (L, N, P) and c (L, N, H) before the first step."""
    hs, cs = [], []
    variant = layer.variant
    width = layer.hidden_size * (1 + len(variant.sigmoids) * variant.gate_recurrence)
    wide = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    for k in range(len(layer._names)):
        w = layer._weights(k)
        if "initial_h" in w:
            hs.append(w["initial_h"].expand(N, -1))
            cs.append(w["initial_c"].to(wide).expand(N, -1))
        else:
            hs.append(like.new_zeros(N, layer.proj_size or layer.hidden_size))
            cs.append(like.new_zeros(N, width, dtype=wide))
    return torch.stack(hs), torch.stack(cs)
