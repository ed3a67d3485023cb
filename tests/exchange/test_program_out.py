"""Whole models for the runtime: every operator against torch, and a forecaster without torch."""

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import longshort as ls
from longshort import engine, runtime
from longshort.data import SeriesTable, embedded
from longshort.errors import DataError, SettingError, ShapeError
from longshort.exchange import program_writing
from longshort.exchange.onnx_writing import Graph
from longshort.runtime.files import read_folder, write_folder
from longshort.scan import Variant
from longshort.tasks.forecast.windows import Panel

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


@pytest.fixture(scope="module")
def forecaster_of_rows(tmp_path_factory):
    """A forecaster of all but the last rows of two series, those rows, and its exported folder."""
    table = embedded()
    (series,) = table
    other = replace(series, name="other", target=np.roll(series.target, 7) * 3)
    table = SeriesTable((series, other), table.step, table.columns)
    forecaster = ls.Forecaster(horizon=6, seed=0, max_steps=3)
    forecaster.fit(part_of(table, 0, len(series) - 8), quiet=True, device="cpu")
    folder = tmp_path_factory.mktemp("forecast") / "m"
    ls.export(forecaster, folder)
    return forecaster, table, folder


def part_of(table, first, last):
    """Some rows of each series."""
    rows = {name: slice(first, last) for name in ("time", "target", "past", "future")}
    parts = [replace(one, **{name: getattr(one, name)[k] for name, k in rows.items()}) for one in table]
    return SeriesTable(tuple(parts), table.step, table.columns)


def rows_of(table, plan, last):
    """The target (2, memory) up to the last rows, and the calendar (2, context + horizon) to go with it."""
    count = len(next(iter(table))) - last
    ahead = Panel(table, plan).cut([0, 1], [count, count], plan.context)[0].ahead.numpy()
    return np.stack([one.target[count - plan.memory : count] for one in table]), ahead


def test_a_forecaster_as_a_stream_goes_on_as_it_does_itself(forecaster_of_rows):
    forecaster, table, folder = forecaster_of_rows
    forecaster = copy.deepcopy(forecaster)
    plan = forecaster.plan
    target, ahead = rows_of(table, plan, 8)
    stream = runtime.load(folder).stream(target=target, ahead=ahead)
    np.testing.assert_allclose(stream.output, forecaster.predict().quantiles.values, rtol=1e-6)
    for last in range(7, 0, -1):
        place = len(next(iter(table))) - last
        forecaster.update(part_of(table, place - 1, place))
        target, ahead = rows_of(table, plan, last)
        got = stream.step(target=target[:, -1], ahead=ahead[:, -1 - plan.horizon :])
        np.testing.assert_allclose(got, forecaster.predict().quantiles.values, rtol=1e-6)
    assert (
        np.abs(got / runtime.load(folder)(*rows_of(table, plan, 1)) - 1).max() > 1e-6
    )  # the scale has stayed


def test_one_series_of_a_stream_waits_and_states_come_back(forecaster_of_rows):
    forecaster, table, folder = forecaster_of_rows
    plan = forecaster.plan
    model = runtime.load(folder)
    target, ahead = rows_of(table, plan, 8)
    stream, both = model.stream(target, ahead), model.stream(target, ahead)
    begun, saved = stream.output, stream.state
    target, ahead = rows_of(table, plan, 7)
    row = {"target": target[:, -1], "ahead": ahead[:, -1 - plan.horizon :]}
    got, whole = stream.step(**row, mask=np.array([True, False])), both.step(**row)
    np.testing.assert_array_equal(got[0], whole[0])
    np.testing.assert_array_equal(got[1], begun[1])
    np.testing.assert_array_equal(stream.step(**row, mask=np.array([False, True]))[1], whole[1])
    stream.state = saved
    np.testing.assert_array_equal(stream.step(**row), whole)


def test_what_a_stream_of_a_model_cannot_do_is_named(forecaster_of_rows, tmp_path):
    forecaster, table, folder = forecaster_of_rows
    program_writing.save_program(graph_of(Of(FUNCTIONS["gates"])), tmp_path / "m")
    target, ahead = rows_of(table, forecaster.plan, 8)
    stream = runtime.load(folder).stream(target, ahead)
    row = {"target": target[:, -1], "ahead": ahead[:, -7:]}
    for call, message in (
        (
            lambda: runtime.load(tmp_path / "m").stream(np.zeros((2, 6, 4))),
            "stream: the model was exported without a step. Call it on whole sequences.",
        ),
        (
            lambda: stream.step(**(row | {"target": np.zeros((2, 1))})),
            "stream.step: `target` must be (N), got (2, 1).",
        ),
        (
            lambda: stream.step(**(row | {"target": np.zeros(3)})),
            "stream.step: `target` must be (N), got (3,).",
        ),
        (
            lambda: stream.step(**row, mask=[True]),
            "stream.step: `mask` must be (N,) = (2,) of bool, got (1,) of bool.",
        ),
    ):
        with pytest.raises(ShapeError) as raised:
            call()
        assert str(raised.value) == message
    with pytest.raises(
        ShapeError, match=r"^stream: `state` must have \{'values': \(2, .*, got \{'h': \(1,\)\}\.$"
    ):
        stream.state = {"h": np.zeros(1)}


def test_the_weights_of_a_step_are_stored_once(forecaster_of_rows):
    settings, arrays = read_folder(forecaster_of_rows[2])
    large = [name for name, value in arrays.items() if value.size > 1000]
    assert large and not any(name.startswith("step.") for name in large)
    assert set(settings["step"]["arrays"].values()) <= set(arrays)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_forecaster_on_short_weights(weights, forecaster_of_rows, tmp_path):
    forecaster, table, folder = forecaster_of_rows
    ls.export(forecaster, tmp_path / "m", weights=weights)
    target, ahead = rows_of(table, forecaster.plan, 8)
    got, want = runtime.load(tmp_path / "m")(target, ahead), runtime.load(folder)(target, ahead)
    assert 0 < np.abs(got / want - 1).max() < 1e-2


def test_a_forecaster_runs_without_torch(tmp_path):
    forecaster = ls.Forecaster(horizon=6, seed=0, max_steps=3).fit(embedded(), quiet=True, device="cpu")
    ls.export(forecaster, tmp_path / "m")
    plan, series = forecaster.plan, next(iter(forecaster.history))
    ahead = forecaster_inputs(forecaster)
    np.save(tmp_path / "target.npy", series.target[None, -plan.memory :])
    np.save(tmp_path / "ahead.npy", ahead)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from longshort import runtime\n"
        "model = runtime.load('m')\n"
        "np.save('quantiles.npy', model(target=np.load('target.npy'), ahead=np.load('ahead.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    want = forecaster.predict().quantiles.values
    np.testing.assert_allclose(np.load(tmp_path / "quantiles.npy"), want, rtol=1e-6)


def forecaster_inputs(forecaster):
    """The calendar of the last rows and of those to come, as the forecaster itself reads it."""
    from longshort.tasks.forecast.windows import Panel

    table, plan = forecaster.history, forecaster.plan
    windows, _ = Panel(table, plan).cut([0], [len(next(iter(table)))], plan.context)
    return windows.ahead.numpy()
