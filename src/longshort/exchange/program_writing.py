"""A whole model as a folder for `longshort.runtime`: traced by torch.export, written as plain nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .. import runtime
from ..errors import SettingError
from ..runtime.files import write_folder
from ..runtime.operators import OPERATORS
from ..runtime.program import LSTM
from .layers import Array
from .onnx_writing import SIZES, Graph, Ports, compared, quiet
from .runtime_writing import placed

SKIPPED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")
IGNORED = (torch.device, torch.layout, torch.memory_format)


def save_program(graph: Graph, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model as a folder that `longshort.runtime.load` runs without torch.

    Args:
        graph: the model and its ports.
        folder: the folder to make.
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

    def write(made: Path) -> None:
        write_folder(made, settings, arrays)
        model = runtime.load(made)
        for N, T in SIZES:
            given = graph.example(N, T)
            got = model(*(t.numpy() for t in given))
            outputs = got if isinstance(got, tuple) else (got,)
            compared(graph, given, outputs, f"{folder}", f"N = {N}, T = {T}")

    return placed(folder, write, overwrite)


def traced(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a model's nodes as a JSON object, and its constants.

    Raises:
        SettingError: the model has an operator that the runtime lacks; it is named.
    """
    axes = {name: torch.export.Dim(name) for shape in graph.dynamic.values() for name in shape.values()}
    shapes = tuple({a: axes[n] for a, n in graph.dynamic[name].items()} for name in graph.inputs)
    with quiet():
        program = torch.export.export(Ports(graph.module), graph.example(*SIZES[0]), dynamic_shapes=(shapes,))
        program = program.run_decompositions({})
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    stored |= dict(signature.inputs_to_lifted_tensor_constants)
    held = {**program.state_dict, **program.constants}
    arrays = {node: _array(held[name]) for node, name in stored.items()}
    names = dict(zip(signature.user_inputs, graph.inputs, strict=True))
    nodes, inputs = [], []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            inputs.append(_input(node, names[node.name]))
        elif node.op == "call_function" and _operator(node) not in SKIPPED:
            nodes.append(_node(node, names))
    places = [names.get(str(name), str(name)) for name in signature.user_outputs]
    outputs = [{"name": n, "node": p} for n, p in zip(graph.outputs, places, strict=True)]
    return {"kind": "program", "inputs": inputs, "outputs": outputs, "nodes": nodes}, arrays


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array if array.dtype in (np.float32, np.float64, np.int64) else array.astype(np.int64)


def _input(node: fx.Node, name: str) -> dict[str, Any]:
    value = node.meta["val"]
    shape = [size if isinstance(size, int) else None for size in value.shape]
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
