"""A layer, or any model that holds one, as an ONNX file that was run and agreed before it was kept."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BackendError, SettingError, need
from ..nn import LSTM
from ..runs import replacing
from .layers import Array
from .onnx_digest import DIGEST, digest
from .onnx_tracing import quiet

OPSET = 20
LARGEST = (1 << 31) - (1 << 20)
"""Of a protobuf message."""
FACTOR = 4.0
"""How much more than torch in the same dtype the file may err against the float64 truth."""
FLOOR = 32
"""Roundings of the largest number that are always allowed: runtimes approximate sigmoid and tanh."""
ABOUT = "longshort.about"
"""The key of `Graph.about` in the file's metadata."""
SIZES = ((2, 5), (1, 1), (3, 17))
"""N and T that a file is run at before it is kept; it was traced at the first."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        opset: of the standard operators.
        operators: how many nodes of each kind that may hold an LSTM: `LSTM`, `Scan`.
        difference: the largest from the model's own outputs, over all cases.
        cases: inputs of different N and T that were run in onnxruntime.
    """

    path: Path
    bytes: int
    opset: int
    operators: dict[str, int]
    difference: float
    cases: int

    def __str__(self) -> str:
        nodes = " and ".join(f"{count} {kind}" for kind, count in self.operators.items()) or "no LSTM"
        return (
            f"{self.path}: {self.bytes:,} bytes, opset {self.opset}, {nodes}, largest difference "
            f"{self.difference:.1e} over {self.cases} inputs"
        )


@dataclass(frozen=True)
class Graph:
    """What is to be traced.

    Attributes:
        module: the model, in evaluation mode.
        inputs: names of its inputs, in order.
        outputs: names of its outputs, in order.
        dynamic: for each input its axes that may vary: a letter, or `T + 6` for six steps more than T.
        example: inputs for N sequences of T steps.
        table: what operators that torch's exporter cannot translate become, as functions of onnxscript.
        least: how long an axis must be at least, by its letter.
        about: what a user of the copy must know besides, as JSON: a vocabulary, names of columns.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]
    example: Callable[[int, int], tuple[Tensor, ...]]
    table: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def shapes(self) -> tuple[tuple[dict[int, Any], ...]]:
        """The axes that may vary, as torch.export wants them for the inputs of `Ports`."""
        letters = {text.partition(" ")[0] for axes in self.dynamic.values() for text in axes.values()}
        dims: dict[str, Any] = {name: torch.export.Dim(name, min=self.least.get(name)) for name in letters}

        def size(text: str) -> Any:
            letter, _, more = text.partition(" + ")
            return dims[letter] + int(more) if more else dims[letter]

        return (
            tuple({axis: size(text) for axis, text in self.dynamic[name].items()} for name in self.inputs),
        )

    def traced(self) -> torch.export.ExportedProgram:
        """The model as torch.export sees it, with the axes that may vary left open."""
        return torch.export.export(Ports(self.module), self.example(*SIZES[0]), dynamic_shapes=self.shapes())


class Ports(nn.Module):
    """A model as a function of a plain list of tensors, whatever the names of its arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> Any:
        """Run the model."""
        return self.model(*given)


