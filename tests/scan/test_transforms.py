"""Every transform of torch around one call: derivatives of both orders and modes, vmap, compile, export."""

import dataclasses

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import longshort
from longshort.errors import BackendError
from longshort.scan import Variant, lstm
from longshort.scan.plan import backends
from scan.cases import ALONE, NAMES, ON_THE_CPU, Case, each_backend, ids, refused

pytestmark = pytest.mark.filterwarnings(
    # torch's own, on its first use of forward mode
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)

SMALL = {"N": 2, "T": 3, "C": 2, "H": 3}


def function(case, backend, **sizes):
    """The call as a function of its differentiable tensors, and those tensors."""
    tensors = case.make(**SMALL | sizes)
    leaves = {k: v.requires_grad_() for k, v in tensors.items() if k in NAMES}

    def call(*values):
        return tuple(case.run(tensors | dict(zip(leaves, values, strict=True)), backend=backend).values())

    return call, tuple(leaves.values())


SMOOTH = [
    dataclasses.replace(c, variant={**c.variant, **({"cell_clip": 5.0} if "cell_clip" in c.variant else {})})
    for c in ALONE
]
"Finite differences across the edge of a clip would say nothing."


@ids(SMOOTH)
@each_backend
def test_gradcheck(case, backend):
    refused(case, backend)
    call, values = function(case, backend)
    torch.autograd.gradcheck(call, values, fast_mode=True)


@ids(SMOOTH)
def test_gradgradcheck(case):
    call, values = function(case, "auto", N=1, T=2)
    torch.autograd.gradgradcheck(call, values, fast_mode=True)


@ids(SMOOTH)
def test_forward_mode_agrees_with_reverse_mode(case):
    """Forward mode works; it never returns zero."""
    call, values = function(case, "auto")
    values = tuple(v.detach() for v in values)
    tangents = tuple(
        torch.randn(v.shape, generator=torch.Generator().manual_seed(7), dtype=v.dtype) for v in values
    )
    outputs, moved = jvp(call, values, tangents)
    weights = [torch.randn_like(o) for o in outputs]
    _, pull = torch.func.vjp(call, *values)
    forward = sum((w * m).sum() for w, m in zip(weights, moved, strict=True))
    reverse = sum((g * t).sum() for g, t in zip(pull(tuple(weights)), tangents, strict=True))
    assert forward != 0
    torch.testing.assert_close(forward, reverse)


