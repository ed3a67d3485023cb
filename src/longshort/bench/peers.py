"""The same layer in ONNX Runtime and OpenVINO, where they are installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


def onnx_model(layer: torch.nn.LSTM, N: int, T: int, state: bool = False) -> bytes:
    """Return one ONNX LSTM node with the weights of a layer of torch, as a model for these sizes.

    Args:
        layer: in one direction.
        N: sequences.
        T: steps.
        state: the state goes in as h and c and comes out as h_n and c_n, in place of zeros that stay inside.
    """
    from onnx import TensorProto, helper, numpy_helper

    H, C = layer.hidden_size, layer.input_size
    w_ih, w_hh, b_ih, b_hh = (p.detach().numpy() for p in layer.parameters())

    def iofc(value: Array) -> Array:
        i, f, g, o = np.split(value, 4)
        return np.concatenate((i, o, f, g))

    weights = {
        "W": iofc(w_ih)[None],
        "R": iofc(w_hh)[None],
        "B": np.concatenate((iofc(b_ih), iofc(b_hh)))[None],
    }
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, N, H]) for name in ("h", "c", "h_n", "c_n")
    ]
    if not state:
        ports = []
        weights |= {name: np.zeros((1, N, H), np.float32) for name in ("h", "c")}
    node = helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y", "h_n", "c_n"], hidden_size=H)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, C]), *ports[:2]],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H]), *ports[2:]],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found: bytes = model.SerializeToString()
    return found


def runners(layer: torch.nn.LSTM, x: Array, threads: int, *, short: bool = False) -> dict[str, Any]:
    """Return what runs x (T, N, C), by the peer's name; a peer that is not installed is left out.

    Args:
        layer: whose weights.
        x: the input.
        threads: how many each may use.
        short: in bfloat16, which of the two OpenVINO alone does.
    """
    T, N, _ = x.shape
    found: dict[str, Any] = {}
    if importlib.util.find_spec("onnx") is None:
        return found
    model = onnx_model(layer, N, T)
    if importlib.util.find_spec("onnxruntime") is not None and not short:
        found["onnxruntime"] = _onnxruntime(model, x, threads)
    if importlib.util.find_spec("openvino") is not None:
        found["openvino"] = _openvino(model, x, threads, "bf16" if short else "f32")
    return found


def _onnxruntime(model: bytes, x: Array, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def _openvino(model: bytes, x: Array, threads: int, precision: str) -> Any:
    import io

    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)
