"""Keras files, .keras and .h5, read and written as data: no Keras is needed, and nothing in them is run."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..nn import LSTM
from .hdf5 import Tree, read_hdf5
from .keras_layers import one_direction
from .layers import Array, Layers, lstm_of
from .torch_layers import chosen

LSTMS = ("LSTM", "CuDNNLSTM")
MODELS = ("Sequential", "Functional", "Model")
BETWEEN = ("InputLayer", "Dropout", "Masking")
"""Layers that may stand between two LSTMs of one stack."""
LARGEST = 4 << 30


@dataclass(frozen=True)
class Found:
    """One layer of a model's settings.

    Attributes:
        kind: its class name in Keras.
        name: as Keras knows it.
        config: its settings.
        path: its group in the weights of a .keras file.
        top: the name of the outermost layer that it is in.
        model: the group of the model that it is in.
        line: whether that model and all around it are Sequentials.
        reads: the layers of its model whose outputs it reads.
    """

    kind: str
    name: str
    config: dict[str, Any]
    path: str
    top: str
    model: str
    line: bool
    reads: tuple[str, ...]


def load_keras(path: str | Path, name: str | Sequence[str] | None = None) -> LSTM:
    """Read the LSTM of a Keras model.

    Reads .keras of Keras 3 and .h5 of Keras 1 to 3 as data: a Lambda layer or a custom class in them is never
    run. Gates of Keras 2 with the hard sigmoid of that time keep its slope of 0.2.

    Args:
        path: the file.
        name: which layer, by its name in Keras; several names for layers that form one stack, the first one
            first; None where the file has one LSTM, or a Sequential whose LSTMs follow each other.

    Returns:
        The layer, in evaluation mode, batch first as in Keras. `dropout` and `recurrent_dropout` of Keras
        have become its noise in training.

    Raises:
        DataError: the file is missing, damaged or holds no LSTM; a layer has settings that longshort.LSTM
            lacks (`go_backwards` by itself, a `merge_mode` other than "concat", other activations); the
            layers named form no stack.
        MissingExtra: h5py is not installed.
    """
    return lstm_in(_bytes(path), str(path), name)


def lstm_in(content: bytes, path: str, name: str | Sequence[str] | None = None) -> LSTM:
    """Read the LSTM of a Keras file's bytes, as `load_keras` does; messages call it `path`."""
    settings, tree, version = _opened(content, path)
    all_layers = list(_layers(settings, path))
    recurrent: dict[str, Found] = {}
    for one in filter(_is_lstm, all_layers):
        if one.name in recurrent:
            raise DataError(
                f"{path}: holds several LSTMs named {one.name!r}, in models inside the model. Give each a "
                f"name of its own in Keras, and save it again."
            )
        recurrent[one.name] = one
    if name is None:
        whole = list(recurrent.values())
        line = all(one.line for one in whole) and all(starmap(partial(_follows, all_layers), pairwise(whole)))
        names = list(recurrent) if line else []
    else:
        names = [name] if isinstance(name, str) else list(name)
    picked = [chosen(path, recurrent, one) for one in names] or [chosen(path, recurrent, None)]
    for one, other in pairwise(picked):
        if not _follows(all_layers, one, other):
            raise DataError(
                f"{path}: the layers that `name` gives must form one stack, each reading the one before, and "
                f"`{other.name}` is not known to read `{one.name}` alone. Read them one by one."
            )
    parts = [_read_one(path, one, tree, version) for one in picked]
    first = parts[0]
    if any((part.variant, part.noise) != (first.variant, first.noise) for part in parts):
        raise DataError(
            f"{path}: {', '.join(one.name for one in picked)} differ in their activations or dropout, and "
            "one "
            f"LSTM has the same throughout. Read them one by one with `name`."
        )
    stack = replace(
        first, weights=tuple(part.weights[0] for part in parts), dropout=_dropout(all_layers, picked)
    )
    return lstm_of(stack, path)


def keras_names(path: str | Path) -> list[str]:
    """Return the names of the LSTM and Bidirectional layers of a Keras file, in order.

    Raises:
        DataError: the file is missing or damaged.
    """
    settings, _, _ = _opened(_bytes(path), str(path))
    return [one.name for one in _layers(settings, str(path)) if _is_lstm(one)]


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the name
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}.") from None


