"""16 bits on the engine: bfloat16 in pairs where sizes and options allow it, everything else widened.

test_formula.py runs the whole table in both types, with the odd sizes of its cases; here they are even.
"""

import copy
import dataclasses

import pytest
import torch

import longshort as ls
from longshort import engine
from longshort.scan import Variant, lstm, plan
from longshort.scan.arrays import form_of
from longshort.scan.call import Inputs, Options, call_of
from scan.cases import OPTIONS, SIZES, TOGETHER, Case, ids, refused

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")

IN_PAIRS = engine.available() and engine.pairs()
needs_pairs = pytest.mark.skipif(
    not IN_PAIRS, reason="THIS PROCESSOR HAS NO PRODUCTS OF BFLOAT16: the pairs did not run"
)
BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16

EVEN = [
    *(dataclasses.replace(case, C=6, H=10) for case in [*OPTIONS, *TOGETHER]),
    *(dataclasses.replace(case, C=max(2, case.C // 2 * 2), H=max(2, case.H // 2 * 2)) for case in SIZES),
    Case("whole vectors", N=5, T=6, C=32, H=64),
    Case("panels that are not whole", N=5, T=6, C=66, H=50),
    Case("units shared by threads", N=2, T=20, C=6, H=96),
    Case("units shared, with resets", N=2, T=20, C=6, H=96, reset=True, initial=True, lengths=True),
    Case("many chunks", N=40, T=50, C=4, H=130),
    Case("more inputs than units", N=3, T=5, C=200, H=6),
    Case("an odd number of inputs", N=3, T=5, C=7, H=6, reset=True, lengths=True),
    Case("one input", N=3, T=5, C=1, H=6),
]


def form(case, dtype=BFLOAT16):
    tensors = case.make(dtype)
    options = case.options()
    if case.noise and case.training:
        tensors["seed"] = torch.tensor(3)
    given = Inputs(**{**dict.fromkeys(Inputs._fields), **tensors})
    return form_of(
        call_of(Options(options["variant"], options["noise"], case.training), given, save=True)
    ).name


@needs_pairs
@ids(EVEN)
def test_which_calls_are_made_in_pairs(case):
    """All but those whose sums cancel, whose h has more than 16 bits, or with an odd number of units."""
    variant = case.options()["variant"]
    widened = (
        variant.norm != "none" or variant.gate_recurrence or case.projected or "variational_h" in case.noise
    )
    assert form(case) == ("widened" if widened else "paired")
    assert form(dataclasses.replace(case, C=5)) == form(case)
    assert form(dataclasses.replace(case, H=7)) == "widened"
    assert form(case, FLOAT16) == "widened"
    assert form(case, torch.float32) == "whole"


@pytest.mark.parametrize("threads", [1, 2])
@ids(EVEN)
def test_rounding_in_even_sizes(case, threads):
    refused(case, "cpu", BFLOAT16)
    tensors = case.make(BFLOAT16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, again = (case.differentiate(tensors, backend="cpu") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    case.assert_as_accurate(found, tensors)
    assert all(torch.equal(found[what], again[what]) for what in found)


each_type = pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16], ids=["bf16", "f16"])


@pytest.mark.parametrize("units", [4, 5], ids=["in-pairs", "widened"])
@each_type
def test_h_is_rounded_as_torch_rounds(dtype, units):
    """A cell whose every part is taken away: h is c, rounded."""
    spread = torch.arange(-32768, 32768, dtype=torch.int16).view(dtype).float()
    between = torch.cat([spread, spread * (1 + 2.0**-9), spread * (1 + 2.0**-12), spread + 2.0**-26])
    odd = torch.tensor([65519.9, 65520.0, -65536.0, 3.3e38, 3.4e38, 2.0**-24, 2.0**-25, 1.5 * 2**-25, 6.1e-5])
    c = torch.cat([between, odd, -odd, torch.zeros(units)])
    c = c[
        torch.isnan(c) | (c.abs() == 0) | (c.abs() >= 2.0**-125)
    ]  # what is denormal in float32 is zero here
    c = c[: len(c) // units * units].view(-1, units).contiguous()
    variant = Variant(forget_gate=False, output_gate=False, input_gate=False, output_activation=False)
    zeros = (torch.zeros(shape, dtype=dtype) for shape in [(len(c), 1, 2), (units, 2), (units, units)])
    y, (h, c_n) = lstm(*zeros, c=c, variant=variant, backend="cpu")
    want = c.to(dtype)
    assert torch.equal(c_n[~c.isnan()], c[~c.isnan()])
    for got in (y[:, 0], h):
        assert torch.equal(got.isnan(), want.isnan())
        assert torch.equal(got[~want.isnan()], want[~want.isnan()])


def taken(layer, x):
    x = x.detach().requires_grad_()
    y, (h, c) = layer(x)
    grads = torch.autograd.grad((y.float() ** 2).sum() + h.float().sum() + c.sum(), [x, *layer.parameters()])
    return [y, h, c, *grads]


def whole(x):
    return x.clone(memory_format=torch.contiguous_format)


@each_type
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], dim=-1)[..., 1:7],
        lambda x: torch.cat([x[..., :1], x], dim=-1)[..., 1:],
        lambda x: torch.cat([x, x[..., :1]], dim=-1)[..., :-1],
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
    ],
    ids=["other-order", "begins-at-odd", "odd-rows", "odd-stride", "by-columns", "odd-address"],
)
def test_where_x_lies_changes_no_bit(dtype, view):
    torch.manual_seed(0)
    layer = ls.LSTM(6, 10, batch_first=True, dtype=dtype)
    x = view(torch.randn(3, 5, 6, dtype=dtype))
    for got, want in zip(taken(layer, x), taken(layer, whole(x)), strict=True):
        assert torch.equal(got, want)


