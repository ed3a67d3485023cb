"""A layer as a .keras or .h5 file: a Sequential of LSTM layers that Keras 3 loads, written without Keras."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, need
from ..nn import LSTM
from ..runs import replacing
from .keras_files import lstm_in
from .keras_layers import to_keras_weights
from .layers import Array

ENDINGS = (".keras", ".h5")
VERSION = "3.8.0"
"""The oldest Keras whose layout this is."""


def save_keras(lstm: LSTM, path: str | Path) -> None:
    """Write a layer as a Keras model: keras.saving.load_model(path) gives the same numbers.

    The file is read back before it is kept; one whose weights differ is not.

    Args:
        lstm: a layer whose options Keras' LSTM has. Its inputs are (N, T, C) in Keras whatever
            `batch_first`, and every layer returns its whole sequence.
        path: the file's name, ending in .keras, or in .h5 for the older format of one HDF5 file.

    Raises:
        SettingError: Keras' LSTM lacks an option of the layer; the message names it.
        DataError: the name ends in neither, or the file read back differs.
        MissingExtra: h5py is not installed.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise DataError(f"save_keras: {path} must end in .keras or .h5: Keras knows its files by that.")
    arrays = to_keras_weights(lstm)
    settings = _settings(lstm, arrays)
    if path.suffix == ".h5":
        content = _whole_hdf5(settings, arrays)
    else:
        content = _zipped(settings, _hdf5(lstm, arrays))
    _same(lstm, lstm_in(content, str(path)), path)
    with replacing(path) as file:
        file.write(content)


def _same(lstm: LSTM, again: LSTM, path: Path) -> None:
    for before, after in zip(to_keras_weights(lstm), to_keras_weights(again), strict=True):
        if not all(np.allclose(b, a, rtol=1e-6, atol=0) for b, a in zip(before, after, strict=True)):
            raise DataError(f"{path}: read back, its weights differ from the layer's; it was not kept.")


def _settings(lstm: LSTM, arrays: list[list[Array]]) -> dict[str, Any]:
    """The Sequential's config.json."""
    dtype = arrays[0][0].dtype.name
    shape = [None, None, lstm.input_size]
    entries = [_entry("InputLayer", {"batch_shape": shape, "dtype": dtype, "name": "input"})]
    width = lstm.input_size
    for k in range(lstm.num_layers):
        one = _entry("LSTM", _lstm_settings(lstm, f"lstm_{k}", dtype))
        if lstm.bidirectional:
            one = _entry("Bidirectional", _both_ways(lstm, k, dtype))
        one["build_config"] = {"input_shape": [None, None, width]}
        entries.append(one)
        if lstm.dropout and k < lstm.num_layers - 1:
            entries.append(_entry("Dropout", {"name": f"dropout_{k}", "rate": lstm.dropout, "dtype": dtype}))
        width = lstm.hidden_size * (2 if lstm.bidirectional else 1)
    model = {
        "name": "longshort",
        "trainable": True,
        "dtype": dtype,
        "layers": entries,
        "build_input_shape": shape,
    }
    return {**_entry("Sequential", model), "module": "keras", "build_config": {"input_shape": shape}}


def _entry(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def _both_ways(lstm: LSTM, k: int, dtype: str) -> dict[str, Any]:
    forward = _lstm_settings(lstm, f"forward_{k}", dtype)
    backward = {**_lstm_settings(lstm, f"backward_{k}", dtype), "go_backwards": True}
    return {
        "name": f"bidirectional_{k}",
        "dtype": dtype,
        "merge_mode": "concat",
        "layer": _entry("LSTM", forward),
        "backward_layer": _entry("LSTM", backward),
    }


def _lstm_settings(lstm: LSTM, name: str, dtype: str) -> dict[str, Any]:
    return {
        "name": name,
        "trainable": True,
        "dtype": dtype,
        "return_sequences": True,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "units": lstm.hidden_size,
        "activation": "tanh" if lstm.variant.input_activation else "linear",
        "recurrent_activation": lstm.variant.gate_activation,
        "use_bias": bool(lstm.bias),
        "dropout": lstm.noise.variational_x,
        "recurrent_dropout": lstm.noise.variational_h,
    }


def _hdf5(lstm: LSTM, arrays: list[list[Array]]) -> bytes:
    """model.weights.h5: each layer's arrays under the group that Keras looks them up by."""
    h5py = need("h5py", extra="exchange", to="write Keras weights")
    directions = ("forward_layer/", "backward_layer/") if lstm.bidirectional else ("",)
    kind = "bidirectional" if lstm.bidirectional else "lstm"
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_group("vars")
        for k, parts in enumerate(arrays):
            group = f"layers/{kind}" + (f"_{k}" if k else "")
            file.create_group(f"{group}/vars")
            size = len(parts) // len(directions)
            for place, value in enumerate(parts):
                direction = directions[place // size]
                file[f"{group}/{direction}cell/vars/{place % size}"] = value
        if lstm.dropout:
            for k in range(lstm.num_layers - 1):
                file.create_group(f"layers/dropout{f'_{k}' if k else ''}/vars")
    return memory.getvalue()


def _whole_hdf5(settings: dict[str, Any], arrays: list[list[Array]]) -> bytes:
    """The .h5: settings as an attribute, and each layer's arrays in a group of its name, listed in order."""
    h5py = need("h5py", extra="exchange", to="write Keras weights")
    layers = settings["config"]["layers"]
    names = [entry["config"]["name"] for entry in layers]
    lstms = [entry["config"]["name"] for entry in layers if entry["class_name"] in ("LSTM", "Bidirectional")]
    weights = dict(zip(lstms, arrays, strict=True))
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["keras_version"] = VERSION
        file.attrs["model_config"] = json.dumps(settings)
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = VERSION
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            parts = {f"{name}/{place}": value for place, value in enumerate(weights.get(name, []))}
            one = group.create_group(name)
            one.attrs["weight_names"] = [key.encode() for key in parts]
            for key, value in parts.items():
                one[key] = value
        group.create_group("top_level_model_weights").attrs["weight_names"] = []
    return memory.getvalue()


def _zipped(settings: dict[str, Any], weights: bytes) -> bytes:
    metadata = {"keras_version": VERSION, "date_saved": datetime.now(UTC).strftime("%Y-%m-%d@%H:%M:%S")}
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(settings))
        archive.writestr("model.weights.h5", weights)
    return memory.getvalue()
