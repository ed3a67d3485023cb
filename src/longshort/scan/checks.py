"""Whether the arguments of a call agree, in one place; every message names the argument and the remedy."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from .. import shapes
from ..errors import SettingError, ShapeError
from .call import DIFFERENTIABLE, Call, Inputs, Options, call_of
from .variant import Variant

HINT = "Weights follow torch.nn.LSTM: gates i, f, g, o stacked along dim 0; bias is b_ih + b_hh."
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
KEEP = (None, "cells", "gates", "all")
STATES = ("h", "c", "initial_h", "initial_c")


def axes(variant: Variant, given: Inputs) -> dict[str, str]:
    """Return the contract of each tensor of a call, by name, in axis letters."""
    gates = f"{len(variant.gates)}H"
    out = "P" if given.w_hr is not None else "H"
    cell = f"{1 + len(variant.sigmoids)}H" if variant.gate_recurrence else "H"
    contract = {"x": "N T C", "w_ih": f"{gates} C", "w_hh": f"{gates} {out}", "bias": gates, "w_hr": "P H"}
    contract |= variant.weights
    contract |= {"h": f"N {out}", "c": f"N {cell}", "initial_h": f"N {out}", "initial_c": f"N {cell}"}
    return contract | {"reset": "N T", "lengths": "N"}


def agree(caller: str, options: Options, given: Inputs, save: bool) -> Call:
    """Check everything about a call but the values of its tensors, and describe it.

    Returns:
        `call_of` the arguments.

    Raises:
        ShapeError:   a shape, dtype or device disagrees.
        SettingError: a weight is missing or has no use in this variant, or an option is out of range.
    """
    kinds = [None if t is None else (t.shape, t.dtype, t.device) for t in given]
    met = (options, save, *kinds)
    call = _MET.get(met)
    if call is None:
        agree_once(caller, options, given)
        if len(_MET) >= 4096:
            _MET.clear()
        call = _MET[met] = call_of(options, given, save)
    return call


_MET: dict[Hashable, Call] = {}
"""Calls by shapes, dtypes and devices that have passed: a call looks itself up here before it is checked."""


def agree_once(caller: str, options: Options, given: Inputs) -> None:
    """The same without a memory, for shapes that are symbols."""
    variant, contract = options.variant, axes(options.variant, given)
    for name in ("peephole", "w_gates", "gain_ih", "gain_hh", "gain_c", "shift_c"):
        needed, here = name in variant.weights, getattr(given, name) is not None
        if needed and not here:
            raise SettingError(
                f"{caller}: {variant} needs the weight `{name}` {_of(contract[name])}, got None."
            )
        if here and not needed:
            raise SettingError(f"{caller}: the weight `{name}` has no use in {variant}. Leave it out.")
    if variant.projection_clip is not None and given.w_hr is None:
        raise SettingError(
            f"{caller}: `projection_clip` = {variant.projection_clip} clips the projection, and there is "
            f"none. Give `w_hr` (P, H), or leave out `projection_clip`."
        )
    if options.checkpoint_every is not None and options.checkpoint_every < 1:
        raise SettingError(
            f"{caller}: `checkpoint_every` must be a number of steps, at least 1, "
            f"got {options.checkpoint_every}."
        )
    tensors = {n: t for n, t in zip(Inputs._fields, given, strict=True) if t is not None and n != "seed"}
    order = [name for name in contract if name in tensors]
    shapes.check(caller, HINT, **{name: (tensors[name], contract[name]) for name in order})
    _types(caller, given)


def _of(contract: str) -> str:
    letters = contract.split()
    return "(" + ", ".join(letters) + ("," if len(letters) == 1 else "") + ")"


def tensor(caller: str, name: str, value: object) -> Tensor:
    """Return a value that is a tensor whose numbers lie in memory one by one.

    Raises:
        ShapeError: it is none, or a sparse one.
    """
    if not isinstance(value, Tensor):
        raise ShapeError(
            f"{caller}: `{name}` must be a tensor, got {type(value).__name__}. Use torch.as_tensor({name})."
        )
    if value.layout != torch.strided:
        raise ShapeError(
            f"{caller}: `{name}` must be a dense tensor, got the layout {value.layout}. "
            f"Use {name}.to_dense()."
        )
    return value


def flags(caller: str, name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """Return flags as a tensor, whatever its shape and dtype: the tensor itself, or made of lists.

    Raises:
        ShapeError: it is neither, or its rows are of different lengths.
    """
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(
            f"{caller}: `{name}` must be a bool tensor or lists of True and False of one length, "
            f"got {type(value).__name__}."
        ) from None


def _types(caller: str, given: Inputs) -> None:
    x = given.x
    if x.dtype not in FLOATS:
        raise ShapeError(
            f"{caller}: `x` must be float32, float64, bfloat16 or float16, got {x.dtype}. Use x.float()."
        )
    wide = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    for k, (name, tensor) in enumerate(zip(Inputs._fields, given, strict=True)):
        if tensor is None or name == "seed":
            continue
        if tensor.device != x.device:
            move = "`x` with x.to(w_ih.device)" if name == "w_ih" else f"it with {name}.to(x.device)"
            raise ShapeError(
                f"{caller}: all tensors must be on one device; `x` is on {x.device}, "
                f"`{name}` on {tensor.device}. Move {move}."
            )
        if k < DIFFERENTIABLE and tensor.dtype not in (
            (x.dtype, wide) if name in ("c", "initial_c") else (x.dtype,)
        ):
            convert = f"Convert it with {name}.to(x.dtype)."
            if name not in STATES:  # never lower the weights for what they are given
                convert = "Convert `x` with x.to(w_ih.dtype)."
                if given.w_ih.dtype == x.dtype:
                    convert = "Give all weights the dtype of the widest, and `x` the same."
            raise ShapeError(
                f"{caller}: all tensors must have one dtype; `x` is {x.dtype}, `{name}` {tensor.dtype}. "
                f"{convert}"
            )
    if given.reset is not None and given.reset.dtype != torch.bool:
        raise ShapeError(
            f"{caller}: `reset` must be of dtype torch.bool, got {given.reset.dtype}. "
            f"Use `reset != 0` if it holds 0 and 1."
        )
    if given.lengths is not None and given.lengths.dtype != torch.int64:
        raise ShapeError(
            f"{caller}: `lengths` must be of dtype torch.int64, got {given.lengths.dtype}. "
            f"Use lengths.long()."
        )


def values(caller: str, lengths: Tensor | None, T: int) -> None:
    """Check the lengths themselves, where that waits for no device.

    Raises:
        ShapeError: a length is negative or longer than the T steps of x.
    """
    if lengths is None or lengths.device.type != "cpu" or lengths.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(lengths))
    if low < 0 or high > T:
        n, got = (int(lengths.argmin()), low) if low < 0 else (int(lengths.argmax()), high)
        raise ShapeError(
            f"{caller}: `lengths` must be in [0, T] = [0, {T}], got {got} for sequence {n}. "
            f"T is the number of steps of the input; lengths count steps from the first."
        )


def keep(caller: str, what: str | None) -> tuple[bool, bool]:
    """Return whether cells and whether gates are to be kept.

    Raises:
        SettingError: `what` is none of the choices.
    """
    if what not in KEEP:
        raise SettingError(
            f"{caller}: `keep` must be one of {', '.join(map(repr, KEEP))}, got {what!r}. 'all' keeps both."
        )
    return what in ("cells", "all"), what in ("gates", "all")
