"""Every number against an identity, autograd or a closed form; and wrong numbers must fail."""

import math

import pytest
import torch
from models import Reader, leak
from torch import nn

from longshort import LSTM
from longshort.errors import SettingError
from longshort.lens import (
    Specimen,
    ablate,
    attention,
    attribution,
    drivers,
    flow,
    freeze,
    half_life,
    health,
    influence,
    ledger,
    override,
    readout,
    river,
    stored,
    surgery,
    survival,
    used,
)  # fmt: skip
from longshort.lens.cutting import screened
from longshort.scan.masks import Noise
from longshort.scan.variant import Variant

CELLS = pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
GATED = pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])


def specimen(cell, N=4, T=20, C=3, H=5, every=False, dtype=torch.float64, **options):
    model = Reader(cell, C, H, 2, every, **options).to(dtype)
    x, y = torch.randn(N, T, C, dtype=dtype), torch.randn(N, 2, dtype=dtype)
    shape = (
        (lambda out: (out - y[:, None]).square().mean(2))
        if every
        else (lambda out: (out - y).square().mean(1))
    )
    return Specimen(model, (x,), loss=shape)


@GATED
@pytest.mark.parametrize("step", [0, 7, 19, -1])
@pytest.mark.parametrize("both", [False, True])
def test_ledger_sums_to_the_cell(cell, step, both):
    trace = Specimen(
        cell(3, 5, 2, bidirectional=both, batch_first=True).double(), (torch.randn(4, 20, 3).double(),)
    ).trace()
    for layer in trace.layers.values():
        made = ledger(layer, step)
        assert made.residual <= 1e-12
        after = slice(None, step % 20) if layer.reverse else slice(step % 20 + 1, None)
        assert made.parts[:, after].abs().sum() == 0


def test_ledger_in_float32_and_with_a_state_and_resets():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = LSTM(3, 32, batch_first=True)

        def forward(self, x):
            reset = torch.zeros(4, 50, dtype=torch.bool)
            reset[1, 20] = True
            return self.lstm(x, (torch.ones(1, 4, 32), torch.ones(1, 4, 32)), reset=reset)[0]

    layer = Specimen(Model(), (torch.randn(4, 50, 3),)).trace().layer()
    made = ledger(layer)
    assert made.residual <= 1e-5 * max(1, made.total.abs().max())
    assert made.from_start[1].abs().sum() == 0 < made.from_start[0].abs().sum()
    assert made.parts[1, :20].abs().sum() == 0


@pytest.mark.parametrize(
    "options", [{"coupled": True}, {"peephole": True}, {"norm": "ba2016"}, {"forget_gate": False}]
)
def test_ledger_of_variants(options):
    layer = LSTM(3, 5, batch_first=True, variant=Variant(**options)).double()
    assert ledger(Specimen(layer, (torch.randn(4, 20, 3).double(),)).trace().layer()).residual <= 1e-12


def test_who_has_no_ledger_says_why():
    layer = specimen(nn.RNN).trace().layer()
    with pytest.raises(
        SettingError, match=r"`rnn\.l0` has no ledger\. A plain RNN squashes its whole state at every step"
    ):
        ledger(layer)
    with pytest.raises(SettingError, match=r"`rnn\.l0` has no half-life"):
        half_life(layer)
    normed = LSTM(3, 5, batch_first=True, variant=Variant(norm="per_gate"))
    with pytest.raises(SettingError, match="The layer norm rescales the whole cell"):
        ledger(Specimen(normed, (torch.randn(4, 20, 3),)).trace().layer())


@GATED
def test_readout_sums_to_the_answer(cell):
    made = specimen(cell)
    weight, bias = made.model.out.weight[1].detach(), made.model.out.bias[1].item()
    parts = readout(made.trace().layer(), weight, bias)
    assert parts.residual <= 1e-12
    torch.testing.assert_close(parts.total, made.run()[:, 1].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.contributions.sum(1) + parts.rest, parts.total, rtol=0, atol=1e-12)


