"""A layer's two biases: the kernels add them up and make their gradient twice, with the bits of one bias."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import longshort as ls
from longshort.scan import Variant
from longshort.scan.cuda import plans, team_plan, tiling, weights

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))
N, T, C = 5, 4, 8
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
PLANS = {
    "alone": (40, "alone"),
    "together": (150, "persistent"),
    "teams": (64, "teams"),
    "step": (40, "step"),
}
VARIANTS = {
    "plain": Variant(),
    "coupled with peephole": Variant(coupled=True, peephole=True),
    "no input gate": Variant(input_gate=False),
    "norm": Variant(norm="ba2016"),
}


@pytest.fixture
def on(monkeypatch):
    """Put a machine on the host behind the backend "gpu", where a named plan runs."""

    def put(plan):
        monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "persistent" if plan == "teams" else plan)
        if plan == "teams":
            monkeypatch.setattr(tiling, "MOST_CELLS", 0)
            monkeypatch.setattr(tiling, "MOST_UNITS", 0)
        plans._teams.cache_clear(), plans._cut.cache_clear()
        return emulator.put(emulator.Emulator(seed=2, multiprocessors=5), monkeypatch.setattr)

    yield put
    plans._teams.cache_clear(), plans._cut.cache_clear()


def layer(H, dtype, variant):
    torch.manual_seed(0)
    return ls.LSTM(C, H, variant=variant, backend="gpu", dtype=dtype)


def drawn(shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def one_bias(own, x):
    """y, the last state, and what leads back to x and to every weight, with the sum of the biases as one."""
    names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh"}
    given = {k: w.detach().clone().requires_grad_() for k, w in own.named_parameters() if "bias" not in k}
    both = (own.bias_ih_l0.detach() + own.bias_hh_l0.detach()).requires_grad_()
    x = x.detach().clone().requires_grad_()
    weights = {names.get(k, k.removeprefix("weight_").removesuffix("_l0")): w for k, w in given.items()}
    y, state, *_ = ls.lstm(x.transpose(0, 1), bias=both, variant=own.variant, backend="gpu", **weights)
    return y.transpose(0, 1), state, {**given, "bias_ih_l0": both, "bias_hh_l0": both}, x


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("plan", PLANS)
def test_the_bits_are_those_of_their_sum(plan, dtype, variant, on):
    H, name = PLANS[plan]
    if plan == "teams" and (dtype == torch.float64 or variant == "norm"):
        pytest.skip("teams run neither")
    on(name)
    own, x, dy = layer(H, dtype, VARIANTS[variant]), drawn((T, N, C), dtype), drawn((T, N, H), dtype)
    y, state, weights, x2 = one_bias(own, x)
    want = torch.autograd.grad(y, [*weights.values(), x2], dy)
    with torch.no_grad():
        for _ in range(3):  # the second call is bound, and the third runs that
            got, last = own(x)
            assert torch.equal(got, y) and all(torch.equal(a[0], b) for a, b in zip(last, state, strict=True))
    x.requires_grad_()
    got, last = own(x)
    assert torch.equal(got, y)
    parameters = dict(own.named_parameters())
    found = torch.autograd.grad(got, [*(parameters[k] for k in weights), x], dy)
    for k, a, b in zip([*weights, "x"], found, want, strict=True):
        assert torch.equal(a, b), k


@pytest.mark.parametrize("frozen", ["bias_ih_l0", "bias_hh_l0"])
def test_one_of_them_may_be_frozen(frozen, on):
    on("alone")
    x = drawn((T, N, C), torch.bfloat16)
    own, other = (layer(40, torch.bfloat16, Variant()) for _ in range(2))
    getattr(own, frozen).requires_grad_(False)
    for one in (own, other):
        one(x)[0].sum().backward()
    assert getattr(own, frozen).grad is None
    (left,) = {"bias_ih_l0", "bias_hh_l0"} - {frozen}
    assert torch.equal(getattr(own, left).grad, getattr(other, left).grad)


@pytest.mark.parametrize("name", ["bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("shape, dtype", [((), None), ((1,), None), (None, torch.bfloat16)], ids=str)
def test_what_only_torch_adds_up_torch_adds_up(shape, dtype, name, on):
    """A number for all gates, or a bias in 16 bits of a layer in 32: their sum is the bias all the same."""
    on("alone")
    own, x = layer(40, torch.float32, Variant()), drawn((T, N, C), torch.float32)
    bias = getattr(own, name).detach() if shape is None else torch.full(shape, 0.5)
    setattr(own, name, torch.nn.Parameter(bias.to(dtype or torch.float32)))
    y, _, weights, _ = one_bias(own, x)
    want = torch.autograd.grad(y.sum(), weights["weight_hh_l0"])[0]
    with torch.no_grad():
        assert all(torch.equal(own(x)[0], y) for _ in range(3))
    got = own(x)[0]
    assert torch.equal(got, y) and torch.equal(torch.autograd.grad(got.sum(), own.weight_hh_l0)[0], want)


@pytest.mark.parametrize("n, t", [(0, T), (N, 0)])
def test_a_call_of_nothing_leads_back(n, t, on):
    on("alone")
    own = layer(40, torch.bfloat16, Variant())
    y, state = own(torch.zeros(t, n, C, dtype=torch.bfloat16))
    (y.sum() + state.h.sum()).backward()
    assert all(bool((w.grad == 0).all()) for w in own.parameters())


def test_autocast_around_the_way_back_narrows_nothing(on):
    on("alone")
    x, found = drawn((T, N, C), torch.float32), []
    for narrow in (False, True):
        own = layer(40, torch.float32, Variant())
        y = own(x)[0].sum()
        with torch.autocast("cpu", enabled=narrow):
            y.backward()
        found.append([w.grad for w in own.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_both_are_there_where_nothing_else_is_rounded(on, monkeypatch):
    """Matrices that cuBLAS rounds leave the bias alone, which torch sums then."""
    on("alone")
    monkeypatch.setattr(weights, "FILLS", 1)
    weights._results.cache_clear()
    own, x = layer(40, torch.bfloat16, Variant()), drawn((T, N, C), torch.bfloat16)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        own(x)[0].sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
        weights._results.cache_clear()
    assert bool(own.bias_hh_l0.grad.isfinite().all())
    assert torch.equal(own.bias_ih_l0.grad, own.bias_hh_l0.grad)


@pytest.mark.parametrize("offset, units", [(0, 4), (1, 1), (2, 2)])
def test_teams_load_no_more_of_a_bias_than_its_address_allows(offset, units, on, monkeypatch):
    on("teams")
    own, x, asked, kernel = (
        layer(64, torch.bfloat16, Variant()),
        drawn((T, N, C), torch.bfloat16),
        [],
        team_plan.kernel,
    )
    room = torch.empty(4 * 64 + offset, dtype=torch.bfloat16)
    own.bias_hh_l0.data = room[offset:].copy_(own.bias_hh_l0.detach())
    monkeypatch.setattr(team_plan, "kernel", lambda *words: asked.append(words[-1]) or kernel(*words))
    y, *_ = one_bias(own, x)
    assert torch.equal(own(x)[0], y) and asked == [4, units]


class Operators(TorchDispatchMode):
    """What torch itself is asked to compute on numbers of the biases' shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.names = shape, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if (
            isinstance(out, torch.Tensor)
            and out.shape == self.shape
            and not name.endswith(("strided", "empty"))
        ):
            self.names.append(name)
        return out


@pytest.mark.parametrize("plan", ["alone", "together", "teams"])
def test_torch_neither_adds_them_nor_copies_their_gradient(plan, on):
    H, name = PLANS[plan]
    on(name)
    own, x = layer(H, torch.bfloat16, Variant()), drawn((T, N, C), torch.bfloat16)
    own(x)[0].sum().backward()
    own.zero_grad(set_to_none=True)
    with torch.autograd.set_multithreading_enabled(False), Operators((4 * H,)) as seen:
        own(x)[0].sum().backward()
    assert set(seen.names) <= {"view", "detach", "select"}
    assert torch.equal(own.bias_ih_l0.grad, own.bias_hh_l0.grad)
    assert own.bias_ih_l0.grad.data_ptr() != own.bias_hh_l0.grad.data_ptr()