def test_forward_mode_without_torch_func():
    from torch.autograd import forward_ad

    tensors = Case("ordinary").make()
    x = tensors.pop("x")
    with forward_ad.dual_level():
        y = lstm(forward_ad.make_dual(x, torch.ones_like(x)), **tensors)[0]
        moved = forward_ad.unpack_dual(y).tangent
    want = jvp(lambda x: lstm(x, **tensors)[0], (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(moved, want)


@each_backend
def test_jacobians_and_hessians_agree_in_every_order_of_modes(backend):
    refused(Case("ordinary"), backend)
    tensors = Case("ordinary").make(**SMALL)
    x = tensors.pop("x")

    def y(x):
        return lstm(x, **tensors, backend=backend)[0]

    def loss(x):
        return y(x).square().sum()

    torch.testing.assert_close(jacrev(y)(x), jacfwd(y)(x))
    want = torch.autograd.functional.hessian(loss, x)
    assert want.abs().max() > 0
    for way in (
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacrev(jacfwd(f)),
        lambda f: jacfwd(jacfwd(f)),
    ):
        torch.testing.assert_close(way(loss)(x), want)


MANY = [
    Case("ordinary"),
    Case("much", noise={"variational_x": 0.3, "zoneout_c": 0.3}, reset=True, lengths=True, keep="all"),
    Case("segments", checkpoint_every=2),
]


@ids(MANY)
@pytest.mark.parametrize("backend", [*ON_THE_CPU, "definition"])
def test_gradients_that_come_many_at_once_equal_a_loop(case, backend):
    """Some of them all the same, and some not there."""
    call, values = function(case, backend)
    outputs = call(*values)
    used = [outputs[0], outputs[2]]
    rng = torch.Generator().manual_seed(3)
    many = [torch.randn(4, *o.shape, generator=rng, dtype=o.dtype) for o in used]
    asked = {"inputs": values, "retain_graph": True, "materialize_grads": True}
    at_once = torch.autograd.grad(used, grad_outputs=many, is_grads_batched=True, **asked)
    for k in range(4):
        alone = torch.autograd.grad(used, grad_outputs=[m[k] for m in many], **asked)
        for got, want in zip(at_once, alone, strict=True):
            torch.testing.assert_close(got[k], want, rtol=0, atol=0)


LAYERS = {
    "ordinary": {},
    "both directions": {"bidirectional": True},
    "dropout": {"num_layers": 2, "dropout": 0.5},
    "norm": {"variant": Variant(norm="ba2016")},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("backend", [*ON_THE_CPU, "definition"])
def test_jacobians_and_hessians_of_a_layer_made_at_once_equal_those_row_by_row(options, backend):
    layer = longshort.LSTM(2, 3, dtype=torch.float64, backend=backend, **options)
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def y(x):
        torch.manual_seed(4)
        return layer(x)[0]

    def loss(x):
        return y(x).square().sum()

    want = jacobian(y, x)
    assert want.abs().max() > 0
    for graph in (False, True):
        torch.testing.assert_close(jacobian(y, x, vectorize=True, create_graph=graph).detach(), want)
    torch.testing.assert_close(
        torch.autograd.functional.hessian(loss, x, vectorize=True), jacrev(jacrev(loss))(x)
    )


def test_gradients_that_come_many_at_once_reach_what_is_recomputed():
    """torch.utils.checkpoint allows one look at what was saved."""
    from torch.utils.checkpoint import checkpoint

    layer, x = longshort.LSTM(2, 3), torch.randn(3, 2, 2)
    want = jacobian(lambda x: layer(x)[0], x)
    got = jacobian(lambda x: checkpoint(layer, x, use_reentrant=False)[0], x, vectorize=True)
    torch.testing.assert_close(got, want)


def test_gradients_that_come_many_at_once_in_two_axes():
    from torch._vmap_internals import _vmap

    case = Case("ordinary")
    call, values = function(case, "auto")
    y, rng = call(*values)[0], torch.Generator().manual_seed(3)
    many = torch.randn(2, 3, *y.shape, generator=rng, dtype=y.dtype)
    at_once = _vmap(_vmap(lambda dy: torch.autograd.grad(y, values[0], dy, retain_graph=True)[0]))(many)
    for i in range(2):
        for j in range(3):
            want = torch.autograd.grad(y, values[0], many[i, j], retain_graph=True)[0]
            torch.testing.assert_close(at_once[i, j], want)


def test_third_derivative():
    tensors = Case("ordinary").make(**SMALL)
    x = tensors.pop("x").requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x: torch.autograd.grad(lstm(x, **tensors)[0].square().sum(), x, create_graph=True)[0],
        (x,),
        fast_mode=True,
    )


@ids(ALONE)
def test_vmap_over_data_equals_a_loop(case):
    tensors = case.make(**SMALL)
    x, h = tensors.pop("x"), tensors.pop("h")
    xs, hs = torch.stack([x, x.flip(0), -x]), torch.stack([h, -h, 2 * h])

    def call(x, h):
        return tuple(case.run(tensors | {"x": x, "h": h}).values())

    mapped = vmap(call)(xs, hs)
    for k in range(3):
        for got, want in zip(mapped, call(xs[k], hs[k]), strict=True):
            torch.testing.assert_close(got[k], want)


@ids(ALONE)
def test_per_sample_gradients_equal_a_loop(case):
    case = dataclasses.replace(case, N=1)
    size = SMALL | {"N": 1}
    tensors = case.make(**size)
    weights = {k: v for k, v in tensors.items() if k in NAMES and k not in ("x", "h", "c")}
    rest = {k: v for k, v in tensors.items() if k not in weights and k != "x"}
    xs = torch.randn(
        4, 1, SMALL["T"], SMALL["C"], generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    def loss(weights, x):
        return sum(v.square().sum() for v in case.run(rest | weights | {"x": x}).values())

    mapped = vmap(grad(loss), in_dims=(None, 0))(weights, xs)
    for k in range(4):
        for name, want in grad(loss)(weights, xs[k]).items():
            torch.testing.assert_close(mapped[name][k], want, msg=lambda m, name=name: f"{name}: {m}")


def test_an_ensemble_of_stacked_weights_equals_a_loop():
    case = Case("ordinary")
    members = [case.make(seed=k) for k in range(3)]
    x, h, c = (members[0][k] for k in "xhc")
    names = ("w_ih", "w_hh", "bias")
    stacked = {k: torch.stack([m[k] for m in members]) for k in names}

    def loss(weights):
        return lstm(x, h=h, c=c, **weights)[0].square().sum()

    mapped = vmap(grad(loss))(stacked)
    for k, member in enumerate(members):
        for name, want in grad(loss)({n: member[n] for n in names}).items():
            torch.testing.assert_close(mapped[name][k], want)


def test_vmap_under_ordinary_autograd_reaches_the_weights():
    tensors = Case("ordinary").make()
    x = tensors.pop("x")
    w = tensors["w_hh"].requires_grad_()
    xs = torch.stack([x, -x])
    vmap(lambda x: lstm(x, **tensors)[0])(xs).square().sum().backward()
    want = torch.autograd.grad(sum(lstm(x, **tensors)[0].square().sum() for x in xs), w)[0]
    torch.testing.assert_close(w.grad, want)


def test_a_second_derivative_runs_the_equations_once():
    """Counted in steps, which is what the time goes to: one pass forward and one back to differentiate."""
    from longshort.scan import derivative

    case = Case("ordinary")
    tensors = case.make()
    x = tensors.pop("x").requires_grad_()
    counts = {"_cell": 0, "_step": 0}

    def counted(name, right):
        def call(*args):
            counts[name] += 1
            return right(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in counts:
            patch.setattr(derivative, name, counted(name, getattr(derivative, name)))
        y = lstm(x, **tensors, backend="definition")[0]
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        first.square().sum().backward()
    assert counts == {"_cell": case.T, "_step": case.T}


COMPILED = [
    c
    for c in ALONE
    if c.why.startswith(
        ("ordinary", "much", "segments", "zoneout c", "variational x", "weight drop", "gates")
    )
]
"Whether a graph is whole does not depend on the equations; every kind of argument is among these."


@ids(COMPILED)
def test_compile_fullgraph(case):
    refused(case, "auto", torch.float32)
    torch._dynamo.reset()
    tensors = case.make(torch.float32)
    seed = torch.tensor(1234567)
    options = case.options() | ({"seed": seed} if case.noise and case.training else {})
    leaves = {k: v.requires_grad_() for k, v in tensors.items() if k in NAMES}

    def call(leaves):
        return tuple(case.call(tensors | leaves, options).values())

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    eager, traced = call(leaves), compiled(leaves)
    for got, want in zip(traced, eager, strict=True):
        assert torch.equal(got, want)
    wants = torch.autograd.grad(
        sum(o.square().sum() for o in eager), list(leaves.values()), allow_unused=True
    )
    gots = torch.autograd.grad(
        sum(o.square().sum() for o in traced), list(leaves.values()), allow_unused=True
    )
    for name, got, want in zip(leaves, gots, wants, strict=True):
        assert (got is None and want is None) or torch.equal(got, want), name


@each_backend
def test_a_graph_of_dynamic_sizes_has_weights_of_any(backend):
    """Given as arguments the weights' sizes are symbols as well."""
    torch._dynamo.reset()
    call = torch.compile(
        lambda **given: lstm(**given, backend=backend)[0], fullgraph=True, backend="aot_eager", dynamic=True
    )
    for case in (Case("one"), Case("longer", N=2, T=9), Case("wider", C=6, H=8)):
        given = {k: v.requires_grad_() for k, v in case.make(torch.float32).items()}
        got, want = call(**given), lstm(**given, backend=backend)[0]
        assert torch.equal(got, want)
        grads = [torch.autograd.grad(y.square().sum(), list(given.values())) for y in (got, want)]
        assert all(map(torch.equal, *grads))


def test_one_tensor_passed_twice_compiles():
    torch._dynamo.reset()
    tensors = Case("ordinary").make(torch.float32)
    zeros = torch.zeros_like(tensors["h"])
    call = torch.compile(
        lambda z: lstm(**(tensors | {"h": z, "c": z}))[0], fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(call(zeros), lstm(**(tensors | {"h": zeros, "c": zeros}))[0])


def test_the_second_derivative_of_a_compiled_graph_says_what_to_do():
    torch._dynamo.reset()
    tensors = Case("ordinary").make(torch.float32)
    x = tensors.pop("x").requires_grad_()
    call = torch.compile(lambda x: lstm(x, **tensors)[0], fullgraph=True, backend="eager")
    first = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(BackendError) as raised:
        first.sum().backward()
    assert str(raised.value) == (
        "lstm: the second derivative cannot be taken inside a compiled graph. Call the layer outside "
        "torch.compile, or keep it out of the graph with torch.compiler.disable."
    )


def test_opcheck():
    """torch's own checks of a registered operator: schema, fakes, autograd, with dynamic sizes."""
    from longshort.scan import graph
    from longshort.scan.call import Inputs, Options

    for case in (
        Case("ordinary"),
        Case("much", variant={"norm": "ba2016"}, reset=True, lengths=True, keep="all"),
    ):
        given = {k: v.requires_grad_() if k in NAMES else v for k, v in case.make().items()}
        keeps = case.keep == "all"
        inputs = Inputs(**{**dict.fromkeys(Inputs._fields), **given})
        for backend in ("auto", "plain"):
            options = Options(case.options()["variant"], keep_cells=keeps, keep_gates=keeps, backend=backend)
            checked = ["test_schema", "test_faketensor", "test_autograd_registration"]
            if (
                backend == "plain"
            ):  # it compares what is saved too, in which the engine leaves gaps as they are
                checked.append("test_aot_dispatch_dynamic")
            arguments = (*inputs, graph.word(options, save=True))
            torch.library.opcheck(torch.ops.longshort.lstm.default, arguments, test_utils=checked)


def test_the_word_of_a_call_carries_every_option():
    from longshort.scan import Noise, Variant, graph
    from longshort.scan.call import Options

    options = Options(
        Variant(norm="ba2016", cell_clip=0.5), Noise(zoneout_h=0.1), False, True, True, False, 7, "plain"
    )
    assert graph.read(graph.word(options, save=True)) == (options, True)
    assert graph.read(graph.word(Options(), save=False)) == (Options(), False)


def test_every_backend_is_listed_fastest_first():
    assert [b.name for b in backends()][-2:] == ["plain", "definition"]
