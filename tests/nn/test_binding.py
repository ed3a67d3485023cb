"""A bound call and a prepared step give what the long way gives, whatever became of the layer meanwhile."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, parametrizations, parametrize, prune, vector_to_parameters
from torch.utils.checkpoint import checkpoint

import longshort as ls
from longshort import engine
from longshort.errors import SettingError, ShapeError
from longshort.nn import binding, stepping
from longshort.scan import Noise, Variant, packings

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")
N, T, C, H = 3, 5, 4, 16


def made(*sizes, dtype=torch.float32, **options):
    torch.manual_seed(0)
    return ls.LSTM(*(sizes or (C, H)), dtype=dtype, **options)


def arguments(layer, steps=T, rows=N, dtype=torch.float32):
    rng = torch.Generator().manual_seed(1)
    shape = (rows, steps, C) if layer.batch_first else (steps, rows, C)
    h, c = layer.initial_state(rows)
    return torch.randn(shape, generator=rng, dtype=dtype), tuple(
        torch.randn(s.shape, generator=rng, dtype=dtype) for s in (h, c)
    )


def flat(result):
    y, (h, c) = result
    return [t.detach() for t in (y, h, c)]


def called(layer, x, state):
    return flat(layer(x, state))


def stepped(layer, x, state):
    """All of x in single steps."""
    ys = []
    for row in x.unbind(1 if layer.batch_first else 0):
        y, state = layer.step(row, state)
        ys.append(y)
    return flat((torch.stack(ys, 1 if layer.batch_first else 0), state))


def the_long_way(layer, x, state):
    """With gradients, so that nothing is bound, and with weights packed for this call alone."""
    kept = dict(packings._PACKED)
    packings._PACKED.clear()
    with torch.enable_grad():
        found = called(layer, x, state)
    packings._PACKED.clear()
    packings._PACKED.update(kept)
    return found


def graded(layer, x, state):
    """y, h, c, and the gradients of x, state and weights of a sum in which each number counts differently."""
    x, state = x.clone().requires_grad_(), state and tuple(s.clone().requires_grad_() for s in state)
    y, (h, c) = layer(x, state)
    outputs = (y, h, c)
    loss = sum((t * torch.linspace(1, 2, t.numel()).view(t.shape)).sum() for t in outputs)
    weights = [w for w in layer.parameters() if w.requires_grad]
    grads = torch.autograd.grad(loss, [x, *(state or ()), *weights], allow_unused=True)
    return [t.detach() for t in outputs], grads


def graded_the_long_way(layer, x, state, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(binding, "run", lambda *_: None)
        return graded(layer, x, state)


def agree_with_gradients(layer, x, state, monkeypatch, times=2):
    want = graded_the_long_way(layer, x, state, monkeypatch)
    for _ in range(times):
        got = graded(layer, x, state)
        for mine, theirs in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
            assert mine is theirs is None or (mine.dtype == theirs.dtype and torch.equal(mine, theirs))


def is_recorded(layer):
    _, seen = layer.__dict__.get("_recorded", (None, {}))
    return len(seen) > 0 and all(each.runs for each in seen.values())


def is_bound(layer):
    seen = layer.__dict__.get("_bound")
    return seen is not None and len(seen.runs) > 0


def agree(layer, x, state, way, times=3):
    """Each of the next few calls gives what the long way gives: exactly, for it is the same kernel."""
    want = the_long_way(layer, x, state)
    for _ in range(times):
        with torch.no_grad():
            got = way(layer, x, state)
        for mine, theirs in zip(got, want, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs) or (way is stepped and torch.allclose(mine, theirs, atol=1e-6))


def in_place(layer):
    with torch.no_grad():
        layer.weight_hh_l0.mul_(1.5)


def one_element_in_place(layer):
    with torch.no_grad():
        layer.weight_ih_l0[2, 1] += 3


def rows_through_data(layer):
    layer.weight_ih_l0.data[2:4] += 3


def a_bias_through_data(layer):
    layer.bias_hh_l0.data[1] += 3


def data_assigned(layer):
    layer.weight_hh_l0.data = layer.weight_hh_l0.data * 2


def from_a_vector(layer):
    vector_to_parameters(parameters_to_vector(layer.parameters()).detach() * 2, layer.parameters())


def loaded(layer):
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})


def assigned(layer):
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()}, assign=True)


def replaced(layer):
    layer.weight_ih_l0 = nn.Parameter(torch.ones(4 * H, C))


def an_optimiser_s_step(layer):
    with torch.enable_grad():
        layer(torch.ones(2, 1, C))[0].sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def drawn_anew(layer):
    layer.reset_parameters()


def parametrised(layer):
    """And written after that: what the layer computes with is then no parameter of it."""
    parametrizations.weight_norm(layer, "weight_hh_l0")
    agree(layer, *arguments(layer), called)
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(2)


def no_longer_parametrised(layer):
    parametrised(layer)
    parametrize.remove_parametrizations(layer, "weight_hh_l0")


def pruned(layer):
    prune.random_unstructured(layer, "weight_hh_l0", amount=0.5)


def lies_across(layer):
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.t().contiguous().t()


def another_backend(layer):
    layer.backend = "definition"


def another_variant(layer):
    layer.variant = Variant(gate_activation="hard_sigmoid")


def zoneout(layer):
    layer.noise = Noise(zoneout_c=0.5)
    layer.eval()


def shared_memory(layer):
    layer.share_memory()


def moved_and_back(layer):
    layer.double().float()


CHANGES = [
    in_place, one_element_in_place, rows_through_data, a_bias_through_data, data_assigned, from_a_vector,
    loaded, assigned, replaced, an_optimiser_s_step, drawn_anew, parametrised, no_longer_parametrised, pruned,
    lies_across, another_backend, another_variant, zoneout, shared_memory, moved_and_back,
]  # fmt: skip


@pytest.mark.parametrize("way", [called, stepped])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_of_the_layer_is_seen(change, way):
    layer = made()
    x, state = arguments(layer)
    agree(layer, x, state, way)
    change(layer)
    agree(layer, x, state, way)


def test_one_element_written_through_data_is_seen_by_a_call():
    """A step looks at one place of each unit and column, where there are many."""
    layer = made()
    x, state = arguments(layer)
    agree(layer, x, state, called)
    layer.weight_ih_l0.data[2, 1] += 3
    agree(layer, x, state, called)


@pytest.mark.parametrize("layers", [1, 2])
def test_who_writes_into_y_of_a_step_leaves_the_state_alone(layers):
    layer = made(num_layers=layers)
    x, state = arguments(layer)
    want = the_long_way(layer, x, state)[0]
    with torch.no_grad():
        for row, y_want in zip(x, want, strict=True):
            y, state = layer.step(row, state)
            torch.testing.assert_close(y, y_want)
            y.relu_()


def test_hooks_see_every_step():
    layer, seen = made().eval(), []
    x, state = arguments(layer)
    with torch.no_grad():
        layer.step(x[0], layer.step(x[0], state)[1])
        for hook in (layer.register_forward_hook, layer.register_forward_pre_hook):
            handle = hook(lambda *_: seen.append(None))
            stepped(layer, x, state)
            handle.remove()
        handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(None))
        stepped(layer, x, state)
        handle.remove()
        stepped(layer, x, state)
    assert len(seen) == 3 * T


def test_torch_may_exchange_the_weights():
    """As it does where it is told to, and with tensors of a class of their own: none may be watched then."""
    layer = made()
    x, state = arguments(layer)
    want = called(layer, x, state)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double().float()
        called(layer, x, state)
        layer.load_state_dict({name: 1 * value for name, value in layer.state_dict().items()})
        called(layer, x, state)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    for mine, theirs in zip(called(layer, x, state), want, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("way", [called, stepped])
def test_a_square_weight_turned_where_it_lies_is_seen(way):
    layer = made(variant=Variant(gate_recurrence=True))
    x, state = arguments(layer)
    agree(layer, x, state, way)
    layer.weight_gates_l0.data = layer.weight_gates_l0.data.t()
    agree(layer, x, state, way)


def test_gradients_flow_through_a_bound_layer():
    layer = made()
    x, state = arguments(layer)
    agree(layer, x, state, called)
    assert is_bound(layer)
    for _ in range(3):
        layer.zero_grad()
        layer(x, state)[0].sum().backward()
        assert layer.weight_hh_l0.grad.abs().max() > 0


LAYERS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers": {"num_layers": 2},
    "both directions": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "projected": {"proj_size": 3},
    "float64": {"dtype": torch.float64},
    "learned state": {"learn_initial": True},
    "peephole, normed": {"variant": Variant(peephole=True, norm="ba2016")},
    "gate recurrence": {"variant": Variant(gate_recurrence=True)},
    "zoneout": {"noise": Noise(zoneout_h=0.3, zoneout_c=0.2)},
    "weight drop": {"noise": Noise(weight_drop=0.5)},
    "dropout": {"num_layers": 2, "dropout": 0.5},
    "in plain torch": {"backend": "plain", "num_layers": 2, "bidirectional": True},
    "by the definition": {"backend": "definition", "batch_first": True},
    "in segments": {"checkpoint_every": 2},
    "of 16 bits": {"dtype": torch.bfloat16},
}


@pytest.mark.parametrize("given", [True, False], ids=["a state", "none"])
@pytest.mark.parametrize("steps, rows", [(5, 3), (1, 3), (5, 1), (1, 1), (0, 3), (5, 0)])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_and_size_is_bound_and_gives_the_same_bits(name, steps, rows, given):
    layer = made(**LAYERS[name]).eval()
    x, state = arguments(layer, steps, rows, LAYERS[name].get("dtype", torch.float32))
    agree(layer, x, state if given else None, called)
    assert is_bound(layer) == (given or name != "learned state")


@pytest.mark.parametrize("given", [True, False], ids=["a state", "none"])
@pytest.mark.parametrize("steps, rows", [(5, 3), (1, 3), (5, 1), (1, 1), (0, 3), (5, 0)])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_and_size_gives_the_same_bits_with_gradients(name, steps, rows, given, monkeypatch):
    layer = made(**LAYERS[name]).eval()
    x, state = arguments(layer, steps, rows, LAYERS[name].get("dtype", torch.float32))
    agree_with_gradients(layer, x, state if given else None, monkeypatch)
    assert is_recorded(layer) == (name != "learned state")


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_of_the_layer_is_seen_with_gradients(change, monkeypatch):
    layer = made().eval()
    x, state = arguments(layer)
    agree_with_gradients(layer, x, state, monkeypatch)
    change(layer)
    agree_with_gradients(layer, x, state, monkeypatch)


@pytest.mark.parametrize("backend", ["auto", "plain"])
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("learned state", "of 16 bits")])
def test_the_second_derivative_is_that_of_the_long_way(name, backend, monkeypatch):
    layer = made(**{"backend": backend, **LAYERS[name]}).eval()
    given, start = arguments(layer, dtype=LAYERS[name].get("dtype", torch.float32))

    def second():
        x, state = given.clone().requires_grad_(), tuple(s.clone().requires_grad_() for s in start)
        y, (h, c) = layer(x, state)
        values = [x, *state, *layer.parameters()]
        loss = y.square().sum() + h.sin().sum() + c.cos().sum()
        grads = torch.autograd.grad(loss, values, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), values)

    with monkeypatch.context() as patch:
        patch.setattr(binding, "run", lambda *_: None)
        want = second()
    assert all(
        torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(second(), want, strict=True)
    )
    assert is_recorded(layer)


def test_a_checkpoint_repeats_what_was_saved_whatever_came_between():
    layer = made(num_layers=2)
    drawn = [torch.randn(steps, 3, C) for steps in (5, 6, 5, 7)]

    def gradients(wrapped):
        layer.zero_grad()
        sum(wrapped(x).sin().sum() for x in drawn).backward()
        return [w.grad.clone() for w in layer.parameters()]

    def plainly(x):
        return layer(x)[0]

    want = gradients(plainly)
    got = gradients(lambda x: checkpoint(plainly, x.clone().requires_grad_(), use_reentrant=False))
    assert all(map(torch.equal, got, want))


def test_many_shapes_are_bound_and_memory_that_weights_left_is_let_go():
    layer = made()
    for steps in range(1, 2 * binding.SHAPES):
        layer(torch.zeros(steps, 1, C))
    assert 0 < len(layer.__dict__["_recorded"][1]) <= binding.SHAPES + 1
    layer.weight_hh_l0.data = layer.weight_hh_l0.data * 2
    layer(torch.zeros(1, 1, C))
    assert len(layer.__dict__["_recorded"][1]) == 1


def test_the_first_states_of_all_shapes_lie_dense_in_one_memory():
    layer = made(num_layers=2)
    most = binding._whole(layer, 7)
    for N in (7, 3, 1, 0):
        found = binding._whole(layer, N)
        assert [s.shape[:2] for s in found] == [(2, N), (2, N)]
        assert all(s.is_contiguous() and not s.any() for s in found)
        assert [s.untyped_storage().data_ptr() for s in found] == [
            s.untyped_storage().data_ptr() for s in most
        ]
    assert binding._whole(layer, 9).h.shape[1] == 9
    assert binding._whole(layer.double(), 3).h.dtype == torch.float64
    assert "_zeros" not in copy.deepcopy(layer).__dict__


@pytest.mark.parametrize(
    "arguments",
    [{"reset": True}, {"lengths": [4, 2, 3]}, {"keep": "all"}, {"zoneout_h": 0.3}, {"initial": True}],
    ids=str,
)
def test_calls_that_are_not_bound_start_from_the_same_zeros(arguments, monkeypatch):
    noise = {name: arguments.pop(name) for name in list(arguments) if name.startswith("zoneout")}
    layer, x = made(num_layers=2, noise=ls.Noise(**noise)), torch.randn(4, 3, C)
    given = dict(arguments)
    if "reset" in given:
        given["reset"] = torch.rand(3, 4) < 0.3
    if "initial" in given:
        given["initial"] = (torch.randn(2, 3, H), torch.randn(2, 3, H))

    def run():
        torch.manual_seed(0)
        out = layer(x, **given)
        gradients = torch.autograd.grad(out[0].square().sum(), list(layer.parameters()))
        return [*out[:1], *out[1], *(k for k in out[2:] for k in k), *gradients]

    want = run()
    assert "_zeros" not in layer.__dict__
    monkeypatch.setattr(binding, "_lasts", lambda x: True)
    assert all(map(torch.equal, run(), want))
    assert ("_zeros" in layer.__dict__) is ("initial" not in given)
    layer(x[..., :C].double().float(), **given)
    assert "initial" in given or not any(zeros.any() for zeros in layer.__dict__["_zeros"])


@pytest.mark.parametrize("graded", [False, True])
def test_what_a_graph_captures_is_not_what_the_layer_may_let_go_of(graded, monkeypatch):
    layer, x = made(num_layers=2), torch.randn(4, 3, C)
    with torch.set_grad_enabled(graded):
        for _ in range(3):
            want = layer(x)
        before, given = {name: layer.__dict__.get(name) for name in binding.FORGOTTEN}, []
        seen = before["_recorded"][1].popitem()[1] if graded else before["_bound"]
        seen.zeros.h.fill_(float("nan"))  # as if it were another's by now
        monkeypatch.setattr(binding, "captured", lambda x: True)
        monkeypatch.setattr(binding, "_whole", None)
        initial = type(layer).initial_state
        monkeypatch.setattr(type(layer), "initial_state", lambda self, N: given.append(N) or initial(self, N))
        got = layer(x)
    assert torch.equal(got[0], want[0]) and all(map(torch.equal, got[1], want[1]))
    assert given == [1 if graded else 3]
    assert all(layer.__dict__.get(name) is kept for name, kept in before.items())


def test_a_captured_step_adds_biases_up_in_memory_of_its_own(monkeypatch):
    layer, x = made(num_layers=2).eval(), torch.randn(3, C)
    state = tuple(torch.randn(2, 3, H) for _ in "hc")
    with torch.no_grad():
        for _ in range(2):
            want = layer.step(x, state)
        kept = layer.__dict__["_prepared"]
        for *_, both in kept.biases:
            both.fill_(float("nan"))
        monkeypatch.setattr(stepping, "captured", lambda x: True)
        got = layer.step(x, state)
        other = layer.step(x[:2], tuple(s[:, :2] for s in state))
    assert torch.equal(got[0], want[0]) and all(map(torch.equal, got[1], want[1]))
    torch.testing.assert_close(other[0], want[0][:2])
    assert layer.__dict__["_prepared"] is kept
    assert all(both.isnan().all() for *_, both in kept.biases)


@pytest.mark.parametrize("backend", ["auto", "plain"])
def test_kept_cells_of_one_layer_are_those_that_the_way_back_reads(backend):
    layer, x = made(backend=backend), torch.randn(4, 3, C)
    y, _, kept = layer(x, keep="cells")
    kept.cells.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y, _, kept = layer(x, keep="cells")
    (y.sum() + kept.cells.sum()).backward()
    with torch.no_grad():
        kept.cells.mul_(2)


def test_a_call_has_a_state_of_its_own_where_it_is_learned_or_wide(monkeypatch):
    monkeypatch.setattr(binding, "_lasts", lambda x: True)
    learned, plain = made(learn_initial=True), made()
    x = torch.randn(2, 3, C)
    assert binding.first_state(learned, x) is None
    assert binding.first_state(plain, x.double()) is None  # whose message names x
    assert binding.first_state(plain, x) is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert binding.first_state(plain, x) is None


@pytest.mark.parametrize("backend", ["auto", "plain", "definition"])
@pytest.mark.parametrize("graded", [True, False])
def test_no_steps_leave_a_state_that_is_the_caller_s_own(graded, backend):
    layer = made(backend=backend)
    with torch.set_grad_enabled(graded):
        for _ in range(3):  # the first call is not bound yet
            _, given = layer(torch.zeros(0, 3, C))
            with torch.no_grad():
                assert not any(s.any() for s in given)
                for s in given:
                    s.add_(1)


def test_a_frozen_weight_gets_no_gradient_and_the_others_theirs(monkeypatch):
    layer = made().eval()
    x, state = arguments(layer)
    agree_with_gradients(layer, x, state, monkeypatch)
    layer.weight_hh_l0.requires_grad_(False)
    agree_with_gradients(layer, x, state, monkeypatch)
    assert not is_recorded(layer)


def test_a_weight_written_between_the_two_passes_is_refused():
    layer = made()
    x, state = arguments(layer)
    loss = layer(x, state)[0].sum()
    in_place(layer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cut", ["whole", "every other channel", "every other sequence", "time first"])
def test_memory_of_any_layout_is_read_and_the_result_lies_as_it_would(cut, first):
    layer = made(batch_first=first)
    x, state = arguments(layer)
    rng = torch.Generator().manual_seed(2)
    n, t = (0, 1) if first else (1, 0)
    shape = list(x.shape)
    if cut == "every other channel":
        x = torch.randn(*shape[:2], 2 * C, generator=rng)[..., ::2]
    elif cut == "every other sequence":
        shape[n] *= 2
        x = torch.randn(shape, generator=rng)[(slice(None),) * n + (slice(None, None, 2),)]
    elif cut == "time first":
        x = x.transpose(n, t).contiguous().transpose(n, t)
    state = tuple(s.transpose(1, 2).contiguous().transpose(1, 2) for s in state)
    want = the_long_way(layer, x, state)[0]
    with torch.no_grad():
        for _ in range(3):
            y = layer(x, state)[0]
    assert is_bound(layer)
    assert torch.equal(y, want)
    assert y.stride() == want.stride()


def test_the_form_of_the_arguments_may_change_from_call_to_call():
    layer = made()
    for steps, rows in ((5, 3), (5, 3), (5, 3), (2, 3), (5, 3), (5, 1), (5, 1)):
        agree(layer, *arguments(layer, steps, rows), called, times=1)
    x, state = arguments(layer)
    with torch.no_grad():
        for _ in range(3):
            alone, last = layer(x[:, 0], tuple(s[:, 0] for s in state))
        assert torch.equal(alone, layer(x[:, :1], tuple(s[:, :1] for s in state))[0][:, 0])
    assert last.h.shape == (1, H)


def test_a_state_of_any_kind_that_unpacks():
    layer = made()
    x, state = arguments(layer)
    want = the_long_way(layer, x, state)
    with torch.no_grad():
        for hx in (ls.State(*state), list(state), torch.stack(state), state) * 2:
            assert all(map(torch.equal, called(layer, x, hx), want))
        for _ in range(3):
            zeros = called(layer, x, None)
            with pytest.raises(ShapeError, match=r"`hx` must be a pair \(h, c\) of tensors"):
                layer(x, (None, None))
    assert all(map(torch.equal, zeros, called(layer, x, tuple(map(torch.zeros_like, state)))))


def test_what_a_bound_call_returns_is_its_own():
    layer = made()
    x, state = arguments(layer)
    with torch.no_grad():
        for _ in range(3):
            first = layer(x, state)
        kept = [t.clone() for t in flat(first)]
        layer(-x, state)
    assert all(map(torch.equal, flat(first), kept))
    with torch.inference_mode():
        assert layer(x, state)[0].is_inference()


REFUSED = {
    "channels": (lambda x, h, c: (x[..., :3], (h, c)), ShapeError),
    "rows of h": (lambda x, h, c: (x, (h[:, :2], c)), ShapeError),
    "units of c": (lambda x, h, c: (x, (h, c[..., :2])), ShapeError),
    "dtype of x": (lambda x, h, c: (x.double(), (h, c)), ShapeError),
    "dtype of h": (lambda x, h, c: (x, (h.double(), c)), ShapeError),
    "dtype of c": (lambda x, h, c: (x, (h, c.double())), ShapeError),
    "device of h": (lambda x, h, c: (x, (h.to("meta"), c)), ShapeError),
    "axes": (lambda x, h, c: (x[None], (h, c)), ShapeError),
    "no tensor": (lambda x, h, c: (x.numpy(), (h, c)), ShapeError),
    "no layout of ours": (lambda x, h, c: (torch.nested.nested_tensor([x[0], x[1]]), (h, c)), ShapeError),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("what", REFUSED)
def test_a_bound_layer_refuses_what_it_refused_before_in_the_same_words(what):
    spoil, error = REFUSED[what]
    layer = made()
    x, state = arguments(layer)
    said = []
    for _ in range(4):
        for _ in range(3):
            with torch.no_grad(), pytest.raises(error) as raised:
                layer(*spoil(x, *state))
            said.append(str(raised.value))
        with torch.no_grad():
            for _ in range(2):
                layer(x, state)
    assert is_bound(layer)
    assert len(set(said)) == 1
    with torch.no_grad(), pytest.raises(SettingError, match="`keep` must be one of"):
        layer(x, state, keep="everything")


def test_a_layer_of_another_dtype_is_refused_by_a_step_as_well():
    layer = made()
    x, state = arguments(layer)
    with torch.no_grad():
        for _ in range(3):
            layer.step(x[0], state)
        layer.double()
        with pytest.raises(ShapeError, match=r"`x` is torch\.float32, `weight_ih_l0` torch\.float64"):
            layer.step(x[0], state)


def test_weights_handed_in_for_one_call():
    layer = made()
    x, state = arguments(layer)
    other = {name: 2 * value.detach() for name, value in layer.named_parameters()}
    double = made()
    double.load_state_dict(other)
    for _ in range(4):
        with torch.no_grad():
            assert torch.equal(functional_call(layer, other, (x, state))[0], double(x, state)[0])
        agree(layer, x, state, called)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_casts_and_graphs_go_the_long_way():
    layer = made()
    x, state = arguments(layer)
    agree(layer, x, state, called)
    want = the_long_way(layer, x, state)[0]
    with torch.no_grad():
        assert is_bound(layer)
        mapped = torch.vmap(lambda row: layer(row, state)[0])(torch.stack([x, x]))
        torch.testing.assert_close(mapped[1], want)
        tangent = torch.func.jvp(lambda x: layer(x, state)[0], (x,), (torch.ones_like(x),))[1]
        assert tangent.abs().max() > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x, state)[0].dtype == torch.bfloat16
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, state)[0], want)


def test_tensors_that_hold_nothing_go_the_long_way(recwarn):
    with FakeTensorMode(), torch.no_grad():
        layer = made(backend="definition")
        x, state = torch.randn(T, N, C), layer.initial_state(N)
        for _ in range(3):
            assert layer(x, state)[0].shape == (T, N, H)
            assert layer.step(x[0], state)[0].shape == (N, H)
    empty = made().to("meta")
    with torch.no_grad():
        for _ in range(3):
            assert empty(torch.empty(T, N, C, device="meta"))[0].device.type == "meta"
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("graded", [False, True])
def test_a_sparse_tensor_of_a_bound_shape_is_refused_by_name(graded):
    layer, x = made(), torch.randn(T, N, C)
    with torch.set_grad_enabled(graded):
        for _ in range(3):
            layer(x)
        with pytest.raises(
            ShapeError, match=r"`input` must be a dense tensor, got the layout torch.sparse_coo"
        ):
            layer(x.to_sparse())


def test_noise_and_dropout_of_training_go_the_long_way():
    for options in ({"noise": Noise(weight_drop=0.5)}, {"num_layers": 2, "dropout": 0.5}):
        layer = made(**options).eval()
        x, state = arguments(layer)
        agree(layer, x, state, called)
        assert is_bound(layer)
        layer.train()
        with torch.no_grad():
            drawn = [layer(x, state)[0] for _ in range(4)]
        assert not torch.equal(drawn[2], drawn[3])
        agree(layer.eval(), x, state, called)


def test_copies_and_pickles_carry_nothing_bound():
    layer = made()
    x, state = arguments(layer)
    agree(layer, x, state, called)
    agree(layer, x, state, stepped)
    names = list(layer.state_dict())
    assert names == list(made().state_dict())
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not {"_bound", "_prepared"} & set(vars(twin))
        agree(twin, x, state, called)
    twin = copy.deepcopy(layer)
    in_place(twin)
    agree(twin, x, state, called)
    agree(layer, x, state, called)


def test_a_layer_that_moves_or_goes_lets_go_of_its_memory():
    gc.collect()
    before, layer = len(packings._PACKED), made()
    x, state = arguments(layer)
    agree(layer, x, state, called)
    agree(layer, x, state, stepped)
    layer.to(torch.float64)
    assert not {"_bound", "_prepared"} & set(vars(layer))
    agree(layer.to(torch.float32), x, state, called)
    assert is_bound(layer)
    weight = weakref.ref(layer.weight_hh_l0)
    del layer
    gc.collect()
    assert weight() is None
    assert len(packings._PACKED) == before


def test_a_layer_made_in_inference_mode_runs_and_sees_what_is_written():
    with torch.inference_mode():
        layer = made()
        x, state = arguments(layer)
        for way in (called, stepped):
            for _ in range(3):
                got = way(layer, x, state)
            layer.weight_ih_l0.mul_(1.5)
            assert not torch.equal(way(layer, x, state)[0], got[0])
            want = made()
            want.load_state_dict(layer.state_dict())
            torch.testing.assert_close(way(layer, x, state)[0], want(x, state)[0])


def test_threads_share_a_layer():
    """Each with sizes of its own, so that they take each other's binding away."""
    layer = made(C, 32, 2)
    cases = [arguments(layer, steps, rows) for steps, rows in ((1, 1), (4, 2), (1, 3), (6, 1))]
    wanted = [the_long_way(layer, *case) for case in cases]
    wrong = []

    def work(case, want):
        with torch.no_grad():
            for _ in range(150):
                if not all(map(torch.equal, called(layer, *case), want)):
                    wrong.append(case[0].shape)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(cases, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_layer_that_has_trained_follows_the_instruction_set(monkeypatch):
    """Tapes are padded to whole vectors, whose width belongs to the set."""
    sets = [name for name in engine.isas() if name in ("avx512", "avx2", "portable")]
    layer = made(C, 10)
    x = torch.randn(T, N, C)
    found = []
    for isa in (*sets, *sets):
        monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
        layer.zero_grad()
        layer(x)[0].square().sum().backward()
        found.append([p.grad.clone() for p in layer.parameters()])
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])
