"""Tasks of which the answer is known: what each view must show there."""

import math
import re

import pytest
import torch
from models import Embedded, Reader, adding, early, echo, latch, recall, recent, trained, zeroed
from torch import nn

from longshort.lens import Specimen, ablate, attention, flow, half_life, influence, ledger, look, stored, used
from longshort.lens.regression import _softmax_weights, doubt

L = 12


@pytest.fixture(scope="module")
def recalled():
    """A model that recalls the first of L + 1 steps, and sequences it has not seen."""
    torch.manual_seed(1)
    batch = recall(L, torch.Generator().manual_seed(1))
    model = Reader(nn.LSTM, 2, 8, 1)
    with torch.no_grad():
        model.rnn.bias_ih_l0[8:16] = 3.0
    trained(model, batch, lambda out, y: (out[:, 0] - y).square(), 250)
    x, y = batch(60)
    specimen = Specimen(model, (x,), loss=lambda out: (out[:, 0] - y).square())
    assert specimen.losses(specimen.run()).mean() < 0.02
    return specimen, y


def test_recall_is_learnable_stored_and_used_at_its_lag(recalled):
    specimen, _ = recalled
    layer = specimen.trace().layer()
    assert used(specimen).horizon == L
    assert flow(specimen).horizon == L
    symbol = layer.x[..., :1]
    seen = stored(layer, symbol, at_end=True)
    assert seen.horizon >= L
    assert seen.bits[-1] > 1, "one bit was to be kept"


def test_one_sequence_that_is_wrong_anyway_does_not_hide_what_is_used(recalled):
    """Its loss moves the mean by more than two standard errors hide; the other 59 all lose by the cut."""
    specimen, y = recalled
    asked = y.clone()
    asked[0] = 12 * (1 - 2 * (y[0] > 0).to(y.dtype))
    wrong = Specimen(specimen.model, specimen.inputs, loss=lambda out: (out[:, 0] - asked).square())
    assert used(wrong).zero[0] < 2 * used(wrong).error[0]
    assert used(wrong).horizon == L


def test_recall_rests_on_the_first_step_by_every_method(recalled):
    specimen, _ = recalled
    seen = influence(specimen)
    for name, least in (
        ("donor", 0.8),
        ("ig", 0.6),
        ("gradient", 0.4),
    ):  # a settled answer has little gradient
        share = seen.steps[name].abs().mean(0)
        assert share[0] > least * share.sum(), name


def test_recall_as_findings(recalled):
    specimen, _ = recalled
    made = look(specimen.model, specimen.inputs, loss=specimen.loss, required=L)
    found = {f.view: f for f in made.findings()}
    assert found["horizon"].threshold in (L, 1.0)
    text = str(made)
    assert f"used over {L} steps; the task needs {L}." in text
    assert f"the input {L} steps before the last" in text
    assert "The replay agrees with the model's own output" in text
    assert all(f.remedy or f.tone != "warning" for f in made.findings())


def squared(y):
    return lambda out: (out.reshape(y.shape) - y).square()


@pytest.fixture(scope="module")
def kept():
    """A model of two layers behind an embedding that multiplies its sensor with the flag of step 0."""
    torch.manual_seed(0)
    batch = early(16, torch.Generator().manual_seed(0))
    model = trained(Embedded(3, 16), batch, lambda out, y: (out - y).square(), 700)
    x, y = batch(60)
    made = look(model, x, loss=squared(y), required=15, channels=["sensor", "flag", "noise"])
    return model, x, made


@pytest.fixture(scope="module")
def late():
    """A model of the last three values of its sensor."""
    torch.manual_seed(0)
    batch = recent(20, torch.Generator().manual_seed(0))
    model = Reader(nn.LSTM, 2, 12, 1, every=True)
    trained(model, batch, lambda out, y: (out[..., 0] - y).square(), 500)
    x, y = batch(60)
    return model, x, look(model, x, loss=squared(y), channels=["sensor", "noise"])


