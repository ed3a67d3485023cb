"""Which LSTM nodes of an ONNX graph are the layers of one stack, by following the axes between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import need
from .layers import Array, Layers
from .onnx_constants import attributes_of

if TYPE_CHECKING:
    from .onnx_reading import OnnxLSTM

FLOATS = (1, 10, 11, 16)
"""float32, float16, float64 and bfloat16, as ONNX counts its types."""
MOVING = ("Expand", "Tile", "Slice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity",
          "Cast", "Split")  # fmt: skip
"""Operators that hand on the numbers of their first input."""
DEEPEST = 100
"""How many operators are followed between two nodes."""


@dataclass(frozen=True)
class Stack:
    """Nodes that form one layer of several, or a node that no layer can stand for.

    Attributes:
        name: of the first node.
        layers: what they make together.
        refusal: why they cannot be read so; empty if they can.
    """

    name: str
    layers: Layers
    refusal: str


@dataclass(frozen=True)
class Outputs:
    """A value of the graph that is the Y of LSTM nodes, moved about.

    Attributes:
        nodes: their numbers; those of two directions side by side.
        axes: a letter each: T, N, H, D for the directions, 1 for an axis of one entry.
        width: entries of H, of all directions together.
    """

    nodes: tuple[int, ...]
    axes: str
    width: int


def stacks_of(graph: Any, nodes: Sequence[OnnxLSTM], known: Mapping[str, Array]) -> Iterator[Stack]:
    """Find the stacks of a graph.

    Args:
        graph: an onnx.GraphProto.
        nodes: its LSTM nodes, in order.
        known: its constants.
    """
    wires = Wires(graph, nodes, known)
    levels: dict[tuple[Any, ...], list[int]] = {}
    for k in range(len(nodes)):
        levels.setdefault(wires.feed(k), []).append(k)
    groups = [group for together in levels.values() for group in _paired(together, nodes)]
    after = {}
    for group in groups:
        readers = [other for other in groups if wires.feed(other[0]) == ("Y", *group)]
        if len(readers) == 1 and wires.joins(group, readers[0]):
            after[tuple(group)] = readers[0]
    inner = {id(group) for group in after.values()}
    for group in groups:
        if id(group) not in inner:
            chain = [group]
            while (following := after.get(tuple(chain[-1]))) is not None:
                chain.append(following)
            first = nodes[group[0]]
            weights = tuple(tuple(w for k in one for w in nodes[k].layers.weights[0]) for one in chain)
            batch_first = first.layout == 1 or wires.turned(group[0])
            layers = replace(first.layers, weights=weights, batch_first=batch_first)
            yield Stack(first.name, layers, wires.refusal([k for one in chain for k in one]))


def _paired(together: list[int], nodes: Sequence[OnnxLSTM]) -> list[list[int]]:
    """Nodes that read the same input: a forward and a reverse one of one kind are two directions."""
    if [nodes[k].direction for k in together] == ["forward", "reverse"]:
        one, other = (nodes[k] for k in together)
        if (one.layers.variant, one.layout) == (other.layers.variant, other.layout):
            return [together]
    return [[k] for k in together]


class Wires:
    """What stands between the LSTM nodes of a graph."""

    def __init__(self, graph: Any, nodes: Sequence[OnnxLSTM], known: Mapping[str, Array]) -> None:
        self.nodes, self.known = nodes, known
        self.makers = {out: node for node in graph.node for out in node.output if out}
        self.protos = [n for n in graph.node if n.op_type == "LSTM" and n.domain in ("", "ai.onnx")]
        self.given = {port.name for port in graph.input} - {tensor.name for tensor in graph.initializer}
        self.sizes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._traced: dict[str, Outputs | None] = {}

    def feed(self, k: int) -> tuple[Any, ...]:
        """What a node reads: ("Y", the nodes before it), or another value and what was done to it."""
        value = self.protos[k].input[0]
        outputs = self.outputs(value)
        if outputs is not None and outputs.axes == ("TNH", "NTH")[self.nodes[k].layout]:
            return ("Y", *outputs.nodes)
        done: list[Any] = []
        for _ in range(DEEPEST):
            node = self.makers.get(value)
            if node is None or not node.input or node.op_type not in ("Identity", "Transpose"):
                break
            if node.op_type == "Transpose":
                done.append(str(attributes_of(node, "").get("perm")))
            value = node.input[0]
        return ("value", value, *done)

    def joins(self, group: Sequence[int], following: Sequence[int]) -> bool:
        """Whether a layer can be in one stack with the one it reads: of one kind, in a state of its own."""
        kinds = {self.nodes[k].layers.variant for k in (*group, *following)}
        reverse = self.nodes[group[0]].direction == "reverse"
        return len(kinds) == 1 and not reverse and "computed" not in self._states(following)

    def turned(self, k: int) -> bool:
        """Whether N and T were swapped before a node: the layer around it is batch first."""
        value, turned = self.protos[k].input[0], False
        for _ in range(DEEPEST):
            maker = self.makers.get(value)
            if maker is None or not maker.input or maker.op_type not in ("Identity", "Transpose"):
                break
            turned ^= maker.op_type == "Transpose" and attributes_of(maker, "").get("perm") == [1, 0, 2]
            value = maker.input[0]
        return turned

    def refusal(self, stack: Sequence[int]) -> str:
        """Why nodes cannot be a layer whose state and lengths come with the call; empty if they can."""
        for k in stack:
            name, inputs = self.nodes[k].name, [*self.protos[k].input, "", "", ""]
            for port, value in (("initial_h", inputs[5]), ("initial_c", inputs[6])):
                if value and self._origin(value) == "fixed":
                    return (
                        f"the node `{name}` begins with an `{port}` that the file fixes and that is not "
                        f"zero, and longshort.LSTM takes its state with the call. onnx_nodes(...) reads the "
                        f"node as a module that takes it too."
                    )
            if inputs[4] and self._origin(inputs[4]) in ("zero", "fixed"):
                return (
                    f"the node `{name}` has `sequence_lens` that the file fixes, and longshort.LSTM takes "
                    f"lengths with the call. onnx_nodes(...) reads the node as a module that takes them too."
                )
        if self.nodes[stack[0]].direction == "reverse":
            return (
                f"the node `{self.nodes[stack[0]].name}` runs backwards by itself, and longshort.LSTM runs "
                f"backwards only beside a forward direction. onnx_nodes(...) reads it as a module that turns "
                f"its input."
            )
        return ""

    def _states(self, group: Sequence[int]) -> set[str]:
        return {self._origin(value) for k in group for value in self.protos[k].input[5:7] if value}

    def _origin(self, value: str, depth: int = 0) -> str:
        """Whether a state is "zero", "fixed" by the file, "given" with the call, a "size" or "computed"."""
        if value in self.given:
            return "given"
        if value in self.known:
            return "fixed" if self.known[value].any() else "zero"
        node = self.makers.get(value)
        if node is None or depth > DEEPEST or node.op_type == "LSTM":
            return "computed"
        if node.op_type in ("Shape", "Size"):
            return "size"
        if node.op_type in ("Constant", "ConstantOfShape"):
            return "fixed" if _nonzero(node) else "zero"
        inputs = node.input[:1] if node.op_type in MOVING else [name for name in node.input if name]
        origins = {self._origin(name, depth + 1) for name in inputs}
        if len(origins) == 1 and node.op_type in (*MOVING, "Concat"):
            return origins.pop()
        return "fixed" if origins <= {"zero", "fixed"} else "computed"

    def outputs(self, value: str, depth: int = 0) -> Outputs | None:
        """Trace a value back to the nodes whose Y it is; None if it is anything else."""
        if value not in self._traced:
            self._traced[value] = None  # a damaged graph may go round in circles
            node = self.makers.get(value)
            if node is not None and depth < DEEPEST:
                with contextlib.suppress(TypeError, ValueError, IndexError):  # damaged attributes
                    self._traced[value] = self._made(node, value, depth + 1)
        return self._traced[value]

    def _made(self, node: Any, value: str, depth: int) -> Outputs | None:
        for k, proto in enumerate(self.protos):
            if node is proto:
                ways = 2 if self.nodes[k].direction == "bidirectional" else 1
                axes = ("TDNH", "NTDH")[self.nodes[k].layout]
                whole = Outputs(
                    (k,), axes if ways == 2 else axes.replace("D", "1"), self.nodes[k].layers.H * ways
                )
                return whole if value == node.output[0] else None
        parts = [self.outputs(name, depth) for name in node.input[: None if node.op_type == "Concat" else 1]]
        found = [part for part in parts if part is not None]
        if not found or len(found) != len(parts):
            return None
        before, told = found[0], attributes_of(node, "")
        axes = before.axes
        if node.op_type in ("Identity", "Dropout"):
            return before
        if node.op_type == "Cast":
            return before if told.get("to") in FLOATS else None
        if node.op_type == "Transpose":
            order = told.get("perm", range(len(axes))[::-1])
            good = sorted(order) == list(range(len(axes)))
            return replace(before, axes="".join(axes[k] for k in order)) if good else None
        if node.op_type == "Concat":
            return _side_by_side(found, told.get("axis", len(axes)))
        if node.op_type in ("Squeeze", "Unsqueeze", "Gather"):
            return self._ones(node, before, told)
        return self._reshaped(node, before, told, depth) if node.op_type == "Reshape" else None

    def _ones(self, node: Any, before: Outputs, told: Mapping[str, Any]) -> Outputs | None:
        """Axes of one entry that come or go."""
        axes, given = before.axes, self.known.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "Gather":
            if given is None or given.ndim or given.item() not in (0, -1):
                return None
            places: Any = [told.get("axis", 0)]
        else:
            places = told.get("axes") if given is None else given.ravel().tolist()
            if places is None:
                return replace(before, axes=axes.replace("1", "")) if len(node.input) == 1 else None
        rank = len(axes) + (len(places) if node.op_type == "Unsqueeze" else 0)
        if not all(-rank <= place < rank for place in places):
            return None
        where = {place % rank for place in places}
        if node.op_type == "Unsqueeze":
            rest = iter(axes)
            return replace(before, axes="".join("1" if k in where else next(rest, "") for k in range(rank)))
        if any(axes[k] != "1" for k in where):
            return None
        return replace(before, axes="".join(axis for k, axis in enumerate(axes) if k not in where))

    def _reshaped(self, node: Any, before: Outputs, told: Mapping[str, Any], depth: int) -> Outputs | None:
        """Directions laid side by side: all sizes but one must be known to be right, and the last follows."""
        axes = before.axes.replace("1", "").replace("DH", "H")
        sizes = self._sizes(node.input[1], before.nodes, depth) if len(node.input) > 1 else None
        if "D" in axes or sizes is None or len(sizes) != len(axes):
            return None
        had = dict(zip(before.axes, self.sizes.get(node.input[0], ()), strict=False)) | {"H": before.width}
        right = 0
        for k, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
            kept = size == 0 and not told.get("allowzero", 0) and before.axes[k : k + 1] == axis
            same = size == axis and (axis != "H" or "D" not in before.axes)
            right += same or kept or (isinstance(size, int) and 0 < size == had.get(axis))
        return replace(before, axes=axes) if right >= len(axes) - 1 else None

    def _sizes(self, value: str, nodes: tuple[int, ...], depth: int) -> list[Any] | None:
        """A shape that the graph computes: numbers, letters of axes, None for what is not followed."""
        if value in self.known:
            return [int(size) for size in self.known[value].ravel().tolist()]
        node = self.makers.get(value)
        if node is None or depth > DEEPEST:
            return None
        if node.op_type == "Shape":
            outputs = self.outputs(node.input[0], depth + 1)
            if outputs is None or outputs.nodes != nodes:
                return None
            told = attributes_of(node, "")
            return list(outputs.axes)[told.get("start", 0) : told.get("end")]
        inputs = node.input if node.op_type in ("Concat", "Mul") else node.input[:1]
        parts = [self._sizes(name, nodes, depth + 1) for name in inputs]
        known = [part for part in parts if part is not None]
        if len(known) != len(parts):
            return None
        if node.op_type == "Concat":
            return [size for part in known for size in part]
        if node.op_type == "Mul":
            return [None] if all(len(part) == 1 for part in known) else None
        if node.op_type in ("Gather", "Slice"):
            picks = [self.known.get(name) for name in node.input[1:3]]
            if any(pick is None or pick.size != 1 for pick in picks) or len(node.input) > 4:
                return None
            bounds = [int(pick.item()) for pick in picks if pick is not None]
            return known[0][slice(*bounds)] if len(bounds) == 2 else known[0][bounds[0] :][:1]
        return known[0] if node.op_type in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape") else None


def _side_by_side(parts: Sequence[Outputs], axis: int) -> Outputs | None:
    axes = parts[0].axes
    if any(part.axes != axes for part in parts) or not -len(axes) <= axis < len(axes):
        return None
    place = axis % len(axes)
    if axes[place] not in "H1" or "D" in axes:
        return None
    joined = axes[:place] + {"H": "H", "1": "D"}[axes[place]] + axes[place + 1 :]
    return Outputs(tuple(k for part in parts for k in part.nodes), joined, sum(part.width for part in parts))


def _nonzero(node: Any) -> bool:
    """Whether a Constant or ConstantOfShape holds anything but zeros."""
    tools = need("onnx", extra="exchange", to="read ONNX")
    for one in node.attribute:
        value = tools.helper.get_attribute_value(one)
        try:
            array = tools.numpy_helper.to_array(value) if hasattr(value, "raw_data") else np.asarray(value)
        except Exception:  # damaged: protobuf, numpy and ml_dtypes raise what they like
            return True
        if array.dtype.kind not in "biuf" or array.any():
            return True
    return False
