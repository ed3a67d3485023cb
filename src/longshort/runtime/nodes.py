"""A traced function, node by node: its LSTMs on the engine, all else in NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import DataError, SettingError, ShapeError
from .files import Array
from .given import array
from .operators import OPERATORS
from .simplify import simplified
from .stack import Layer, Variant

LSTM = "longshort.lstm"
FIELDS = (
    "x", "w_ih", "w_hh", "bias", "h", "c", "w_hr", "peephole", "w_gates", "gain_ih", "gain_hh", "gain_c",
    "shift_c", "initial_h", "initial_c", "reset", "lengths", "seed",
)  # fmt: skip
"""The arguments of the layer's node, in order."""
PACKED = ("w_ih", "w_hh", "bias", "w_hr", "peephole", "w_gates", "gain_ih", "gain_hh", "gain_c", "shift_c")


class Nodes:
    """One traced function. What depends on its weights alone is computed once.

    Args:
        settings: inputs, outputs and nodes.
        arrays: its weights, by the names of their nodes.
        where: the beginning of every message.
        form: how the LSTMs' weights are kept, of `stack.FORMS`.
        threads: of the LSTMs.

    Raises:
        DataError: a node is damaged, of an operator that this longshort lacks, or not for short weights.
    """

    def __init__(
        self, settings: dict[str, Any], arrays: dict[str, Array], where: str, form: str, threads: int
    ) -> None:
        try:
            self.inputs = {one["name"]: (one["dtype"], one["shape"]) for one in settings["inputs"]}
            self.outputs = [(one["name"], one["node"]) for one in settings["outputs"]]
            self.least = {str(letter): int(size) for letter, size in settings.get("least", {}).items()}
            missing = {node["op"] for node in settings["nodes"]} - set(OPERATORS) - {LSTM}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{where}: its settings lack {error}. Export the model again.") from None
        if missing:
            raise DataError(
                f"{where}: needs {', '.join(sorted(missing))}, which this longshort does not compute. "
                f"Install a newer longshort."
            )
        self.where, self.form, self.threads = where, form, threads
        self.layers: dict[str, Any] = {}
        self.known: dict[str, Any] = dict(arrays)
        try:
            with np.errstate(all="ignore"):
                nodes, instead = simplified([_node(**node) for node in settings["nodes"]])
                self.nodes = [node for node in nodes if not self._folded(node)]
            self.outputs = [(name, instead.get(node, node)) for name, node in self.outputs]
            for node in self.nodes:
                node.take = _prepared(node.args), _prepared(node.kwargs)
            self.tables = {n.name: _source(n, self.nodes) for n in self.nodes if n.op == "embedding"}
            used = {place for _, place in self.outputs}.union(
                *(_names(n.args) | _names(n.kwargs) for n in self.nodes)
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"{where}: a node is damaged: {error}. Export the model again.") from None
        self.known = {name: value for name, value in self.known.items() if name in used}

    def run(
        self,
        caller: str,
        given: tuple[Any, ...],
        named: dict[str, Any],
        kept: Sequence[Array] = (),
        hold: Callable[[dict[str, Array]], None] | None = None,
    ) -> list[Any]:
        """Return the outputs for inputs in order and by name.

        Args:
            caller: the beginning of every message.
            given: arrays for the inputs behind what is kept, in order.
            named: the same by name.
            kept: the first inputs, of which the caller's user knows nothing.
            hold: looks at the values of the inputs, whose shapes are right, and refuses wrong ones.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
            SettingError: a token or a category is none that the model knows.
        """
        wanted, taken = list(self.inputs)[len(kept) :], dict(zip(self.inputs, kept, strict=False))
        fed = dict(zip(wanted, given, strict=False)) | named
        if len(given) > len(wanted) or set(fed) != set(wanted):
            more = [f"{len(given)} in order"] if len(given) > len(wanted) else []
            got = ", ".join(more or fed) or "nothing"
            raise ShapeError(f"{caller}: must be given {', '.join(wanted)}, got {got}.")
        fed |= taken
        values: dict[str, Any] = dict(self.known)
        sizes: dict[str, int] = {}
        for name, (dtype, shape) in self.inputs.items():
            part, before = array(f"{caller}: `{name}`", fed[name], dtype), dict(sizes)
            if part.ndim != len(shape) or not all(map(partial(self._fits, sizes), shape, part.shape)):
                raise ShapeError(f"{caller}: `{name}` must be {self._told(shape, before)}, got {part.shape}.")
            values[name] = part
        if hold is not None:
            hold({name: values[name] for name in wanted})
        with np.errstate(all="ignore"):
            for node in self.nodes:
                take_args, take_kwargs = node.take
                args, kwargs = take_args(values), take_kwargs(values)
                if node.name in self.tables:
                    self._checked(caller, self.tables[node.name], args, values)
                values[node.name] = self._computed(node, args, kwargs)
        return [values[place] for _, place in self.outputs]

    def _fits(self, sizes: dict[str, int], wanted: int | str, size: int) -> bool:
        """Whether an axis has its length, or the one that its letter has elsewhere: T, or T + 6."""
        if isinstance(wanted, int):
            return wanted == size
        letter, _, more = wanted.partition(" + ")
        size -= int(more or 0)
        return size >= self.least.get(letter, 0) and sizes.setdefault(letter, size) == size

    def _told(self, shape: list[int | str], sizes: dict[str, int]) -> str:
        """The shape wanted, and what its letters are."""
        axes = ", ".join(map(str, shape))
        facts = [f"{k} = {n}" for k, n in sizes.items() if k in axes]
        facts += [f"{k} at least {n}" for k, n in self.least.items() if k in axes and k not in sizes]
        return f"({axes})" + (f" with {', '.join(facts)}" if facts else "")

    def _folded(self, node: Any) -> bool:
        """Compute a node that depends on weights alone; pack the weights of an LSTM."""
        if node.op == LSTM:
            refs = [isinstance(a, dict) for a in node.args]
            given = [self.known.get(a["$"]) if ref else a for a, ref in zip(node.args, refs, strict=True)]
            args = dict(zip(FIELDS, given, strict=False))
            variant, rates, flags, _, _ = node.args[-1].split("|")
            weights = {name: args[name] for name in PACKED}
            layer = Layer(
                weights, Variant(**json.loads(variant)), SimpleNamespace(**json.loads(rates)),
                self.form, self.threads, self.where,
            )  # fmt: skip
            keep = {"keep_cells": flags[2] == "1", "keep_gates": flags[3] == "1"}
            if any(keep.values()) and layer.short:
                raise DataError(
                    f"{self.where}: keeps cells or gates, which short weights do not. "
                    f"Load it with weights='float32'."
                )
            self.layers[node.name] = (layer, {"reverse": flags[1] == "1", **keep})
            node.args = [
                None if name in PACKED else a for name, a in zip(FIELDS, node.args[:-1], strict=False)
            ]
            return False
        if not all(name in self.known for name in _names(node.args) | _names(node.kwargs)):
            return False
        self.known[node.name] = self._computed(
            node, *(_prepared(a)(self.known) for a in (node.args, node.kwargs))
        )
        return True

    def _checked(self, caller: str, where: str, args: list[Any], values: dict[str, Any]) -> None:
        """Refuse to look up what no row of a table stands for; NumPy would count from the end."""
        weight, places = args[:2]
        outside = (places < 0) | (places >= len(weight))
        if outside.any():
            found = int(places[outside][0])
            place = np.argwhere(values[where] == found)[0].tolist()
            raise SettingError(
                f"{caller}: `{where}` must be in [0, {len(weight)}), got {found} at {place}. "
                f"Encode it as for the fit: text by the model's own vocabulary."
            )

    def _computed(self, node: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if node.op == LSTM:
            layer, flags = self.layers[node.name]
            given = dict(zip(FIELDS, args, strict=False))
            x, h, c = (np.ascontiguousarray(given[name], np.float32) for name in ("x", "h", "c"))
            initial = given["initial_h"], given["initial_c"]
            if initial[0] is None:
                initial = np.zeros_like(h), np.zeros_like(c)
            out = layer.run(x, h, c, reset=given["reset"], lengths=given["lengths"], initial=initial, **flags)
            return [part for part in out[:5] if part is not None]
        result = OPERATORS[node.op](*args, **kwargs)
        if node.dtype is not None and not isinstance(result, tuple | list):
            result = np.asarray(result, dtype=node.dtype)
        return result


def _node(name: str, op: str, args: list[Any], kwargs: dict[str, Any], dtype: str | None) -> SimpleNamespace:
    """A node as the file has it, its type as NumPy's."""
    return SimpleNamespace(
        name=name, op=op, args=args, kwargs=kwargs, dtype=None if dtype is None else np.dtype(dtype)
    )


def _prepared(value: Any) -> Callable[[dict[str, Any]], Any]:
    """What makes arguments of the values of nodes: each reference to a node becomes its value."""
    if not _names(value):
        return lambda values: value
    if isinstance(value, dict) and set(value) == {"$"}:
        return itemgetter(value["$"])
    if isinstance(value, dict):
        parts = {key: _prepared(one) for key, one in value.items()}
        return lambda values: {key: take(values) for key, take in parts.items()}
    places = [(k, _prepared(one)) for k, one in enumerate(value) if _names(one)]

    def filled(values: dict[str, Any]) -> list[Any]:
        made = list(value)
        for k, take in places:
            made[k] = take(values)
        return made

    return filled


def _source(node: Any, nodes: list[Any]) -> str:
    """The input that a table's places come from."""
    makers, value = {one.name: one for one in nodes}, node.args[1]
    while value["$"] in makers:
        before = makers[value["$"]].args[0]
        if not isinstance(before, dict):
            break
        value = before
    return str(value["$"])


def _names(value: Any) -> set[str]:
    """The nodes that arguments refer to."""
    if isinstance(value, dict):
        if set(value) == {"$"}:
            return {value["$"]}
        value = list(value.values())
    return set().union(*map(_names, value)) if isinstance(value, list) else set()
