"""What a caller handed to a layer -> batch first tensors and flags; every message names the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ShapeError
from ..scan import checks
from ..scan.modes import casting, written
from ..scan.ragged import Ragged, is_ragged, unfold

if TYPE_CHECKING:
    from .layer import LSTM


class Read(NamedTuple):
    """The arguments of a call, batch first."""

    x: Tensor
    "(N, T, C)"
    hx: tuple[Tensor, Tensor] | None
    "(L, N, P) and (L, N, H)"
    reset: Tensor | None
    "(N, T)"
    reset_reverse: Tensor | None
    "(N, T) for the reversed direction: a reset before step t parts t - 1 from t in both directions"
    lengths: Tensor | None
    "(N,) int64"
    initial: tuple[Tensor, Tensor] | None
    keep: tuple[bool, bool]
    batched: bool


def read_call(
    layer: LSTM,
    input: Tensor | Ragged,
    hx: tuple[Tensor, Tensor] | None,
    reset: Tensor | Sequence[Sequence[bool]] | None,
    lengths: Tensor | Sequence[int] | None,
    initial: tuple[Tensor, Tensor] | None,
    keep: str | None,
) -> Read:
    """Read the arguments of `LSTM.forward`.

    Raises:
        ShapeError:   an axis, dtype or device disagrees with the layer or with the input.
        SettingError: `keep` is none of its choices.
    """
    kept = checks.keep("LSTM", keep)
    batched = True
    pair("LSTM", "hx", hx)
    pair("LSTM", "initial", initial)
    if is_ragged(input):
        _no_ragged(input, reset, lengths)
        x, lengths = unfold(input)
    else:
        x, batched = _batch_first(layer, checks.tensor("LSTM", "input", input))
        if not batched:
            hx, initial = (None if s is None else _with_batch(s) for s in (hx, initial))
    if reset is not None:
        reset = checks.flags("LSTM", "reset", reset, x.device)
        reset = reset[None] if not batched and reset.dim() == 1 else reset
    if x.shape[-1] != layer.input_size:
        raise ShapeError(
            f"LSTM: `input` must have input_size = {layer.input_size} channels in its last axis, "
            f"got {x.shape[-1]} in {tuple(_shape(input))}."
        )
    N, T = x.shape[:2]
    _agree(layer, "LSTM", "input", x)
    _check_state(layer, "LSTM", "hx", hx, "input", x)
    _check_state(layer, "LSTM", "initial", initial, "input", x)
    if reset is not None and (tuple(reset.shape) != (N, T) or reset.dtype != torch.bool):
        raise ShapeError(
            f"LSTM: `reset` must be (N, T) = ({N}, {T}) of dtype torch.bool whatever batch_first, "
            f"got {tuple(reset.shape)} of {reset.dtype}."
        )
    if reset is not None and reset.device != x.device:
        raise ShapeError(
            f"LSTM: `reset` must be on the device of `input`: it is on {reset.device}, `input` on "
            f"{x.device}. Use reset.to(input.device)."
        )
    lengths = None if lengths is None else _lengths(lengths, N, T, x.device)
    reverse = None
    if reset is not None and layer.bidirectional:
        inside = reset if lengths is None else reset & (torch.arange(T, device=x.device) < lengths[:, None])
        reverse = torch.cat((inside[:, 1:], torch.zeros_like(inside[:, :1])), dim=1)
    return Read(x, hx, reset, reverse, lengths, initial, kept, batched)


def on_device(given: Any, device: torch.device) -> Any:
    """Return an argument of a call whose tensors on the meta device are zeros elsewhere, of no memory."""
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(one, Tensor) for one in given):
        return tuple(on_device(one, device) for one in given)
    if not isinstance(given, Tensor) or given.device.type != "meta" or given.is_nested:
        return given
    return torch.zeros((), dtype=given.dtype, device=device).expand(given.shape)


def _shape(input: Tensor | Ragged) -> Sequence[int]:
    return input.shape if isinstance(input, Tensor) else input[0].shape


def _no_ragged(input: Tensor | Ragged, reset: object, lengths: object) -> None:
    kind = "PackedSequence" if isinstance(input, PackedSequence) else "jagged `input`"
    if lengths is not None:
        raise ShapeError(f"LSTM: a {kind} has its own lengths. Leave out `lengths`.")
    if reset is not None:
        raise ShapeError(
            f"LSTM: `reset` (N, T) does not fit a {kind}, which has no axis of time. Give a padded `input` "
            f"(N, T, C) with `lengths` and `reset`; the padding costs nothing."
        )


def _batch_first(layer: LSTM, input: Tensor) -> tuple[Tensor, bool]:
    if input.dim() == 3:
        return (input if layer.batch_first else input.transpose(0, 1)), True
    if input.dim() == 2:
        return input[None], False
    order = "(N, T, C)" if layer.batch_first else "(T, N, C)"
    raise ShapeError(
        f"LSTM: `input` must be {order} for a batch or (T, C) for one sequence, "
        f"got {input.dim()} axes: {tuple(input.shape)}."
    )


def _with_batch(state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    h, c = state
    return (h[:, None] if h.dim() == 2 else h), (c[:, None] if c.dim() == 2 else c)


def pair(caller: str, name: str, state: Any) -> None:
    """Check that a state, if there is one, is a pair of tensors.

    Raises:
        ShapeError: it is none.
    """
    if state is None:
        return
    if not isinstance(state, tuple | list | Tensor):
        raise ShapeError(f"{caller}: `{name}` must be a pair (h, c), got {type(state).__name__}. Give both.")
    if len(state) != 2:
        raise ShapeError(f"{caller}: `{name}` must be a pair (h, c), got {len(state)}. Give both.")
    if not (isinstance(state[0], Tensor) and isinstance(state[1], Tensor)):
        kinds = ", ".join(type(part).__name__ for part in state)
        raise ShapeError(
            f"{caller}: `{name}` must be a pair (h, c) of tensors, got ({kinds}). "
            f"Leave `{name}` out to begin with the initial state."
        )


def check_step(layer: LSTM, x: Tensor, state: Any) -> None:
    """Refuse what `read_call` refuses of a step, by the names of `LSTM.step`.

    Raises:
        ShapeError: an axis, dtype or device disagrees with the layer or with x.
    """
    if x.shape[-1] != layer.input_size:
        raise ShapeError(
            f"LSTM.step: `x` must be (N, C), or (C,) for one sequence, with C = input_size = "
            f"{layer.input_size}, got {tuple(x.shape)}."
        )
    _agree(layer, "LSTM.step", "x", x)
    pair("LSTM.step", "state", state)
    if state is not None and x.dim() == 1:
        state = _with_batch(state)
    _check_state(layer, "LSTM.step", "state", state, "x", x if x.dim() == 2 else x[None])


def _agree(layer: LSTM, caller: str, name: str, x: Tensor) -> None:
    weight = layer._names[0]["weight_ih"]
    agree(caller, name, x, weight, layer._parameters.get(weight), "layer")


def agree(caller: str, name: str, x: Tensor, weight_name: str, weight: Tensor | None, whose: str) -> None:
    """Check that an input has the dtype and the device of the weights, or will have it under autocast.

    Args:
        caller: the beginning of every message.
        name: of the input, for messages.
        x: the input.
        weight_name: of a weight, for messages.
        weight: it; None where it is no parameter, as one that is computed.
        whose: what the weights are of, for messages: "layer".

    Raises:
        ShapeError: they disagree, or the input has no numbers to compute with.
    """
    if weight is not None and x.device != weight.device:
        raise ShapeError(
            f"{caller}: `{name}` must be on the device of the {whose}'s weights: `{name}` is on {x.device}, "
            f"`{weight_name}` on {weight.device}. Use {name}.to({str(weight.device)!r}), or "
            f"{whose}.to({name}.device)."
        )
    if _cast(x):
        return
    if x.dtype not in checks.FLOATS:
        raise ShapeError(
            f"{caller}: `{name}` must be float32, float64, bfloat16 or float16, got {x.dtype}. "
            f"Use {name}.float()."
        )
    if weight is not None and x.dtype != weight.dtype:
        raise ShapeError(
            f"{caller}: `{name}` must have the dtype of the {whose}'s weights: `{name}` is {x.dtype}, "
            f"`{weight_name}` {weight.dtype}. Use {name}.to({weight.dtype}), or {whose}.to({name}.dtype)."
        )


def _cast(x: Tensor) -> bool:
    """Whether autocast gives x another dtype."""
    return casting(x.device.type) and x.dtype != torch.float64


def _check_state(
    layer: LSTM, caller: str, name: str, state: tuple[Tensor, Tensor] | None, given: str, x: Tensor
) -> None:
    """Check the state of N sequences x (N, ...), which the caller knows by the name `given`."""
    if state is None:
        return
    N = x.shape[0]
    directions = 2 if layer.bidirectional else 1
    L = layer.num_layers * directions
    P, H = layer.proj_size or layer.hidden_size, layer.hidden_size
    variant = layer.variant
    width = H * (1 + len(variant.sigmoids)) if variant.gate_recurrence else H
    for part, tensor, wanted in (("h", state[0], (L, N, P)), ("c", state[1], (L, N, width))):
        if tuple(tensor.shape) != wanted:
            raise ShapeError(
                f"{caller}: `{name}` must hold {part} (layers x directions, N, {'P' if part == 'h' else 'H'})"
                f" = {wanted}, got {tuple(tensor.shape)}. The state is never batch first."
            )
        if tensor.device != x.device:
            raise ShapeError(
                f"{caller}: `{name}` must be on the device of `{given}`: {part} is on {tensor.device}, "
                f"`{given}` on {x.device}. Use {part}.to({given}.device)."
            )
        narrow = x.dtype in (torch.bfloat16, torch.float16)
        allowed = (x.dtype, torch.float32) if part == "c" and narrow else (x.dtype,)
        if tensor.dtype not in allowed and not _cast(x):
            raise ShapeError(
                f"{caller}: `{name}` must have the dtype of `{given}`: {part} is {tensor.dtype}, "
                f"`{given}` {x.dtype}. Use {part}.to({given}.dtype)."
            )


def _numbers(lengths: Any) -> Tensor:
    try:
        given = lengths if len(lengths) else torch.zeros(0, dtype=torch.int64, device="cpu")
        return torch.as_tensor(given, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(
            f"LSTM: `lengths` must be whole numbers, one for each sequence, got {lengths!r}."
        ) from None


def _lengths(lengths: Tensor | Sequence[int], N: int, T: int, device: torch.device) -> Tensor:
    tensor = lengths if isinstance(lengths, Tensor) else _numbers(lengths)
    if tuple(tensor.shape) != (N,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ShapeError(
            f"LSTM: `lengths` must be (N,) = ({N},) whole numbers, one for each sequence, "
            f"got {tuple(tensor.shape)} of {tensor.dtype}."
        )
    if not written():
        checks.values("LSTM", tensor, T)
    return tensor.to(device=device, dtype=torch.int64, non_blocking=True)
