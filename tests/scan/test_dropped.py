"""A tensor under its mask by the kernel of `cuda/dropped.cu`, beside plain torch: the same to the bit."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import longshort as ls
from longshort.scan import masks
from longshort.scan.cuda import dropping
from oracle import assert_equations
from scan.cases import Case, ids

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
KINDS = ["variational_x", "weight_drop", "dropout"]
SEED = torch.tensor(-(2**61) - 12345)


def ordinary(N, T, K, dtype):
    return torch.randn(N, T, K, generator=torch.Generator().manual_seed(0)).to(dtype)


def behind(x, elements, pitch=0):
    """The same numbers so many elements behind an aligned address, in rows that are longer by `pitch`."""
    N, T, K = x.shape
    room = x.new_empty(N * T * (K + pitch) + elements)[elements:].view(N, T, K + pitch)
    return room[..., :K].copy_(x)


LAYOUTS = {
    "by sequence": lambda x: x,
    "by step": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "by unit": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
    "odd address": lambda x: behind(x, 1),
    "even address": lambda x: behind(x, 2),
    "longer rows": lambda x: behind(x, 0, 1),
    "one row for all": lambda x: x[:1, :1].expand_as(x),
    "one number for all": lambda x: x[:1, :1, :1].expand_as(x),
}


@pytest.fixture(scope="module")
def machine():
    return emulator.Emulator()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("K", [1, 4, 6, 7, 24])
def test_the_kernel_has_the_bits_of_plain_torch(K, layout, dtype, machine):
    x = LAYOUTS[layout](ordinary(3, 5, K, dtype))
    for kind in KINDS:
        for factor in (None, torch.float64 if dtype == torch.float64 else torch.float32):
            got = dropping.dropped(machine, x, kind, 0.3, SEED, factor)
            want = masks.dropped(x, kind, 0.3, SEED, factor)
            assert got.dtype == x.dtype and torch.equal(got, want), (kind, factor)
            assert (got == 0).any() or got.numel() < 40


def test_what_the_plain_path_is():
    """The mask's factor in x's dtype; or wide, and the product rounded once."""
    x = ordinary(2, 3, 5, torch.bfloat16)
    for kind in KINDS:
        steps = torch.arange(3) if kind == "dropout" else torch.zeros(1, dtype=torch.int64)
        narrow = x * masks.scaled(SEED, kind, 0.3, steps, 2, 5, x)
        wide = (x.float() * masks.scaled(SEED, kind, 0.3, steps, 2, 5, x.float())).to(x.dtype)
        assert torch.equal(masks.dropped(x, kind, 0.3, SEED), narrow)
        assert torch.equal(masks.dropped(x, kind, 0.3, SEED, torch.float32), wide)
        assert not torch.equal(narrow, wide)


@pytest.mark.parametrize(
    "N, T, K", [(0, 3, 4), (3, 0, 4), (3, 2, 0), (1, 1, 1), (1, 70, 5), (300, 1, 10), (2, 9, 1030)]
)
def test_every_size(N, T, K, machine):
    x = ordinary(N, T, K, torch.float32)
    for kind in KINDS:
        assert torch.equal(dropping.dropped(machine, x, kind, 0.5, SEED), masks.dropped(x, kind, 0.5, SEED))


def test_a_thread_that_takes_several_steps(monkeypatch, machine):
    monkeypatch.setattr(dropping, "RESIDENT", 1)
    x = ordinary(3, 7, 6, torch.float32)
    for kind in KINDS:
        assert torch.equal(dropping.dropped(machine, x, kind, 0.5, SEED), masks.dropped(x, kind, 0.5, SEED))


def test_what_is_no_number_stays_so(machine):
    x = torch.tensor([[[torch.nan, torch.inf, -torch.inf, -0.0, 1.0, -1.0, torch.nan, torch.inf]]])
    for seed in map(torch.tensor, range(4)):
        got, want = dropping.dropped(machine, x, "dropout", 0.5, seed), masks.dropped(x, "dropout", 0.5, seed)
        assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.nan_to_num(), want.nan_to_num())
        assert torch.equal(got.signbit() & ~got.isnan(), want.signbit() & ~want.isnan())


@pytest.mark.parametrize("wrong", ["stream", "step", "seed", "rate"])
def test_a_wrong_mask_is_found(wrong, machine, monkeypatch):
    x = ordinary(3, 5, 8, torch.float32)
    want, rate, seed = masks.dropped(x, "dropout", 0.3, SEED), 0.3, SEED
    if wrong == "stream":
        monkeypatch.setitem(masks.STREAM, "dropout", 5)
    elif wrong == "step":
        monkeypatch.setattr(masks, "EACH_STEP", frozenset())
    elif wrong == "seed":
        seed = SEED + (1 << 32)
    else:
        rate = 0.4
    assert not torch.equal(dropping.dropped(machine, x, "dropout", rate, seed), want)


def test_more_threads_than_32_bits_count_are_plain_torch_s(monkeypatch):
    """Nothing so large is made: plain torch is asked, before anything is."""
    monkeypatch.setattr(masks, "dropped", lambda *asked: asked)
    x = torch.empty(1, 1, 4).expand(1 << 31, 1, 4)
    assert dropping.dropped(None, x, "dropout", 0.5, SEED)[1:] == ("dropout", 0.5, SEED, None)


@pytest.fixture
def emulated(monkeypatch):
    """A machine on the host behind the backend "gpu"; plain torch's masks are out of its reach."""
    return emulator.put(emulator.Emulator(), monkeypatch.setattr)


