"""Which recurrent layers a model has, and how each of their calls looks from outside.

A call of any recurrent layer (time first or batch first, batched or not, packed or padded, with `lengths`
or `reset`) is brought into one form, x (N, T, C), and an answer in that form is brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn as packing

from ..errors import SettingError
from ..scan.variant import Variant

KINDS = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn"}
"""torch's recurrent layers; `longshort.LSTM` is known by its `variant`."""


def kind_of(module: nn.Module) -> str | None:
    """Return "lstm", "gru" or "rnn", or None where the module is no recurrent layer."""
    if hasattr(module, "weight_ih_l0") and isinstance(getattr(module, "variant", None), Variant):
        return "lstm"
    return next((kind for cls, kind in KINDS.items() if isinstance(module, cls)), None)


def recurrent_layers(model: nn.Module, whose: str = "`model`") -> dict[str, nn.Module]:
    """Return the recurrent layers of a model by their dotted names.

    Args:
        model: any module; a model that is itself a recurrent layer is named by its kind.
        whose: what to call the model where it has none.

    Raises:
        SettingError: it has none; the message lists what it has.
    """
    found = {name or str(kind_of(m)): m for name, m in model.named_modules() if kind_of(m)}
    if not found:
        kinds = sorted({type(m).__name__ for m in model.modules() if m is not model})
        held = ", ".join(kinds) if kinds else "no layers at all"
        raise SettingError(
            f"look: {whose} must contain an LSTM, GRU or RNN of torch.nn or longshort.LSTM; "
            f"{type(model).__name__} holds {held}. Cells in a hand-written loop cannot be looked into: "
            f"put one of these layers in their place."
        )
    return found


@dataclass
class Call:
    """One call of one recurrent layer, batch first."""

    name: str
    kind: str
    module: Any
    x: Tensor
    "(N, T, C)"
    hx: tuple[Tensor, ...] | None
    "h, or h and c, each (layers x directions, N, size); None for zeros"
    lengths: Tensor | None = None
    "(N,) int64"
    reset: Tensor | None = None
    "(N, T) bool"
    initial: tuple[Tensor, ...] | None = None
    "what a reset of `longshort.LSTM` returns to, as hx; None for the learned state or zeros"
    packed: packing.PackedSequence | None = None
    batched: bool = True
    output: Tensor | None = field(default=None, repr=False)
    "(N, T, size) as the module itself gave it"

    @property
    def mask(self) -> Tensor:
        """(N, T) bool, true before each sequence's end."""
        N, T = self.x.shape[:2]
        if self.lengths is None:
            return torch.ones(N, T, dtype=torch.bool, device=self.x.device)
        return torch.arange(T, device=self.x.device) < self.lengths[:, None].to(self.x.device)

    @property
    def work(self) -> float:
        """Multiplications of one pass."""
        N, T, C = self.x.shape
        H, ways = self.module.hidden_size, 1 + bool(self.module.bidirectional)
        blocks = {"lstm": 4, "gru": 3, "rnn": 1}[self.kind]
        above = (self.module.num_layers - 1) * H * (1 + ways)
        return float(N * T * blocks * H * ways * (C + H + above))


