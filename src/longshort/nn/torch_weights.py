"""Weights from torch's own layers and back, and `convert`, which does it for a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..errors import SettingError

if TYPE_CHECKING:
    from .cell import LSTMCell
    from .layer import LSTM

DEFAULTS: dict[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
}
"""torch.nn.LSTM's arguments after the two sizes, in order, with their defaults."""

Layer = TypeVar("Layer", bound="LSTM")


def from_torch(cls: type[Layer], module: nn.LSTM, **options: Any) -> Layer:
    """Run `LSTM.from_torch`."""
    if not isinstance(module, nn.LSTM):
        raise SettingError(
            f"LSTM.from_torch: `module` must be a torch.nn.LSTM, got {type(module).__name__}. "
            f"longshort.convert replaces those inside a model."
        )
    weight = next(module.parameters())
    layer = cls(
        module.input_size,
        module.hidden_size,
        **{name: getattr(module, name) for name in DEFAULTS},
        device=torch.device("meta"),
        dtype=weight.dtype,
        **options,
    ).to_empty(device=weight.device)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(getattr(module, name)).requires_grad_(getattr(module, name).requires_grad)
    return layer.train(module.training)


def to_torch(layer: LSTM) -> nn.LSTM:
    """Run `LSTM.to_torch`."""
    extra = [str(layer.variant)] if layer.variant.key != type(layer.variant)().key else []
    extra += [str(layer.noise)] if not layer.noise.silent else []
    extra += ["learn_initial=True"] if layer.learn_initial else []
    if extra:
        raise SettingError(
            f"LSTM.to_torch: torch.nn.LSTM has no counterpart of {', '.join(extra)}. "
            f"Keep the longshort layer, or export the model."
        )
    weight = next(layer.parameters())
    module = nn.LSTM(
        layer.input_size,
        layer.hidden_size,
        **{name: getattr(layer, name) for name in DEFAULTS},
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(getattr(layer, name)).requires_grad_(getattr(layer, name).requires_grad)
    return module.train(layer.training)


Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model) -> Any:
    """Replace every torch.nn.LSTM and LSTMCell in a model by this package's, in place, keeping its numbers.

    The parameters are not copied but handed over, so that optimisers, tied weights and hooks on them stay
    as they are. A subclass of torch.nn.LSTM, a parametrized one too, is left alone: it may compute
    something else.

    Args:
        model: any module.

    Returns:
        The same model; or, if it is itself a torch.nn.LSTM or LSTMCell, its replacement.

    Raises:
        SettingError: `model` is no module.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LSTM(3, 4))
    >>> convert(model)[1]
    LSTM(3, 4)
    """
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"convert: `model` must be a torch.nn.Module, got {type(model).__name__}. "
            f"Give the model that holds the LSTMs."
        )
    done: dict[int, nn.Module] = {}
    if type(model) in (nn.LSTM, nn.LSTMCell):
        return _replacement(model, done)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children would skip a second mention
            if child is not None and type(child) in (nn.LSTM, nn.LSTMCell):
                setattr(parent, name, _replacement(child, done))
    return model


def _replacement(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """This package's layer for one of torch's: the same one wherever the same one stood."""
    if id(module) not in done:
        from .cell import LSTMCell
        from .layer import LSTM

        new: LSTM | LSTMCell
        if isinstance(module, nn.LSTM):
            new = LSTM(
                module.input_size,
                module.hidden_size,
                **{name: getattr(module, name) for name in DEFAULTS},
                device=torch.device("meta"),
            )
        else:
            cell: Any = module
            new = LSTMCell(cell.input_size, cell.hidden_size, cell.bias, device=torch.device("meta"))
        for name, parameter in module.named_parameters(recurse=False):
            new.register_parameter(name, parameter)
        done[id(module)] = new.train(module.training)
    return done[id(module)]
