"""The kernels against the equations, on the host: `cuda/emulator.py` says how, and what that shows."""

import ctypes
import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from longshort.errors import BackendError
from longshort.scan import gpu, lstm
from longshort.scan.call import Inputs
from longshort.scan.cuda import packing, sources, step_plan, weights
from oracle import assert_equations
from scan.cases import ALONE, NAMES, OPTIONS, PAIRS, SIZES, TOGETHER, Case, ids, strided

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

planning = importlib.import_module("longshort.scan.plan")
pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))


@pytest.fixture
def machine(monkeypatch):
    """A machine on the host, behind the backend "gpu"."""
    return emulator.put(emulator.Emulator(), monkeypatch.setattr)


def shorter(case):
    """A pair finds its wrong formula in four steps."""
    return dataclasses.replace(case, T=4, H=3, checkpoint_every=case.checkpoint_every and 2)


@ids([*SIZES, *OPTIONS, *TOGETHER, *map(shorter, PAIRS)])
def test_formula(case, machine):
    tensors = case.make()
    want = case.law(tensors, torch.float64)
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, want[what], what=what)


@ids([*SIZES, *OPTIONS, *TOGETHER])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
def test_rounding(case, machine, dtype):
    tensors = case.make(dtype)
    case.assert_as_accurate(case.differentiate(tensors, backend="gpu"), tensors)


MUCH = Case(
    "much at once",
    variant={"peephole": True, "cell_clip": 0.8},
    noise={"variational_h": 0.2, "recurrent_dropout": 0.2, "zoneout_h": 0.2, "zoneout_c": 0.1},
    reset=True,
    initial=True,
    lengths=True,
    reverse=True,
    keep="all",
)
ADJACENT = [
    dataclasses.replace(case, why=f"{case.why}, {H} units", H=H, N=N, T=4)
    for H, N in ((8, 3), (6, 3), (600, 2))
    for case in ([Case("ordinary"), *OPTIONS, MUCH] if H == 8 else [Case("ordinary"), MUCH])
    if not case.why.startswith("norm")
]
"""Threads that own four units, or two; the last in two blocks a row."""


@ids(ADJACENT)
def test_a_thread_of_adjacent_units(case, machine, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    machine.seed = 3
    tensors = case.make()
    want = case.law(tensors, torch.float64)
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, want[what], what=what)


@ids(
    [Case("ordinary"), MUCH, *(c for c in OPTIONS if c.why in ("reset", "gate recurrence", "variational h"))]
)
@pytest.mark.parametrize("rows", [1, 2])
def test_operands_of_more_steps_than_a_grid_has_blocks(case, rows, machine, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    monkeypatch.setattr(step_plan, "MOST_ROWS", rows)
    tensors = dataclasses.replace(case, T=4 * step_plan.TURNS - 1, H=8).make()
    want = case.law(tensors, torch.float64)
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, want[what], what=what)


NORMS = [case for case in [*OPTIONS, *TOGETHER] if case.variant.get("norm") and not case.projected]
ROWS = [
    dataclasses.replace(case, why=f"{case.why}, {H} units", H=H, N=N, T=3, checkpoint_every=None)
    for H, N in ((8, 3), (6, 3), (300, 2), (131, 2))
    for case in (NORMS if H == 8 else NORMS[:3])
]
"""Rows of a norm in one warp and in several, the last of which has few units."""


@ids(ROWS)
@pytest.mark.parametrize("threads", [512, 32], ids=["held", "too wide to hold"])
def test_a_row_of_a_norm(case, threads, machine, monkeypatch):
    monkeypatch.setattr(step_plan, "ROW_THREADS", threads)
    monkeypatch.setattr(step_plan, "_program", step_plan._program.__wrapped__)  # remembers nothing
    machine.seed = 5
    tensors = case.make()
    want = case.law(tensors, torch.float64)
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, want[what], what=what)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
@ids(
    [dataclasses.replace(case, H=H, N=2, T=3, why=f"{case.why}, {H}") for H in (8, 260) for case in NORMS[:3]]
)
def test_rounding_of_a_row_of_a_norm(case, dtype, machine):
    tensors = case.make(dtype)
    case.assert_as_accurate(case.differentiate(tensors, backend="gpu"), tensors)