def read_call(name: str, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Bring the arguments of a recurrent layer's forward into one form."""
    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    kind, x, packed, batched = kind_of(module) or "", given["input"], None, True
    lengths, reset = given.get("lengths"), given.get("reset")
    if isinstance(x, packing.PackedSequence):
        packed = x
        x, lengths = packing.pad_packed_sequence(x, batch_first=True)
    else:
        batched = x.dim() == 3
        x = x if batched else x[None] if module.batch_first else x[:, None]
        x = x if module.batch_first else x.transpose(0, 1)
    hx, initial = (_state(kind, given.get(name)) for name in ("hx", "initial"))
    if reset is not None:
        reset = torch.as_tensor(reset, device=x.device)
        reset = reset[None] if reset.dim() == 1 else reset
    lengths = lengths if lengths is None else torch.as_tensor(lengths)
    return Call(name, kind, module, x, hx, lengths, reset, initial, packed, batched)


def _state(kind: str, given: Any) -> tuple[Tensor, ...] | None:
    """A state as a recurrent layer takes it, with or without an axis of N -> with one; None for none."""
    if given is None:
        return None
    parts = tuple(given) if kind == "lstm" else (given,)
    return tuple(s[:, None] if s.dim() == 2 else s for s in parts)


def read_output(call: Call, output: Any) -> Tensor:
    """The (N, T, size) outputs in what the layer's forward returned."""
    y = output[0]
    if isinstance(y, packing.PackedSequence):
        padded: Tensor = packing.pad_packed_sequence(y, batch_first=True, total_length=call.x.shape[1])[0]
        return padded
    y = torch.as_tensor(y)
    y = y if call.batched else y[None] if call.module.batch_first else y[:, None]
    return y if call.module.batch_first else y.transpose(0, 1)


def write_output(call: Call, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """Bring y (N, T, size) and the state back into the form in which the layer was called."""
    made: Any = y
    if call.packed is not None and call.lengths is not None:
        made = packing.pack_padded_sequence(y, call.lengths.cpu(), batch_first=True, enforce_sorted=False)
        if call.packed.sorted_indices is None:
            made = packing.PackedSequence(made.data, made.batch_sizes, None, None)
    else:
        made = y if call.module.batch_first else y.transpose(0, 1)
        if not call.batched:
            made = made.squeeze(0 if call.module.batch_first else 1)
            state = tuple(s[:, 0] for s in state)
    return made, (state if call.kind == "lstm" else state[0])


@contextmanager
def recording(layers: Mapping[str, nn.Module]) -> Iterator[list[Call]]:
    """Note every call of the layers, with its output, while the model runs."""
    calls: list[Call] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            again = sum(call.module is module for call in calls)
            call = read_call(f"{name}@{again}" if again else name, module, args, kwargs)
            call.output = read_output(call, output)
            calls.append(call)

        return hook

    hooks = [m.register_forward_hook(note(name), with_kwargs=True) for name, m in layers.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


Answer = Callable[[Call, Callable[..., Any]], tuple[Tensor, tuple[Tensor, ...]]]
"""A call and the module's own forward -> y (N, T, size) and the state."""


@contextmanager
def answering(layers: Mapping[str, nn.Module], answer: Answer) -> Iterator[None]:
    """Let `answer` stand in for the forward of the layers while the model runs."""
    counts = dict.fromkeys(layers, 0)

    def stand_in(name: str, module: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            again, counts[name] = counts[name], counts[name] + 1
            call = read_call(f"{name}@{again}" if again else name, module, args, kwargs)
            return write_output(call, *answer(call, own))

        return forward

    try:
        for name, module in layers.items():
            module.__dict__["forward"] = stand_in(name, module, module.forward)
        yield
    finally:
        for module in layers.values():
            module.__dict__.pop("forward", None)


def own_answer(
    call: Call, own: Callable[..., Any], x: Tensor, hx: tuple[Tensor, ...] | None
) -> tuple[Tensor, Any]:
    """What the module itself answers to other inputs (N, T', C) or another state, without lengths or
    resets.
    """
    module = call.module
    state: Any = None if hx is None else hx if call.kind == "lstm" else hx[0]
    y, after = own(x if module.batch_first else x.transpose(0, 1), state)[:2]
    return (y if module.batch_first else y.transpose(0, 1)), (after if call.kind == "lstm" else (after,))


def _extra(call: Call) -> dict[str, Any]:
    return {"reset": call.reset, "lengths": call.lengths, "initial": call.initial}


def own_call(call: Call, own: Callable[..., Any], x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the module itself answers to other inputs x (N, T, C), all else as in the call."""
    made: Any = x
    kwargs: dict[str, Any] = {}
    if call.packed is not None and call.lengths is not None:
        made = packing.pack_padded_sequence(x, call.lengths.cpu(), batch_first=True, enforce_sorted=False)
    else:
        made = x if call.module.batch_first else x.transpose(0, 1)
        kwargs = {k: v for k, v in _extra(call).items() if v is not None}
    state: Any = None if call.hx is None else call.hx if call.kind == "lstm" else call.hx[0]
    y, after = own(made, state, **kwargs)[:2]
    whole = Call(call.name, call.kind, call.module, x, None, call.lengths)
    return read_output(whole, (y, after)), (tuple(after) if call.kind == "lstm" else (after,))