def test_a_flag_of_the_first_step_is_stored_to_the_last(kept):
    """It speaks at one step of sixteen, behind an embedding and another layer."""
    *_, made = kept
    assert made.surgery.loss < 0.01 and made.used.horizon == 15
    assert made.stored.horizon == 15 and made.stored.channel == 1
    assert (made.stored.bits > 0.5).all(), "at every lag"
    text = str(made).split("\n")[0]
    assert "stored for 15 steps or more (of the model's input, `flag` longest), used over 15 steps" in text
    assert "It keeps and uses its past as far as is needed" in text


def test_what_fades_is_stored_while_a_tenth_of_it_can_be_read(late):
    """Against least squares of the sensor from the state, on sequences of its own."""
    model, x, made = late
    trace = Specimen(model, (x,)).trace()
    states = torch.cat((trace["rnn.l0.h"], trace["rnn.l0.c"]), 2).double()
    explained = []
    for k in range(8):
        read, then = states[:, k:], x[:, : 20 - k, :1].double()
        read = torch.cat((read, torch.ones_like(read[..., :1])), 2)
        weights = torch.linalg.lstsq(read[:40].flatten(0, 1), then[:40].flatten(0, 1)).solution
        wrong = then[40:] - read[40:] @ weights
        explained.append(1 - float(wrong.square().mean() / then[40:].var()))
    assert made.stored.horizon == max(k for k in range(8) if explained[k] >= 0.1)
    assert made.used.horizon == 2 and made.stored.channel == 0


def test_a_lag_that_fails_does_not_end_what_is_stored():
    """Of a delay line only the units that hold today's input and that of 7 steps ago are read."""
    x = torch.randn(30, 60, 1, generator=torch.Generator().manual_seed(0)).double()
    layer = Specimen(echo(7), (x,)).trace().layer()
    layer.values["h"] = layer.values["h"][..., [0, 7]]
    seen = stored(layer, lags=torch.arange(12))
    assert seen.bits[3] < 0.1 and seen.horizon == 7


def test_what_today_foretells_is_no_memory():
    """A sine and its cosine tell their own past; units that hold today's alone store nothing of it."""
    phase = 6.3 * torch.rand(30, 1, generator=torch.Generator().manual_seed(0))
    angle = 0.5 * torch.arange(40) + phase
    model = zeroed(nn.RNN(2, 2, batch_first=True).double())
    with torch.no_grad():
        model.weight_ih_l0.copy_(0.01 * torch.eye(2))
    x = torch.stack((angle.sin(), angle.cos()), 2).double()
    seen = stored(Specimen(model, (x,)).trace().layer(), lags=torch.arange(12))
    assert (seen.bits > 5).all() and seen.horizon == 0


def squashed(N, T, seed, extra=9):
    """Hours of the day and week as a forecaster's network reads them, compressed, and channels of noise."""
    rng = torch.Generator().manual_seed(seed)
    at = torch.randint(0, 3000, (N, 1), generator=rng) + torch.arange(T)
    angles = [2 * torch.pi * at / period for period in (24, 168)]
    waves = torch.stack([wave for angle in angles for wave in (angle.sin(), angle.cos())], 2).double()
    waves[..., 0] *= 0.3  # of less variance than its cosine and all noise
    noise = 0.4 * torch.randn(N, T, extra, generator=rng).double()
    return torch.cat((waves.sign() * waves.abs().log1p(), noise), 2)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_layer_makes_of_today_is_no_memory(seed):
    """Units without recurrence, wide and driven into their bends: what they tell of the past, today tells."""
    x = squashed(48, 200, seed)
    torch.manual_seed(seed)
    model = nn.RNN(x.shape[2], 64, batch_first=True).double()
    with torch.no_grad():
        model.weight_hh_l0.zero_()
        model.weight_ih_l0.normal_()
    lags = torch.tensor([0, 1, 2, 5, 12, 24, 60, 120, 180, 195, 199])
    seen = stored(Specimen(model, (x,)).trace().layer(), lags=lags)
    assert seen.bits[0] > 5 and seen.horizon == 0, "the day's waves are foretold by today's, at every lag"


