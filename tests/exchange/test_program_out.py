"""Whole models for the runtime: every operator against torch, and a forecaster without torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import longshort as ls
from longshort import engine, runtime
from longshort.errors import DataError, SettingError, ShapeError
from longshort.exchange import program_writing
from longshort.exchange.onnx_writing import Graph
from longshort.runtime.files import read_folder, write_folder
from longshort.scan import Variant

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")


class Of(nn.Module):
    """A function of x (N, 6, 4) as a model, with a table of weights and places to look up."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4), requires_grad=False)
        self.places = torch.tensor([2, 0, 1, 1])

    def forward(self, x):
        return self.function(x, self.weight, self.places)


def laid_in(x, w):
    out = x.new_empty(x.shape[0], 6, 5)
    out[:, :, :4] = 2 * x
    out[:, :, 4:] = x[:, :, :1] - w[:1, :1]
    return out


FUNCTIONS = {
    "arithmetic": lambda x, w, p: (
        torch.add(x, 2, alpha=3) - torch.sub(x, x * 0.5, alpha=2) / (1 + x.abs()) - (-x)
    ),
    "powers and logarithms": lambda x, w, p: (
        (x.abs() + 1).log() + x.square().sqrt() + (x**3).exp().log1p() + 1 - x
    ),
    "gates": lambda x, w, p: torch.sigmoid(9 * x) * torch.tanh(x) + F.relu(x) + F.softplus(30 * x) + x.sign(),
    "softmax": lambda x, w, p: x.softmax(-1) + x.log_softmax(1),
    "sums": lambda x, w, p: x.sum(1, keepdim=True) + x.mean((1, 2), keepdim=True) + x.cumsum(1),
    "comparisons": lambda x, w, p: torch.where((x > 0) & (x <= 1) | (x < -1), x, torch.zeros_like(x)),
    "counting": lambda x, w, p: ((x >= 0) != (x == 0)).sum(1) // 2,
    "clamped": lambda x, w, p: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=0.1),
    "cut and joined": lambda x, w, p: torch.cat([x[:, 1:-1:2], x[:, :2].flip(1), x[:, -1:]], 1),
    "stacked": lambda x, w, p: torch.stack([x, 2 * x], 2).flatten(1, 2)[:, None].squeeze(1),
    "turned": lambda x, w, p: x.transpose(1, 2).permute(2, 0, 1).reshape(6, -1).unsqueeze(0),
    "looked up": lambda x, w, p: F.embedding(p, w).sum() + x[:, p] + x.gather(1, p.expand(x.shape[0], 1, 4)),
    "running maximum": lambda x, w, p: x.cummax(1).values + x.cummax(1).indices,
    "linear": lambda x, w, p: F.linear(x, w, w[:, 0]) @ w,
    "normed": lambda x, w, p: F.layer_norm(x, (4,), w[0], w[1]),
    "padded": lambda x, w, p: F.pad(x, (1, 0, 2, 1)) + 0 * F.pad(x, (0, 1, 0, 3), value=2.0),
    "laid in": lambda x, w, p: laid_in(x, w),
    "waves": lambda x, w, p: x.sin() + (9 * x).cos() + x.floor(),
    "picked": lambda x, w, p: x.index_select(1, p) + w.index_select(1, p)[:1],
    "missing": lambda x, w, p: torch.where((x / 0).isnan(), torch.ones_like(x), x),
    "wide sums": lambda x, w, p: x.double().sum((1, 2)) + torch.arange(1, 3).sum(),
}


def graph_of(model, *, channels=4):
    random = torch.Generator().manual_seed(0)

    def example(N, T):
        return (torch.randn(N, 6, channels, generator=random),)

    return Graph(model.eval(), ("x",), ("y",), {"x": {0: "N"}}, example)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=[name.replace(" ", "-") for name in FUNCTIONS])
def test_an_operator_gives_torch_s_numbers(function, tmp_path):
    model = Of(function)
    program_writing.save_program(graph_of(model), tmp_path / "m")
    x = torch.randn(5, 6, 4)
    got, want = runtime.load(tmp_path / "m")(x.numpy()), model(x)
    assert got.dtype == want.numpy().dtype
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-6, atol=2e-6)


def test_nodes_that_change_nothing_or_repeat_another_are_left_out(tmp_path):
    model = Of(lambda x, w, p: (x[:, :] + 1).clone() * (x + 1) - x[:, 1:2])
    program_writing.save_program(graph_of(model), tmp_path / "m")
    loaded = runtime.load(tmp_path / "m")
    assert [node.op for node in loaded.whole.nodes] == ["add", "mul", "slice", "sub"]
    x = torch.randn(2, 6, 4)
    np.testing.assert_array_equal(loaded(x.numpy()), model(x).numpy())


