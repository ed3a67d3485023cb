"""What torch does around a call: transforms, tracers, autocast."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_tracing, _modes = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack
_WRITERS: Final = tuple(torch._C._TorchDispatchModeKey.__members__.values())


def transformed() -> bool:
    """Whether a transform of torch.func or forward mode is at work: then tensors are not what they seem."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def written() -> bool:
    """Whether torch writes down what runs, or its tensors hold no numbers: then a call is one operator.

    So it is for torch.compile, torch.export, make_fx, torch.jit.trace and FakeTensorMode.
    """
    return (
        is_compiling()
        or _tracing() is not None
        or (_modes() > 0 and any(torch._C._get_dispatch_mode(mode) is not None for mode in _WRITERS))
    )


def watched() -> bool:
    """Whether anything of torch writes down, transforms or looks on: then tensors may hold no numbers."""
    return is_compiling() or _tracing() is not None or _modes() > 0 or transformed()


def functionalized() -> bool:
    """Whether torch.func.functionalize is at work and nothing else: it knows operators alone."""
    if not torch._C._are_functorch_transforms_active():
        return False
    stack: Any = torch._C._functorch.get_interpreter_stack()
    return len(stack) == 1 and stack[0].key() == torch._C._functorch.TransformType.Functionalize


def casting(device: str) -> bool:
    """Whether autocast is on for a type of device; the meta device knows no autocast."""
    return torch._C._is_any_autocast_enabled() and device != "meta" and torch.is_autocast_enabled(device)