@pytest.mark.parametrize(
    ("accuracy", "units"), [("float", 2), ("longshort::Tf32", 4), ("longshort::bfloat16", 4)]
)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_an_activation_alone(name, accuracy, units):
    """Of float32 and TF32 relatively; what 16 bits get may err by units of 1."""
    library = emulator.compiled(
        f"{sources.assembled('cell.cuh', twin=emulator.HERE)}"
        'extern "C" void activate(const float* from, float* to, int count) {'
        f" for (int k = 0; k < count; ++k) to[k] = longshort::Activation<{accuracy}>::{name}(from[k]); }}"
    )
    ends = torch.tensor(
        [0.0, -0.0, 1e-30, -1e-30, 0.85, -0.85, 80.0, -80.0, 1e30, -1e30, torch.inf, -torch.inf]
    )
    x = torch.cat(
        [ends, torch.linspace(-20, 20, 40_001), torch.logspace(-8, 0, 4001), torch.tensor([torch.nan])]
    )
    y = torch.empty_like(x)
    library.activate(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, y)), len(x))
    exact = getattr(torch, name)(x.double())
    unit = torch.ones_like(exact) if "16" in accuracy else exact.abs().clamp(min=1e-37)
    error = ((y - exact).abs() / (2**-23 * unit))[:-1]
    assert error.max() <= units, f"{error.max():.1f} units at {x[error.argmax()]}"
    assert y[-1].isnan()


@pytest.mark.parametrize("rows", [1023, 1300, 1301])
def test_long_sums_of_float32_are_made_in_parts(rows, machine, monkeypatch):
    """A device adds float32 one after another; 16 bits it multiplies otherwise, and few rows it may."""
    rng = torch.Generator().manual_seed(rows)
    a, b = torch.randn(rows, 6, generator=rng), torch.randn(rows, 5, generator=rng)
    shapes, product = [], machine.product

    def noted(a, b, out):
        shapes.append(tuple(a.shape))
        return product(a, b, out)

    monkeypatch.setattr(machine, "product", noted)
    out = weights._summed(machine, a, b, torch.empty(6, 5))
    torch.testing.assert_close(out, (a.double().t() @ b.double()).float(), rtol=0, atol=1e-4)
    assert shapes == {1023: [(6, 1023)], 1300: [(2, 6, 650)], 1301: [(2, 6, 650), (6, 1)]}[rows]
    weights._summed(machine, a.bfloat16(), b.bfloat16(), torch.empty(6, 5))
    monkeypatch.setattr(weights, "HELD", 200)
    weights._summed(machine, a, b, out)
    assert shapes[-2:] == [(6, rows)] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("seed", [38, 53])
