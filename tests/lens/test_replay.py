"""The replay is the model: every layer torch has and every variant, in both precisions."""

import itertools

import numpy as np
import pytest
import torch
from models import Reader
from torch import nn

import longshort
from longshort.errors import BackendError, DataError, SettingError, ShapeError
from longshort.lens import Specimen, Trace, look, specimen
from longshort.lens import replay as replay_module
from longshort.lens.replay import QUANTITIES
from longshort.scan.variant import Variant

SHAPES = [
    (cell, layers, both, first, bias)
    for cell in (nn.LSTM, nn.GRU, nn.RNN)
    for layers, both, first, bias in itertools.product((1, 3), (False, True), (False, True), (False, True))
]


def inputs(first, dtype=torch.float64, N=3, T=9, C=4):
    x = torch.randn(N, T, C, dtype=dtype)
    return x if first else x.transpose(0, 1)


@pytest.mark.parametrize(("cell", "layers", "both", "first", "bias"), SHAPES)
def test_every_shape_in_float64(cell, layers, both, first, bias):
    layer = cell(4, 5, layers, bidirectional=both, batch_first=first, bias=bias).double()
    trace = Specimen(layer, (inputs(first),)).trace()
    assert trace.difference < 1e-10
    assert len(trace.layers) == layers * (1 + both)
    assert {q for n in trace for q in [n.rpartition(".")[2]]} == {"x", *QUANTITIES[cell.__name__.lower()]}
    assert all(t.shape[:2] == (3, 9) for t in trace.values())


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_float32_within_1e_5(cell, layers):
    layer = cell(4, 64, layers, bidirectional=True)
    assert Specimen(layer, (inputs(False, torch.float32, T=60),)).trace().difference <= 1e-5


@pytest.mark.parametrize("proj", [1, 3])
def test_projection(proj):
    layer = nn.LSTM(4, 5, 2, proj_size=proj, batch_first=True, bidirectional=True).double()
    trace = Specimen(layer, (inputs(True),)).trace()
    assert trace.difference < 1e-10
    assert trace["lstm.l1.h"].shape == (3, 9, proj)
    assert trace["lstm.l1.c"].shape == (3, 9, 5)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("in_order", [True, False])
def test_packed(cell, in_order):
    layer = cell(4, 5, 2, bidirectional=True, batch_first=True).double()
    lengths = [9, 7, 2] if in_order else [2, 9, 7]
    packed = nn.utils.rnn.pack_padded_sequence(
        inputs(True), lengths, batch_first=True, enforce_sorted=in_order
    )
    specimen = Specimen(layer, (packed,))
    trace = specimen.trace()
    assert trace.difference < 1e-10
    assert trace.layer().mask.sum(1).tolist() == lengths
    assert trace[next(iter(trace.layers)) + ".h"][lengths.index(2), 2:].abs().sum() == 0
    torch.testing.assert_close(specimen.replayed()[0], specimen.run(), rtol=0, atol=1e-12)


def test_a_given_state_and_a_single_sequence():
    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 5)

        def forward(self, x):
            return self.lstm(x, (torch.ones(1, 5), -torch.ones(1, 5)))[0]

    trace = Specimen(Started(), (torch.randn(9, 4),)).trace()
    assert trace.difference < 1e-6
    assert trace.layer("lstm.l0").before("c")[0, 0].tolist() == [-1] * 5


def test_a_layer_called_twice_has_two_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(self.lstm(x)[0])[0]

    specimen = Specimen(Twice().double(), (inputs(True),))
    trace = specimen.trace()
    assert list(trace.layers) == ["lstm.l0", "lstm@1.l0"]
    torch.testing.assert_close(specimen.replayed()[0], specimen.run(), rtol=0, atol=1e-12)