class Tagger(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = ls.LSTM(4, 5, batch_first=True, **options)
        self.head = nn.Sequential(nn.LayerNorm(10), nn.Dropout(0.3), nn.Linear(10, 3))

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return self.head(y) + h.sum() + c.sum()


@pytest.mark.parametrize(
    "options", [{}, {"variant": Variant(norm="products", peephole=True), "num_layers": 2}]
)
def test_lstms_run_on_the_engine(options, tmp_path):
    model = Tagger(bidirectional=True, **options).requires_grad_(False)
    program_writing.save_program(graph_of(model), tmp_path / "m")
    loaded = runtime.load(tmp_path / "m")
    assert len(loaded.whole.layers) == 2 * model.lstm.num_layers
    x = torch.randn(3, 6, 4)
    np.testing.assert_allclose(loaded(x=x.numpy()), model(x).numpy(), rtol=1e-5, atol=1e-5)


def test_what_the_runtime_lacks_is_named(tmp_path):
    with pytest.raises(SettingError, match="the runtime does not compute `erfinv`, which Of does"):
        program_writing.save_program(graph_of(Of(lambda x, w, p: torch.erfinv(x))), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fed", "message"),
    [
        ({}, "model: must be given x, got nothing."),
        ({"z": 0}, "model: must be given x, got z."),
        ({"x": np.zeros((2, 6, 5))}, "model: `x` must be (N, 6, 4), got (2, 6, 5)."),
        ({"x": np.zeros((2, 6))}, "model: `x` must be (N, 6, 4), got (2, 6)."),
    ],
)
def test_wrong_inputs_are_named(fed, message, tmp_path):
    program_writing.save_program(graph_of(Of(FUNCTIONS["gates"])), tmp_path / "m")
    with pytest.raises(ShapeError) as raised:
        runtime.load(tmp_path / "m")(**fed)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["nodes"][0].update(op="exec"), "needs exec, which this longshort does not compute"),
        (lambda s: s.pop("nodes"), "its settings lack 'nodes'. Export the model again."),
        (lambda s: s["nodes"][0].pop("args"), "a node is damaged"),
    ],
)
def test_a_damaged_program_says_what_is_wrong(change, message, tmp_path):
    program_writing.save_program(graph_of(Of(FUNCTIONS["linear"])), tmp_path / "m")
    settings, arrays = read_folder(tmp_path / "m")
    change(settings)
    write_folder(tmp_path / "m", settings, arrays)
    with pytest.raises(DataError, match="^" + str(tmp_path / "m")) as raised:
        runtime.load(tmp_path / "m")
    assert message in str(raised.value)


def test_a_model_without_a_step_has_no_stream(tmp_path):
    program_writing.save_program(graph_of(Of(FUNCTIONS["gates"])), tmp_path / "m")
    with pytest.raises(ShapeError) as raised:
        runtime.load(tmp_path / "m").stream(np.zeros((2, 6, 4)))
    assert str(raised.value) == "stream: the model was exported without a step. Call it on whole sequences."


class Looked(nn.Module):
    """A table of 3 rows, looked up at places (N, 2) or (N, 2, K) that come in."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 4)

    def forward(self, places):
        return self.table(places[..., 1:, None].squeeze(-1))


@pytest.mark.parametrize(
    ("places", "error", "message"),
    [
        (
            [[0, 1], [0, 3]],
            SettingError,
            "model: `places` must be in [0, 3), got 3 at [1, 1]. Encode it as for the fit: text by the "
            "model's own vocabulary.",
        ),
        (
            [[9, -1]],
            SettingError,
            "model: `places` must be in [0, 3), got -1 at [0, 1]. Encode it as for the fit: text by the "
            "model's own vocabulary.",
        ),
        ([[0.5, 1.0]], ShapeError, "model: `places` must be of int64, got float64."),
        ([["a", "b"]], ShapeError, "model: `places` must be of int64, got <U1."),
        (
            [[0], [1, 2]],
            ShapeError,
            "model: `places` must be an array of int64, got rows of different lengths.",
        ),
    ],
)
def test_what_no_row_of_a_table_stands_for_is_named(places, error, message, tmp_path):
    graph = Graph(
        Looked().eval().requires_grad_(False),
        ("places",),
        ("y",),
        {"places": {0: "N"}},
        lambda N, T: (torch.arange(2 * N).view(N, 2) % 3,),
    )
    program_writing.save_program(graph, tmp_path / "m")
    with pytest.raises(error) as raised:
        runtime.load(tmp_path / "m")(places)
    assert str(raised.value) == message
