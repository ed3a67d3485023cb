"""Layers and models as ONNX, run by onnxruntime, which nobody here wrote."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import longshort as ls
from longshort import exchange
from longshort.errors import BackendError, DataError, RunError, SettingError
from longshort.exchange import onnx_writing
from longshort.scan import Noise, Variant

LSTM_OPERATOR = {
    "plain": {},
    "stacked both ways": {"num_layers": 2, "bidirectional": True},
    "batch first without bias": {"bias": False, "batch_first": True},
    "peephole": {"variant": Variant(peephole=True)},
    "coupled with peephole, projected": {"variant": Variant(coupled=True, peephole=True), "proj_size": 2},
    "projected, stacked both ways": {"proj_size": 3, "num_layers": 2, "bidirectional": True},
    "no input gate": {"variant": Variant(input_gate=False)},
    "no forget gate, no bias": {"variant": Variant(forget_gate=False), "bias": False},
    "no output gate, peephole": {"variant": Variant(output_gate=False, peephole=True)},
    "no input activation": {"variant": Variant(input_activation=False)},
    "hard sigmoid, no output activation": {
        "variant": Variant(gate_activation="hard_sigmoid", output_activation=False, coupled=True)
    },
}
SCANS = {
    "ba2016": {"variant": Variant(norm="ba2016")},
    "per gate with peephole both ways": {
        "variant": Variant(norm="per_gate", peephole=True),
        "bidirectional": True,
    },
    "gate recurrence, clipped": {"variant": Variant(gate_recurrence=True, cell_clip=0.5)},
    "zoneout, exported as in evaluation": {"noise": Noise(zoneout_h=0.1, zoneout_c=0.3, variational_h=0.2)},
    "projection clip": {"variant": Variant(projection_clip=0.1), "proj_size": 2},
}


def excited(layer):
    """Weights large enough that a wrong gate shows."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(0.8 * torch.randn(p.shape, generator=random))
    return layer.eval()


class Many(nn.Module):
    """Many layers side by side, so that one export serves all of them."""

    def __init__(self, table, reset):
        super().__init__()
        self.layers = nn.ModuleList(excited(ls.LSTM(3, 4, **arguments)) for arguments in table)
        self.reset = reset

    def forward(self, x, lengths, reset, state):
        outputs = []
        for layer, one in zip(self.layers, state, strict=True):
            given = x.transpose(0, 1) if layer.batch_first else x
            y, (h, c) = layer(given, tuple(one), lengths=lengths, reset=reset if self.reset else None)
            outputs += [y, h, c]
        return outputs


def fed(many, N, T):
    x, lengths = torch.randn(T, N, 3), torch.arange(T, T - N, -1).clamp(min=0)
    zeros = [layer.initial_state(N) for layer in many.layers]
    state = [[torch.randn(s.shape) for s in zero] for zero in zeros]
    return x, lengths, torch.rand(N, T) < 0.4, state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("table", "reset", "kinds"),
    [(LSTM_OPERATOR, False, {"LSTM"}), (SCANS, True, {"Scan"})],
    ids=["standard-operator", "scan"],
)
def test_torch_s_exporter_takes_any_model_that_holds_the_layer(table, reset, kinds):
    many = Many(table.values(), reset)
    N, T = torch.export.Dim("N"), torch.export.Dim("T")
    shapes = ({0: T, 1: N}, {0: N}, {0: N, 1: T}, [[{1: N}, {1: N}]] * len(table))
    program = torch.onnx.export(many, fed(many, 3, 5), dynamo=True, dynamic_shapes=shapes, verbose=False)
    content = program.model_proto.SerializeToString()
    found = {node.op_type for node in program.model_proto.graph.node}
    assert found & {"LSTM", "Scan", "Loop"} == kinds
    session = onnxruntime.InferenceSession(content)
    for sizes in ((3, 5), (1, 1), (2, 9)):
        given = fed(many, *sizes)
        flat = [*given[:3], *(tensor for pair in given[3] for tensor in pair)]
        names = [port.name for port in session.get_inputs()]
        got = session.run(None, {n: t.numpy() for n, t in zip(names, flat, strict=True)})
        with torch.no_grad():
            wanted = many(*given)
        labels = [f"{name}, {port}, N and T {sizes}" for name in table for port in ("y", "h", "c")]
        for label, mine, theirs in zip(labels, got, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-5, atol=5e-6, err_msg=label)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A layer and its batch graph."""
    layer = excited(ls.LSTM(3, 4, num_layers=2, variant=Variant(peephole=True)))
    path = tmp_path_factory.mktemp("onnx") / "whole.onnx"
    return layer, path, exchange.save_onnx(layer, path)


@pytest.fixture(scope="module")
def step(whole, tmp_path_factory):
    """The same layer's streaming graph."""
    path = tmp_path_factory.mktemp("onnx") / "step.onnx"
    return path, ls.export(whole[0], path, streaming=True)


