"""The network: windows make the whole, steps make the whole, and noise is for training alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from language.texts import network
from longshort import engine
from longshort.errors import SettingError
from longshort.nn.decoder import AdaptiveDecoder, Decoder
from longshort.tasks.language.corpus import Corpus
from longshort.tasks.language.objective import LanguageObjective
from longshort.tasks.language.sampling import Sampling
from longshort.tasks.language.settings import LanguageSettings
from longshort.tasks.language.stepping import Manner, begin

CASES = {
    "plain": {},
    "one layer": {"layers": 1},
    "tied": {"tied": True, "layers": 3},
    "locked": {"locked": True, "dropout": 0.3, "dropout_input": 0.2, "weight_drop": 0.4},
    "zoneout": {"zoneout_h": 0.1, "zoneout_c": 0.3},
    "noise inside": {"variational_h": 0.2, "recurrent_dropout": 0.3, "dropout_words": 0.2},
    "adaptive": {"decoder": "adaptive"},
    "uniform": {"spread": 0.1},
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
RATES = [
    "dropout", "dropout_input", "dropout_output", "dropout_words", "weight_drop", "variational_h",
    "recurrent_dropout", "zoneout_h", "zoneout_c",
]  # fmt: skip
TOKENS = torch.randint(0, 11, (3, 20), generator=torch.Generator().manual_seed(0))


@each_case
@pytest.mark.parametrize("cuts", [[10], [1, 2, 3], [19]])
@torch.no_grad()
def test_windows_with_the_state_carried_make_the_whole(case, cuts):
    net = network(**case)
    whole = net(TOKENS[:, :-1], None, TOKENS[:, 1:])
    state, losses = None, []
    for start, end in zip([0, *cuts], [*cuts, 19], strict=True):
        if start == end:
            continue
        read = net(TOKENS[:, start:end], state, TOKENS[:, start + 1 : end + 1])
        state, losses = read.state, [*losses, read.losses]
    torch.testing.assert_close(torch.cat(losses, 1), whole.losses)
    torch.testing.assert_close(state[-1].c, whole.state[-1].c)


@torch.no_grad()
def test_windows_without_the_state_do_not():
    net = network()
    whole, part = net(TOKENS).h, net(TOKENS[:, 10:]).h
    assert not torch.allclose(whole[:, 10:], part, atol=1e-3)


@each_case
@torch.no_grad()
def test_steps_make_the_whole(case):
    net = network(**case)
    whole = net.decoder(net(TOKENS).h).log_softmax(-1).numpy()
    prompts = [row[: 3 + n].numpy() for n, row in enumerate(TOKENS)]  # of different lengths
    stepper, scores = begin(net, prompts, Manner(Sampling()))
    for k in range(14):
        for n in range(3):
            got = torch.from_numpy(scores[n]).log_softmax(-1).numpy()
            np.testing.assert_allclose(got, whole[n, 2 + n + k], atol=2e-5)
        scores = stepper.step(np.array([int(TOKENS[n, 3 + n + k]) for n in range(3)]))


@pytest.mark.skipif(not engine.available(), reason="needs the engine")
def test_who_steps():
    assert begin(network(), [np.array([0])], Manner(Sampling()))[0]._moves is not None
    assert begin(network(zoneout_c=0.1), [np.array([0])], Manner(Sampling()))[0]._moves is None


@pytest.mark.skipif(not engine.available(), reason="needs the engine")
@pytest.mark.parametrize(("stored", "most"), [("bfloat16", 0.02), ("int8", 0.05)])
@torch.no_grad()
def test_short_weights_are_near(stored, most):
    net = network()
    exact, short = (
        begin(net, [np.array([3])], Manner(Sampling(), stored=form))[0] for form in ("full", stored)
    )
    far = max(np.abs(exact.step(np.array([k])) - short.step(np.array([k]))).max() for k in range(10))
    assert 0 < far < most


def test_an_unknown_form_of_weights():
    with pytest.raises(SettingError) as raised:
        Manner(Sampling(), stored="int4")
    assert str(raised.value) == ("language: `stored` must be one of 'full', 'bfloat16', 'int8', got 'int4'.")


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("rate", RATES)
def test_every_rate_acts_in_training(rate, locked):
    quiet = {"dropout": 0.0, "locked": locked}
    silent, noisy = network(**quiet).train(), network(**{**quiet, rate: 0.5}).train()
    noisy.load_state_dict(silent.state_dict())
    assert not torch.equal(silent(TOKENS).dropped, noisy(TOKENS).dropped)


@pytest.mark.parametrize("rate", [name for name in RATES if not name.startswith("zoneout")])
def test_no_noise_is_left_in_evaluation(rate):
    silent, noisy = network(dropout=0.0), network(**{"dropout": 0.0, rate: 0.5})
    noisy.load_state_dict(silent.state_dict())
    assert torch.equal(silent(TOKENS).dropped, noisy(TOKENS).dropped)


def test_locked_silences_the_same_at_every_step():
    read = network(dropout=0.5, locked=True).train()(TOKENS)
    silent = read.dropped == 0
    assert 0.2 < silent.float().mean() < 0.8 and (silent == silent[:, :1]).all()
    free = network(dropout=0.5).train()(TOKENS).dropped == 0
    assert not (free == free[:, :1]).all()


def test_tied_weights_are_one_and_the_last_layer_has_their_width():
    net = network(tied=True, layers=3)
    assert net.decoder.weight is net.embedding.weight
    assert [layer.hidden_size for layer in net.layers] == [12, 12, 6]
    assert len([name for name, _ in net.named_parameters() if name.endswith("weight")]) == 1


def test_large_vocabularies_take_the_adaptive_softmax_unless_told_otherwise():
    kinds = {
        (V, how): type(network(V, layers=1, decoder=how).decoder)
        for V in (11, 50_000)
        for how in ("auto", "full")
    }
    assert kinds == {
        (11, "auto"): Decoder, (11, "full"): Decoder,
        (50_000, "auto"): AdaptiveDecoder, (50_000, "full"): Decoder,
    }  # fmt: skip


def objective(**settings):
    tokens = np.random.default_rng(0).integers(0, 11, 400)
    part = Corpus(tokens, 400, {}, "")
    return LanguageObjective(part, part, LanguageSettings(batch=2, window=10, **settings))


def test_penalties_are_the_equations():
    """Activation: alpha times the mean square of what is scored. Temporal: beta times that of the change."""
    net = network(dropout=0.0)
    batch = objective().batch(0)
    plain = objective().loss(net, batch)
    h = net(batch.tokens).h
    got = objective(activation=2.0, temporal=3.0).loss(net, batch)
    want = plain + 2 * h.square().mean() + 3 * (h[:, 1:] - h[:, :-1]).square().mean()
    torch.testing.assert_close(got, want)


def test_the_state_is_carried_inside_a_pass_and_not_into_the_next():
    net, task = network(dropout=0.0), objective()
    steps = task.passes.steps()
    task.loss(net, task.batch(0))
    second = task.loss(net, task.batch(1))
    fresh = objective()
    assert not torch.equal(second, fresh.loss(net, fresh.batch(1)))
    carried = objective()
    carried.carry({name: value.clone() for name, value in _after_first(net).items()})
    assert torch.equal(second, carried.loss(net, carried.batch(1)))
    first = objective().loss(net, objective().batch(0))
    assert torch.equal(task.loss(net, task.batch(steps)), first)


def _after_first(net):
    task = objective()
    task.loss(net, task.batch(0))
    return task.carried()


def test_no_gradient_passes_into_the_window_before():
    net, task = network(dropout=0.0), objective()
    task.loss(net, task.batch(0))
    assert not any(part.requires_grad for state in task.state for part in state)


def test_a_short_window_takes_a_short_step():
    task = objective(random_windows=True)
    for step in range(30):
        start, end, _ = task.passes.place(step)
        assert task.share(step) == (end - start) / 10
    assert objective().share(3) == 1.0


def test_the_validation_is_the_mean_of_the_losses():
    net, task = network(), objective()
    with torch.no_grad():
        found = task.validate(net)
        x, y = task.valid.window(0, task.valid.L)
        want = functional.cross_entropy(net.decoder(net(x).h).flatten(0, 1), y.flatten())
    assert found.scores["nats"] == pytest.approx(want.item(), rel=1e-6)
    assert found.losses.mean() == pytest.approx(want.item(), rel=1e-6)
    assert found.scores["ppl"] == pytest.approx(np.exp(want.item()), rel=1e-5)
