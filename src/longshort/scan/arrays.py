"""Tensors as the engine's arrays and back. Nothing is copied but what the engine cannot read where it lies.

The engine's sums are float32 or float64. What has 16 bits reaches it in one of two forms: bfloat16 as it
lies, where the processor multiplies pairs of them and sizes and options allow it; all else widened to
float32, which holds every value of both types. In both h is rounded after each step, as the definition says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .. import engine
from .call import Call


def array(tensor: Tensor | None) -> Any:
    """The tensor's memory as an array whose last axis is contiguous: a copy only where it is not."""
    if tensor is None:
        return None
    if not tensor.is_contiguous() and tensor.dim() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    return lent(tensor)


def lent(tensor: Tensor) -> Any:
    """The tensor's memory as an array of the same strides, which may be resized when no array is left."""
    if tensor.is_neg() or tensor._is_zerotensor():  # other numbers are meant than lie there
        tensor = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return np.from_dlpack(_Lent(tensor))


class _Lent:
    """A tensor as NumPy takes it: its memory, and a hold on it.

    `Tensor.numpy` takes longer, and forbids the memory to be resized from then on, which FSDP does to weights
    and a caller may do to x.
    """

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        """Return the capsule: NumPy 1 knows only the older one, and makes an array that nobody writes."""
        return _older(self.tensor) if max_version is None else _newer(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the CPU."""
        return 1, 0


_older, _newer = torch._C._to_dlpack, torch._C._to_dlpack_versioned


class Memory:
    """Arrays of tensors that are kept from call to call, and made again where a tensor's memory has moved."""

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        self.tensors = tensors
        self._made: tuple[list[int], list[Any]] | None = None

    def arrays(self) -> list[Any]:
        """Their own memory, in order; None for None."""
        at = [0 if t is None else t.data_ptr() for t in self.tensors]
        made = self._made
        if made is None or made[0] != at:
            made = self._made = at, list(map(array, self.tensors))
        return made[1]


class Form:
    """How x, h, y, W_ih and W_hh become arrays: as they are. All else is in the dtype of the sums."""

    name: str = "whole"
    rounding: str = "none"
    copies: bool = False
    "whether an array of a weight is a copy, which shows no later write"

    def values(self, tensor: Tensor | None) -> Any:
        """The array of x, h, y, or of a weight of a product."""
        return array(tensor)

    def sums(self, tensor: Tensor | None) -> Any:
        """The array of anything else."""
        return array(tensor)

    def tensor(self, made: Any, dtype: torch.dtype) -> Tensor:
        """What the engine made of x, h or y."""
        del dtype
        return torch.from_numpy(made)

    def gradient(self, made: Any, name: str, call: Call) -> Tensor:
        """The gradient of an input; that of x is in the form of x."""
        return self.tensor(made, call.dtype) if name == "x" else torch.from_numpy(made)


class Widened(Form):
    """As float32, and h rounded to `rounding` after each step."""

    name, copies = "widened", True

    def __init__(self, rounding: str) -> None:
        self.rounding = rounding

    def values(self, tensor: Tensor | None) -> Any:
        """The same values in float32."""
        return None if tensor is None else array(tensor.float())

    sums = values

    def tensor(self, made: Any, dtype: torch.dtype) -> Tensor:
        """The same values in 16 bits."""
        return torch.from_numpy(made).to(dtype)


class Paired(Form):
    """bfloat16 as it lies, two neighbours a word. To an odd number of inputs one is added, of zeros."""

    name = "paired"

    def values(self, tensor: Tensor | None) -> Any:
        """The bits."""
        return None if tensor is None else array(even(tensor).view(torch.uint16))

    def sums(self, tensor: Tensor | None) -> Any:
        """The same values in float32."""
        return None if tensor is None else array(tensor.float())

    def tensor(self, made: Any, dtype: torch.dtype) -> Tensor:
        """The values that the bits stand for."""
        return torch.from_numpy(made).view(dtype)

    def gradient(self, made: Any, name: str, call: Call) -> Tensor:
        """The gradient of an input, without that of an input that was added."""
        found = super().gradient(made, name, call)
        return found[..., : call.C].clone() if name in ("x", "w_ih") and call.C % 2 else found


def even(tensor: Tensor) -> Tensor:
    """A tensor (..., K), copied where its rows begin at no whole words, with a zero more where K is odd."""
    if tensor.shape[-1] % 2:
        return torch.nn.functional.pad(tensor, (0, 1))
    strides = [s for s, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    if tensor.data_ptr() % 4 == 0 and strides and strides[-1] == 1 and not any(s % 2 for s in strides[:-1]):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def marks(tensor: Tensor) -> tuple[Tensor, ...]:
    """What shows a write into a weight of 16 bits: the sums of the bits of a matrix's rows and columns.

    Args:
        tensor: (R, K), summed by fours where K is a multiple of four; or (K,), which is copied.
    """
    fours = tensor.numel() > 0 and tensor.is_contiguous() and tensor.shape[-1] % 4 == 0
    bits = tensor.detach().view(torch.int64 if fours and tensor.data_ptr() % 8 == 0 else torch.int16)
    return (bits.clone(),) if bits.dim() == 1 else (bits.sum(0), bits.sum(1))


_WHOLE: Final = Form()
_PAIRED: Final = Paired()
_WIDENED: Final = {torch.bfloat16: Widened("bfloat16"), torch.float16: Widened("float16")}


def form_of(call: Call) -> Form:
    """The form of a call."""
    if call.dtype not in _WIDENED:
        return _WHOLE
    return _WIDENED[call.dtype] if why_widened(call) else _PAIRED


def why_widened(call: Call) -> str | None:
    """Say what keeps a call of 16 bits from being multiplied in pairs, or None.

    A norm's sum cancels on the way back, and dropout's scale makes values of h that have more than 16 bits.
    """
    variant = call.variant
    if call.dtype != torch.bfloat16:
        return "only bfloat16 is multiplied as it is"
    if call.P % 2:
        return "the number of units is odd"
    if "w_hr" in call.given:
        return "there is a projection"
    if variant.gate_recurrence or variant.norm != "none":
        return "there is gate recurrence" if variant.gate_recurrence else "there is a norm"
    if call.options.noise.variational_h:
        return "there is variational_h"
    return None if engine.pairs() else f"the set {engine.isa()} has no products of bfloat16"


def said_of(call: Call) -> str | None:
    """Say in which form a call of 16 bits runs, or None."""
    if call.dtype not in _WIDENED:
        return None
    why = why_widened(call)
    return "bfloat16 in pairs" if why is None else f"widened to float32: {why}"
