"""A traced model, node by node: its LSTMs on the engine, all else in NumPy."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import engine
from ..errors import DataError, ShapeError
from .files import Array
from .operators import OPERATORS

LSTM = "longshort.lstm"
FIELDS = (
    "x", "w_ih", "w_hh", "bias", "h", "c", "w_hr", "peephole", "w_gates", "gain_ih", "gain_hh", "gain_c",
    "shift_c", "initial_h", "initial_c", "reset", "lengths", "seed",
)  # fmt: skip
"""The arguments of the layer's node, in order."""
PACKED = ("w_ih", "w_hh", "bias", "w_hr", "peephole", "w_gates", "gain_ih", "gain_hh", "gain_c", "shift_c")


class Program:
    """A model that was exported whole. What depends on its weights alone is computed once, on loading.

    Args:
        settings: inputs, outputs and nodes, as `longshort.export` wrote them.
        arrays: its weights.
        where: the beginning of every message.

    Raises:
        DataError: a node is damaged, or of an operator that this longshort lacks.
        BackendError: the engine is not installed.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, Array], where: str) -> None:
        try:
            self.inputs = {one["name"]: (one["dtype"], one["shape"]) for one in settings["inputs"]}
            self.outputs = [(one["name"], one["node"]) for one in settings["outputs"]]
            self.nodes = [SimpleNamespace(**node) for node in settings["nodes"]]
            missing = {n.op for n in self.nodes} - set(OPERATORS) - {LSTM}
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: its settings lack {error}. Export the model again.") from None
        if missing:
            raise DataError(
                f"{where}: needs {', '.join(sorted(missing))}, which this longshort does not compute. "
                f"Install a newer longshort."
            )
        self.layers: dict[str, Any] = {}
        self.known: dict[str, Any] = dict(arrays)
        try:
            self.nodes = [node for node in self.nodes if not self._folded(node)]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"{where}: a node is damaged: {error}. Export the model again.") from None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run the model.

        Args:
            *given: arrays for the inputs, in order.
            **named: the same by name; `inputs` lists the names with type and shape, None for N.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
        """
        fed = dict(zip(self.inputs, given, strict=False)) | named
        if len(given) > len(self.inputs) or set(fed) != set(self.inputs):
            wanted = ", ".join(self.inputs)
            raise ShapeError(f"model: must be given {wanted}, got {', '.join(fed) or 'nothing'}.")
        values: dict[str, Any] = dict(self.known)
        N = None
        for name, (dtype, shape) in self.inputs.items():
            array = np.asarray(fed[name], dtype=dtype)
            whole = [N if want is None else want for want in shape]
            fits = array.ndim == len(shape)
            if not fits or any(w not in (None, h) for w, h in zip(whole, array.shape, strict=True)):
                axes = ", ".join("N" if want is None else str(want) for want in shape)
                raise ShapeError(f"model: `{name}` must be ({axes}), got {array.shape}.")
            N = next((h for want, h in zip(shape, array.shape, strict=True) if want is None), N)
            values[name] = array
        for node in self.nodes:
            values[node.name] = self._computed(node, values)
        results = tuple(values[place] for _, place in self.outputs)
        return results[0] if len(results) == 1 else results

    def _folded(self, node: Any) -> bool:
        """Compute a node that depends on weights alone; pack the weights of an LSTM."""
        if node.op == LSTM:
            args = dict(zip(FIELDS, (_filled(a, self.known) for a in node.args), strict=False))
            variant, rates, flags, _, _ = node.args[-1].split("|")
            options = SimpleNamespace(**json.loads(variant))
            weights = {name: args[name] for name in PACKED}
            noise = engine.noise(SimpleNamespace(**json.loads(rates)), training=False)
            packed = engine.pack(**weights, variant=options)
            keep = {"keep_cells": flags[2] == "1", "keep_gates": flags[3] == "1"}
            self.layers[node.name] = (packed, noise, {"reverse": flags[1] == "1", **keep})
            return False
        if not all(name in self.known for name in _names(node.args) | _names(node.kwargs)):
            return False
        self.known[node.name] = self._computed(node, self.known)
        return True

    def _computed(self, node: Any, values: dict[str, Any]) -> Any:
        args = _filled(node.args, values)
        if node.op == LSTM:
            packed, noise, flags = self.layers[node.name]
            given = dict(zip(FIELDS, args, strict=False))
            rest = {name: given[name] for name in ("initial_h", "initial_c", "reset", "lengths")}
            x, h, c = (np.ascontiguousarray(given[name]) for name in ("x", "h", "c"))
            out = engine.forward(packed, x, h, c, noise=noise, **rest, **flags)
            return [part for part in out[:5] if part is not None]
        with np.errstate(all="ignore"):
            result = OPERATORS[node.op](*args, **_filled(node.kwargs, values))
        if node.dtype is not None and not isinstance(result, tuple | list):
            result = np.asarray(result, dtype=node.dtype)
        return result


def _filled(value: Any, values: dict[str, Any]) -> Any:
    """Arguments with each reference to a node replaced by the node's value, where it is known."""
    if isinstance(value, dict):
        if set(value) == {"$"}:
            return values.get(value["$"])
        return {key: _filled(one, values) for key, one in value.items()}
    return [_filled(one, values) for one in value] if isinstance(value, list) else value


def _names(value: Any) -> set[str]:
    """The nodes that arguments refer to."""
    if isinstance(value, dict):
        if set(value) == {"$"}:
            return {value["$"]}
        value = list(value.values())
    return set().union(*map(_names, value)) if isinstance(value, list) else set()