def test_readout_through_a_projection():
    model = Reader(nn.LSTM, 3, 5, 1, proj_size=2).double()
    layer = Specimen(model, (torch.randn(4, 9, 3).double(),)).trace().layer()
    assert readout(layer, model.out.weight[0].detach(), model.out.bias.item()).residual <= 1e-12


def test_gru_weights_sum_to_one_and_lstm_weights_need_not():
    gru = specimen(nn.GRU).trace().layer()
    kept = gru.values["log_keep"][0, :, 2].cumsum(0).exp()
    torch.testing.assert_close(attention(gru, 2).sum(1) + kept, torch.ones(20).double(), rtol=0, atol=1e-12)
    lstm = attention(specimen(nn.LSTM).trace().layer(), 2)
    assert (lstm >= 0).all() and lstm.triu(1).abs().sum() == 0
    assert ((lstm.sum(1) - 1).abs() > 0.05).any()


def test_attention_times_candidates_is_the_cell():
    layer = specimen(nn.LSTM).trace().layer()
    cells = attention(layer, 3, sequence=1) @ layer.values["g"][1, :, 3]
    torch.testing.assert_close(cells, layer.values["c"][1, :, 3], rtol=0, atol=1e-12)


@CELLS
@pytest.mark.parametrize("every", [False, True])
def test_steps_of_the_gradient_sum_to_the_gradient(cell, every):
    made = specimen(cell, every=every, num_layers=2)
    rivers = river(made)
    made.losses(made.model(*made.inputs)).sum().backward()
    for k, one in enumerate(rivers):
        for name, total in one.sums.items():
            torch.testing.assert_close(
                total, getattr(made.model.rnn, f"{name}_l{k}").grad, rtol=0, atol=1e-12
            )


def test_norms_of_the_river_are_those_of_the_matrices():
    made = specimen(nn.LSTM, N=1, T=6)
    whole = river(made)[0]
    last = river(made, window=1)[0]
    size = torch.stack([
        torch.cat((last.sums["weight_ih"][k * 5 : k * 5 + 5], last.sums["weight_hh"][k * 5 : k * 5 + 5]),
        1).norm() for k in range(4)
    ])  # fmt: skip
    torch.testing.assert_close(whole.norms[:, -1], size, rtol=1e-9, atol=1e-12)


def test_flow_is_autograd_and_the_carousel_is_autograd_with_detached_gates():
    made = specimen(nn.LSTM, N=1, T=12)
    measured = flow(made)
    w, x = made.model.rnn, made.inputs[0][0]

    def gradients(detached):
        h, c, cells = torch.zeros(5).double(), torch.zeros(5).double(), []
        for t in range(12):
            a = w.weight_ih_l0 @ x[t] + w.bias_ih_l0 + w.weight_hh_l0 @ h + w.bias_hh_l0
            a = a.detach() if detached and t < 12 else a
            i, f, g, o = a.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            c.requires_grad_() if not c.requires_grad else None
            cells.append(c)
            h = o.sigmoid() * c.tanh()
        loss = made.losses(made.model.out(h)[None]).sum()
        return torch.stack([g.norm() for g in torch.autograd.grad(loss, cells)]).flip(0)

    for curve, detached in ((measured.full, False), (measured.carousel, True)):
        exact = gradients(detached)
        torch.testing.assert_close(curve, exact / exact[0], rtol=1e-9, atol=1e-12)
    assert (measured.full - measured.carousel).abs().max() > 1e-3, "the two paths differ in this model"
    assert measured.scale == pytest.approx(gradients(False)[0].item())


@CELLS
def test_one_replay_serves_gradients_river_and_screen(cell):
    made = specimen(cell, num_layers=2)
    with torch.enable_grad():
        played = made.replayed(graph=1 << 40)
    assert torch.equal(flow(made, played=played).full, flow(made).full)
    for one, other in zip(river(made, played=played), river(made), strict=True):
        assert torch.equal(one.norms, other.norms)
    assert torch.equal(screened(made, played=played), screened(made))