@each_type
@pytest.mark.parametrize("units", [10, 11])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_a_write_through_data_is_seen(dtype, units, name):
    torch.manual_seed(0)
    layer, x = ls.LSTM(6, units, dtype=dtype), torch.randn(5, 3, 6, dtype=dtype)
    with torch.no_grad():
        before = [layer(x)[0] for _ in range(3)][-1]
        getattr(layer, name).data[-1].add_(0.25)
        after = layer(x)[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, copy.deepcopy(layer)(x)[0])


@each_type
@pytest.mark.parametrize("inputs", [6, 8], ids=["by-one", "by-four"])
@pytest.mark.parametrize("axis", [0, 1])
def test_numbers_that_change_places_are_seen(dtype, inputs, axis):
    """Widened weights are copies, and their bits alone tell a write through `.data`."""
    torch.manual_seed(0)
    layer, x = ls.LSTM(inputs, 11, dtype=dtype), torch.randn(5, 3, inputs, dtype=dtype)
    with torch.no_grad():
        before = [layer(x)[0] for _ in range(3)][-1]
        layer.weight_ih_l0.data.copy_(layer.weight_ih_l0.data.flip(axis))
        after = layer(x)[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, copy.deepcopy(layer)(x)[0])


@pytest.mark.parametrize("units", [10, 11])
def test_autocast_computes_what_a_layer_in_16_bits_does(units):
    torch.manual_seed(0)
    layer = ls.LSTM(6, units, bias=False)  # autocast adds two biases up before it rounds, a layer after
    narrow, x = copy.deepcopy(layer).to(BFLOAT16), torch.randn(5, 3, 6)
    with torch.autocast("cpu", dtype=BFLOAT16):
        y = layer(x)[0]
    assert torch.equal(y, narrow(x.to(BFLOAT16))[0])
    assert plan(*(w.to(BFLOAT16) for w in (x, layer.weight_ih_l0, layer.weight_hh_l0))).name == "cpu"
    y.float().sum().backward()
    assert layer.weight_ih_l0.grad.dtype == torch.float32


@each_type
@pytest.mark.parametrize("units", [10, 11])
def test_steps_go_on_where_a_sequence_ended(dtype, units):
    torch.manual_seed(0)
    layer, x, state = (
        ls.LSTM(6, units, num_layers=2, dtype=dtype).eval(),
        torch.randn(5, 3, 6, dtype=dtype),
        None,
    )
    with torch.no_grad():
        y, last = layer(x)
        for t in range(5):
            out, state = layer.step(x[t], state)
            torch.testing.assert_close(out, y[t])
    torch.testing.assert_close(state.c, last.c)


@each_type
@pytest.mark.parametrize("units", [10, 11])
def test_what_is_kept_is_what_the_plan_says(dtype, units):
    given = {
        "x": torch.randn(3, 7, 6, dtype=dtype),
        "w_ih": torch.randn(4 * units, 6, dtype=dtype).requires_grad_(),
        "w_hh": torch.randn(4 * units, units, dtype=dtype),
    }
    assert plan(**given).kept_bytes == 3 * 7 * (4 * engine.tape_row(units, units) + 2 * units)


@needs_pairs
def test_not_a_number_stays_in_its_sequence():
    torch.manual_seed(0)
    layer, x = ls.LSTM(6, 10, batch_first=True, dtype=BFLOAT16), torch.randn(3, 5, 6, dtype=BFLOAT16)
    clean = layer(x)[0]
    x[1, 2, 3] = float("nan")
    y = layer(x)[0]
    assert (
        y[1, 2:].isnan().all()
        and torch.equal(y[[0, 2]], clean[[0, 2]])
        and torch.equal(y[1, :2], clean[1, :2])
    )


@each_type
def test_no_input_is_none(dtype):
    y, (h, _) = lstm(
        *(torch.zeros(shape, dtype=dtype) for shape in [(3, 5, 0), (16, 0), (16, 4)]), backend="cpu"
    )
    assert y.shape == (3, 5, 4) and not y.any() and not h.any()


@needs_pairs
def test_a_bound_layer_that_learns_its_first_state_follows_another_set(monkeypatch):
    layer, x = ls.LSTM(6, 10, dtype=BFLOAT16, learn_initial=True).eval(), torch.randn(5, 3, 6, dtype=BFLOAT16)
    with torch.no_grad():
        state = layer.initial_state(3)
        y = [layer(x, state)[0] for _ in range(3)][-1]
        monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "avx2")
        torch.testing.assert_close(layer(x, state)[0], y, rtol=0.02, atol=0.02)


@needs_pairs
def test_the_plan_says_in_which_form(monkeypatch):
    def said(dtype=BFLOAT16, **more):
        case = Case("", H=6, **more)
        tensors = case.make(dtype)
        return str(
            plan(**tensors, variant=case.options()["variant"], noise=case.options()["noise"])
        ).partition(";")[0]

    assert said() == "cpu, bfloat16 in pairs" and said(torch.float32) == "cpu"
    widened = "cpu, widened to float32: "
    assert said(FLOAT16) == f"{widened}only bfloat16 is multiplied as it is"
    assert said(projected=True) == f"{widened}the number of units is odd"  # three outputs
    assert said(variant={"norm": "products"}) == f"{widened}there is a norm"
    assert said(variant={"gate_recurrence": True}) == f"{widened}there is gate recurrence"
    assert said(noise={"variational_h": 0.3}) == f"{widened}there is variational_h"
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "portable")
    assert said() == f"{widened}the set portable has no products of bfloat16"
