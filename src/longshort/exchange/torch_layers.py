"""torch.nn.LSTM, in and out: the same weights under the same names, so the same numbers."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import DataError, SettingError, need
from ..nn import LSTM
from ..runs import replacing
from .layers import Array, Layers, Weights, array_of, lstm_of

NAMES = re.compile(r"(?:(.*)\.)?(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")


def to_torch(model: nn.Module) -> nn.Module:
    """Turn a `longshort.LSTM`, or every one inside a model, into a torch.nn.LSTM with the same weights.

    The way back is `longshort.convert`.

    Args:
        model: a layer or a model; stays as it is.

    Returns:
        A torch.nn.LSTM, or a copy of the model that holds such layers, on the same device, in the same mode.

    Raises:
        SettingError: a layer has an option that torch.nn.LSTM lacks; the message names layer and option.

    >>> to_torch(LSTM(3, 4, num_layers=2))
    LSTM(3, 4, num_layers=2)
    """
    if isinstance(model, LSTM):
        return model.to_torch()
    return _replaced(copy.deepcopy(model), "")


def _replaced(model: nn.Module, path: str) -> nn.Module:
    for name, child in model.named_children():
        try:
            setattr(
                model,
                name,
                child.to_torch() if isinstance(child, LSTM) else _replaced(child, f"{path}{name}."),
            )
        except SettingError as error:
            raise SettingError(f"to_torch: the layer `{path}{name}`: {error}") from None
    return model


def save_torch(lstm: LSTM, path: str | Path) -> None:
    """Write the weights of a layer to a safetensors file that torch.nn.LSTM.load_state_dict takes.

    Args:
        lstm: a layer whose options torch.nn.LSTM has.
        path: the file's name.

    Raises:
        SettingError: torch.nn.LSTM lacks an option of the layer.
        MissingExtra: safetensors is not installed.
        RunError: the file cannot be written.
    """
    safetensors = need("safetensors.torch", extra="exchange", to="write weights")
    tensors = {name: value.contiguous() for name, value in lstm.to_torch().state_dict().items()}
    with replacing(path) as file:
        file.write(safetensors.save(tensors))


def load_torch(path: str | Path, name: str | None = None) -> LSTM:
    """Read the weights of a torch.nn.LSTM from a safetensors file, and build the layer from their shapes.

    Args:
        path: a safetensors file of a state dict. torch's own .pt files are pickles, which may run code, and
            are not read: write one anew with safetensors.torch.save_file(model.state_dict(), path).
        name: which LSTM of the file, its path in the model, such as ``"encoder.lstm"``; may be None where
            the file holds one.

    Returns:
        The layer, in evaluation mode; its input is (T, N, C), as the file does not say.

    Raises:
        DataError: the file is missing, damaged, or holds no or several LSTMs.
        MissingExtra: safetensors is not installed.
    """
    safetensors = need("safetensors", extra="exchange", to="read weights")
    numpy = need("safetensors.torch", extra="exchange", to="read weights")
    try:
        tensors = numpy.load(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: is damaged or is no safetensors file: {error}.") from None
    found = _grouped({key: array_of(t) for key, t in sorted(tensors.items()) if t.is_floating_point()})
    return lstm_of(chosen(str(path), found, name), str(path))


def _grouped(arrays: Mapping[str, Array]) -> dict[str, Layers]:
    places: dict[str, dict[tuple[int, bool], Weights]] = {}
    for key, value in arrays.items():
        match = NAMES.fullmatch(key)
        if match is not None:
            prefix, weight, layer, reverse = match.groups()
            places.setdefault(prefix or "", {}).setdefault((int(layer), reverse is not None), {})[weight] = (
                value
            )
    found = {}
    for prefix, parts in places.items():
        directions = (False, True) if any(reverse for _, reverse in parts) else (False,)
        numbers = range(1 + max(layer for layer, _ in parts))
        if all((k, reverse) in parts for k in numbers for reverse in directions):
            found[prefix] = Layers(tuple(tuple(parts[k, reverse] for reverse in directions) for k in numbers))
    return {
        prefix: layers for prefix, layers in found.items() if {"weight_ih", "weight_hh"} <= set(layers.first)
    }


def chosen(path: str, found: Mapping[str, Any], name: str | None) -> Any:
    """Return the one wanted of the LSTMs that a file holds.

    Raises:
        DataError: there is none, none of that name, or several and no name.
    """
    if not found:
        raise DataError(f"{path}: holds no LSTM. Its layers must be LSTMs for this to read them.")
    if name is None and len(found) > 1:
        raise DataError(f"{path}: holds {len(found)} LSTMs, {', '.join(found)}. Say which with `name`.")
    if name is not None and name not in found:
        raise DataError(f"{path}: holds no LSTM named {name!r}. Those it holds: {', '.join(found)}.")
    return found[name] if name is not None else next(iter(found.values()))
