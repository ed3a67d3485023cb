"""One Keras LSTM, its settings and its arrays, in and out of `Layers`; no file, and no Keras.

Keras stacks the gates i, f, c, o, which is this package's order, along the second axis of `kernel` (C, 4H)
and `recurrent_kernel` (H, 4H), and has one `bias` (4H,). Its second bias here is zero. CuDNNLSTM of Keras 2
has two biases (8H,) and turns each gate's kernel; Keras 1 kept each gate's arrays by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..nn import LSTM
from ..scan import Noise, Variant
from .layers import Array, Layers, Weights, agreeing, layers_of, lstm_of, told

ACTIVATIONS = {"tanh": True, "linear": False}
KERAS_1 = "icfo"
"""The order of the gates in which Keras 1 lists their arrays; c is g."""
SLOPE = {True: 1 / 6, False: 0.2}
"""Of the hard sigmoid: clip(slope a + 0.5, 0, 1), in Keras 3 and before."""


def from_keras_weights(arrays: Sequence[Any], *, hard_sigmoid: float | None = None) -> LSTM:
    """Build a layer from what `get_weights()` of one Keras LSTM, or of one Bidirectional, returns.

    Args:
        arrays: kernel (C, 4H), recurrent kernel (H, 4H) and, where there is one, bias (4H,); the same again
            for the backward direction of a Bidirectional with merge_mode "concat".
        hard_sigmoid: slope of the gates' hard sigmoid, 1/6 in Keras 3 and 0.2 before; None for the sigmoid.

    Returns:
        The layer, batch first as in Keras, in evaluation mode.

    Raises:
        DataError: the arrays are not those of an LSTM.
    """
    where = "from_keras_weights"
    parts = [np.asarray(a) for a in arrays]
    if len(parts) not in (2, 3, 4, 6) or any(part.dtype.kind != "f" for part in parts):
        raise DataError(
            f"{where}: `arrays` must be the 2 or 3 arrays of an LSTM, or the 4 or 6 of a Bidirectional, as "
            f"floating-point numbers, got {len(parts)} arrays."
        )
    halves = [parts] if len(parts) in (2, 3) else [parts[: len(parts) // 2], parts[len(parts) // 2 :]]
    variant = Variant() if hard_sigmoid is None else Variant(gate_activation="hard_sigmoid")
    weights = tuple(_scaled(_named(half, where), (hard_sigmoid or 0.2) / 0.2) for half in halves)
    return lstm_of(Layers((weights,), variant, batch_first=True), where)


def to_keras_weights(lstm: LSTM) -> list[list[Array]]:
    """Return what `set_weights()` of each Keras layer takes, one entry a layer.

    Args:
        lstm: a layer whose options Keras' LSTM has: sigmoid or hard sigmoid gates, no projection.

    Returns:
        kernel, recurrent kernel and bias of each layer, forwards and then backwards. The two biases are
        summed. A hard sigmoid is that of Keras 3, with a slope of 1/6, to which the weights are scaled.

    Raises:
        SettingError: Keras' LSTM lacks an option of the layer; the message names it.
    """
    layers = layers_of(lstm)
    _sayable(lstm, layers)
    hard = layers.variant.gate_activation == "hard_sigmoid"
    return [[a for w in directions for a in _keras_arrays(w, hard)] for directions in layers.weights]


def _sayable(lstm: LSTM, layers: Layers) -> None:
    both_linear = not layers.variant.input_activation and not layers.variant.output_activation
    allowed = ["gate_activation", *(["input_activation", "output_activation"] if both_linear else [])]
    odd = told(layers.variant, allowed)
    known = ("variational_x", "variational_h")
    odd += [name for name, rate in layers.noise.to_json().items() if rate and name not in known]
    odd += ["proj_size"] if "weight_hr" in layers.first else []
    odd += ["learn_initial"] if lstm.learn_initial else []
    if odd:
        raise SettingError(
            f"to_keras: keras.layers.LSTM has no counterpart of {', '.join(f'`{name}`' for name in odd)}. "
            f"Export the layer to ONNX, or train it without."
        )


def _keras_arrays(weights: Weights, hard: bool) -> list[Array]:
    scaled = _scaled(weights, 0.2 / SLOPE[True]) if hard else weights
    arrays = [scaled["weight_ih"].T, scaled["weight_hh"].T]
    if "bias_ih" in scaled:
        arrays.append(scaled["bias_ih"] + scaled["bias_hh"])
    return [np.ascontiguousarray(a) for a in arrays]


def _scaled(weights: Weights, factor: float) -> Weights:
    """Multiply what leads to the gates i, f and o, so that their hard sigmoid may have another slope."""
    if factor == 1:
        return weights
    scaled = {}
    for name, value in weights.items():
        i, f, g, o = np.split(value, 4)
        scaled[name] = np.concatenate([i * factor, f * factor, g, o * factor]).astype(value.dtype)
    return scaled


def _named(arrays: Sequence[Array], where: str, *, cudnn: bool = False) -> Weights:
    """Kernel, recurrent kernel and bias as this package's weights, each held against the others."""
    axes = {2: ["matrix", "matrix"], 3: ["matrix", "matrix", "vector"]}.get(len(arrays), [])
    if not axes or [a.ndim for a in arrays] != [2 if axis == "matrix" else 1 for axis in axes]:
        raise DataError(
            f"{where}: an LSTM has a kernel (C, 4H), a recurrent kernel (H, 4H) and perhaps a bias (4H,), "
            f"got arrays of shapes {', '.join(str(a.shape) for a in arrays) or 'none'}."
        )
    kernel, recurrent = arrays[:2]
    H = recurrent.shape[0]
    if kernel.shape[1] != 4 * H or recurrent.shape[1] != 4 * H or not H:
        raise DataError(
            f"{where}: the kernel must be (C, 4H) and the recurrent kernel (H, 4H), got {kernel.shape} and "
            f"{recurrent.shape}. The layer is no LSTM, or the file is damaged."
        )
    if cudnn:
        kernel = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(kernel, 4)])
        recurrent = np.hstack([part.T for part in np.hsplit(recurrent, 4)])
    weights = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    if len(arrays) == 3:
        bias = arrays[2]
        twice = len(bias) == 8 * H
        weights["bias_ih"] = bias[: 4 * H]
        weights["bias_hh"] = bias[4 * H :] if twice else np.zeros_like(bias)
    wide = np.float64 if kernel.dtype == np.float64 else np.float32
    weights = {name: value.astype(wide) for name, value in weights.items()}
    agreeing(where, weights, Variant())
    return weights