NOISE = Case("noise", H=6, noise={"variational_x": 0.3, "weight_drop": 0.4})
CALLS = [
    NOISE,
    dataclasses.replace(NOISE, why="noise, cut in segments", checkpoint_every=3),
    dataclasses.replace(NOISE, why="noise, widths in fours", C=8, H=8),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@ids(CALLS)
def test_a_call_s_masks_are_the_kernel_s(case, dtype, emulated, monkeypatch):
    tensors = case.make(dtype)
    by_kernel = case.differentiate(tensors, backend="gpu")
    with monkeypatch.context() as patch:
        patch.setattr(dropping, "dropped", lambda machine, *given: masks.dropped(*given))
        by_torch = case.differentiate(tensors, backend="gpu")
    with monkeypatch.context() as patch:
        patch.setattr(masks, "dropped", None)
        case.differentiate(tensors, backend="gpu")  # without plain torch
    for what, got in by_kernel.items():
        assert torch.equal(got, by_torch[what]), what
    if dtype == torch.float64:
        want = case.differentiate(tensors, backend="definition", checkpoint_every=None)
        for what, got in by_kernel.items():
            assert_equations(got, want[what], what=what)


def stacked(dtype=torch.float64):
    torch.manual_seed(0)
    layer = ls.LSTM(3, 6, 2, dropout=0.5, bidirectional=True, dtype=dtype)
    return layer, torch.randn(5, 4, 3, dtype=dtype, requires_grad=True)


def trained(layer, x, **options):
    torch.manual_seed(7)
    y = layer(x)[0]
    return (y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], **options))


def test_dropout_between_layers_is_the_kernel_s(emulated, monkeypatch):
    layer, x = stacked()
    got = trained(layer, x)
    with monkeypatch.context() as patch:
        patch.setattr(masks, "dropped", None)
        trained(layer, x)
    layer.backend = "plain"
    for mine, theirs in zip(got, trained(layer, x), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not torch.allclose(got[0], layer.eval()(x)[0])


def test_finite_differences_and_the_second_derivative_of_dropout(emulated):
    layer, x = stacked()
    layer.requires_grad_(False)

    def run(x):
        torch.manual_seed(7)
        return layer(x)[0]

    assert torch.autograd.gradcheck(run, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, x, fast_mode=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, in forward mode
@pytest.mark.parametrize("way", ["vmap", "jvp", "grad", "compile"])
def test_every_transform_of_torch_goes_through_dropout(way, emulated):
    """The kernel sees none of them."""
    layer, x = stacked()
    layer.requires_grad_(False)
    rng = torch.Generator().manual_seed(1)
    v = torch.randn(x.shape, generator=rng, dtype=x.dtype)

    def run(x):
        torch.manual_seed(7)
        return layer(x)[0].square()

    if way == "compile":
        got = torch.compile(layer, backend="eager", fullgraph=True)
        torch.manual_seed(7)
        torch.testing.assert_close(got(x)[0].square(), run(x))
        return
    (want,) = torch.autograd.grad(run(x).sum(), x)
    if way == "grad":
        found = torch.func.grad(lambda x: run(x).sum())(x.detach())
        torch.testing.assert_close(found, want)
    elif way == "jvp":
        _, found = torch.func.jvp(lambda x: run(x).sum(), (x.detach(),), (v,))
        torch.testing.assert_close(found, (want * v).sum())
    else:
        found = torch.vmap(run, randomness="same")(torch.stack([x.detach(), 2 * x.detach()]))
        torch.testing.assert_close(found[1], run(2 * x))
