"""A call like the one before it: checked, chosen and bound once, then only run.

What a call of a layer does on the host depends on its arguments' shapes, dtypes and devices and on the layer,
and not on the numbers. So where nobody looks on (no graph, transform, cast or noise) each layer and direction
is bound to the memory of its weights, and calls go straight to the backend. Without gradients that begins
with the second call that is like the one before it. With gradients it is one node of autograd's graph, and
begins with the first call: one that torch.utils.checkpoint repeats must save what it has saved before. The
values of the weights are no part of it: the backend looks at them each time, as it does for any call. A
`Stamp` says what is alike; the layer forgets what it has bound when an attribute is set and when it moves,
and neither copies nor pickles it. A CUDA graph may be replayed when all of that is forgotten: what is called
under capture is bound for itself, and its zeros are the graph's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..scan import State
from ..scan.call import BoundAll, Site, version
from ..scan.cuda.driver import stream_of
from ..scan.functional import bound, recorded
from ..scan.modes import casting, transformed, written
from .reading import read_call

if TYPE_CHECKING:
    from .layer import LSTM

FORGOTTEN = ("_bound", "_recorded", "_zeros", "_prepared")
"""The attributes of a layer that hold what it has bound."""

SHAPES = 64
"""Shapes of input that a layer is bound to at most, with gradients: lengths change from batch to batch."""

Stamp = tuple[Any, ...]


class Seen(NamedTuple):
    """A call that could be bound."""

    stamp: Stamp
    runs: list[BoundAll] | None = None
    "one for each layer; empty where the layer cannot be bound; None before the second call"
    zeros: State | None = None
    "the first state of a call that is given none"
    stream: int = 0
    "of the device, on which it was bound"


def run(layer: LSTM, input: Any, hx: object) -> tuple[Tensor, State] | None:
    """Run a bound call, with gradients or without, or return None where the call has to go the long way.

    Args:
        layer: any.
        input: of `LSTM.forward`, and so is `hx`; there are no other arguments.
        hx:    as there.
    """
    if not ordinary(layer, input):
        return None
    graded = torch.is_grad_enabled()
    h, c = hx if isinstance(hx, tuple) and len(hx) == 2 else (None, None)
    if type(h) is not Tensor or type(c) is not Tensor:
        if hx is not None or layer.learn_initial:
            return None
        h = c = None
    seen: Seen | None
    if captured(input):
        seen = _bind(layer, (), input, h, c)
    else:
        seen = _recorded(layer, input, h, c) if graded else _bound(layer, input, h, c)
    if seen is None or not seen.runs:
        return None
    if h is None or c is None:
        zeros: State = seen.zeros  # type: ignore[assignment]  # there are some, for this very stamp
        h, c = zeros
        if input.is_cuda and stream_of(input.device.index) != seen.stream:
            _lent(zeros, input)
    x, hs, cs = input, [], []
    for one in seen.runs:
        outs = one(x, h, c)
        x = outs[0][0] if len(outs) == 1 else torch.cat([y for y, _, _ in outs], dim=-1)
        hs += [h_n for _, h_n, _ in outs]
        cs += [c_n for _, _, c_n in outs]
    return x, State(hs[0], cs[0]) if len(hs) == 1 else State(torch.cat(hs), torch.cat(cs))


def _bound(layer: LSTM, x: Tensor, h: Tensor | None, c: Tensor | None) -> Seen | None:
    """What the last call was bound to, if this one is like it."""
    stamp = stamp_of(layer, x, h, c)
    seen: Seen | None = layer.__dict__.get("_bound")
    if seen is None or seen.stamp != stamp:
        layer.__dict__["_bound"] = Seen(stamp)
        return None
    if seen.runs is None:
        made = _bind(layer, stamp, x, h, c)
        if layer.__dict__.get("_bound") is seen:  # no other thread has changed the layer meanwhile
            layer.__dict__["_bound"] = made
        return made
    return seen


def _recorded(layer: LSTM, x: Tensor, h: Tensor | None, c: Tensor | None) -> Seen:
    """What calls of this form with gradients are bound to, now or by an earlier one."""
    form, marks = stamp_with_gradients(layer, x, h, c)
    kept: tuple[Any, dict[Stamp, Seen]] | None = layer.__dict__.get("_recorded")
    if kept is None or kept[0] != marks or len(kept[1]) > SHAPES:  # and lets go of weights that are gone
        kept = layer.__dict__["_recorded"] = (marks, {})
    seen = kept[1].get(form)
    if seen is None:
        seen = kept[1][form] = _bind(layer, form, x, h, c)
    return seen


def ordinary(layer: LSTM, x: Any) -> bool:
    """Whether a call is what it seems: no graph, transform, cast, noise or tensor that is none."""
    return not (
        type(x) is not Tensor
        or x.is_nested
        or x.layout is not torch.strided
        or written()
        or transformed()
        or (layer.training and not (layer.noise.silent and not layer.dropout))
        or casting(x.device.type)
    )


def stamp_of(layer: LSTM, x: Tensor, h: Tensor | None, c: Tensor | None) -> Stamp:
    """Return what has to stay for a bound call to serve: the form of the arguments, and every weight.

    A weight that was replaced shows in its identity, one that was moved or assigned through `.data` in its
    address, one that was written in its version.
    """
    weights = layer._parameters.values()
    state = () if h is None or c is None else (h.shape, c.shape, h.dtype, c.dtype, h.device, c.device)
    marks = [(id(w), w.data_ptr(), version(w), w.is_contiguous()) for w in weights if w is not None]
    return x.shape, x.dtype, x.device, state, marks


def stamp_with_gradients(
    layer: LSTM, x: Tensor, h: Tensor | None, c: Tensor | None
) -> tuple[Stamp, list[Stamp]]:
    """Return the form of the arguments, and every weight but for what is written into it."""
    weights = layer._parameters.values()
    state = () if h is None or c is None else (_form(h), _form(c))
    marks = [(id(w), w.data_ptr(), *_form(w), w.is_contiguous()) for w in weights if w is not None]
    return (_form(x), state), marks


def _form(t: Tensor) -> Stamp:
    return t.shape, t.dtype, t.device, t.requires_grad


def bindable(layer: LSTM) -> bool:
    """Whether every weight is a parameter of the layer and lies as it was made: else the stamp shows less."""
    own = layer._parameters
    found = [own.get(name) for names in layer._names for name in names.values()]
    return all(w is not None and w.is_contiguous() for w in found)


def _bind(layer: LSTM, stamp: Stamp, input: Tensor, h: Tensor | None, c: Tensor | None) -> Seen:
    graded = torch.is_grad_enabled()
    if not bindable(layer) or input.dim() != 3 or (graded and not _leads_back(layer)):
        return Seen(stamp, [])
    zeros = None
    if h is None or c is None:
        N = input.shape[0 if layer.batch_first else 1]
        with torch.no_grad():
            if _lasts(input):  # whole, for kernels of a device would copy it at every call
                h, c = zeros = _lent(_whole(layer, N), input)
            elif graded and not input.is_cuda:  # one row for all, for there may be many shapes
                h, c = zeros = State(*(s.expand(-1, N, -1) for s in layer.initial_state(1)))
            else:
                h, c = zeros = layer.initial_state(N)
    calls = []
    for k, options, given in layer._calls(read_call(layer, input, (h, c), None, None, None, None)):
        biases = tuple(w for name, w in layer._weights(k).items() if name.startswith("bias"))
        calls.append((options, given, Site(k, not layer.batch_first, biases)))
    bind, directions = recorded if graded else bound, 2 if layer.bidirectional else 1
    runs = [bind(calls[k : k + directions]) for k in range(0, len(calls), directions)]
    return Seen(stamp, runs, zeros, stream_of(input.device.index) if input.is_cuda else 0)


def first_state(layer: LSTM, x: Tensor) -> State | None:
    """Return the zeros that a call without a state starts from, if all calls can share them: else None.

    Args:
        layer: any.
        x:     of the call, (N, T, C).

    Returns:
        h (L, N, P) and c (L, N, H), which nobody writes.
    """
    if written() or transformed() or layer.learn_initial or casting(x.device.type):
        return None
    like = layer._parameters.get(layer._names[0]["weight_hh"])
    if type(like) is not nn.Parameter or type(x) is not Tensor or not _lasts(x):
        return None
    if (x.dtype, x.device) != (like.dtype, like.device):
        return None
    return _lent(_whole(layer, x.shape[0]), x)


def captured(x: Tensor) -> bool:
    """Whether a CUDA graph records what is called now, and fills what is made now when it is replayed."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _lasts(x: Tensor) -> bool:
    """Whether x's device has streams, and what is made now lasts on it."""
    return x.is_cuda and not torch.cuda.is_current_stream_capturing()