@pytest.mark.parametrize(("layer", "ways"), [
    (nn.LSTM(3, 4, batch_first=True), "on"),
    (nn.LSTM(3, 4, num_layers=2), "on"),
    (nn.GRU(3, 4, batch_first=True, bias=False), "on"),
    (nn.RNN(3, 4, num_layers=2, batch_first=True), "on"),
    (LSTM(3, 4, batch_first=True, variant=Variant(peephole=True), learn_initial=True), "on"),
    (LSTM(3, 4, variant=Variant(norm="ba2016"), noise=Noise(zoneout_h=0.2, zoneout_c=0.3)), "on"),
    (LSTM(3, 4, batch_first=True, variant=Variant(gate_recurrence=True)), "whole"),
    (nn.LSTM(3, 4, batch_first=True, bidirectional=True), "whole"),
], ids=repr)  # fmt: skip
def test_donors_that_run_on_from_a_state_give_what_whole_runs_give(layer, ways, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(4, 9, 3).double()
    made = Specimen(layer.double(), (x if layer.batch_first else x.transpose(0, 1),))
    call = made.trace().calls[0]
    assert attribution._goes_on(call, made.trace().layers.values()) == (ways == "on")
    quick = influence(made, methods=("donor",))
    monkeypatch.setattr(attribution, "_goes_on", lambda *_: False)
    whole = influence(made, methods=("donor",))
    torch.testing.assert_close(quick.steps["donor"], whole.steps["donor"], rtol=0, atol=1e-10)
    torch.testing.assert_close(quick.warmup, whole.warmup, rtol=0, atol=1e-10)


def test_what_is_too_much_work_is_left_out_and_said():
    made = specimen(nn.LSTM, T=60)
    seen = influence(made, methods=("donor",), work=1.0)
    kept = torch.isfinite(seen.steps["donor"][0])
    assert kept[-1] and 5 <= kept.sum() <= attribution.FEWEST
    gaps = kept.nonzero().flatten().diff()
    assert (gaps[:-1] >= gaps[1:]).all(), "denser towards the end"
    assert f"Donors were put in the place of {int(kept.sum())} of 60 steps" in " ".join(seen.notes)


def test_a_window_changes_nothing_inside_it():
    made = specimen(nn.LSTM)
    torch.testing.assert_close(flow(made, window=8).full, flow(made).full[:8])


@pytest.mark.parametrize("f", [0.5, 0.9, 0.99])
def test_half_life_of_a_constant_leak(f):
    half = half_life(Specimen(leak(f), (torch.randn(2, 200, 1).double(),)).trace().layer())
    assert half.steps.item() == pytest.approx(math.log(2) / -math.log(f), rel=1e-9)
    assert not half.censored and half.text(0) == f"{half.steps.item():.1f} steps"


def test_half_life_is_censored_at_the_sequence():
    layer = Specimen(leak(0.999), (torch.randn(2, 50, 1).double(),)).trace().layer()
    half = half_life(layer)
    assert half.steps.item() == 50 and half.censored and half.text(0) == "> 50 steps"


def test_half_life_takes_the_mean_of_the_logarithm_and_of_real_steps():
    model = leak(0.5)
    with torch.no_grad():
        model.weight_ih_l0[1] = 6.0
        model.bias_ih_l0[1] = 0.0
    x = torch.where(torch.rand(1, 100, 1) < 0.9, 1.0, -1.0).double()
    log = torch.sigmoid(6 * x).log().mean()
    naive = math.log(2) / -torch.sigmoid(6 * x).mean().log().item()
    got = half_life(Specimen(model, (x,)).trace().layer()).steps.item()
    assert got == pytest.approx(math.log(2) / -log.item())
    assert naive > 3 * got, "the mean of f itself would be far too optimistic"
    packed = nn.utils.rnn.pack_padded_sequence(torch.cat((x, x)), [100, 10], batch_first=True)
    both = half_life(Specimen(model, (packed,)).trace().layer()).steps.item()
    seen = torch.cat((x[0], x[0, :10]))
    assert both == pytest.approx(math.log(2) / -torch.sigmoid(6 * seen).log().mean().item())


def test_half_life_survives_a_forget_gate_that_rounds_to_one():
    model = nn.LSTM(1, 1, batch_first=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.bias_ih_l0[1] = 17.5
    layer = Specimen(model, (torch.zeros(1, 4, 1),)).trace().layer()
    assert layer.values["f"].eq(1).all(), "float32 has no number for this gate"
    assert layer.values["log_keep"].exp().eq(1).all() and layer.values["log_keep"].max() < 0


def test_survival():
    layer = Specimen(leak(0.9), (torch.randn(2, 40, 1).double(),)).trace().layer()
    torch.testing.assert_close(
        survival(layer, torch.tensor([0, 1, 10]))[:, 0], 0.9 ** torch.tensor([0, 1, 10]).double()
    )


def test_saturated_dead_stuck_and_blocked():
    model = leak([0.95, 0.95, 0.5], H=3)
    with torch.no_grad():
        model.bias_ih_l0[0] = -30  # unit 0: shut, so nothing is ever written
        model.weight_ih_l0[7] = 0
        model.bias_ih_l0[7] = 30  # unit 1 counts up to 10: tanh hides it
        model.bias_ih_l0[1] = 30
    seen = health(Specimen(model, (torch.randn(3, 300, 1).double(),)).trace().layer())
    assert seen.dead.tolist() == [True, False, False]
    assert seen.shut["i"].tolist() == [1, 0, 0] and seen.open["i"].tolist() == [0, 1, 0]
    assert seen.open["f"].tolist() == [1, 1, 0]
    assert seen.blocked[0] == 0 and seen.blocked[1] > 0.9 and seen.blocked[2] == 0


@CELLS
def test_drivers_sum_to_the_preactivation(cell):
    layer = specimen(cell).trace().layer()
    split = drivers(layer)
    gate = {"lstm": "f", "gru": "z", "rnn": "h"}[layer.kind]
    total = split.input[gate] + split.recurrence[gate] + split.bias[gate]
    squash = torch.tanh if gate == "h" else torch.sigmoid
    torch.testing.assert_close(squash(total), layer.values[gate], rtol=0, atol=1e-12)
    for shares in split.shares.values():
        torch.testing.assert_close(shares.sum(1), torch.ones(5).double())
    if layer.kind == "gru":
        n = split.input["n"] + split.recurrence["n"] + split.bias["n"]
        torch.testing.assert_close(n.tanh(), layer.values["n"], rtol=0, atol=1e-12)


@GATED
def test_influence_is_complete_and_an_untouched_input_has_none(cell):
    made = specimen(cell, N=6)
    with torch.no_grad():
        made.model.rnn.weight_ih_l0[:, 1] = 0
    seen = influence(made, output=1, points=64)
    assert seen.complete["ig"][1] < 0.01
    assert seen.complete["ledger"][0] <= 1e-10
    assert seen.channels["ig"][..., 1].abs().max() == 0 < seen.channels["ig"][..., 0].abs().max()
    assert set(seen.steps) == {"donor", "ig", "gradient", "ledger"}
    assert len(seen.agreement) == 6 and all(-1 <= rho <= 1 for rho in seen.agreement.values())


def test_other_weights_give_other_maps():
    """The sanity check of Adebayo et al. (2018): a map that survives random weights shows nothing of the
    model. One draw may resemble the model by chance, of either sign; many do not."""
    made = specimen(nn.LSTM, N=6)
    before = influence(made, output=0)
    alike = {name: [] for name in before.steps}
    for _ in range(6):
        for weight in made.model.parameters():
            nn.init.normal_(weight, std=0.5)
        after = influence(made, output=0)
        for name, steps in before.steps.items():
            pair = torch.stack((steps.flatten(), after.steps[name].flatten()))
            alike[name].append(torch.corrcoef(pair)[0, 1].item())
    for name, values in alike.items():
        assert abs(sum(values)) / len(values) < 0.6, (name, values)


def test_surgery_without_a_change_changes_nothing():
    made = specimen(nn.LSTM)
    trace = made.trace()
    plain = made.losses(made.run()).mean().item()
    assert ablate(made, trace, "rnn.l0", []) == pytest.approx(plain, abs=1e-12)
    with torch.no_grad():
        made.model.out.weight[:, 2] = 0
        made.model.rnn.weight_hh_l0[:, 2] = 0
    trace = made.trace()
    plain = made.losses(made.run()).mean().item()
    assert ablate(made, trace, "rnn.l0", [2]) == pytest.approx(plain, abs=1e-12), "nobody reads this unit"
    assert abs(ablate(made, trace, "rnn.l0", [1]) - plain) > 1e-6


def test_the_screen_is_the_first_order_of_the_ablation():
    made = specimen(nn.LSTM)
    with torch.no_grad():  # cells hardly move, so the first order is all there is
        made.model.rnn.weight_ih_l0.mul_(1e-3)
        made.model.rnn.weight_hh_l0.zero_()
        made.model.rnn.bias_ih_l0[5:10] = -12
    cut = surgery(made, exact=5)
    for unit, rise in cut.units.items():
        assert cut.screen[unit] == pytest.approx(abs(rise), rel=0.05, abs=1e-9)


def test_a_constant_gate_costs_nothing_to_freeze():
    layer = leak(0.8)
    model = nn.Sequential(layer)
    x = torch.randn(3, 30, 1).double()
    made = Specimen(model, (x,), output=lambda out: out[0], loss=lambda y: (y[..., 0] - x[..., 0]).square())
    trace = made.trace()
    plain = made.losses(made.run()).mean().item()
    assert freeze(made, trace, "0.l0", "f") == pytest.approx(plain, abs=1e-12)
    assert freeze(made, trace, "0.l0", "g") != pytest.approx(plain, abs=1e-3)


def test_override_runs_the_unit_again():
    layer = specimen(nn.LSTM).trace().layer()
    same = override(layer, 2, 5)
    torch.testing.assert_close(same["c"], layer.values["c"][0, :, 2], rtol=0, atol=1e-12)
    kept = override(layer, 2, 5, f=1.0, i=0.0, onward=True)
    torch.testing.assert_close(kept["c"][5:], layer.values["c"][0, 4, 2].expand(15), rtol=0, atol=1e-12)
    with pytest.raises(SettingError, match=r"^look: `unit` must lie in 0 ... 4 for `rnn\.l0`, got 5\.$"):
        override(layer, 5, 0)
    with pytest.raises(SettingError, match=r"^look: `step` must lie in 0 ... 19 for `rnn\.l0`, got 20\.$"):
        override(layer, 0, 20)


def test_a_shuffled_probe_finds_nothing():
    made = specimen(nn.LSTM, N=30, T=40, H=8)
    seen = stored(made.trace().layer())
    assert seen.bits[0] > 1
    assert (seen.control <= 2 * seen.error + 0.02).all()
    assert seen.capacity <= 16


def test_with_the_whole_context_nothing_rises():
    made = specimen(nn.LSTM, N=8, T=16)
    cut = used(made, torch.tensor([4, 16]))
    assert cut.zero[1].abs() < 1e-12
    cut = used(specimen(nn.GRU, N=8, T=16, every=True), torch.tensor([4, 16]))
    assert cut.zero[1].abs() < 1e-12


def test_what_needs_a_loss_says_so():
    made = Specimen(nn.LSTM(3, 5, batch_first=True), (torch.randn(4, 20, 3),))
    with pytest.raises(SettingError, match=r"this needs a loss. Pass loss=lambda output"):
        used(made)
