"""A layer that torch writes down: the traced one is the layer, on other numbers and other sizes too."""

import io

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import longshort as ls
from longshort.errors import BackendError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch.jit itself
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # sizes are compared while it traces
]
LAYERS = {
    "plain": {},
    "two layers, both ways": {"num_layers": 2, "bidirectional": True},
    "batch first, projected": {"batch_first": True, "proj_size": 3},
    "peephole and norm": {"variant": ls.Variant(peephole=True, norm="ba2016")},
    "learned first state": {"learn_initial": True},
    "in plain torch": {"backend": "plain"},
}
each_layer = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
each_mode = pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trainable"])


def made(options, frozen=False):
    torch.manual_seed(0)
    return ls.LSTM(6, 10, **options).eval().requires_grad_(not frozen)


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def same(got, want):
    return all(
        torch.equal(a, b) and a.requires_grad == b.requires_grad
        for a, b in zip((got[0], *got[1]), (want[0], *want[1]), strict=True)
    )


@each_mode
@each_layer
def test_a_jit_trace_is_the_layer_on_any_sizes(options, frozen):
    layer = made(options, frozen)
    traced, other = torch.jit.trace(layer, numbers(7, 4, 6)), numbers(3, 2, 6)
    assert same(traced(other), layer(other))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(other)[0], layer(other)[0])


@each_layer
def test_gradients_pass_through_a_jit_trace(options):
    layer = made(options)
    traced, x = torch.jit.trace(layer, numbers(7, 4, 6)), numbers(3, 2, 6)
    want = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    got = torch.autograd.grad(traced(x)[0].square().sum(), list(traced.parameters()))
    assert len(want) == len(got)
    names = [name for name, _ in layer.named_parameters()]
    found = dict(zip([name for name, _ in traced.named_parameters()], got, strict=True))
    for name, gradient in zip(names, want, strict=True):
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("state", ["lengths", "hx"])
def test_a_jit_trace_takes_lengths_and_states(state):
    layer = made({}, frozen=True)

    def run(x, given):
        if state == "lengths":
            return layer(x, lengths=given)
        return layer(x, (given, 2 * given))

    def some(N):
        return torch.arange(N) if state == "lengths" else numbers(1, N, 10)

    traced = torch.jit.trace(run, (numbers(7, 4, 6), some(4)))
    assert same(traced(numbers(8, 3, 6), some(3)), run(numbers(8, 3, 6), some(3)))


@each_mode
@each_layer
def test_make_fx_is_the_layer_on_other_numbers(options, frozen):
    layer, x = made(options, frozen), numbers(7, 4, 6)
    graph = make_fx(lambda x: layer(x)[0])(x)
    assert torch.equal(graph(2 * x), layer(2 * x)[0])
    assert sum("longshort.lstm" in str(node.target) for node in graph.graph.nodes) >= 1
    x.requires_grad_()

    def gradient(x):
        return torch.autograd.grad(layer(x)[0].square().sum(), x)[0]

    graph = make_fx(gradient)(x)
    torch.testing.assert_close(graph(3 * x), gradient(3 * x))


@each_layer
@pytest.mark.parametrize("transform", ["grad", "vjp", "vmap of grad"])
def test_make_fx_of_a_transform_is_the_layer_on_other_numbers(options, transform):
    layer, x = made(options), numbers(7, 4, 6)

    def loss(x):
        return layer(x)[0].square().sum()

    def run(x):
        if transform == "vjp":
            y, pull = torch.func.vjp(lambda x: layer(x)[0], x)
            return pull(torch.ones_like(y))[0]
        if transform == "grad":
            return torch.func.grad(loss)(x)
        return torch.vmap(torch.func.grad(loss))(torch.stack([x, 2 * x]))

    torch.testing.assert_close(make_fx(run)(x)(3 * x), run(3 * x))


def test_tensors_without_numbers_pass_under_a_gradient():
    layer = made({})
    with FakeTensorMode(allow_non_fake_inputs=True):
        got = torch.func.grad(lambda x: layer(x)[0].sum())(torch.empty(5, 3, 6))
    assert got.shape == (5, 3, 6)


@each_mode
@each_layer
def test_tensors_without_numbers_have_the_layer_s_shapes(options, frozen):
    layer = made(options, frozen)
    want = layer(numbers(5, 3, 6))
    with FakeTensorMode(allow_non_fake_inputs=True):
        got = layer(torch.empty(5, 3, 6))
    for mine, theirs in zip((got[0], *got[1]), (want[0], *want[1]), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)


@each_layer
def test_functionalize_is_the_layer(options):
    layer, x = made(options), numbers(7, 4, 6)
    assert torch.equal(torch.func.functionalize(lambda x: layer(x)[0])(x), layer(x)[0])
    written = make_fx(torch.func.functionalize(lambda x: layer(x)[0]))(x)
    assert torch.equal(written(2 * x), layer(2 * x)[0])


def test_a_jit_trace_of_training_draws_anew():
    layer = ls.LSTM(6, 10, num_layers=2, dropout=0.5, noise=ls.Noise(zoneout_h=0.3, weight_drop=0.3))
    traced, x = torch.jit.trace(layer, numbers(7, 4, 6), check_trace=False), numbers(3, 2, 6)
    first, second = traced(x)[0], traced(x)[0]
    assert first.shape == (3, 2, 10) and not torch.equal(first, second)


def test_the_old_export_to_onnx_is_refused_by_name(tmp_path):
    model = torch.nn.Sequential(made({}, frozen=True))
    with pytest.raises(BackendError) as raised:
        torch.onnx.export(model, (numbers(7, 4, 6),), tmp_path / "model.onnx", dynamo=False)
    assert str(raised.value) == (
        "lstm: an export to ONNX by torch.jit.trace knows no such operator. Call longshort.export, or "
        "torch.onnx.export with dynamo=True."
    )
    assert not (tmp_path / "model.onnx").exists()