def test_what_another_channel_tells_again_is_stored_since_then():
    """A channel repeats the noise of another after 20 steps: a line of 4 steps holds it for 4, not for 24."""
    noise = torch.randn(48, 80, generator=torch.Generator().manual_seed(0)).double()
    x = torch.stack((noise[:, 20:], noise[:, :-20]), 2)
    model = zeroed(nn.RNN(2, 10, batch_first=True).double())
    with torch.no_grad():
        model.weight_ih_l0[:2] = 0.01 * torch.eye(2)
        model.weight_hh_l0[2:, :-2] = torch.eye(8)
    seen = stored(Specimen(model, (x,)).trace().layer(), lags=torch.arange(30))
    assert (seen.bits[20:25] > 4).all() and seen.horizon == 4


@pytest.mark.parametrize("seed", range(2))
def test_a_symbol_of_the_first_step_is_found_among_noise_of_greater_variance(seed):
    """Eight units hold the first of 21 steps to the end; sixteen channels, of which half speak once."""
    rng = torch.Generator().manual_seed(seed)
    codes = torch.randint(8, 16, (48, 21), generator=rng)
    codes[:, 0] = torch.randint(0, 8, (48,), generator=rng)
    x = torch.nn.functional.one_hot(codes, 16).double()
    model = zeroed(nn.RNN(16, 12, batch_first=True).double())
    with torch.no_grad():
        model.weight_ih_l0[:8, :8] = 0.01 * torch.eye(8)
        model.weight_hh_l0[:8, :8] = torch.eye(8)
        model.weight_ih_l0[8:, 8:12] = 0.01 * torch.eye(4)
    layer = Specimen(model, (x,)).trace().layer()
    seen = stored(layer)
    assert seen.horizon == 20 and seen.censored and 0 <= seen.channel < 8
    states, symbol = layer.values["h"][:, -1], x[:, 0, :8]
    read = torch.linalg.lstsq(states[:32], symbol[:32]).solution
    assert (states[32:] @ read).argmax(1).equal(symbol[32:].argmax(1)), "least squares reads it without error"


def test_few_sequences_misread_for_certain_do_not_hide_a_symbol():
    """Six of 48 hold another symbol than was shown; the other 42 hold theirs apart from all others."""
    rng = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 4, (48, 6), generator=rng)
    held = codes[:, 0].clone()
    held[:6] = (held[:6] + 1) % 4
    layer = Specimen(zeroed(nn.RNN(1, 4, batch_first=True).double()), (codes[..., None].double(),))
    layer = layer.trace().layer()
    shown = torch.nn.functional.one_hot(held, 4).double()
    layer.values["h"] = shown[:, None] + 0.05 * torch.randn(48, 6, 4, generator=rng).double()
    assert stored(layer, codes).horizon == 5


def test_of_many_looks_at_states_that_know_nothing_few_find_anything():
    """Slow states beside slow inputs of few sequences: neighbouring steps and lags are no new evidence."""
    found = 0
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        x, h = (torch.randn(12, 40, D, generator=rng).double().cumsum(1) for D in (2, 4))
        layer = Specimen(zeroed(nn.RNN(2, 4, batch_first=True).double()), (x,)).trace().layer()
        layer.values["h"] = h
        found += stored(layer, seed=seed).horizon > 0
    assert found <= 2, "one in twenty, by the rule"


@pytest.mark.parametrize("groups", [6, 12, 48])
@pytest.mark.parametrize("tests", [1, 20, 300])
def test_doubt_is_the_quantile_of_student_shared_among_all_looks(tests, groups):
    """Against the density, integrated."""
    limit, nu = doubt(tests, groups), groups - 1
    t = limit * torch.logspace(0, 5, 200_001, dtype=torch.float64)
    log = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    density = (log - (nu + 1) / 2 * (1 + t.square() / nu).log()).exp()
    assert float(torch.trapezoid(density, t)) == pytest.approx(0.05 / tests, rel=0.15)
    assert doubt(tests, 5) == math.inf, "too few sequences tell nothing"


