"""The constants of an ONNX graph: initialisers, Constant nodes, and what simple nodes make of them.

Exporters often leave the reordering of weights in the graph. A dozen operators that only move or negate
numbers are enough to follow it; nothing else is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, need
from .layers import Array


def constants_of(graph: Any, values: Mapping[str, Any], where: str) -> dict[str, Array]:
    """Return the constant values of a graph by name.

    Args:
        graph: an onnx.GraphProto.
        values: arrays for the graph's inputs that are known, such as weights fed from outside.
        where: the file, the beginning of every message.

    Raises:
        DataError: a stored array is damaged.
    """
    helper = need("onnx.numpy_helper", extra="exchange", to="read ONNX")
    known = {name: np.asarray(value) for name, value in values.items()}
    for tensor in graph.initializer:
        known[tensor.name] = _stored(helper, tensor, where)
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            stored = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
            listed = [list(a.ints) for a in node.attribute if a.name == "value_ints"]
            single = [a.i for a in node.attribute if a.name == "value_int"]
            if stored:
                known[node.output[0]] = _stored(helper, stored[0], where)
            elif listed or single:
                known[node.output[0]] = np.array((listed or single)[0], dtype=np.int64)
        elif node.op_type in MOVES and node.domain in ("", "ai.onnx"):
            _follow(node, known, where)
    return known


def _stored(helper: Any, tensor: Any, where: str) -> Array:
    try:
        array = helper.to_array(tensor)
    except Exception as error:  # protobuf, numpy and ml_dtypes raise what they like
        raise DataError(f"{where}: the array `{tensor.name}` is damaged: {error}.") from None
    return np.asarray(array)


def attributes_of(node: Any, where: str) -> dict[str, Any]:
    """Return a node's attributes as plain values: whole numbers, floats, text, and lists of them."""
    found: dict[str, Any] = {}
    for one in node.attribute:
        kinds = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}
        if one.type not in kinds:
            continue
        value = getattr(one, kinds[one.type])
        try:
            if one.type == 3:
                value = value.decode("utf8")
            elif one.type == 8:
                value = [text.decode("utf8") for text in value]
        except UnicodeDecodeError:
            raise DataError(f"{where}: the attribute `{one.name}` is no text. The file is damaged.") from None
        found[one.name] = list(value) if one.type in (6, 7, 8) else value
    return found


def _follow(node: Any, known: dict[str, Array], where: str) -> None:
    """Add the outputs of a node whose inputs are all known."""
    if not all(name in known for name in node.input if name):
        return
    given = [known[name] if name else None for name in node.input]
    try:
        made = MOVES[node.op_type](given, attributes_of(node, where), len(node.output))
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f"{where}: the node `{node.name}` ({node.op_type}) is damaged: {error}.") from None
    known.update(zip(node.output, made, strict=False))


def _axes(given: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Axes as an attribute, or since opset 13 as an input."""
    listed = (
        given[1].ravel().tolist() if len(given) > 1 and given[1] is not None else attributes.get("axes", ())
    )
    return tuple(int(axis) for axis in listed)


def _unsqueeze(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    return [np.expand_dims(given[0], _axes(given, attributes))]


def _squeeze(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    return [np.squeeze(given[0], _axes(given, attributes) or None)]


def _transpose(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    return [np.transpose(given[0], attributes.get("perm"))]


def _concat(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    return [np.concatenate(given, axis=int(attributes["axis"]))]


def _split(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    sizes = given[1].tolist() if len(given) > 1 and given[1] is not None else attributes.get("split")
    places = count if sizes is None else np.cumsum(sizes)[:-1]
    return list(np.split(given[0], places, axis=int(attributes.get("axis", 0))))


def _slice(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    array = given[0]
    starts, ends = (
        given[k].tolist() if len(given) > k else attributes[n] for k, n in ((1, "starts"), (2, "ends"))
    )
    axes = given[3].tolist() if len(given) > 3 and given[3] is not None else attributes.get("axes")
    steps = given[4].tolist() if len(given) > 4 and given[4] is not None else [1] * len(starts)
    cut = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes or range(len(starts)), starts, ends, steps, strict=True):
        cut[axis] = slice(start, end if end > -(1 << 62) else None, step)
    return [array[tuple(cut)]]


def _reshape(given: Sequence[Any], attributes: Mapping[str, Any], count: int) -> list[Array]:
    shape = [given[0].shape[k] if size == 0 else size for k, size in enumerate(given[1].tolist())]
    return [given[0].reshape(shape)]


MOVES: dict[str, Callable[[Sequence[Any], Mapping[str, Any], int], list[Array]]] = {
    "Identity": lambda given, attributes, count: [given[0]],
    "Neg": lambda given, attributes, count: [-given[0]],
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Reshape": _reshape,
}
"""Operators that only move numbers or turn their sign."""