class Whole(nn.Module):
    """A layer with every tensor as a port: (x, h0, c0, lengths[, reset]) -> (y, h_n, c_n)."""

    def __init__(self, lstm: LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(
        self, x: Tensor, h0: Tensor, c0: Tensor, lengths: Tensor, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run whole sequences."""
        y, (h, c) = self.lstm(x, (h0, c0), lengths=lengths, reset=reset)
        return y, h, c


class Step(nn.Module):
    """A layer that takes one step: (x, h0, c0) -> (y, h_n, c_n)."""

    def __init__(self, lstm: LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step of x (N, C)."""
        time = 1 if self.lstm.batch_first else 0
        y, (h, c) = self.lstm(x.unsqueeze(time), (h0, c0))
        return y.squeeze(time), h, c


def save_onnx(lstm: LSTM, path: str | Path, *, streaming: bool = False, reset: bool = False) -> Report:
    """Write a layer as an ONNX graph, run the file in onnxruntime, and keep it only if it agrees.

    The batch graph is (x, h0, c0, lengths) -> (y, h_n, c_n), with x laid out as the layer's input and the
    state (layers x directions, N, units); `lengths` (N,) int64, all T where nothing is padded. The streaming
    graph is (x, h0, c0) -> (y, h_n, c_n) with x (N, C): feeding h_n and c_n back in takes the next step. N
    and T are free in the file. Peepholes, coupled and missing gates, other activations and projection are
    said by ONNX' LSTM operator; resets, zoneout, norms, clipping and gate recurrence by a Scan.

    Args:
        lstm: the layer; exported as in evaluation mode, and one of bfloat16 in float32.
        path: the file's name.
        streaming: write the graph of one step.
        reset: add the input `reset` (N, T) bool to the batch graph.

    Returns:
        What was written and how far it was from the layer.

    Raises:
        SettingError: a bidirectional layer as a stream, or `reset` in one.
        BackendError: onnxruntime's numbers differ from the layer's; no file was written.
        MissingExtra: onnx, onnxruntime or onnxscript is not installed.
        RunError: the file cannot be written.
    """
    if streaming and lstm.bidirectional:
        raise SettingError(
            "save_onnx: a bidirectional layer must see the end before its first output, so it cannot stream. "
            "Leave out `streaming`, or train it in one direction."
        )
    if streaming and reset:
        raise SettingError(
            "save_onnx: `reset` belongs to the batch graph. In a stream a reset is h0 and c0 of zero."
        )
    return save_graph(_step(lstm) if streaming else _whole(lstm, reset), path)


def _whole(lstm: LSTM, reset: bool) -> Graph:
    lstm = _still(lstm)
    batch, time = (0, 1) if lstm.batch_first else (1, 0)
    dynamic: dict[str, dict[int, str]] = {
        "x": {batch: "N", time: "T"}, "h0": {1: "N"}, "c0": {1: "N"}, "lengths": {0: "N"}
    }  # fmt: skip
    if reset:
        dynamic["reset"] = {0: "N", 1: "T"}

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        shape = (N, T) if lstm.batch_first else (T, N)
        lengths = torch.arange(T, T - N, -1).clamp(min=0)
        lengths[N - 1 :] = T if N == 1 else 0
        more = (_number((N, T), lstm) > 0.5,) if reset else ()
        return (_number((*shape, lstm.input_size), lstm), *_state(lstm, N), lengths, *more)

    return Graph(Whole(lstm), tuple(dynamic), ("y", "h_n", "c_n"), dynamic, example)


def _step(lstm: LSTM) -> Graph:
    lstm = _still(lstm)
    dynamic = {"x": {0: "N"}, "h0": {1: "N"}, "c0": {1: "N"}}

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        return (_number((N, lstm.input_size), lstm), *_state(lstm, N))

    return Graph(Step(lstm), tuple(dynamic), ("y", "h_n", "c_n"), dynamic, example)


def _still(lstm: LSTM) -> LSTM:
    still = copy.deepcopy(lstm).cpu().eval().requires_grad_(False)
    narrow = still.weight_ih_l0.dtype == torch.bfloat16  # which NumPy does not know
    return still.float() if narrow else still


def _number(shape: Sequence[int], lstm: LSTM) -> Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=random).to(lstm.weight_ih_l0.dtype)  # type: ignore[arg-type]


def _state(lstm: LSTM, N: int) -> tuple[Tensor, Tensor]:
    zero = lstm.initial_state(N)
    return _number(zero.h.shape, lstm).tanh(), _number(zero.c.shape, lstm).to(zero.c.dtype)


def save_graph(graph: Graph, path: str | Path) -> Report:
    """Trace a model, run the file in onnxruntime at several N and T, and keep it only if it agrees.

    Args:
        graph: the model and its ports.
        path: the file's name.

    Raises:
        BackendError: the file is too large, does not run, or its numbers differ; no file was written.
        MissingExtra: onnx, onnxruntime or onnxscript is not installed.
        RunError: the file cannot be written.
    """
    onnx = need("onnx", extra="exchange", to="write ONNX")
    path = Path(path)
    model = _traced(graph, path)
    if model.ByteSize() > LARGEST:
        raise BackendError(f"{path}: would be larger than 2 GB, which one ONNX file cannot hold.")
    _describe(model, graph.about)
    content = model.SerializeToString()
    onnx.checker.check_model(model)
    difference, cases = agreement(graph, content, str(path))
    with replacing(path) as file:
        file.write(content)
    kinds = [node.op_type for node in model.graph.node]
    operators = {kind: kinds.count(kind) for kind in ("LSTM", "Scan") if kind in kinds}
    return Report(path, len(content), model.opset_import[0].version, operators, difference, cases)


def _traced(graph: Graph, path: Path) -> Any:
    """The model as a ModelProto, its weights in the order that ONNX wants them."""
    need("onnxscript", extra="exchange", to="write ONNX")
    optimizer = need("onnxscript.optimizer", extra="exchange", to="write ONNX")
    with quiet():
        program = torch.onnx.export(
            Ports(graph.module),
            graph.example(*SIZES[0]),
            dynamo=True,
            dynamic_shapes=graph.shapes(),
            custom_translation_table=dict(graph.table),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            verbose=False,
        )
        if program is None:
            raise BackendError(f"{path}: torch.onnx.export gave no program.")
        optimizer.fold_constants(program.model, input_size_limit=1 << 40, output_size_limit=1 << 40)
        optimizer.optimize(program.model)
        model = program.model_proto
    _name_axes(model, graph.dynamic)
    return model


def _name_axes(model: Any, dynamic: Mapping[str, Mapping[int, str]]) -> None:
    """Call the axes that may vary by their letters, in place of the exporter's symbols, in every shape."""
    letters = {}
    for port in model.graph.input:
        for axis, text in dynamic[port.name].items():
            symbol = port.type.tensor_type.shape.dim[axis].dim_param
            letters[symbol.partition(" ")[0]] = text.partition(" ")[0]
    for part in _parts(model.graph):
        for port in (*part.input, *part.output, *part.value_info):
            for size in port.type.tensor_type.shape.dim:
                if size.dim_param:
                    size.dim_param = re.sub(
                        r"\w+", lambda found: letters.get(found[0], found[0]), size.dim_param
                    )


def _parts(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _parts(attribute.g)


def _describe(model: Any, about: Mapping[str, Any]) -> None:
    """Sign the model, without the traces of the machine that the exporter leaves on every node."""
    from .. import __version__

    for part in _parts(model.graph):
        for item in (part, *part.input, *part.output, *part.value_info, *part.initializer, *part.node):
            del item.metadata_props[:]
            item.doc_string = ""
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "longshort", __version__
    for key, text in ((DIGEST, digest(model)), (ABOUT, json.dumps(about))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text


def agreement(graph: Graph, content: bytes, name: str) -> tuple[float, int]:
    """Run a file beside its model and return the largest difference and the number of cases.

    The truth is the model in float64. The file may err `FACTOR` times as much as the model in its own dtype.

    Raises:
        BackendError: the file does not run, or errs more.
        MissingExtra: onnxruntime is not installed.
    """
    runtime = need("onnxruntime", extra="exchange", to="check the file against the model")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BackendError(
            f"{name}: onnxruntime does not load the graph: {error}. It was not kept."
        ) from None
    worst = 0.0
    wanted = {port.name for port in session.get_inputs()}
    for N, T in SIZES:
        given = graph.example(N, T)
        fed = {k: v.numpy() for k, v in zip(graph.inputs, given, strict=True) if k in wanted}
        got = session.run(list(graph.outputs), fed)
        worst = max(worst, compared(graph, given, got, name, f"N = {N}, T = {T}"))
    return worst, len(SIZES)


def compared(graph: Graph, given: Sequence[Tensor], got: Sequence[Array], name: str, case: str) -> float:
    """Hold a copy's outputs against the model's in float64, and return the largest difference from its own.

    Raises:
        BackendError: the copy errs more than rounding explains.
    """
    worst, exact = 0.0, copy.deepcopy(graph.module).double()
    dtype = next((p.dtype for p in graph.module.parameters()), torch.float32)
    with torch.no_grad():
        own = _arrays(graph.module(*given))
        truths = _arrays(exact(*(t.double() if t.is_floating_point() else t for t in given)))
    for port, there, here, truth in zip(graph.outputs, got, own, truths, strict=True):
        _close(f"{name}, output `{port}` for {case}", there, here, truth, dtype)
        worst = max([worst, float(np.abs(there - here).max())]) if there.size else worst
    return worst


def _arrays(outputs: Any) -> list[Array]:
    return [t.numpy() for t in ((outputs,) if isinstance(outputs, Tensor) else outputs)]


def _close(where: str, got: Array, own: Array, truth: Array, dtype: torch.dtype) -> None:
    if got.shape != truth.shape:
        raise BackendError(f"{where}: must be of shape {truth.shape}, got {got.shape}. It was not kept.")
    if not got.size:
        return
    floor = FLOOR * _rounding(got, truth, dtype)
    allowed = max(FACTOR * float(np.abs(own - truth).max()), floor)
    error = float(np.abs(got - truth).max())
    if not error <= allowed:  # NaN lands here too
        raise BackendError(
            f"{where}: the copy errs by {error:.1e} where {allowed:.1e} is rounding. It was not kept: what "
            f"runs it runs the graph wrongly, or the model does something that tracing froze."
        )


def _rounding(got: Array, truth: Array, dtype: torch.dtype) -> float:
    """One rounding of an output: of its largest number, or of its spread if a narrower model computed that.

    A forecast is float32 on the scale of its series, laid on the float64 level of the series.
    """
    if got.dtype.kind != "f":
        return 0.0
    own, wide = torch.finfo(dtype).eps, float(np.finfo(got.dtype).eps)
    level = wide * max(1.0, float(np.abs(truth).max()))
    spread = float(np.ptp(truth.reshape(len(truth), -1), axis=1).max())
    return max(level, own * spread) if own > wide else level
