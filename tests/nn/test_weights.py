"""How weights begin, and how they come from torch's layers and go back."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import longshort as ls
from longshort.errors import SettingError
from longshort.nn import chrono, uniform
from longshort.scan import Noise, Variant


def gates(layer, k=0):
    """The sum of the two biases of a layer, by gate."""
    both = getattr(layer, f"bias_ih_l{k}") + getattr(layer, f"bias_hh_l{k}")
    return dict(zip(layer.variant.gates, both.detach().chunk(len(layer.variant.gates)), strict=True))


def test_longshort_is_orthogonal_with_a_forget_bias_of_one():
    layer = ls.LSTM(5, 8, 2, init="longshort")
    for k in range(2):
        for block in getattr(layer, f"weight_hh_l{k}").chunk(4):
            torch.testing.assert_close(block @ block.T, torch.eye(8), rtol=0, atol=1e-5)
        bias = gates(layer, k)
        assert (bias["f"] == 1).all()  # the sum: filling both biases would make it 2
        assert all((bias[gate] == 0).all() for gate in "igo")


VARIANTS = [Variant(coupled=True, norm="ba2016", peephole=True), Variant(forget_gate=False)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("init", ["torch", "longshort", chrono(50), uniform(0.1)])
def test_every_initialisation_fills_every_weight_of_every_variant(variant, init):
    layer = ls.LSTM(5, 8, 2, bidirectional=True, proj_size=3, variant=variant, init=init, learn_initial=True)
    for name, weight in layer.named_parameters():
        assert weight.isfinite().all(), name
        if name.startswith("gain"):
            assert (weight == 1).all()
        if name.startswith(("shift", "initial")):
            assert (weight == 0).all()


def test_chrono_reaches_as_far_as_it_is_told():
    layer = ls.LSTM(5, 500, init=chrono(100))
    bias = gates(layer)
    assert bias["f"].min() >= 0
    assert math.log(80) < bias["f"].max() <= math.log(99)
    assert torch.equal(bias["i"], -bias["f"])
    assert (bias["f"].exp().mean() - 50).abs() < 6


def test_uniform_keeps_its_bound():
    layer = ls.LSTM(5, 64, init=uniform(0.05))
    for weight in layer.parameters():
        assert 0.04 < weight.abs().max() <= 0.05


@pytest.mark.parametrize("init", ["longshort", chrono(50), uniform(0.1)])
def test_a_layer_pickles_with_its_initialisation(init):
    layer = ls.LSTM(5, 8, init=init)
    copied = pickle.loads(pickle.dumps(layer))
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    copied.reset_parameters()
    assert torch.equal(copied.weight_hh_l0, layer.weight_hh_l0)


def test_reset_parameters_draws_anew_by_the_same_rule():
    torch.manual_seed(0)
    layer = ls.LSTM(5, 8, init="longshort")
    before = layer.weight_hh_l0.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight_hh_l0, before)
    assert (gates(layer)["f"] == 1).all()


def test_from_torch_and_back():
    theirs = nn.LSTM(
        4, 6, 2, bidirectional=True, proj_size=3, dropout=0.2, batch_first=True, dtype=torch.float64
    ).eval()
    theirs.weight_hh_l1.requires_grad_(False)
    ours = ls.LSTM.from_torch(theirs)
    back = ours.to_torch()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(back(x)[0], theirs(x)[0])
    assert not back.training
    assert not ours.weight_hh_l1.requires_grad
    assert not back.weight_hh_l1.requires_grad
    with torch.no_grad():
        theirs.weight_hh_l0.zero_()
    assert ours.weight_hh_l0.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": Variant(peephole=True)}, "Variant(peephole=True)"),
        ({"learn_initial": True}, "learn_initial=True"),
    ],
)
def test_to_torch_names_what_torch_lacks(options, named):
    with pytest.raises(SettingError) as raised:
        ls.LSTM(4, 6, **options).to_torch()
    assert str(raised.value) == (
        f"LSTM.to_torch: torch.nn.LSTM has no counterpart of {named}. "
        f"Keep the longshort layer, or export the model."
    )


def test_to_torch_refuses_noise():
    with pytest.raises(SettingError, match=r"no counterpart of Noise\(zoneout_c=0\.1\)\. Keep"):
        ls.LSTM(4, 6, noise=Noise(zoneout_c=0.1)).to_torch()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(4, 6, batch_first=True)
        self.twice = nn.ModuleList([nn.LSTM(6, 6, 2, dropout=0.1, batch_first=True)] * 2)
        self.deep = nn.Sequential(nn.Sequential(nn.LSTM(6, 5, batch_first=True)))
        self.cell = nn.LSTMCell(5, 3)

    def forward(self, x):
        x = self.first(x)[0]
        for layer in self.twice:
            x = layer(x)[0]
        return self.cell(self.deep(x)[0][:, -1])


def test_convert_replaces_every_lstm_and_keeps_the_numbers():
    model = Model().eval()
    x = torch.randn(3, 5, 4)
    want, weights = model(x), dict(model.named_parameters())
    assert ls.convert(model) is model
    found = [type(m) for m in model.modules()]
    assert nn.LSTM not in found
    assert nn.LSTMCell not in found
    for got, expected in zip(model(x), want, strict=True):
        torch.testing.assert_close(got, expected)
    after = dict(model.named_parameters())
    assert list(after) == list(weights)
    assert all(after[name] is weights[name] for name in weights)  # an optimiser made before still trains it
    assert model.twice[0] is model.twice[1]
    assert not model.first.training
    assert model.twice[0].dropout == 0.1


def test_convert_of_a_layer_returns_its_replacement():
    layer = nn.LSTM(4, 6, dtype=torch.float64)
    ours = ls.convert(layer)
    assert isinstance(ours, ls.LSTM)
    assert ours.weight_ih_l0 is layer.weight_ih_l0


def test_convert_leaves_other_subclasses_alone():
    class Own(nn.LSTM):
        pass

    model = nn.Sequential(Own(2, 3), nn.GRU(3, 2))
    ls.convert(model)
    assert [type(m) for m in model] == [Own, nn.GRU]


@pytest.mark.parametrize("bias", [True, False])
def test_the_cell_is_torch_s(bias):
    torch.manual_seed(0)
    theirs = nn.LSTMCell(4, 6, bias=bias, dtype=torch.float64)
    torch.manual_seed(0)
    ours = ls.LSTMCell(4, 6, bias=bias, dtype=torch.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(got, want)
    x, hx = torch.randn(3, 4, dtype=torch.float64), tuple(torch.randn(2, 3, 6, dtype=torch.float64))
    for state in (None, hx):
        for got, want in zip(ours(x, state), theirs(x, state), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for got, want in zip(ours(x[0], (hx[0][0], hx[1][0])), theirs(x[0], (hx[0][0], hx[1][0])), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    h, c = copy.deepcopy(ours)(x)
    assert h.shape == c.shape == (3, 6)


def test_the_cell_has_the_variants_of_the_layer():
    variant = Variant(norm="per_gate", peephole=True, gate_recurrence=True)
    cell = ls.LSTMCell(4, 6, variant=variant, dtype=torch.float64)
    layer = ls.LSTM(4, 6, variant=variant, dtype=torch.float64)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x, state = torch.randn(5, 3, 4, dtype=torch.float64), None
    whole, last = layer(x)
    for t in range(5):
        state = cell(x[t], state)
        torch.testing.assert_close(state.h, whole[t])
    torch.testing.assert_close(state.c, last.c[0])