def test_a_unit_that_the_loss_needs_is_named_first_among_those_beyond_the_sequence(recalled):
    specimen, _ = recalled
    with torch.no_grad():
        model = Reader(nn.LSTM, 2, 8, 1)
        model.load_state_dict(specimen.model.state_dict())
        model.rnn.bias_ih_l0[8:16] += 20.0  # every cell keeps all
    made = look(model, specimen.inputs, loss=specimen.loss)
    assert made.half_lives["rnn.l0"].upper_censored.all()
    order = sorted(made.surgery.units, key=made.surgery.units.get, reverse=True)
    text = made.findings()[1].line()
    assert [int(unit) for unit in re.findall(r"unit (\d+) \(half-life > 13 steps", text)] == order[:3]
    assert (
        "and 5 more of 8 units that keep beyond the sequence; of those tried the loss needs these most"
        in text
    )


def test_short_half_lives_are_no_warning_where_the_need_is_met(kept):
    *_, made = kept
    assert made.half_lives["rnn.l1"].steps.max() < 3
    assert not [f for f in made.findings() if f.tone == "warning" and f.view == "units"]
    assert "cells of rnn.l1 forget half in under 3 steps, on average over all sequences and" in str(made)


def test_one_sentence_names_the_longest_memories_and_what_each_is_worth(kept, late):
    for *_, made in (kept, late):
        half, cost = made.half_lives[made.layer], made.surgery.units
        text = made.findings()[1].line()
        assert text.startswith(f"· Longest memory of {made.layer}, by half-lives of the cell state that a ")
        longest = half.upper.argsort(descending=True).tolist()[:3]
        for unit in longest:
            assert f"unit {unit} (half-life {half.upper_text(unit)}" in text
            assert f"silenced, the loss rises by {cost[unit]:.2g})" in text
        worth = max(*cost.values(), float(torch.minimum(made.used.zero, made.used.mean)[0]))
        idle = [unit for unit in longest if cost[unit] < 0.01 * worth]
        assert idle and f"does without {' and '.join(map(str, idle))}" in text
        needed = max(cost, key=cost.get)
        assert f"misses unit {needed} most of the {len(cost)} tried" in text
    below = next(f.text for f in kept[-1].findings() if "of rnn.l0 forget" in f.text)
    assert "silenced, the loss rises by" in below


def test_what_is_not_used_is_said_with_its_numbers(late):
    *_, made = late
    text = str(made)
    assert f"2 of the {made.stored.horizon} steps that are stored are used, and gradient reaches" in text
    assert "not used" not in text


def test_every_step_that_carries_a_tenth_is_named(kept):
    text = str(kept[-1])
    line = next(row for row in text.split("\n") if "rests most" in row)
    assert "of the last step" in line and "15 steps before the last" in line


def test_without_a_loss_the_first_finding_says_how_to_measure_use(kept):
    made = look(kept[0], kept[1], required=15)
    assert made.findings()[0].line() == (
        "· Whether the model uses its memory was not measured: that takes a loss. Pass loss=lambda out: ... "
        "that gives the loss of each sequence (N,) or step (N, T)."
    )
    assert "Three horizons" in made.findings()[1].text and "Longest memory" in made.findings()[2].text


def test_the_half_life_of_a_cell_that_keeps_in_some_sequences_is_seen():
    """Half of the sequences hold for good, the others for a step: the mean hides it, not the quartile."""
    model = zeroed(nn.LSTM(1, 1, batch_first=True).double())
    with torch.no_grad():
        model.weight_ih_l0[1] = 10.0
    x = torch.ones(8, 20, 1).double()
    x[::2] = -0.1
    half = half_life(Specimen(model, (x,)).trace().layer())
    assert half.steps[0] < 2 and half.upper_text(0) == "> 20 steps" and half.order() == [0]