def ports(session):
    return [p.name for p in session.get_inputs()], [p.name for p in session.get_outputs()]


def test_the_streaming_graph_equals_the_batch_graph_step_by_step(whole, step):
    layer, path, report = whole
    batch, stream = (onnxruntime.InferenceSession(p) for p in (path, step[0]))
    assert ports(batch) == (["x", "h0", "c0", "lengths"], ["y", "h_n", "c_n"])
    assert ports(stream) == (["x", "h0", "c0"], ["y", "h_n", "c_n"])
    assert report.operators == step[1].operators == {"LSTM": 2}
    x = np.random.randn(9, 3, 3).astype(np.float32)
    state = [np.zeros((2, 3, 4), np.float32)] * 2
    lengths = np.full(3, 9)
    y, h_n, c_n = batch.run(None, dict(zip(("x", "h0", "c0", "lengths"), (x, *state, lengths), strict=True)))
    for t in range(9):
        out, *state = stream.run(None, dict(zip(("x", "h0", "c0"), (x[t], *state), strict=True)))
        np.testing.assert_allclose(out, y[t], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.stack(state), np.stack((h_n, c_n)), rtol=0, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(y, layer(torch.tensor(x))[0].numpy(), rtol=0, atol=2e-6)


def test_the_report_says_what_was_written(whole):
    _, path, report = whole
    assert str(report) == (
        f"{path}: {path.stat().st_size:,} bytes, opset 20, 2 LSTM, largest difference "
        f"{report.difference:.1e} over 3 inputs"
    )
    assert 0 < report.difference < 1e-5


def test_what_was_exported_comes_back_bit_for_bit(whole):
    layer, path, _ = whole
    again = exchange.load_onnx(path)
    assert again.variant == layer.variant
    x = torch.randn(5, 2, 3)
    assert torch.equal(again(x)[0], layer(x)[0])


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "one-step"])
def test_a_layer_of_bfloat16_goes_out_in_float32(streaming, tmp_path):
    layer = excited(ls.LSTM(3, 4, dtype=torch.bfloat16))
    report = ls.export(layer, tmp_path / "layer.onnx", streaming=streaming)
    assert report.operators == {"LSTM": 1}
    x = torch.randn(5, 2, 3)
    again = exchange.load_onnx(tmp_path / "layer.onnx")
    torch.testing.assert_close(again(x)[0], layer.float()(x)[0], rtol=0, atol=1e-6)


def test_nothing_of_the_machine_is_in_the_file(whole):
    content = whole[1].read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content
    assert onnx.load_model_from_string(content).producer_name == "longshort"


def test_a_changed_weight_is_found(whole):
    model = onnx.load(whole[1])
    stored = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    stored.raw_data = stored.raw_data[:-4] + np.float32(0.5).tobytes()
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(model.SerializeToString())
    assert str(raised.value) == (
        "the ONNX model: was changed since longshort wrote it: its digest does not fit. Export it again."
    )


