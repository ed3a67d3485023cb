"""LSTM nodes of an ONNX file as `longshort.LSTM`: node by node, and stacked as the graph stacks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, SettingError, need
from ..nn import LSTM
from ..scan import Variant
from .layers import Array, Layers, Weights, lstm_of, reordered
from .onnx_constants import attributes_of, constants_of
from .onnx_digest import DIGEST, digest
from .onnx_stacks import Stack, stacks_of
from .torch_layers import chosen

PORTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


class OnnxLSTM(nn.Module):
    """One LSTM node, with ONNX' own ports and layout, run by a `longshort.LSTM`.

    Attributes:
        name: of the node.
        lstm: the layer; of a node that runs backwards alone, one that runs forwards over the turned input.
        direction: "forward", "reverse" or "bidirectional".
        layout: 0 for X (T, N, C), 1 for X (N, T, C) and Y (N, T, D, H).
    """

    def __init__(self, name: str, layers: Layers, direction: str, layout: int, where: str) -> None:
        super().__init__()
        self.name, self.direction, self.layout = name, direction, layout
        self.layers, self.lstm = layers, lstm_of(layers, where)

    def forward(
        self,
        X: Tensor,
        sequence_lens: Tensor | None = None,
        initial_h: Tensor | None = None,
        initial_c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what the ONNX operator computes.

        Args:
            X: (T, N, C), or (N, T, C) with layout 1.
            sequence_lens: (N,) whole numbers; all T if None.
            initial_h: (D, N, H), or (N, D, H) with layout 1; zero if None.
            initial_c: like `initial_h`.

        Returns:
            Y (T, D, N, H), Y_h and Y_c (D, N, H); with layout 1 Y (N, T, D, H), Y_h and Y_c (N, D, H).
        """
        first = self.layout == 1
        x = X if first else X.transpose(0, 1)
        lengths = None if sequence_lens is None else sequence_lens.long()
        state = None
        if initial_h is not None or initial_c is not None:
            zero = self.lstm.initial_state(x.shape[0])
            h, c = (z if s is None else s for z, s in zip(zero, (initial_h, initial_c), strict=True))
            state = (h.transpose(0, 1), c.transpose(0, 1)) if first else (h, c)
        backwards = self.direction == "reverse"
        y, (h, c) = self.lstm(turned(x, lengths) if backwards else x, state, lengths=lengths)
        y = turned(y, lengths) if backwards else y
        y = y.unflatten(2, (h.shape[0], -1))  # (N, T, D, H)
        if first:
            return y, h.transpose(0, 1), c.transpose(0, 1)
        return y.permute(1, 2, 0, 3), h, c


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return x (N, T, C) with the steps before each length in the opposite order."""
    if lengths is None:
        return x.flip(1)
    t = torch.arange(x.shape[1], device=x.device)
    place = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return x.gather(1, place[..., None].expand_as(x))


def load_onnx(
    source: str | Path | bytes, name: str | None = None, values: Mapping[str, Any] | None = None
) -> LSTM:
    """Read the LSTM of an ONNX file as a layer.

    Nodes that feed each other, forwards or in both directions, become one layer of several, if they are of
    one kind and read the steps of the layer before in order.

    Args:
        source: the file, or its bytes.
        name: which LSTM, by the name of its first node; may be None where the file holds one.
        values: arrays for graph inputs that the nodes take as weights.

    Returns:
        The layer in evaluation mode, batch first where the node has layout 1 or a transposition before it
        swaps N and T, as PyTorch and this package write a layer that is batch first.

    Raises:
        DataError: the file is missing, damaged, of a newer opset, or holds no LSTM; a node has a `clip`, an
            activation or a direction that longshort.LSTM lacks, weights that are no constants, or a state
            other than zero or lengths that are.
        MissingExtra: onnx is not installed.
    """
    where, model = opened(source)
    known = constants_of(model.graph, values or {}, where)
    stacks = stacks_of(model.graph, list(_nodes(model, known, where)), known)
    picked: Stack = chosen(where, {stack.name: stack for stack in stacks}, name)
    if picked.refusal:
        raise DataError(f"{where}: {picked.refusal}")
    return lstm_of(picked.layers, where)


def onnx_nodes(source: str | Path | bytes, values: Mapping[str, Any] | None = None) -> list[OnnxLSTM]:
    """Read every LSTM node of an ONNX file, each as a module with the node's own ports and layout.

    Args:
        source: the file, or its bytes.
        values: arrays for graph inputs that the nodes take as weights.

    Raises:
        DataError: as in `load_onnx`.
        MissingExtra: onnx is not installed.
    """
    where, model = opened(source)
    return list(_nodes(model, constants_of(model.graph, values or {}, where), where))


def opened(source: str | Path | bytes) -> tuple[str, Any]:
    """Read and check an ONNX model.

    Raises:
        DataError: it is missing, damaged, changed since longshort wrote it, or newer than this onnx.
    """
    onnx = need("onnx", extra="exchange", to="read ONNX")
    where = "the ONNX model" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the name
        raise DataError(f"{where}: cannot be read: {getattr(error, 'strerror', error)}.") from None
    try:
        model = onnx.load_model_from_string(content)
        if not isinstance(source, bytes):
            onnx.load_external_data_for_model(model, str(Path(source).parent))
    except Exception as error:  # protobuf's and onnx' errors share no base class
        raise DataError(f"{where}: is damaged or is no ONNX file: {error}.") from None
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or not model.HasField("graph"):
        raise DataError(f"{where}: is damaged or is no ONNX file: it names no opset or holds no graph.")
    if max(versions) > newest:
        raise DataError(
            f"{where}: was written for opset {max(versions)}, and the onnx installed here reads up to "
            f"{newest}. "
            f"Install a newer onnx."
        )
    if model.ir_version > onnx.IR_VERSION:
        raise DataError(
            f"{where}: has version {model.ir_version} of the format, and the onnx installed here reads up to "
            f"{onnx.IR_VERSION}. Install a newer onnx."
        )
    signed = {entry.key: entry.value for entry in model.metadata_props}.get(DIGEST)
    if signed is not None and signed != digest(model):
        raise DataError(
            f"{where}: was changed since longshort wrote it: its digest does not fit. Export it again."
        )
    return where, model


def _nodes(model: Any, known: Mapping[str, Array], where: str) -> Iterator[OnnxLSTM]:
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "LSTM" and node.domain in ("", "ai.onnx"):
            name = node.name or next((out for out in node.output if out), "lstm")
            while name in taken:
                name += "'"
            taken.add(name)
            yield _read_node(node, name, known, f"{where}, node `{name}`")


def _read_node(node: Any, name: str, known: Mapping[str, Array], where: str) -> OnnxLSTM:
    ports = dict(zip(PORTS, node.input, strict=False))
    arrays = {}
    for port in ("W", "R", "B", "P"):
        if ports.get(port):
            if ports[port] not in known:
                raise DataError(
                    f"{where}: its weights `{port}` must be constants of the file, and `{ports[port]}` is "
                    "computed "
                    f"or comes from outside. Hand it over with `values`."
                )
            arrays[port] = known[ports[port]]
    attributes = attributes_of(node, where)
    if not {"W", "R"} <= set(arrays):
        raise DataError(f"{where}: has no weights W and R. The file is damaged.")
    direction, layout = attributes.get("direction", "forward"), attributes.get("layout", 0)
    count = {"forward": 1, "reverse": 1, "bidirectional": 2}.get(direction)
    if count is None or layout not in (0, 1):
        raise DataError(f"{where}: `direction` {direction!r} with `layout` {layout!r} is none of ONNX' LSTM.")
    variant = _variant(attributes, count, "P" in arrays, where)
    H = attributes.get("hidden_size", arrays["R"].shape[-1] if arrays["R"].ndim else 0)
    _check_shapes(arrays, count, H, where)
    weights = tuple(_direction({k: a[d] for k, a in arrays.items()}, variant) for d in range(count))
    layers = Layers((weights,), variant, batch_first=True)
    return OnnxLSTM(name, layers, direction, layout, where)


def _check_shapes(arrays: Mapping[str, Array], count: int, H: Any, where: str) -> None:
    C = arrays["W"].shape[-1] if arrays["W"].ndim else 0
    wanted = {"W": (count, 4 * H, C), "R": (count, 4 * H, H), "B": (count, 8 * H), "P": (count, 3 * H)}
    for port, array in arrays.items():
        if array.shape != wanted[port] or array.dtype.kind != "f" or not array.size:
            raise DataError(
                f"{where}: `{port}` must be {wanted[port]} floating-point numbers for {count} "
                f"direction{'s' * (count > 1)} of {H} units, got {array.shape} of {array.dtype}. "
                f"The file is damaged."
            )


def _variant(attributes: Mapping[str, Any], count: int, peephole: bool, where: str) -> Variant:
    """Which LSTM the attributes ask for."""
    if attributes.get("clip") is not None:
        raise DataError(
            f"{where}: has `clip` = {attributes['clip']}, which clips what goes into the gates; "
            "longshort.LSTM "
            f"clips the cell alone. Export the model without it."
        )
    names = attributes.get("activations", ["Sigmoid", "Tanh", "Tanh"] * count)
    if not isinstance(names, list) or len(names) != 3 * count:
        raise DataError(f"{where}: `activations` must name 3 functions a direction, got {names!r}.")
    alpha, beta = (list(attributes.get(f"activation_{k}", [])) for k in ("alpha", "beta"))
    kinds = [_activation(str(one), alpha, beta, where) for one in names]
    if kinds[:3] != kinds[-3:]:
        raise DataError(
            f"{where}: its two directions differ in `activations`, and longshort.LSTM's never do."
        )
    gate, inner, outer = kinds[:3]
    if gate not in ("sigmoid", "hard_sigmoid") or not {inner, outer} <= {"tanh", "linear"}:
        raise DataError(
            f"{where}: its activations must be Sigmoid or HardSigmoid(0.2, 0.5) for the gates and Tanh or "
            f"Affine(1, 0) for the cell, got {', '.join(map(str, names))}. longshort.LSTM has no other."
        )
    try:
        return Variant(
            peephole=peephole,
            coupled=bool(attributes.get("input_forget", 0)),
            gate_activation=gate,
            input_activation=inner == "tanh",
            output_activation=outer == "tanh",
        )
    except SettingError as error:
        raise DataError(f"{where}: {error}") from None


def _activation(name: str, alpha: list[Any], beta: list[Any], where: str) -> str:
    """One activation by this package's name; takes its parameters from the lists, as ONNX counts them."""
    kind = name.lower()
    if kind == "hardsigmoid":
        pair = (alpha.pop(0) if alpha else 0.2, beta.pop(0) if beta else 0.5)
        return "hard_sigmoid" if np.allclose(pair, (0.2, 0.5)) else f"{name}{pair}"
    if kind == "affine":
        pair = (alpha.pop(0) if alpha else 1.0, beta.pop(0) if beta else 0.0)
        return "linear" if np.allclose(pair, (1, 0)) else f"{name}{pair}"
    return kind


def _direction(arrays: Mapping[str, Array], variant: Variant) -> Weights:
    """One direction's W (4H, C), R (4H, H), B (8H,), P (3H,) as this package's weights."""
    gates = variant.gates
    weights = {
        "weight_ih": reordered(arrays["W"], "iofg", gates),
        "weight_hh": reordered(arrays["R"], "iofg", gates),
    }
    if "B" in arrays:
        input_bias, recurrent_bias = np.split(arrays["B"], 2)
        weights["bias_ih"] = reordered(input_bias, "iofg", gates)
        weights["bias_hh"] = reordered(recurrent_bias, "iofg", gates)
    if "P" in arrays:
        weights["weight_peephole"] = reordered(arrays["P"], "iof", variant.sigmoids)
    wide = np.float64 if arrays["W"].dtype == np.float64 else np.float32
    return {name: np.ascontiguousarray(value, dtype=wide) for name, value in weights.items()}