def test_a_fresh_model_forgets_at_once_and_is_told_to_raise_the_bias():
    batch = recall(30, torch.Generator().manual_seed(0))
    x, y = batch(20)
    made = look(Reader(nn.LSTM, 2, 8, 1), x, loss=lambda out: (out[:, 0] - y).square(), required=30)
    text = str(made)
    assert "8 of 8 cells of rnn.l0 forget half in under 3 steps, where 30 are needed" in text
    assert "Raise the bias of the forget gate: ln 30 ≈ 3.4" in text
    assert made.findings()[0].tone == "warning"


def test_latch():
    model = latch()
    x = torch.zeros(1, 40, 3).double()
    x[0, :, 0] = torch.randn(40)
    x[0, 5, :2] = torch.tensor([1.0, 1.0])
    x[0, 30, 2] = 1.0
    specimen = Specimen(
        model, (x[:, :30],), loss=lambda out: (out[:, 0] - 2 * torch.tanh(torch.tensor(1.0))).square()
    )
    layer = specimen.trace().layer()
    assert half_life(layer).censored.all()
    made = ledger(layer)
    assert made.parts[0, 5, 0].item() == pytest.approx(1.0, abs=1e-6)
    assert made.parts[0, :5].abs().max() + made.parts[0, 6:].abs().max() < 1e-6
    assert attention(layer, 0)[-1, 5].item() == pytest.approx(1.0, abs=1e-6)
    mean = layer.values["c"].mean()
    rise = ablate(specimen, specimen.trace(), "rnn.l0", [0])
    assert rise == pytest.approx((2 * (mean.tanh() - torch.tensor(1.0).tanh())).square().item(), rel=1e-6)
    cleared = Specimen(model, (x,)).trace().layer()
    assert cleared.values["c"][0, 29, 0] > 0.99 and cleared.values["c"][0, 31:].abs().max() < 1e-6


def test_three_flip_flops():
    """Three cells, each set to the sign of its last pulse: what remains was written at the last pulse."""
    pulses = torch.randint(-1, 2, (4, 50, 3), generator=torch.Generator().manual_seed(0)).double()
    gates = pulses.abs()

    class FlipFlop(nn.Module):  # the pulse opens i and shuts f: |x| as further channels
        def __init__(self):
            super().__init__()
            self.lstm = zeroed(nn.LSTM(6, 3, batch_first=True).double())
            with torch.no_grad():
                for k in range(3):
                    self.lstm.weight_ih_l0[k, 3 + k] = 40.0
                    self.lstm.weight_ih_l0[3 + k, 3 + k] = -40.0
                    self.lstm.weight_ih_l0[6 + k, k] = 20.0
                self.lstm.bias_ih_l0[:3], self.lstm.bias_ih_l0[3:6] = -20.0, 20.0

        def forward(self, x):
            return self.lstm(x)[0]

    layer = Specimen(FlipFlop(), (torch.cat((pulses, gates), 2),)).trace().layer()
    made = ledger(layer)
    for n in range(4):
        for k in range(3):
            last = int(gates[n, :, k].nonzero().max())
            assert made.parts[n, last, k].item() == pytest.approx(pulses[n, last, k].item(), abs=1e-6)
            assert (made.parts[n, :, k].abs().sum() - 1).abs() < 1e-6


def test_counter():
    """a^n b^n by hand: one cell counts up on a and down on b; its ledger is one entry of ±1 a step."""
    model = zeroed(nn.LSTM(2, 1, batch_first=True).double())
    with torch.no_grad():
        model.bias_ih_l0[:2] = 30.0
        model.weight_ih_l0[2] = torch.tensor([20.0, -20.0])
    x = torch.zeros(1, 20, 2).double()
    x[0, :10, 0] = x[0, 10:, 1] = 1.0
    layer = Specimen(model, (x,)).trace().layer()
    parts = ledger(layer).parts[0, :, 0]
    torch.testing.assert_close(
        parts, torch.cat((torch.ones(10), -torch.ones(10))).double(), rtol=0, atol=1e-9
    )
    assert layer.values["c"][0, :, 0].max().item() == pytest.approx(10)
    assert attention(layer, 0)[-1].sum().item() == pytest.approx(20), "an LSTM's memory is a sum, not a mean"