def changed(model, port, change):
    """The model with a constant that its LSTM nodes take changed, or an input taken away."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "LSTM":
            if change is None:
                node.input[port] = ""
            else:
                tensor = stored[node.input[port]]
                value = change(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return model.SerializeToString()


WRONG = {
    "gates i and f swapped": (
        2,
        lambda R: np.concatenate([np.split(R, 4, axis=1)[k] for k in (2, 1, 0, 3)], 1),
    ),
    "a bias off by 1e-4": (3, lambda B: B + 1e-4),
    "first cell ignored": (6, None),
    "lengths ignored": (4, None),
    "peephole of o for that of f": (
        7,
        lambda P: np.concatenate([np.split(P, 3, axis=1)[k] for k in (0, 2, 1)], 1),
    ),
    "no change": (2, lambda R: R),
}


@pytest.mark.parametrize("wrong", WRONG, ids=[name.replace(" ", "-") for name in WRONG])
def test_a_graph_that_disagrees_is_found(wrong, whole):
    layer, path, _ = whole
    graph = onnx_writing._whole(layer, reset=False)
    content = changed(onnx.load(path), *WRONG[wrong])
    if wrong == "no change":
        assert onnx_writing.agreement(graph, content, "m.onnx")[0] < 1e-5
        return
    with pytest.raises(BackendError, match=r"^m\.onnx, output `\w+` for N = .*the copy errs by"):
        onnx_writing.agreement(graph, content, "m.onnx")


def test_a_graph_that_disagrees_is_not_kept(whole, tmp_path, monkeypatch):
    """Whatever tracing makes of the model, the file is compared before it has a name."""
    layer, path, _ = whole
    made = onnx.load_model_from_string(changed(onnx.load(path), 3, lambda B: -B))
    monkeypatch.setattr(onnx_writing, "_traced", lambda graph, name: made)
    with pytest.raises(BackendError) as raised:
        exchange.save_onnx(layer, tmp_path / "m.onnx")
    assert str(raised.value).endswith(
        "is rounding. It was not kept: what runs it runs the graph wrongly, or the model does "
        "something that tracing froze."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torch_export_by_the_table():
    model = nn.Sequential(excited(ls.LSTM(3, 4, variant=Variant(cell_clip=0.2))))
    N, T = torch.export.Dim("N", min=2), torch.export.Dim("T", min=2)
    program = torch.export.export(model, (torch.randn(5, 2, 3),), dynamic_shapes=({0: T, 1: N},))
    made = torch.onnx.export(
        program.run_decompositions(exchange.onnx_decompositions()), dynamo=True, verbose=False
    )
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    x = torch.randn(7, 3, 3)
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(got, model(x)[0].detach().numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "name", "options", "error", "message"),
    [
        (
            ls.LSTM(3, 4),
            "m.pt",
            {},
            SettingError,
            "or be a folder without an ending, got 'm.pt'",
        ),
        (
            nn.Linear(3, 4),
            "m.onnx",
            {},
            SettingError,
            "must be a longshort.LSTM, a longshort.Forecaster or a longshort.LanguageModel, got Linear",
        ),
        (
            ls.LSTM(3, 4),
            "m.keras",
            {"streaming": True},
            SettingError,
            "`streaming` and `reset` are for ONNX",
        ),
        (ls.LSTM(3, 4), "there.onnx", {}, RunError, "there.onnx: exists. Give another name"),
        (ls.LSTM(3, 4, bidirectional=True), "m.onnx", {"streaming": True}, SettingError, "cannot stream"),
        (
            ls.LSTM(3, 4),
            "m.onnx",
            {"streaming": True, "reset": True},
            SettingError,
            "belongs to the batch graph",
        ),
    ],
)
def test_export_says_what_it_cannot_do(model, name, options, error, message, tmp_path):
    (tmp_path / "there.onnx").write_bytes(b"old")
    with pytest.raises(error) as raised:
        ls.export(model, tmp_path / name, **options)
    assert message in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_bytes() == b"old"


def test_a_file_that_does_not_load_is_not_kept(tmp_path):
    layer = excited(ls.LSTM(3, 4))
    graph = onnx_writing._whole(layer, reset=False)
    with pytest.raises(BackendError, match=r"onnxruntime does not load the graph: .*It was not kept"):
        onnx_writing.agreement(graph, b"no model", "m.onnx")
