"""Every backend against the equations, and the equations against torch, which nobody here wrote."""

import dataclasses

import pytest
import torch

from longshort.scan import definition
from longshort.scan.call import Inputs, Options, call_of
from oracle import assert_all_as_accurate, assert_as_accurate, assert_equations
from scan.cases import (
    ALONE,
    OPTIONS,
    PAIRS,
    SIZES,
    TOGETHER,
    Case,
    each_backend,
    ids,
    refused,
    strided,
    usual_errors,
)


@ids([*SIZES, *OPTIONS, *TOGETHER, *PAIRS])
@each_backend
def test_formula(case, backend):
    refused(case, backend)
    tensors = case.make()
    exact = case.differentiate(tensors, backend="definition", checkpoint_every=None)
    for what, got in case.differentiate(tensors, backend=backend).items():
        assert_equations(got, exact[what], what=what)


@ids([*SIZES, *OPTIONS, *TOGETHER])
@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
def test_rounding(case, backend, dtype):
    """In a short dtype, err no more than the equations do in that dtype."""
    refused(case, backend, dtype)
    tensors = case.make(dtype)
    case.assert_as_accurate(case.differentiate(tensors, backend=backend), tensors)


LONG = [dataclasses.replace(case, N=3, T=40, C=6, H=16) for case in OPTIONS]


@ids(LONG)
def test_plain_rounds_what_the_equations_round_and_nothing_else(case):
    """What is rounded at every step besides adds up, and hides under h's roundings in `test_rounding`."""
    tensors, gates = case.make(torch.bfloat16), case.options()["variant"].gates
    if "f" in gates and case.bias:
        tensors["bias"].unflatten(0, (len(gates), -1))[gates.index("f")] += 3  # remembers all the steps
    want = case.law(tensors)
    for what, got in case.differentiate(tensors, backend="plain").items():
        apart = (got.double() - want[what].double()).norm() / want[what].double().norm()
        assert apart < torch.finfo(torch.bfloat16).eps / 4, what


@pytest.mark.parametrize(("kind", "name"), [("variational_x", "x"), ("weight_drop", "w_hh")])
def test_a_mask_has_the_same_scale_on_the_way_back(kind, name):
    """1 / 0.9 in 16 bits is off by a part in 600, in every number of a gradient alike."""
    case = Case("mask", noise={kind: 0.1}, N=8, T=20, C=16, H=16)
    tensors = case.make(torch.bfloat16)
    got, exact = (f(tensors)[f"d{name}"].double() for f in (case.law, lambda t: case.law(t, torch.float64)))
    assert abs((got * exact).sum() / (exact * exact).sum() - 1) < 5e-4


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@ids([c for c in SIZES if c.N and c.T])
def test_the_definition_matches_torch(case, bias, projected):
    case = Case(
        case.why,
        N=case.N,
        T=case.T,
        C=case.C,
        H=max(case.H, 4),
        scale=case.scale,
        bias=bias,
        projected=projected,
    )
    t = case.make()
    theirs = torch.nn.LSTM(
        case.C, case.H, bias=bias, batch_first=True, proj_size=3 if projected else 0, dtype=torch.float64
    )
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "bias": "bias_ih_l0", "w_hr": "weight_hr_l0"}
    weights = {full: t[name] for name, full in names.items() if name in t}
    theirs.load_state_dict(weights | ({"bias_hh_l0": torch.zeros_like(t["bias"])} if bias else {}))
    y, (h, c) = theirs(t["x"], (t["h"][None], t["c"][None]))
    given = Inputs(**{**dict.fromkeys(Inputs._fields), **t})
    got = definition.lstm(call_of(Options(), given, save=False), given)
    for ours, want in ((got.y, y), (got.h, h[0]), (got.c, c[0])):
        torch.testing.assert_close(ours, want, rtol=1e-12, atol=1e-12)


@ids(ALONE)
@each_backend
def test_strides_do_not_matter(case, backend):
    refused(case, backend)
    tensors = case.make()
    straight = case.differentiate(tensors, backend=backend)
    for what, got in case.differentiate(strided(tensors), backend=backend).items():
        assert_equations(got, straight[what], what=what)


@ids(ALONE)
@each_backend
def test_the_same_inputs_give_the_same_bits(case, backend):
    refused(case, backend, torch.float32)
    tensors = case.make(torch.float32)
    once = case.differentiate(tensors, backend=backend)
    for what, got in case.differentiate(tensors, backend=backend).items():
        assert torch.equal(got, once[what]), what