def _from_keras_1(arrays: Sequence[Array], where: str) -> list[Array]:
    """The twelve arrays of Keras 1 (kernel, recurrent kernel and bias of i, c, f, o) as Keras 2's three."""
    try:
        place = [KERAS_1.index(gate) for gate in "ifco"]
        return [np.concatenate([arrays[3 * k + part] for k in place], axis=-1) for part in range(3)]
    except ValueError as error:
        raise DataError(f"{where}: the arrays of its gates disagree: {error}.") from None


def one_direction(
    config: Mapping[str, Any], arrays: Sequence[Array], *, where: str, version: int, cudnn: bool
) -> tuple[Weights, Variant, Noise]:
    """Turn the settings and arrays of one Keras LSTM into weights, a variant and noise.

    Args:
        config: the layer's settings as the file has them.
        arrays: its arrays, in Keras' order.
        where: file and layer, the beginning of every message.
        version: Keras' major version when the file was written.
        cudnn: whether the layer is a CuDNNLSTM.

    Raises:
        DataError: the settings contradict the arrays, or ask for what this package's LSTM lacks.
    """
    arrays = _from_keras_1(arrays, where) if len(arrays) == 12 else arrays
    weights = _named(arrays, where, cudnn=cudnn)
    units = _value(config, ("units", "output_dim"), int, None, where)
    if weights["weight_hh"].shape[1] != units:
        raise DataError(
            f"{where}: its settings say {units} units, and its weights have {weights['weight_hh'].shape[1]}. "
            f"The file is damaged, or its parts come from two models."
        )
    if _value(config, ("use_bias",), bool, True, where) != ("bias_ih" in weights):
        raise DataError(f"{where}: its settings and its weights disagree on `use_bias`. The file is damaged.")
    gate = "sigmoid" if cudnn else _activation(config, ("recurrent_activation", "inner_activation"), where)
    inner = "tanh" if cudnn else _activation(config, ("activation",), where)
    if gate not in ("sigmoid", "hard_sigmoid") or inner not in ACTIVATIONS:
        raise DataError(
            f"{where}: its activations must be 'sigmoid' or 'hard_sigmoid' for the gates and 'tanh' or "
            "'linear' "
            f"for the cell, got {gate!r} and {inner!r}. longshort.LSTM has no other."
        )
    known = ACTIVATIONS[inner]
    variant = Variant(gate_activation=gate, input_activation=known, output_activation=known)
    rates = [
        _value(config, names, float, 0.0, where)
        for names in (("dropout", "dropout_W"), ("recurrent_dropout", "dropout_U"))
    ]
    try:
        noise = Noise(variational_x=float(rates[0]), variational_h=float(rates[1]))
    except SettingError as error:
        raise DataError(f"{where}: {error}") from None
    factor = SLOPE[version >= 3] / 0.2 if gate == "hard_sigmoid" else 1.0
    return _scaled(weights, factor), variant, noise


def _activation(config: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The name of an activation; Keras 3 may nest it in an object."""
    value = next(
        (config[name] for name in names if name in config), "tanh" if "activation" in names else "sigmoid"
    )
    if isinstance(value, dict):
        value = (
            value.get("config", {}).get("name")
            if isinstance(value.get("config"), dict)
            else value.get("config")
        )
    if not isinstance(value, str):
        raise DataError(f"{where}: `{names[0]}` must be an activation's name, got {value!r}.")
    return value


def _value(config: Mapping[str, Any], names: Sequence[str], kind: type, default: Any, where: str) -> Any:
    value = next((config[name] for name in names if name in config), default)
    good = isinstance(value, (int, float) if kind is float else kind) and (
        kind is bool or not isinstance(value, bool)
    )
    if not good:
        raise DataError(
            f"{where}: `{names[0]}` must be of type {kind.__name__}, got {value!r}. The file is damaged."
        )
    return value