def _lent(zeros: State, x: Tensor) -> State:
    """Return the zeros, which another stream may have made, and the layer may let go of, for x's stream."""
    if x.is_cuda:
        current = torch.cuda.current_stream(x.device)
        for state in zeros:
            state.record_stream(current)
    return zeros


def _whole(layer: LSTM, N: int) -> State:
    """Return the first state, dense, of memory that all shapes share: the longest so far."""
    kept: State | None = layer.__dict__.get("_zeros")
    weight = layer._weights(0)["weight_hh"]
    if kept is None or kept.h.shape[1] < N or (kept.h.dtype, kept.h.device) != (weight.dtype, weight.device):
        with torch.inference_mode(False):
            kept = layer.__dict__["_zeros"] = layer.initial_state(N)
        if weight.is_cuda:
            torch.cuda.current_stream(weight.device).synchronize()  # other streams may read it
    return State(*(s.flatten(0, 1)[: len(s) * N].unflatten(0, (len(s), N)) for s in kept))


def _leads_back(layer: LSTM) -> bool:
    """Whether every weight needs a gradient, so that all outputs do, and the first state is not learned."""
    weights = [w for w in layer._parameters.values() if w is not None]
    return not layer.learn_initial and all(w.requires_grad and type(w) is nn.Parameter for w in weights)