@pytest.mark.parametrize("k", [3, 7])
def test_echo(k):
    """A delay line of k steps holds white noise of 0 ... k steps ago and nothing older."""
    x = torch.randn(30, 60, 1, generator=torch.Generator().manual_seed(0)).double()
    seen = stored(Specimen(echo(k), (x,)).trace().layer(), lags=torch.arange(15))
    assert seen.horizon == k
    assert (seen.bits[: k + 1] > 4).all() and seen.bits[k + 1 :].max() < 0.1
    assert seen.capacity == pytest.approx(k + 1, abs=0.6), "memory capacity is the length of the line"


def test_the_search_for_a_softmax_ends_at_its_least():
    """Of states that are correlated, of very different sizes, and fewer than they seem."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=rng, dtype=torch.float64) @ torch.randn(6, 9, generator=rng).double()
    x = torch.cat((x * torch.logspace(-2, 0, 9).double(), torch.ones(300, 1).double()), 1)
    y = (x[:, 6:9] + torch.randn(300, 3, generator=rng)).argmax(1)
    found = _softmax_weights(x, y, 4).requires_grad_()

    def loss(weights):
        return nn.functional.cross_entropy(x @ weights, y) + 1e-3 * weights.square().sum()

    weights = torch.zeros(10, 4, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=1000, tolerance_change=0, line_search_fn="strong_wolfe")

    def step():
        search.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    search.step(step)
    assert loss(weights) <= loss(found) < loss(weights) + 1e-3


def test_symbols_in_bits():
    """Of four equally likely symbols a delay line keeps two bits; a state of noise keeps none."""
    rng = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (30, 40), generator=rng)
    x = torch.nn.functional.one_hot(codes, 4).double()
    line = zeroed(nn.RNN(4, 8, batch_first=True).double())
    with torch.no_grad():
        line.weight_ih_l0[:4] = torch.eye(4)
        line.weight_hh_l0[4:, :4] = torch.eye(4)
    seen = stored(Specimen(line, (x,)).trace().layer(), codes, lags=torch.arange(4))
    assert (seen.bits[:2] > 1.9).all() and (seen.bits[:2] <= 2.05).all()
    assert (seen.bits[2:] < 0.1).all() and seen.horizon == 1


def test_adding_rests_on_the_marked_steps():
    torch.manual_seed(0)
    batch = adding(16, torch.Generator().manual_seed(0))
    model = trained(Reader(nn.LSTM, 2, 16, 1), batch, lambda out, y: (out[:, 0] - y).square(), 500)
    x, y = batch(40)
    specimen = Specimen(model, (x,), loss=lambda out: (out[:, 0] - y).square())
    assert specimen.losses(specimen.run()).mean() < 0.03
    seen = influence(specimen, methods=("donor", "ig"))
    marked = x[:, :, 1] > 0
    for name, steps in seen.steps.items():
        size = steps.abs()
        assert size[marked].mean() > 4 * size[~marked].mean(), name


def test_noise_has_no_used_horizon():
    """An answer that has nothing to do with the input: nothing to use, whatever the model does."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    model = trained(
        Reader(nn.LSTM, 2, 8, 1), lambda N: (torch.randn(N, 20, 2, generator=rng), torch.randn(N,
        generator=rng)), lambda out, y: (out[:, 0] - y).square(), 60,
    )  # fmt: skip
    x, y = torch.randn(200, 20, 2, generator=rng), torch.randn(200, generator=rng)
    assert used(Specimen(model, (x,), loss=lambda out: (out[:, 0] - y).square())).horizon == 0
