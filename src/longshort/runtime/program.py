"""A traced model, node by node: its LSTMs on the engine, all else in NumPy. Whole, and as a stream."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import DataError, ShapeError
from .files import Array
from .operators import OPERATORS
from .stack import Layer

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
            self.nodes = [SimpleNamespace(**node) for node in settings["nodes"]]
            missing = {n.op for n in self.nodes} - set(OPERATORS) - {LSTM}
        except (KeyError, TypeError) as error:
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
            self.nodes = [node for node in self.nodes if not self._folded(node)]
            used = {place for _, place in self.outputs}.union(
                *(_names(n.args) | _names(n.kwargs) for n in self.nodes)
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"{where}: a node is damaged: {error}. Export the model again.") from None
        self.known = {name: value for name, value in self.known.items() if name in used}

    def run(self, caller: str, given: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """Return the outputs for inputs in order and by name.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
        """
        fed = dict(zip(self.inputs, given, strict=False)) | named
        if len(given) > len(self.inputs) or set(fed) != set(self.inputs):
            wanted = ", ".join(self.inputs)
            raise ShapeError(f"{caller}: must be given {wanted}, got {', '.join(fed) or 'nothing'}.")
        values: dict[str, Any] = dict(self.known)
        sizes: dict[str, int] = {}
        for name, (dtype, shape) in self.inputs.items():
            array = np.asarray(fed[name], dtype=dtype)
            whole = [sizes.get(want, want) if isinstance(want, str) else want for want in shape]
            fits = array.ndim == len(shape)
            if not fits or any(
                isinstance(w, int) and w != h for w, h in zip(whole, array.shape, strict=True)
            ):
                axes = ", ".join(map(str, shape))
                raise ShapeError(f"{caller}: `{name}` must be ({axes}), got {array.shape}.")
            sizes |= {w: h for w, h in zip(shape, array.shape, strict=True) if isinstance(w, str)}
            values[name] = array
        for node in self.nodes:
            values[node.name] = self._computed(node, values)
        return [values[place] for _, place in self.outputs]

    def _folded(self, node: Any) -> bool:
        """Compute a node that depends on weights alone; pack the weights of an LSTM."""
        if node.op == LSTM:
            args = dict(zip(FIELDS, (_filled(a, self.known) for a in node.args), strict=False))
            variant, rates, flags, _, _ = node.args[-1].split("|")
            weights = {name: args[name] for name in PACKED}
            layer = Layer(
                weights, SimpleNamespace(**json.loads(variant)), SimpleNamespace(**json.loads(rates)),
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
        self.known[node.name] = self._computed(node, self.known)
        return True

    def _computed(self, node: Any, values: dict[str, Any]) -> Any:
        args = _filled(node.args, values)
        if node.op == LSTM:
            layer, flags = self.layers[node.name]
            given = dict(zip(FIELDS, args, strict=False))
            x, h, c = (np.ascontiguousarray(given[name], np.float32) for name in ("x", "h", "c"))
            initial = given["initial_h"], given["initial_c"]
            if initial[0] is None:
                initial = np.zeros_like(h), np.zeros_like(c)
            out = layer.run(x, h, c, reset=given["reset"], lengths=given["lengths"], initial=initial, **flags)
            return [part for part in out[:5] if part is not None]
        with np.errstate(all="ignore"):
            result = OPERATORS[node.op](*args, **_filled(node.kwargs, values))
        if node.dtype is not None and not isinstance(result, tuple | list):
            result = np.asarray(result, dtype=node.dtype)
        return result


class Program:
    """A model that was exported whole.

    Args:
        settings: inputs, outputs and nodes, as `longshort.export` wrote them.
        arrays: its weights.
        where: the beginning of every message.
        form: how the LSTMs' weights are kept, of `stack.FORMS`.
        threads: of the LSTMs.

    Raises:
        DataError: a node is damaged, of an operator that this longshort lacks, or not for short weights.
        BackendError: the engine is not installed.
    """

    def __init__(
        self, settings: dict[str, Any], arrays: dict[str, Array], where: str, form: str, threads: int
    ) -> None:
        self.whole = Nodes(settings, arrays, where, form, threads)
        self.next: Nodes | None = None
        self.kept = 0
        if "step" in settings:
            step = settings["step"]
            try:
                own = {node: arrays[name] for node, name in step["arrays"].items()}
                self.kept = int(step["kept"])
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise DataError(f"{where}: its step lacks {error}. Export the model again.") from None
            self.next = Nodes(step, own, where, form, threads)

    @property
    def inputs(self) -> dict[str, tuple[str, list[Any]]]:
        """Name -> type and shape of each input; a free axis has its letter."""
        return dict(self.whole.inputs)

    @property
    def step_inputs(self) -> dict[str, tuple[str, list[Any]]]:
        """The same of what a stream's `step` takes; empty where the model has no stream."""
        return {} if self.next is None else dict(list(self.next.inputs.items())[self.kept :])

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run the model.

        Args:
            *given: arrays for the inputs, in order.
            **named: the same by name.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
        """
        results = self.whole.run("model", given, named)
        return _one(results[: len(results) - self.kept])

    def stream(self, *given: Any, **named: Any) -> ProgramStream:
        """Begin a stream: read what the model reads at once, and go on from there step by step.

        Args:
            *given: arrays for the inputs, in order.
            **named: the same by name.

        Raises:
            ShapeError: the model was exported without a step, or an input does not fit.
        """
        if self.next is None:
            raise ShapeError("stream: the model was exported without a step. Call it on whole sequences.")
        return ProgramStream(self.next, self.kept, self.whole.run("stream", given, named))


class ProgramStream:
    """N sequences of a whole model, somewhere in their course. Made by `Program.stream`.

    Args:
        step: the traced step: what is kept and new inputs in, outputs and what is kept out.
        kept: how many of its first inputs and last outputs are the state.
        begun: outputs and state after the beginning.
    """

    def __init__(self, step: Nodes, kept: int, begun: list[Any]) -> None:
        self._step, self._names = step, list(step.inputs)[:kept]
        self._outputs, self._state = begun[:-kept], begun[-kept:]

    @property
    def output(self) -> Any:
        """What the model says after the last step, or after the beginning."""
        return _one(self._outputs)

    @property
    def state(self) -> dict[str, Array]:
        """A copy of all that is kept."""
        return {name: value.copy() for name, value in zip(self._names, self._state, strict=True)}

    @state.setter
    def state(self, state: dict[str, Array]) -> None:
        """Go on from a state of before; `output` stays until the next step.

        Raises:
            ShapeError: a part is missing, unknown, or of another shape.
        """
        shapes = {name: value.shape for name, value in zip(self._names, self._state, strict=True)}
        got = {name: np.shape(value) for name, value in state.items()}
        if got != shapes:
            raise ShapeError(f"stream: `state` must have {shapes}, got {got}.")
        self._state = [np.array(state[name], self._step.inputs[name][0]) for name in self._names]

    def step(self, *given: Any, mask: Any = None, **named: Any) -> Any:
        """Take one step.

        Args:
            *given: arrays for the inputs of the step, in order.
            mask: (N,) bool, the sequences that step; all if None. The others stay as they are, with the
                outputs of their last step.
            **named: the inputs by name.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
        """
        fed = dict(zip(list(self._step.inputs)[len(self._names) :], given, strict=False))
        results = self._step.run("stream.step", tuple(self._state), fed | named)
        count = len(results) - len(self._names)
        if mask is not None:
            mask = np.asarray(mask)
            shapes = [self._step.inputs[name][1] for name in self._names]
            N = self._state[0].shape[shapes[0].index("N")]
            if mask.shape != (N,) or mask.dtype != np.bool_:
                raise ShapeError(
                    f"stream.step: `mask` must be (N,) = ({N},) of bool, got {mask.shape} of {mask.dtype}."
                )
            axes = [0] * count + [shape.index("N") for shape in shapes]
            before = [*self._outputs, *self._state]
            results = [_chosen(*each, mask) for each in zip(results, before, axes, strict=True)]
        self._outputs, self._state = results[:count], results[count:]
        return self.output


def _one(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _chosen(new: Array, old: Array, axis: int, mask: Array) -> Array:
    """New where the mask is true along an axis, old elsewhere."""
    return np.where(mask.reshape([-1 if k == axis else 1 for k in range(new.ndim)]), new, old)


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
