"""What a caller handed to a layer -> batch first tensors and flags; every message names the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ShapeError
from ..scan import checks
from ..scan.operator import written
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
    reset: Tensor | None,
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
    for name, state in (("hx", hx), ("initial", initial)):
        if state is not None and len(state) != 2:
            raise ShapeError(f"LSTM: `{name}` must be a pair (h, c), got {len(state)}. Give both.")
    if is_ragged(input):
        _no_ragged(input, reset, lengths)
        x, lengths = unfold(input)
    elif isinstance(input, Tensor):
        x, batched = _batch_first(layer, input)
        if not batched:
            hx, initial = (None if s is None else _with_batch(s) for s in (hx, initial))
            reset = None if reset is None else reset[None] if reset.dim() == 1 else reset
    else:
        raise ShapeError(f"LSTM: `input` must be a tensor, got {type(input).__name__}.")
    if x.shape[-1] != layer.input_size:
        raise ShapeError(
            f"LSTM: `input` must have input_size = {layer.input_size} channels in its last axis, "
            f"got {x.shape[-1]} in {tuple(_shape(input))}."
        )
    N, T = x.shape[:2]
    _check_state(layer, "hx", hx, N)
    _check_state(layer, "initial", initial, N)
    if reset is not None and (tuple(reset.shape) != (N, T) or reset.dtype != torch.bool):
        raise ShapeError(
            f"LSTM: `reset` must be (N, T) = ({N}, {T}) of dtype torch.bool whatever batch_first, "
            f"got {tuple(reset.shape)} of {reset.dtype}."
        )
    lengths = None if lengths is None else _lengths(lengths, N, T, x.device)
    reverse = None
    if reset is not None and layer.bidirectional:
        inside = reset if lengths is None else reset & (torch.arange(T, device=x.device) < lengths[:, None])
        reverse = torch.cat((inside[:, 1:], torch.zeros_like(inside[:, :1])), dim=1)
    return Read(x, hx, reset, reverse, lengths, initial, kept, batched)


def _shape(input: Tensor | Ragged) -> Sequence[int]:
    return input.shape if isinstance(input, Tensor) else input[0].shape


def _no_ragged(input: Tensor | Ragged, reset: Tensor | None, lengths: object) -> None:
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


def _check_state(layer: LSTM, name: str, state: tuple[Tensor, Tensor] | None, N: int) -> None:
    if state is None:
        return
    directions = 2 if layer.bidirectional else 1
    L = layer.num_layers * directions
    P, H = layer.proj_size or layer.hidden_size, layer.hidden_size
    variant = layer.variant
    width = H * (1 + len(variant.sigmoids)) if variant.gate_recurrence else H
    for part, tensor, wanted in (("h", state[0], (L, N, P)), ("c", state[1], (L, N, width))):
        if tuple(tensor.shape) != wanted:
            raise ShapeError(
                f"LSTM: `{name}` must hold {part} (layers x directions, N, {'P' if part == 'h' else 'H'}) = "
                f"{wanted}, got {tuple(tensor.shape)}. The state is never batch first."
            )


def _lengths(lengths: Tensor | Sequence[int], N: int, T: int, device: torch.device) -> Tensor:
    tensor = lengths if isinstance(lengths, Tensor) else torch.tensor(lengths, dtype=torch.int64)
    if tuple(tensor.shape) != (N,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ShapeError(
            f"LSTM: `lengths` must be (N,) = ({N},) whole numbers, one for each sequence, "
            f"got {tuple(tensor.shape)} of {tensor.dtype}."
        )
    if not written():
        checks.values("LSTM", tensor, T)
    return tensor.to(device=device, dtype=torch.int64, non_blocking=True)