VARIANTS = [
    {},
    {"peephole": True},
    {"coupled": True},
    {"input_gate": False},
    {"forget_gate": False},
    {"output_gate": False},
    {"input_activation": False},
    {"output_activation": False},
    {"gate_recurrence": True},
    {"norm": "ba2016"},
    {"norm": "per_gate"},
    {"norm": "products"},
    {"cell_clip": 0.3},
    {"gate_activation": "hard_sigmoid"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_our_layer_and_its_variants(options):
    layer = longshort.LSTM(4, 5, 2, batch_first=True, bidirectional=True, variant=Variant(**options)).double()
    x, lengths = inputs(True), torch.tensor([9, 4, 7])
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[0, 5] = reset[2, 0] = True

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = layer

        def forward(self, x):
            return self.lstm(x, lengths=lengths, reset=reset)[0]

    specimen = Specimen(Model(), (x,))
    assert specimen.trace().difference < 1e-10
    torch.testing.assert_close(specimen.replayed()[0], specimen.run(), rtol=0, atol=1e-10)


RESET = [[False, True, False] * 3, [True] + [False] * 8, [False] * 9]
STATE = torch.linspace(-1, 1, 60, dtype=torch.float64).view(4, 3, 5)
GIVEN = {
    "reset in lists": {"reset": RESET},
    "reset in an array": {"reset": np.array(RESET)},
    "lengths in a list": {"lengths": [9, 4, 7]},
    "lengths in an array": {"lengths": np.array([9, 4, 7])},
    "both": {"reset": RESET, "lengths": (9, 4, 7)},
    "a state in a list": {"hx": [STATE, -STATE]},
    "a state in a tensor": {"hx": torch.stack((STATE, -STATE))},
    "an initial state in a list": {"initial": [STATE, -STATE], "reset": RESET},
    "one sequence, reset in a list": {"reset": RESET[0]},
    "one sequence, lengths in a list": {"lengths": [4]},
    "one sequence, its state": {"hx": (STATE[:, 0], STATE[:, 1])},
    "one sequence, its state with an axis of N": {"hx": (STATE[:, :1], STATE[:, 1:2])},
    "one sequence, its initial state with one": {"initial": [STATE[:, :1], STATE[:, 1:2]], "reset": RESET[0]},
}


@pytest.mark.parametrize("name", GIVEN)
def test_our_layer_with_all_that_it_takes_in_more_than_one_form(name):
    layer = longshort.LSTM(4, 5, 2, batch_first=True, bidirectional=True).double()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = layer

        def forward(self, x):
            return self.lstm(x, **GIVEN[name])[0]

    specimen = Specimen(Model(), (inputs(True)[0] if name.startswith("one sequence") else inputs(True),))
    assert specimen.trace().difference < 1e-10
    (call,), _ = specimen.record()
    for answer in (specimen.replayed()[0], specimen.with_input(call.name, call.x)):
        torch.testing.assert_close(answer, specimen.run(), rtol=0, atol=1e-10)


def test_nothing_is_shown_of_a_copy_that_drifted(monkeypatch):
    layer = nn.LSTM(4, 5, batch_first=True)
    own = nn.LSTM.forward
    monkeypatch.setattr(nn.LSTM, "forward", lambda self, *a: (own(self, *a)[0] + 1e-3, own(self, *a)[1]))
    with pytest.raises(BackendError, match=r"the replay of `lstm` must agree .* differs by 1\.0e-03"):
        look(layer, inputs(True, torch.float32))


def swapped(step):
    return lambda v, w, blocks, c, change: step(
        v, w, blocks | {"i": blocks["f"], "f": blocks["i"]}, c, change
    )


WRONG = {
    "gates i and f swapped": ("_lstm_step", swapped),
    "the forget gate a little too open": (
        "_lstm_step",
        lambda step: (
            lambda v, w, blocks, c, change: step(v, w, blocks | {"f": blocks["f"] + 1e-4}, c, change)
        ),
    ),
    "a bias left out": ("_inputs", lambda made: lambda layer: made(layer)._replace(bias=None)),
    "the first state left out": (
        "_start",
        lambda start: lambda *a: (layer := start(*a), setattr(layer, "start", layer.initial))[0],
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG])
def test_a_wrong_replay_is_caught(monkeypatch, wrong):
    """A check that passes wrong replays is decoration."""
    from longshort.lens import replay

    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x):
            return self.lstm(x, (torch.ones(1, 3, 5), torch.ones(1, 3, 5)))[0]

    specimen = Specimen(Started(), (inputs(True, torch.float32),))
    specimen.trace()
    name, change = wrong
    monkeypatch.setattr(replay, name, change(getattr(replay, name)))
    with pytest.raises(BackendError, match="nothing is shown of a copy that drifted"):
        specimen.trace()


def test_the_model_is_left_as_it_was():
    model = Reader(nn.LSTM, 4, 5, 2)
    model.out.eval()
    before = {n: w.clone() for n, w in model.state_dict().items()}
    look(model, inputs(True, torch.float32, N=8), loss=lambda out: out.square().sum(1))
    assert model.training and model.rnn.training and not model.out.training
    assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
    assert all(w.grad is None for w in model.parameters())
    assert "forward" not in vars(model.rnn) and not model.rnn._forward_hooks


def test_names_and_their_messages():
    trace = Specimen(nn.GRU(4, 5), (inputs(False, torch.float32),)).trace()
    assert isinstance(trace, Trace) and len(trace) == 5 and "gru.l0.z" in trace
    with pytest.raises(KeyError, match=r"gru\.l0\.f.*is not in the trace; names are gru\.l0\.x"):
        trace["gru.l0.f"]
    with pytest.raises(SettingError, match=r"^look: `layer` must be one of gru\.l0, got 'gru\.l1'\.$"):
        trace.layer("gru.l1")


def test_a_model_without_a_recurrent_layer_says_what_it_has():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with pytest.raises(SettingError) as raised:
        look(model, torch.zeros(2, 3))
    assert str(raised.value) == (
        "look: `model` must contain an LSTM, GRU or RNN of torch.nn or longshort.LSTM; Sequential holds "
        "Linear, ReLU. Cells in a hand-written loop cannot be looked into: put one of these layers in their "
        "place."
    )


def test_an_input_that_the_model_refuses():
    with pytest.raises(
        ShapeError, match=r"^look: `input` must be what LSTM takes, got \(2, 5, 3\), and the model"
    ):
        look(nn.LSTM(4, 5), torch.zeros(2, 5, 3))


@pytest.mark.parametrize(("where", "said"), [
    ("x", "input channel 1, first at step 6 of sequence 1, is nan"),
    ("g", "gate g of unit 2, first at step 0 of sequence 0, is nan"),
])  # fmt: skip
def test_a_value_that_is_not_finite(where, said):
    layer, x = nn.LSTM(4, 5, batch_first=True), inputs(True, torch.float32)
    if where == "x":
        x[1, 6, 1] = torch.nan
    else:
        with torch.no_grad():
            layer.bias_ih_l0[2 * 5 + 2] = torch.nan
    with pytest.raises(DataError, match=rf"layer `lstm\.l0`, {said}"):
        look(layer, x)


def test_rounding_over_many_steps_is_no_difference_and_a_wrong_replay_is(monkeypatch):
    torch.manual_seed(0)
    layer = nn.LSTM(2, 8, batch_first=True)
    monkeypatch.setitem(specimen.TOLERANCE, torch.float32, 1e-9)  # far below what float32 can hold
    made = Specimen(layer, (torch.randn(3, 60, 2),))
    trace = made.trace()
    assert 1e-9 < trace.difference <= trace.tolerance < 1e-5
    right = replay_module._lstm_step

    def leaky(v, w, blocks, c, change):
        return right(v, w, blocks, (1 + 1e-6) * c, change)

    monkeypatch.setattr(replay_module, "_lstm_step", leaky)
    with pytest.raises(BackendError, match=r"nothing is shown of a copy that drifted"):
        made.trace()
