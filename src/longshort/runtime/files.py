"""The folder of an exported model: what it is, as JSON, and its weights, as safetensors.

    model.json            the kind of model, its sizes and options, and a digest of both files
    weights.safetensors   the arrays, in the open format of that name, read and written here with NumPy alone

A byte changed in either file is an error, never another model.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Array = NDArray[Any]

FORMAT = 1
"""The folder's version; one with a larger number was written by a newer longshort."""
SETTINGS, WEIGHTS = "model.json", "weights.safetensors"
KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
"""safetensors' names of the types that are read and written."""


def write_folder(folder: Path, settings: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write both files into a folder that is there.

    Args:
        folder: where.
        settings: a JSON object.
        arrays: float32, float64 or int64 arrays by name.
    """
    content = packed(arrays)
    (folder / WEIGHTS).write_bytes(content)
    about = {"longshort": FORMAT, "sha256": digest(settings, content), "settings": settings}
    (folder / SETTINGS).write_text(json.dumps(about, indent=2) + "\n", "utf8")


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the settings and the arrays of a folder.

    Raises:
        DataError: a file is missing, damaged, changed, or of a newer longshort.
    """
    folder = Path(folder)
    try:
        text, content = (folder / SETTINGS).read_bytes(), (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise DataError(
            f"{folder}: is no exported model: {error.filename} cannot be read: {error.strerror}. "
            f"longshort.export(model, folder) writes one."
        ) from None
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder / SETTINGS}: is damaged: {error}.") from None
    good = isinstance(about, dict) and isinstance(about.get("settings"), dict)
    if not good or not isinstance(about.get("longshort"), int):
        raise DataError(f"{folder / SETTINGS}: was not written by longshort, or is damaged.")
    if about["longshort"] > FORMAT:
        raise DataError(
            f"{folder}: has format {about['longshort']}, and this longshort reads up to {FORMAT}. "
            f"Install a newer longshort."
        )
    if about.get("sha256") != digest(about["settings"], content):
        raise DataError(
            f"{folder}: was changed since it was written: its digest does not fit. Export the model again."
        )
    return about["settings"], unpacked(content, folder / WEIGHTS)


def digest(settings: dict[str, Any], content: bytes) -> str:
    """Return the SHA-256 of the settings and of the weights' file."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical + b"\0" + content).hexdigest()


def packed(arrays: dict[str, Array]) -> bytes:
    """Return the bytes of a safetensors file."""
    names = {dtype: name for name, dtype in KINDS.items()}
    header, parts, at = {}, [], 0
    for name, value in arrays.items():
        part = np.ascontiguousarray(value)
        data = part.tobytes()
        offsets = [at, at + len(data)]
        header[name] = {"dtype": names[part.dtype], "shape": list(part.shape), "data_offsets": offsets}
        parts.append(data)
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpacked(content: bytes, path: Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file, as views of its bytes.

    Raises:
        DataError: it is no safetensors file, or damaged.
    """
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size]) if 8 + size <= len(content) else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise DataError(f"{path}: is damaged or is no safetensors file: it has no header.")
    return {
        name: _one(name, entry, content[8 + size :], path)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _one(name: str, entry: Any, data: bytes, path: Path) -> Array:
    try:
        kind: np.dtype[Any] = KINDS[entry["dtype"]]
        shape, (first, last) = entry["shape"], entry["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, first, last))
        if not whole or last > len(data) or last - first != math.prod(shape) * kind.itemsize:
            raise ValueError("its size does not fit")
        return np.frombuffer(data[first:last], kind).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the array `{name}` is damaged: {error}.") from None