def test_the_gradient_behind_a_norm_of_the_input_s_product(seed, dtype, machine, monkeypatch):
    """Draws in which W_ih' z̄ cancels: z̄ rounded to 16 bits errs more than is allowed."""
    case = TOGETHER[0]
    tensors = case.make(dtype, seed=seed)
    case.assert_as_accurate(case.differentiate(tensors, backend="gpu"), tensors)
    whole = weights.products

    def narrowed(machine, call, given, made, *more):
        rounded = made["dz"][..., : made["dr"].shape[-1]]  # without what rounding left
        return whole(machine, call, given, {**made, "dz": rounded}, *more)

    monkeypatch.setattr(weights, "products", narrowed)
    with pytest.raises(AssertionError, match=r"^dx: error"):
        case.assert_as_accurate(case.differentiate(tensors, backend="gpu"), tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
@ids([Case("ordinary", H=8), dataclasses.replace(MUCH, H=8)])
def test_rounding_of_adjacent_units(case, machine, dtype, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    tensors = case.make(dtype)
    case.assert_as_accurate(case.differentiate(tensors, backend="gpu"), tensors)


def off_by(tensor, elements, pitch=0):
    """The same numbers, so many elements behind an aligned address, in rows that are longer by `pitch`."""
    shape = (*tensor.shape[:-1], tensor.shape[-1] + pitch)
    room = tensor.new_empty(tensor.new_empty(shape).numel() + elements)[elements:].view(shape)
    return room[..., : tensor.shape[-1]].copy_(tensor)


@pytest.mark.parametrize("elements, pitch", [(1, 0), (2, 0), (0, 1)], ids=["odd", "even", "longer rows"])
@pytest.mark.parametrize("which", ["h", "c", "bias", "initial_h", "initial_c", "dy"])
def test_what_is_not_aligned_is_read_all_the_same(which, elements, pitch, machine, monkeypatch):
    """The twin of the device refuses wide loads there, as a device does."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    case = Case("alignment", H=8, T=3, initial=True, reset=True)
    tensors = case.make(torch.float32)
    dy = torch.randn(case.N, case.T, case.H, generator=torch.Generator().manual_seed(1))
    found = []
    for moved in (False, True):
        given = {**tensors, "dy": dy}
        if moved:
            given[which] = off_by(given[which], elements, pitch)
        arriving = given.pop("dy")
        leaves = [v.requires_grad_() for k, v in given.items() if k in NAMES]
        y = case.run(given, backend="gpu")["y"]
        found.append((y.detach(), *torch.autograd.grad(y, leaves, arriving, materialize_grads=True)))
        for leaf in leaves:
            leaf.requires_grad_(False)
    for got, want in zip(*reversed(found), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "case, plan",
    [
        (Case("ordinary"), "step"),
        (Case("ordinary", H=8), "step"),
        (Case("ordinary"), "alone"),
        (TOGETHER[0], "step"),
    ],
)
def test_a_program_for_the_options_of_one_call(case, plan, machine, monkeypatch):
    """What a device compiles: the flags as constants, and only the kernels that the call runs."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    machine.specialises = True
    tensors = case.make(torch.float32)
    want = case.differentiate(tensors, backend="definition")
    for what, got in case.differentiate(tensors, backend="gpu").items():
        torch.testing.assert_close(got, want[what], rtol=1e-4, atol=1e-5, msg=what)


@ids(
    [
        Case("ordinary", H=8),
        Case("projection", projected=True),
        Case("coupled", variant={"coupled": True}),
        *TOGETHER,
    ]
)
def test_parts_of_a_product_are_added_up(case, machine, monkeypatch):
    """Where the library would split a sum, the kernel adds up one part for each gate."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    machine.splits_sums = True
    tensors = case.make()
    want = case.law(tensors, torch.float64)
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, want[what], what=what)


@pytest.fixture
def everything_is_widened(monkeypatch):
    """Copies with wider rows, which calls of this size are not worth."""
    monkeypatch.setattr(packing, "WIDENED", 0)
    weights._results.cache_clear()
    yield
    weights._results.cache_clear()


@ids([*SIZES, Case("lengths", lengths=True), Case("projection", projected=True), MUCH, *TOGETHER])
@pytest.mark.parametrize("plan", ["step", "persistent"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_rows_that_sixteen_bytes_do_not_divide(
    case, dtype, plan, machine, monkeypatch, everything_is_widened
):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    tensors = case.make(dtype)
    got = case.differentiate(tensors, backend="gpu")
    case.assert_as_accurate(got, tensors)
    assert all(value.is_contiguous() for name, value in got.items() if name.startswith("dw_"))


@pytest.mark.parametrize("H", [8, 32, 40])
def test_large_gradients_of_such_rows_lie_dense(H, machine, monkeypatch, everything_is_widened):
    """Their products round them, so that only the padding is left to cut off."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step" if H == 8 else "persistent")
    monkeypatch.setattr(weights, "FILLS", 0)
    case = Case("ordinary", C=5, H=H)
    tensors = case.make(torch.bfloat16)
    got = case.differentiate(tensors, backend="gpu")
    case.assert_as_accurate(got, tensors)
    assert all(value.is_contiguous() for name, value in got.items() if name.startswith("dw_"))


@ids([c for c in ALONE if c.why not in ("cells kept", "gates kept", "segments", "no bias")])
def test_the_order_of_threads_changes_no_bit(case, machine):
    tensors = case.make(torch.float32)
    once = case.differentiate(tensors, backend="gpu")
    machine.seed = 1
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert torch.equal(got, once[what]), what


STRIDES = [
    Case("plain", lengths=True),
    Case("norm", variant={"norm": "ba2016"}, lengths=True, reset=True),
    Case("all", projected=True, initial=True, reset=True, lengths=True, keep="all"),
]


@pytest.mark.parametrize("plan", ["step", "alone", "persistent"])
@ids(STRIDES)
def test_strides_do_not_matter(case, plan, machine, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    tensors = case.make()
    straight = case.differentiate(tensors, backend="gpu")
    for what, got in case.differentiate(strided(tensors), backend="gpu").items():
        assert_equations(got, straight[what], what=what)


@pytest.mark.parametrize("plan", ["step", "alone"])
def test_what_is_returned_lies_as_x_does(plan, machine, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    case = Case("layout", reset=True, lengths=True, keep="all")
    tensors = case.make()
    by_sequence = case.differentiate(tensors, backend="gpu")
    tensors["x"] = tensors["x"].transpose(0, 1).contiguous().transpose(0, 1)
    by_step = case.run(tensors, backend="gpu")
    for name in ("y", "cells", "gates"):
        assert by_sequence[name].is_contiguous() and by_step[name].transpose(0, 1).is_contiguous(), name
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert torch.equal(got, by_sequence[what]), what


def test_kept_cells_are_not_saved_twice(machine, monkeypatch):
    saved = []
    forward = gpu.forward

    def noted(*words):
        found = forward(*words)
        saved.append([tuple(tensor.shape) for tensor in found[1]])
        return found

    monkeypatch.setattr(gpu, "forward", noted)
    for keep in (None, "cells"):
        case = Case("kept", keep=keep)
        case.differentiate(case.make(), backend="gpu")
    assert saved == [[(7, 3, 20), (7, 3, 5)], [(7, 3, 20)]]


@pytest.mark.parametrize("keep", [None, "cells"])
@pytest.mark.parametrize("plan", ["step", "persistent"])
def test_what_a_hook_on_saved_tensors_laid_out_anew_is_read_right(plan, keep, machine, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    case = Case("layout", reset=True, keep=keep)
    tensors = case.make()
    want = case.differentiate(tensors, backend="gpu")

    def anew(tensor):
        return tensor.mT.contiguous().mT if tensor.dim() == 3 else tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, anew):
        got = case.differentiate(tensors, backend="gpu")
    for what, value in got.items():
        assert torch.equal(value, want[what]), what


NAN_PADDED = [
    Case("lengths", lengths=True),
    *(
        dataclasses.replace(c, why=f"lengths + {c.why}", lengths=True)
        for c in OPTIONS
        if c.why
        in ("reversed", "projection", "gate recurrence", "zoneout h", "cells kept", "reset to a given state")
        or c.variant.get("norm")
    ),
]


@ids(NAN_PADDED)
@pytest.mark.parametrize("filled", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "plan, few, dtype",
    [
        ("step", 16, torch.float64),
        ("step", 16, torch.bfloat16),
        ("persistent", 16, torch.float32),
        ("persistent", 1, torch.bfloat16),
    ],
    ids=["a launch a step, f64", "a launch a step, bf16", "alone", "many of a block"],
)
def test_padding_may_hold_what_is_not_finite(plan, few, dtype, filled, case, monkeypatch):
    emulator.put(emulator.Emulator(multiprocessors=few), monkeypatch.setattr)
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    case = dataclasses.replace(case, N=11, T=4)
    tensors = case.make(dtype)
    want = case.differentiate(tensors, backend="gpu")
    padding = torch.arange(case.T) >= tensors["lengths"][:, None]
    tensors["x"] = torch.where(padding[..., None], filled, tensors["x"])
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert torch.equal(got, want[what]), what


@pytest.mark.parametrize("where", ["x", "h", "c", "w_hh"])
def test_nan_goes_where_the_equations_send_it(where, machine):
    case = Case("ordinary", T=4)
    tensors = case.make(torch.float32)
    tensors[where].view(-1)[1] = torch.nan
    want = case.differentiate(tensors, backend="definition")
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


def test_a_long_call_is_cut_in_chunks(machine, monkeypatch):
    case = Case("lengths", lengths=True, reverse=True, T=9)
    tensors = case.make()
    whole = case.differentiate(tensors, backend="gpu")
    monkeypatch.setattr(gpu, "HELD", 8 * case.N * 4 * case.H * 2)  # two steps at a time
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert_equations(got, whole[what], what=what)


@ids(ALONE)
def test_what_is_saved_is_what_the_backend_says(case, machine):
    tensors = case.make()
    if case.noise and case.training:
        tensors["seed"] = torch.tensor(3)
    given = Inputs(**{**dict.fromkeys(Inputs._fields), **tensors})
    from longshort.scan.call import Options, call_of

    options, keep = case.options(), case.keep or ""
    call = call_of(
        Options(
            options["variant"], options["noise"], case.training, case.reverse,
            keep in ("cells", "all"), keep in ("gates", "all"),
        ),
        given,
        save=True,
    )  # fmt: skip
    runner = planning.backends()[0]
    outputs, saved = runner.forward(call, given)
    assert [(tuple(s.shape), s.dtype) for s in saved] == runner.saves(call)
    present = [o for o in (*outputs, *saved) if o is not None]
    assert all(o.is_contiguous() for o in present)
    places = [o.untyped_storage().data_ptr() for o in (*present, *tensors.values()) if o.numel()]
    assert len(set(places)) == len(places)


SPANS = pytest.mark.parametrize("spans", [False, True], ids=["plain", "norm and projection"])


@SPANS
def test_the_check_at_first_use_passes(spans, machine):
    assert gpu.checked(torch.device("cpu"), machine, spans) is None


def test_the_check_at_first_use_is_out_of_reach_of_a_trace(machine, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(gpu.machines, "of", lambda device: machine)
    with FakeTensorMode(), torch.inference_mode():
        assert gpu.proven.__wrapped__(torch.device("cpu")) is None


@SPANS
def test_the_check_at_first_use_finds_a_wrong_number(spans, machine, monkeypatch):
    monkeypatch.setattr(machine, "product", lambda a, b, out: out.copy_(1.1 * (a @ b)))
    why = "a check at their first use found wrong numbers in plan 'step'"
    assert gpu.checked(torch.device("cpu"), machine, spans) == why


def test_the_check_at_first_use_says_what_failed(machine, monkeypatch):
    def fail(*words):
        raise BackendError("the driver could not load a kernel")

    monkeypatch.setattr(machine, "kernel", fail)
    why = "a check at their first use failed: the driver could not load a kernel"
    assert gpu.checked(torch.device("cpu"), machine) == why


def test_without_a_device_it_says_so():
    case = Case("ordinary")
    why = "the tensors are on cpu, and the kernels run on CUDA devices"
    with pytest.raises(BackendError, match=f"backend 'gpu' cannot run this call: {why}"):
        lstm(**case.make(), backend="gpu")