def _opened(content: bytes, path: str) -> tuple[dict[str, Any], Tree, int]:
    """The model's settings, its arrays, and Keras' major version when it was written."""
    if content[:2] == b"PK":
        settings, weights, version = _unzipped(content, path)
        tree = read_hdf5(weights, f"{path}, model.weights.h5")
    else:
        tree = read_hdf5(content, path)
        about = tree.attributes.get("", {})
        version = about.get(
            "keras_version", tree.attributes.get("model_weights", {}).get("keras_version", "1")
        )
        if not isinstance(about.get("model_config"), str):
            raise DataError(
                f"{path}: holds no model: it has no `model_config`. A file of weights alone does not say "
                "what they "
                "are for; save the whole model with model.save, or hand layer.get_weights() to "
                "from_keras_weights."
            )
        settings = _json(about["model_config"], f"{path}, model_config")
    match = re.match(r"(\d{1,3})(\.|$)", version) if isinstance(version, str) else None
    if match is None:
        raise DataError(f"{path}: its Keras version must be a number such as '3.8.0', got {version!r}.")
    return settings, tree, int(match[1])


def _unzipped(content: bytes, path: str) -> tuple[dict[str, Any], bytes, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {}
            for member in ("metadata.json", "config.json", "model.weights.h5"):
                if archive.getinfo(member).file_size > LARGEST:
                    raise DataError(f"{path}: {member} says that it is larger than {LARGEST:,} bytes.")
                parts[member] = archive.read(member)
    except KeyError as error:
        raise DataError(f"{path}: is a zip file, but no Keras model: {error.args[0]}.") from None
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        ValueError,
        NotImplementedError,
        EOFError,
        RuntimeError,
        OSError,
    ) as error:
        raise DataError(f"{path}: is damaged: {error}.") from None
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever the named compression raises
        if type(error).__module__ not in ("zlib", "_lzma", "lzma", "struct", "_struct"):
            raise
        raise DataError(f"{path}: is damaged: {error}.") from None
    metadata = _json(parts["metadata.json"], f"{path}, metadata.json")
    return (
        _json(parts["config.json"], f"{path}, config.json"),
        parts["model.weights.h5"],
        metadata.get("keras_version"),
    )


def _json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be a JSON object, got {type(value).__name__}.")
    return value


def _entries(model: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The layers' entries of a model's settings; a Sequential of Keras 1 and 2.1 lists them bare."""
    config = model.get("config")
    entries = config.get("layers") if isinstance(config, dict) else config
    good = isinstance(entries, list) and all(
        isinstance(e, dict)
        and isinstance(e.get("class_name"), str)
        and isinstance(e.get("config"), dict | list)
        for e in entries
    )
    if not good:
        raise DataError(
            f"{where}: its settings list no layers. It is no Keras model, or the file is damaged."
        )
    return entries  # type: ignore[return-value]


def _layers(
    model: Mapping[str, Any], where: str, path: str = "", top: str = "", depth: int = 0, line: bool = True
) -> Iterator[Found]:
    """Every layer, those of models inside models too, in the order of the settings."""
    if depth > 20:
        raise DataError(f"{where}: has models inside models more than 20 deep. The file is damaged.")
    used: dict[str, int] = {}
    last: tuple[str, ...] = ()
    sequential = model.get("class_name") == "Sequential"
    for entry in _entries(model, where):
        kind, config = entry["class_name"], entry["config"]
        group = _snake(kind)
        used[group] = used.get(group, -1) + 1
        place = f"{path}layers/{group}" + (f"_{used[group]}" if used[group] else "")
        name = config.get("name", "") if isinstance(config, dict) else ""
        if not isinstance(name, str):
            raise DataError(f"{where}: a layer's name must be text, got {name!r}. The file is damaged.")
        if kind in MODELS:
            yield from _layers(entry, where, f"{place}/", top or name, depth + 1, line and sequential)
        elif isinstance(config, dict):
            reads = last if sequential else tuple(_reads(entry.get("inbound_nodes")))
            yield Found(kind, name, config, place, top or name, path, line and sequential, reads)
        last = (name,)


def _snake(kind: str) -> str:
    """Keras' own name for a class in its files."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_lstm(one: Found) -> bool:
    inner = one.config.get("layer")
    return one.kind in LSTMS or (
        one.kind == "Bidirectional" and isinstance(inner, dict) and inner.get("class_name") in LSTMS
    )


def _follows(layers: Sequence[Found], one: Found, other: Found) -> bool:
    """Whether a layer reads another, with nothing in between that changes numbers."""
    if one.line and other.line:
        between = layers[layers.index(one) + 1 : layers.index(other)]
        return layers.index(one) < layers.index(other) and all(k.line and k.kind in BETWEEN for k in between)
    named = {found.name: found for found in layers if found.model == other.model}
    reader: Found | None = other
    for _ in layers:
        reader = named.get(reader.reads[0]) if reader is not None and len(reader.reads) == 1 else None
        if reader is None or reader.kind not in BETWEEN:
            break
    return reader is one


def _reads(value: Any, depth: int = 0) -> Iterator[str]:
    """The layers whose outputs `inbound_nodes` names, as Keras 3 and as Keras 1 and 2 write it."""
    if depth > 20:
        yield from ("", "")  # not followed: no layer of that name, and more than one
    elif isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        else:
            for part in value.values():
                yield from _reads(part, depth + 1)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0]
            value = value[3:]
        for part in value:
            yield from _reads(part, depth + 1)


