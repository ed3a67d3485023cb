"""A whole model as a folder for `longshort.runtime`: traced by torch.export, written as plain nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .. import runtime
from ..errors import BackendError, SettingError
from ..runtime.files import write_folder
from ..runtime.nodes import LSTM
from ..runtime.operators import OPERATORS
from .layers import Array
from .onnx_tracing import quiet
from .onnx_writing import SIZES, Graph, compared
from .runtime_writing import ALLOWED, placed

SKIPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")
IGNORED = (torch.device, torch.layout, torch.memory_format)


@dataclass(frozen=True)
class Stream:
    """How a traced model goes on.

    Attributes:
        graph: of one step; its first inputs and last outputs are what is kept from one to the next.
        kept: how many these are; they are the last outputs of the whole model too.
    """

    graph: Graph
    kept: int


def save_program(
    graph: Graph,
    folder: str | Path,
    *,
    stream: Stream | None = None,
    weights: str = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a model as a folder that `longshort.runtime.load` runs without torch.

    Args:
        graph: the model and its ports.
        folder: the folder to make.
        stream: its step, if it can go on.
        weights: how `load` keeps the LSTMs' weights unless told otherwise.
        overwrite: replace one that is there.

    Returns:
        The folder.

    Raises:
        SettingError: the model has an operator that the runtime lacks; it is named.
        BackendError: the engine is not installed, or the numbers differ; nothing was written.
        RunError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    settings, arrays = traced(graph)
    settings |= {"weights": weights, "about": dict(graph.about)}
    if stream is not None:
        step, own = traced(stream.graph)
        places = {node: _shared(value, node, arrays) for node, value in own.items()}
        settings["step"] = {**step, "arrays": places, "kept": stream.kept}

    def write(made: Path) -> None:
        write_folder(made, settings, arrays)
        model = runtime.load(made, weights="float32")
        checks = [(graph, model.whole)] + ([] if stream is None else [(stream.graph, model.next)])
        for traced_graph, nodes in checks:
            for N, T in SIZES:
                given = traced_graph.example(N, T)
                got = nodes.run("model", tuple(t.numpy() for t in given), {})
                compared(traced_graph, given, got, f"{folder}", f"N = {N}, T = {T}")
        if weights != "float32":
            _as_short_as_said(graph, made, folder, weights)

    return placed(folder, write, overwrite)


def _as_short_as_said(graph: Graph, made: Path, folder: Path, weights: str) -> None:
    """Run the model on short weights beside itself on full ones; the errors are added up over its outputs."""
    short, full = (runtime.load(made, weights=form).whole for form in (weights, "float32"))
    for N, T in SIZES:
        given = tuple(t.numpy() for t in graph.example(N, T))
        for got, want in zip(short.run("model", given, {}), full.run("model", given, {}), strict=True):
            spread = float(np.sqrt(np.mean(np.square(want, dtype=np.float64))))
            error = float(np.sqrt(np.mean(np.square(got - want, dtype=np.float64))))
            if not error <= ALLOWED[weights] * spread:
                raise BackendError(
                    f"{folder}: with {weights} weights the model errs by {error:.1e} for N = {N}, T = {T}, "
                    f"and {ALLOWED[weights] * spread:.1e}, {ALLOWED[weights]:.0%} of its outputs, is "
                    f"allowed. It was not kept. Export it with weights='float32'."
                )


def _shared(value: Array, node: str, arrays: dict[str, Array]) -> str:
    """The name of an array that is there already, or a new one."""
    for name, other in arrays.items():
        if other.dtype == value.dtype and np.array_equal(other, value, equal_nan=value.dtype.kind == "f"):
            return name
    arrays[f"step.{node}"] = value
    return f"step.{node}"


def traced(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a model's nodes as a JSON object, and its constants.

    Raises:
        SettingError: the model has an operator that the runtime lacks; it is named.
    """
    with quiet():
        program = graph.traced().run_decompositions({})
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored |= dict(signature.inputs_to_lifted_tensor_constants)
    held = {**program.state_dict, **program.constants}
    arrays = {node: _array(held[name]) for node, name in stored.items()}
    names = dict(zip(signature.user_inputs, graph.inputs, strict=True))
    nodes, inputs = [], []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            inputs.append(_input(node, names[node.name], graph.dynamic[names[node.name]]))
        elif node.op == "call_function" and _operator(node) not in SKIPPED:
            nodes.append(_node(node, names))
    places = [names.get(str(name), str(name)) for name in signature.user_outputs]
    outputs = [{"name": n, "node": p} for n, p in zip(graph.outputs, places, strict=True)]
    about = {"inputs": inputs, "outputs": outputs, "nodes": nodes, "least": dict(graph.least)}
    return {"kind": "program", **about}, arrays


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array if array.dtype in (np.float32, np.float64, np.int64) else array.astype(np.int64)


def _input(node: fx.Node, name: str, axes: Mapping[int, str]) -> dict[str, Any]:
    value = node.meta["val"]
    shape = [axes.get(k, size) for k, size in enumerate(value.shape)]
    return {"name": name, "dtype": _dtype(value.dtype), "shape": shape}


def _operator(node: fx.Node) -> str:
    """The name of an operator without its overload: `aten.add.Tensor` is add."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return LSTM if target.namespace == "longshort" else target._schema.name.split("::")[1]
    return str(target.__name__)


def _node(node: fx.Node, names: dict[str, str]) -> dict[str, Any]:
    kind = _operator(node)
    if kind not in OPERATORS and kind != LSTM:
        modules = [
            str(path).rpartition(".")[2] for _, path in (node.meta.get("nn_module_stack") or {}).values()
        ]
        where = modules[-1] if modules else "the model"
        raise SettingError(
            f"export: the runtime does not compute `{kind}`, which {where} does. Export the model to ONNX, "
            "or "
            f"leave that out of its forward."
        )
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        raise SettingError(
            f"export: the runtime computes in float32 and float64, and `{kind}` gives {_dtype(value.dtype)}. "
            f"Export the model in float32: model.float()."
        )
    return {
        "name": node.name,
        "op": kind,
        "args": _plain(node.args, names),
        "kwargs": {
            key: _plain(arg, names) for key, arg in node.kwargs.items() if not isinstance(arg, IGNORED)
        },
        "dtype": _dtype(value.dtype) if isinstance(value, Tensor) else None,
    }


def _plain(value: Any, names: dict[str, str]) -> Any:
    """An argument as JSON: a node by its name under "$"."""
    if isinstance(value, fx.Node):
        return {"$": names.get(value.name, value.name)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one, names) for one in value]
    if isinstance(value, torch.dtype):
        return _dtype(value)
    return None if isinstance(value, IGNORED) else value


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