@each_backend
@ids(ALONE)
def test_what_a_backend_saves_is_what_it_says(case, backend):
    refused(case, backend)
    from longshort.scan.plan import backends

    runner = next(b for b in backends() if b.name == backend)
    tensors = case.make()
    if case.noise and case.training:
        tensors["seed"] = torch.tensor(3)
    given = Inputs(**{**dict.fromkeys(Inputs._fields), **tensors})
    options = case.options()
    keep = case.keep or ""
    call = call_of(
        Options(
            options["variant"],
            options["noise"],
            case.training,
            case.reverse,
            keep in ("cells", "all"),
            keep in ("gates", "all"),
        ),
        given,
        save=True,
    )
    outputs, saved = runner.forward(call, given)
    assert [(tuple(s.shape), s.dtype) for s in saved] == runner.saves(call)
    present = [o for o in outputs if o is not None]
    assert all(o.is_contiguous() for o in [*present, *saved])
    assert len(
        {o.untyped_storage().data_ptr() for o in [*present, *saved, *tensors.values()] if o.numel()}
    ) == len([o for o in [*present, *saved, *tensors.values()] if o.numel()])


def _swapped(case, tensors):
    swapped = {
        k: torch.cat([v.chunk(4)[b] for b in (1, 0, 2, 3)]) if k in ("w_ih", "w_hh", "bias") else v
        for k, v in tensors.items()
    }
    found = case.differentiate(swapped, backend="definition")
    return {
        k: torch.cat([v.chunk(4)[b] for b in (1, 0, 2, 3)]) if k in ("dw_ih", "dw_hh", "dbias") else v
        for k, v in found.items()
    }


def _without_state(case, tensors):
    return case.differentiate({**tensors, "h": torch.zeros_like(tensors["h"])}, backend="definition")


def _bias_off(case, tensors):
    return case.differentiate({**tensors, "bias": tensors["bias"] + 1e-5}, backend="definition")


def _patched(monkeypatch, name, wrong):
    def differentiate(case, tensors):
        with monkeypatch.context() as patch:
            patch.setattr(definition, name, wrong)
            return case.differentiate(tensors, backend="definition")

    return differentiate


def _cell_cut(v, w, x, h, c, s, m):
    """The gradient through the cell is cut; every value is right."""
    return CELL(v, w, x, h, c.detach(), s, m)


def _cell_narrow(v, w, x, h, c, s, m):
    """The cell is kept in 16 bits from step to step."""
    h, c, s, gates = CELL(v, w, x, h, c, s, m)
    return h, definition.rounded(c, torch.bfloat16), s, gates


def _sums_narrow(v, w, z, r):
    """The pre-activations are summed in 16 bits."""
    return definition.rounded(PREACTIVATIONS(v, w, z, definition.rounded(r, torch.bfloat16)), torch.bfloat16)


CELL, PREACTIVATIONS = definition.cell, definition.preactivations
WRONG = {
    "gates i and f swapped": (torch.float32, lambda patch: _swapped),
    "first state ignored": (torch.float32, lambda patch: _without_state),
    "bias off by one part in 1e5": (torch.float32, lambda patch: _bias_off),
    "gradient through c cut": (torch.float32, lambda patch: _patched(patch, "cell", _cell_cut)),
    "cell kept in 16 bits": (torch.bfloat16, lambda patch: _patched(patch, "cell", _cell_narrow)),
    "sums in 16 bits": (torch.bfloat16, lambda patch: _patched(patch, "preactivations", _sums_narrow)),
    "cell kept in 16 bits for a float32 call": (torch.float32, lambda p: _patched(p, "cell", _cell_narrow)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_oracle_bites(wrong, monkeypatch):
    """A comparison that passes wrong kernels is decoration."""
    dtype, make = WRONG[wrong]
    case = Case("ordinary", N=3, T=40, C=7, H=16)
    tensors = case.make(dtype)
    exact, yardstick, usual = case.law(tensors, torch.float64), case.law(tensors), usual_errors(case, tensors)
    assert_all_as_accurate(yardstick, exact, yardstick, usual)
    got = make(monkeypatch)(case, tensors)
    with pytest.raises(AssertionError, match=r"error|shape|finite"):
        for what in got:
            assert_as_accurate(got[what], exact[what], yardstick[what], usual=usual[what], what=what)