def _dropout(layers: Sequence[Found], picked: Sequence[Found]) -> float:
    """The rate of Dropout between the layers of a stack; 0 if they differ."""
    places = [k for k, one in enumerate(layers) if one in picked]
    rates = {one.config.get("rate") for one in layers[places[0] : places[-1]] if one.kind == "Dropout"}
    rate = rates.pop() if len(rates) == 1 else 0.0
    return float(rate) if isinstance(rate, int | float) and 0 <= rate <= 1 else 0.0


def _read_one(path: str, one: Found, tree: Tree, version: int) -> Layers:
    """The weights and settings of one layer, in both directions if it is a Bidirectional."""
    where = f"{path}, layer `{one.name}`"
    configs, cudnn = [one.config], one.kind == "CuDNNLSTM"
    if one.kind == "Bidirectional":
        if one.config.get("merge_mode", "concat") != "concat":
            raise DataError(
                f"{where}: its `merge_mode` must be 'concat', got {one.config['merge_mode']!r}: "
                "longshort.LSTM lays "
                "both directions side by side. Read its weights with from_keras_weights and merge them "
                "yourself."
            )
        inner = one.config["layer"]
        other = one.config.get("backward_layer", inner)
        parts = [part.get("config") if isinstance(part, dict) else None for part in (inner, other)]
        if not all(isinstance(part, dict) for part in parts):
            raise DataError(
                f"{where}: its settings name no layers for the two directions. The file is damaged."
            )
        configs, cudnn = parts, inner["class_name"] == "CuDNNLSTM"  # type: ignore[assignment]
        backwards = [config.get("go_backwards", False) for config in configs]
        if backwards != [False, True] and not (other is inner and backwards[0] is False):
            raise DataError(
                f"{where}: `go_backwards` must be False in its first direction and True in its second, got "
                f"{backwards[0]!r} and {backwards[1]!r}: longshort.LSTM runs forwards first. Read its "
                f"weights with from_keras_weights and put them in that order."
            )
    elif one.config.get("go_backwards", False) is not False:
        raise DataError(
            f"{where}: runs backwards by itself (`go_backwards`), and longshort.LSTM runs backwards only "
            "beside a "
            f"forward direction. Reverse the input and read the weights with from_keras_weights."
        )
    arrays = _arrays(one, tree, where)
    size = len(arrays) // len(configs)
    halves = [arrays[k * size : (k + 1) * size] for k in range(len(configs))]
    read = [
        one_direction(config, half, where=where, version=version, cudnn=cudnn)
        for config, half in zip(configs, halves, strict=True)
    ]
    if any(part[1:] != read[0][1:] for part in read):
        raise DataError(
            f"{where}: its two directions differ in their settings, and longshort.LSTM's never do."
        )
    return Layers((tuple(part[0] for part in read),), read[0][1], read[0][2], batch_first=True)


def _arrays(one: Found, tree: Tree, where: str) -> list[Array]:
    """The arrays of a layer, in Keras' order: those of the forward direction first."""
    if any(key.startswith("layers/") for key in tree.attributes):
        directions = ("/forward_layer", "/backward_layer") if one.kind == "Bidirectional" else ("",)
        paths = [key for d in directions for key in tree.under(f"{one.path}{d}/cell/vars")]
    else:
        root = "model_weights/" if "model_weights" in tree.attributes else ""
        names = tree.attributes.get(f"{root}{one.top}", {}).get("weight_names", [])
        names = [n for n in names if isinstance(n, str)] if isinstance(names, list) else []
        inside = names if one.top == one.name else [n for n in names if f"/{one.name}/" in f"/{n}"]
        paths = [f"{root}{one.top}/{name}" for name in inside]
    missing = [key for key in paths if key not in tree.arrays]
    if not paths or missing:
        raise DataError(
            f"{where}: its weights are missing from the file{': ' + missing[0] if missing else ''}. The "
            "model was "
            f"saved before it was built, or the file is damaged."
        )
    return [tree.arrays[key] for key in paths]
