"""The persistent kernels on the host: fragments, resident weights, the exchange, waits that end."""

import dataclasses
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from longshort.errors import SettingError
from longshort.scan import gpu, plain
from longshort.scan.call import Grads, Inputs
from longshort.scan.cuda import packing, persistent_plan, plans, sources, tiling, weights
from longshort.scan.cuda.machine import Properties
from scan.cases import OPTIONS, SIZES, TOGETHER, Case, ids, pair

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

planning = importlib.import_module("longshort.scan.plan")
pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "f32"])
SPANNING = ("gate recurrence",)
"""What runs one launch a step."""
APART = [c for c in [*SIZES, *OPTIONS] if not c.why.startswith((*SPANNING, "long"))]
_OPTION = {c.why: c for c in OPTIONS}
PAIRED = [
    pair(_OPTION[a], _OPTION[b])
    for a, b in (
        ("peephole", "coupled"),
        ("peephole", "zoneout c"),
        ("reset to a given state", "variational h"),
        ("reset", "reversed"),
        ("recurrent dropout", "cell clip"),
        ("zoneout h", "lengths"),
    )
]
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


@pytest.fixture
def on(monkeypatch):
    """Put a machine on the host behind the backend "gpu"; its persistent plan runs whatever fits."""

    def put(**settings):
        return emulator.put(emulator.Emulator(**settings), monkeypatch.setattr)

    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "persistent")
    return put


def by_step(tensors):
    """The tensors of a case, x step by step."""
    return {**tensors, "x": tensors["x"].transpose(0, 1).contiguous().transpose(0, 1)}


def check(case, dtype):
    tensors = case.make(dtype)
    got = case.differentiate(tensors, backend="gpu")
    case.assert_as_accurate(got, tensors)
    return got


def normed(case):
    """Launches for a norm outside the recurrence: N of W_ih x, and what waits until the way back is over."""
    return {None: 0, "per_gate": 1}.get(case.variant.get("norm"), 2)


def rounded(case, dtype):
    """The launch for small gradients, if several: sums over rows, matrices with padding; in 16 bits, all."""
    sums = (case.bias and not normed(case)) + (case.variant.get("peephole", False) or normed(case) > 0)
    padded = 2 * (case.H % 32 > 0)
    whole = 3 + case.projected
    return sums + (whole if dtype.itemsize == 2 else padded) > 1


@ids([*APART, *PAIRED, MUCH])
@DTYPES
def test_one_block_alone(case, dtype, on):
    machine = on(seed=3)
    check(case, dtype)
    if case.checkpoint_every is None and case.N * case.T:
        # the steps; the steps back, the operands
        outside = copied(case) + masked(case) + normed(case) + rounded(case, dtype)
        assert machine.launches == 3 + outside


@ids([*APART, *PAIRED, MUCH])
def test_one_block_alone_by_tensor_cores_in_float32(case, on):
    """One sequence a block is multiplied row by row; several are columns of a product."""
    on(seed=4, multiprocessors=2)
    check(dataclasses.replace(case, N=case.N and 5), torch.float32)


@ids([c for c in [*APART, *PAIRED, MUCH] if not c.projected and not normed(c)])
@pytest.mark.parametrize("N", [8, 11], ids=["a column tile", "two"])
def test_many_sequences_of_a_block_multiply_x_there(N, case, on):
    machine = on(seed=5, multiprocessors=1)
    case = dataclasses.replace(case, N=case.N and N)
    check(case, torch.bfloat16)
    if case.checkpoint_every is None and case.N * case.T:
        outside = copied(case, multiplied=True) + masked(case) + rounded(case, torch.bfloat16)
        assert machine.launches == 3 + outside


@pytest.mark.parametrize("C", [8, 40, 64, 65])
@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("lies", ["by step", "by sequence", "at an odd address"])
def test_x_multiplied_there_is_read_as_it_lies(lies, T, C, on):
    machine = on(multiprocessors=2)
    case = Case("ordinary", N=37, T=T, C=C, H=40, lengths=True)
    tensors = case.make(torch.float16)
    if lies == "by step":
        tensors = by_step(tensors)
    if lies == "at an odd address":
        room = torch.empty(tensors["x"].numel() + 1, dtype=torch.float16)
        tensors["x"] = room[1:].view_as(tensors["x"]).copy_(tensors["x"])
    with torch.no_grad():
        got = case.run(tensors, backend="gpu")
    want = case.run(tensors, backend="definition")
    assert machine.launches == 2  # and the copy of W_hh, with those of W_ih and x
    for what in want:
        torch.testing.assert_close(got[what], want[what], rtol=2e-3, atol=2e-3, msg=what)


def masked(case):
    """Launches for masks outside the recurrence: forward, again on the way back, and of the gradient."""
    return 3 * len({"variational_x", "weight_drop"} & set(case.noise))


def copied(case, by_step=False, multiplied=False):
    """Launches for W_hh' and W_hr', and for what else products read, all of it in one there and in one back.

    There W_hh and W_hr with padding, and x step by step; back W_ih with padding, and x without its own.
    `by_step`: x lies so. `multiplied`: in the kernel, of copies of W_ih and x.
    """
    odd, P = case.H % 32 > 0, case.P if case.projected else case.H
    laid = not by_step and case.N > 1 and case.T > 1
    there = (
        multiplied or P % 32 > 0 or (case.projected and odd) or laid or (case.lengths and normed(case) > 0)
    )
    return 1 + case.projected + there + (odd or laid or case.lengths)


@ids([*APART, *PAIRED, MUCH, pair(_OPTION["lengths"], _OPTION["reversed"])])
def test_where_y_lies_step_by_step_it_is_the_operand(case, on):
    """Its copy by a third launch is left out, but where a reset, a mask or an end puts something else."""
    case = dataclasses.replace(case, N=case.N and 8)
    machine, tensors = on(), case.make(torch.float32)
    want = case.differentiate(tensors, backend="gpu")
    before = machine.launches
    for what, got in case.differentiate(by_step(tensors), backend="gpu").items():
        assert torch.equal(got, want[what]), what
    if case.checkpoint_every is None and case.N * case.T:
        other = case.reset or "variational_h" in case.noise or (case.lengths and case.reverse) or case.T == 1
        outside = masked(case) + normed(case) + rounded(case, torch.float32)
        assert before == 3 + outside + copied(case)
        assert machine.launches - before == 2 + bool(other) + outside + copied(case, by_step=True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", ["replaced", "kept"])
def test_a_y_that_a_hook_replaced_is_not_taken_for_the_operands(where, reverse, on):
    """A hook on saved tensors gives back another y: what lies before it is not the first operand."""
    machine = on()
    case = Case("ordinary", N=8, reverse=reverse)
    tensors = by_step(case.make(torch.float32))
    want = case.differentiate(tensors, backend="gpu")
    before = machine.launches

    def unpack(tensor):
        if where == "kept" or tensor.shape != (8, case.T, case.H):
            return tensor
        wider = tensor.new_full((case.T + 2, 8, case.H), torch.nan)[1:-1].transpose(0, 1)
        return wider.copy_(tensor)

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        got = case.differentiate(tensors, backend="gpu")
    assert machine.launches - before == before + (where == "replaced")
    for what, value in got.items():
        assert torch.equal(value, want[what]), what


@pytest.mark.parametrize(
    "case, dtype, N, multiprocessors",
    [
        (Case("ordinary"), torch.bfloat16, 25, 5),
        (MUCH, torch.bfloat16, 25, 5),
        (MUCH, torch.bfloat16, 25, 10),
        (MUCH, torch.float32, 25, 5),
        (MUCH, torch.bfloat16, 13, 10),
        (MUCH, torch.float32, 3, 5),
    ],
    ids=[
        "two sub-batches",
        "much, two sub-batches",
        "much, two groups",
        "much, float32",
        "much, into registers",
        "much, float32, into registers",
    ],
)
def test_blocks_that_exchange(case, dtype, N, multiprocessors, on):
    """150 units in five blocks of 32: the last holds padding, and K divides unevenly among the warps."""
    case = dataclasses.replace(case, N=N, T=3, H=150)
    machine = on(multiprocessors=multiprocessors)
    once = check(case, dtype)
    machine.seed = 1
    for what, got in case.differentiate(case.make(dtype), backend="gpu").items():
        assert torch.equal(got, once[what]), what


NORMS = [_OPTION[why] for why in ("norm ba2016", "norm per gate", "norm products")]
NORMED = [
    dataclasses.replace(MUCH, why=f"{c.why}, much", variant={**MUCH.variant, **c.variant}) for c in NORMS
]
PROJECTED = [
    dataclasses.replace(_OPTION["projection clip"], why="projection and much", noise=MUCH.noise, P=20),
    dataclasses.replace(TOGETHER[0], why="projection, ba2016, much", P=20),
    dataclasses.replace(NORMED[1], why="projection, per gate, much", projected=True, P=37),
]
FEWER = dataclasses.replace(NORMS[0], why="three gates", variant={"norm": "ba2016", "coupled": True})


SPANS = {
    "alone": (9, 40, 1),
    "wide, alone": (17, 128, 1),
    "few columns": (3, 150, 5),
    "two sub-batches": (25, 150, 5),
    "two groups": (13, 150, 10),
}
TYPES = {"bf16": torch.bfloat16, "f32": torch.float32, "f16": torch.float16}
SPANNED = [
    pytest.param(case, *cut, TYPES[dtype], id=f"{case.why}-{name}-{dtype}")
    for k, case in enumerate([*NORMED, *PROJECTED, FEWER])
    for j, (name, cut) in enumerate(SPANS.items())
    for dtype in [("bf16", "f32", "bf16", "f16", "bf16")[(2 * k + j) % 5]]
]
"""Every case by every cut, in a type each; tests/gpu has them all."""


@pytest.mark.parametrize("case, N, H, multiprocessors, dtype", SPANNED)
def test_norms_and_projections_that_span_warps_and_blocks(case, N, H, multiprocessors, dtype, on):
    machine = on(multiprocessors=multiprocessors, seed=N)
    case = dataclasses.replace(case, N=N, H=H, T=2)
    once = check(case, dtype)
    machine.seed = 1
    for what, got in case.differentiate(case.make(dtype), backend="gpu").items():
        assert torch.equal(got, once[what]), what


def test_a_norm_over_more_blocks_than_a_warp_has_lanes(on):
    on(multiprocessors=34)
    case = Case("many blocks", variant={"norm": "per_gate"}, N=1, H=530, T=1)
    tensors = case.make(torch.bfloat16)
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        torch.testing.assert_close(got, want[what], rtol=1e-2, atol=1e-2, msg=what)


@pytest.mark.parametrize(
    "case", [Case("ordinary", N=8), Case("bias", N=8, bias=False), Case("wide", N=3, H=150, T=4)]
)
@DTYPES
def test_what_nobody_asks_for_changes_nothing_else(case, dtype, on):
    """Where only y has a gradient and only weights want one, the state's gradients share memory."""
    on(multiprocessors=5)
    tensors = by_step(case.make(dtype))
    weight = torch.randn(case.N, case.T, case.H, generator=torch.Generator().manual_seed(2)).to(dtype)

    def gradients(names):
        leaves = {k: tensors[k].clone().requires_grad_() for k in names}
        y = case.run({**tensors, **leaves}, backend="gpu")["y"]
        return dict(zip(names, torch.autograd.grad((y * weight).sum(), list(leaves.values())), strict=True))

    everything = [k for k in ("x", "w_ih", "w_hh", "bias", "h", "c") if k in tensors]
    want = gradients(everything)
    for names in (everything[1:-2], ["x"], ["w_hh"], ["h"], ["c"]):
        for name, got in gradients(names).items():
            assert torch.equal(got, want[name]), (names, name)


def test_large_gradients_are_rounded_by_their_product(on, monkeypatch):
    machine, narrow = on(), []
    product = machine.product

    def seen(a, b, out):
        narrow.append(tuple(out.shape)) if out.dtype == torch.bfloat16 else None
        return product(a, b, out)

    monkeypatch.setattr(machine, "product", seen)
    monkeypatch.setattr(weights, "FILLS", 400)
    check(Case("ordinary", N=6, C=3, H=32, T=40), torch.bfloat16)
    assert narrow == [(40 * 6, 3), (4 * 32, 32)]  # dx and dW_hh; dW_ih is smaller
    weights._results.cache_clear()


def test_float16(on):
    on(seed=2)
    check(dataclasses.replace(MUCH, N=9, T=4), torch.float16)


def test_tf32_rounds_operands_and_nothing_else(on):
    on(tf32=True)
    case = Case("ordinary", N=4, T=6, H=24)
    tensors = case.make(torch.float32)
    doubled = {k: v.double() for k, v in tensors.items()}
    exact = case.differentiate(doubled, backend="definition")
    for what, got in case.differentiate(tensors, backend="gpu").items():
        error = (got.double() - exact[what]).abs().max() / exact[what].abs().max()
        assert 2**-20 < error < 2**-9 or what in ("dx", "dw_ih", "dbias"), f"{what}: {error:.1e}"


def test_a_launch_holds_a_chunk_of_steps(on, monkeypatch):
    machine = on()
    case = dataclasses.replace(MUCH, T=8)
    once = check(case, torch.float32)
    before = machine.launches
    monkeypatch.setattr(gpu, "HELD", 3 * 4 * case.N * 4 * case.H)  # three steps at a time
    for what, got in case.differentiate(case.make(torch.float32), backend="gpu").items():
        torch.testing.assert_close(got, once[what], rtol=1e-5, atol=1e-6, msg=what)
    assert machine.launches - before == before + 2


@pytest.mark.parametrize("where", ["x", "h", "c", "w_hh"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@DTYPES
def test_what_is_not_finite_passes_and_nobody_waits_for_it(dtype, value, where, on):
    """In float32, three products of parts, an infinite weight alone is NaN, which docs/kernels.md says."""
    on(multiprocessors=5)
    case = Case("ordinary", N=3, T=3, H=150)
    tensors = case.make(dtype)
    tensors[where].view(-1)[1] = value
    if where == "h" and dtype == torch.bfloat16:
        tensors[where].view(torch.int16)[0, 2] = -1  # a NaN with every bit set: the mark of what is to come
    if where == "w_hh" and dtype == torch.float32:
        tensors[where].view(-1)[1] = torch.nan
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("H", [40, 150], ids=["alone", "exchanging"])
@pytest.mark.parametrize("where", ["h", "initial_h", "w_hh"])
@ids([Case("reset", reset=True, initial=True), Case("ends", lengths=True, reverse=True, initial=True)])
def test_a_nan_of_few_bits_stays_one_where_products_cut_them(case, where, H, tf32, on):
    on(multiprocessors=1 if H == 40 else 5, tf32=tf32)
    case = dataclasses.replace(case, N=9, T=4, H=H)
    tensors = case.make(torch.float32)
    tensors[where].view(torch.int32)[0, 1] = 0x7F800001
    if case.reset:
        tensors["reset"][0, 1] = True
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


CUTS = pytest.mark.parametrize(
    "N, H, multiprocessors",
    [(3, 40, 4), (9, 40, 4), (25, 150, 5)],
    ids=["one sequence", "several", "exchanging"],
)


def gradients(case, tensors, loss, **options):
    """Of what `loss` makes of the outputs."""
    leaves = {
        k: v.clone().requires_grad_() for k, v in tensors.items() if k in ("x", "w_ih", "w_hh", "h", "c")
    }
    outputs = case.run({**tensors, **leaves}, **options)
    return torch.autograd.grad(loss(outputs), list(leaves.values()))


@CUTS
@pytest.mark.parametrize("reaches", ["the last state", "gradients laid step by step", "units that lie apart"])
def test_gradients_arrive_from_where_they_come(reaches, N, H, multiprocessors, on):
    """Of no output of a step, and of outputs whose gradients lie in another way than y."""
    on(multiprocessors=multiprocessors)
    case = Case("arrives", N=N, T=4, H=H)
    tensors, wide = (
        case.make(torch.float32),
        torch.randn(4, N, 2 * H, generator=torch.Generator().manual_seed(3)),
    )

    def loss(outputs):
        y, h, c = (outputs[name] for name in ("y", "h_n", "c_n"))
        if reaches == "the last state":
            return h.sin().sum() + c.cos().sum()
        dy = (
            wide[..., :H].transpose(0, 1)
            if reaches == "gradients laid step by step"
            else wide[..., ::2].transpose(0, 1)
        )
        return Arrived.apply(y, dy)

    want = gradients(case, tensors, loss, backend="definition")
    for mine, theirs in zip(gradients(case, tensors, loss, backend="gpu"), want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-5)


class Arrived(torch.autograd.Function):
    """A number whose gradient at y is dy, as it lies."""

    @staticmethod
    def forward(ctx, y, dy):
        ctx.dy = dy
        return (y * dy).sum()

    @staticmethod
    def backward(ctx, _):
        return ctx.dy, None


@CUTS
@pytest.mark.parametrize("where", ["h", "initial_h"])
def test_a_nan_of_all_bits_is_no_number_that_is_still_to_come(where, N, H, multiprocessors, on):
    on(multiprocessors=multiprocessors)
    case = Case("reset", N=N, T=4, H=H, reset=True, initial=True)
    tensors = case.make(torch.bfloat16)
    tensors["reset"][0, 2] = True
    tensors[where].view(torch.int16)[0, 1] = -1
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


@pytest.mark.parametrize("where", ["x", "c", "w_hh", "w_hr"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@ids(
    [
        NORMS[0],
        NORMS[1],
        _OPTION["projection clip"],
        dataclasses.replace(NORMS[0], why="both", projected=True),
    ]
)
def test_what_is_not_finite_passes_norms_and_projections(case, value, where, on):
    """But an infinite W_hr is NaN at once, which docs/kernels.md says: it meets h̃ in parts."""
    on(multiprocessors=5)
    case = dataclasses.replace(case, N=3, T=3, H=150)
    tensors = case.make(torch.bfloat16)
    if where not in tensors:
        pytest.skip("no projection")
    tensors[where].view(-1)[1] = torch.nan if where == "w_hr" else value
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


@pytest.mark.parametrize("plan", ["step", "persistent"])
@ids(NORMS)
def test_a_tape_that_a_hook_moved_to_an_odd_address(case, plan, on, monkeypatch):
    on(multiprocessors=5)
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    tensors = case.make(torch.bfloat16)
    want = case.differentiate(tensors, backend="gpu")

    def unpack(tensor):
        return tensor.new_empty(tensor.numel() + 1)[1:].view_as(tensor).copy_(tensor)

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        got = case.differentiate(tensors, backend="gpu")
    for what, value in got.items():
        torch.testing.assert_close(value, want[what], rtol=1e-2, atol=1e-2, msg=what)


@pytest.mark.parametrize("N, H", [(9, 40), (3, 150)], ids=["alone", "together"])
@ids([NORMED[0], NORMED[2], PROJECTED[0], PROJECTED[1]])
def test_norms_and_projections_compiled_for_their_sizes(case, N, H, on):
    on(multiprocessors=5, specialises=True)
    check(dataclasses.replace(case, N=N, H=H, T=3), torch.bfloat16)


def test_a_wait_ends_and_says_who_waited(on, monkeypatch):
    machine = emulator.Missing("persistent_forward", multiprocessors=5)
    backend = gpu.backend("gpu", emulator.on_the_host, lambda device: machine)
    on()
    monkeypatch.setattr(planning, "backends", lambda: (backend, plain.PLAIN, plain.DEFINITION))
    monkeypatch.setenv("LONGSHORT_CUDA_PATIENCE", "0.001")
    case = Case("ordinary", N=3, T=3, H=150)
    with pytest.raises(RuntimeError, match="a kernel gave up"):
        case.run(case.make(torch.bfloat16), backend="gpu")
    block, step = machine.reported.tolist()
    assert block in range(1, 5) and step == 0


def test_a_projected_cell_of_any_size_is_multiplied_wide_in_float16(on):
    """Without the activation of the output h̃ is the cell, which parts of float16 do not hold."""
    on()
    variant = {"input_activation": False, "output_activation": False}
    case = Case("wide cells", variant=variant, projected=True, N=3, T=2, H=40, P=20)
    tensors = case.make(torch.float16)
    tensors["c"] = torch.full((3, 40), 2e5)
    tensors["w_hr"] *= 1e-3
    assert case.run(tensors, backend="gpu")["y"].isfinite().all()


@pytest.mark.parametrize("direction", ["forward", "backward", "projected"])
def test_a_missing_barrier_is_found(direction, on, monkeypatch):
    """A test of the test: without the barrier before the sums, some order of threads changes the result."""
    on(multiprocessors=5)
    case = Case("ordinary", N=5, T=3, H=150, projected=direction == "projected")
    before = "core.group] = d[m][c][r];" if case.projected else "core.group] = {d"
    tensors = case.make(torch.bfloat16)
    right = case.differentiate(tensors, backend="gpu")
    whole = sources.Program.text

    def without(self, twin=None):
        text = whole(self, twin)
        at = text.find(before)
        return text if at < 0 else text[:at] + text[at:].replace("block_barrier();", "", 1)

    monkeypatch.setattr(sources.Program, "text", without)
    emulator.library.cache_clear()
    try:
        on(multiprocessors=5, seed=1)  # a machine that has no kernel yet
        got = case.differentiate(tensors, backend="gpu")
    finally:
        emulator.library.cache_clear()
    names = ("dh",) if direction == "backward" else ("y",)
    assert any(not torch.equal(got[name], right[name]) for name in names)


def call(N, H, dtype=torch.bfloat16, G=4, norm="none", P=None):
    from longshort.scan.call import Call, Options
    from longshort.scan.variant import Variant

    options = Options(Variant(coupled=G == 3, norm=norm))
    given = frozenset() if P is None else frozenset(["w_hr"])
    return Call(options, "cuda", dtype, N, 64, H, H, P or H, given, True)


H200 = Properties("H200", (9, 0), 132, 227 * 1024)
DEVICES = [
    H200,
    Properties("A100", (8, 0), 108, 163 * 1024),
    Properties("L4", (8, 9), 58, 99 * 1024),
    Properties("RTX 4090", (8, 9), 128, 99 * 1024),
    Properties("B200", (10, 0), 148, 227 * 1024),
]
KINDS = [(torch.bfloat16, False), (torch.float16, False), (torch.float32, True), (torch.float32, False)]


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
@pytest.mark.parametrize("kind", KINDS, ids=["bf16", "f16", "tf32", "f32"])
def test_every_cut_fits_its_device_and_covers_its_call(device, kind):
    dtype, tf32 = kind
    for H in (1, 31, 64, 96, 128, 129, 256, 320, 512, 650, 768, 1024):
        for N in (1, 7, 16, 64, 100, 256, 1024, 4096):
            for G, norm, P in (
                (3, "none", None),
                (4, "none", None),
                (4, "ba2016", None),
                (4, "none", -(-H // 2)),
            ):
                found = tiling.pair(device, call(N, H, dtype, G, norm, P), tf32)
                if found is None:
                    continue
                plain = norm == "none" and P is None
                assert found.backward is None or plain or dtype != torch.float16
                assert found.backward is not None or not plain
                for cut in filter(None, (found.forward, found.backward)):
                    assert cut.shared <= device.shared
                    assert 32 <= cut.threads <= 1024 and cut.threads % 32 == 0
                    assert cut.groups * cut.subs * cut.sequences >= N  # every sequence has a place
                    assert (cut.groups - 1) * cut.subs * cut.sequences < N  # no group is idle
                    assert cut.sequences <= 8 * cut.column_tiles
                    assert cut.units * cut.blocks == found.H >= H
                    chunk = 64 // cut.size
                    assert cut.warps_k * (cut.in_registers + cut.in_shared) * chunk >= cut.K
                    registers = 8 * cut.tiles * cut.in_registers
                    assert registers * cut.threads <= device.registers * 5 // 8
                    if cut.blocks > 1:
                        assert cut.grid <= device.multiprocessors
                        assert cut.subs <= tiling.MOST_SUBS


def test_the_shapes_of_the_prototype_fit_its_device():
    for N, H in ((64, 128), (64, 256), (64, 512), (64, 1024), (1, 512), (20, 650), (1024, 128), (16, 768)):
        assert tiling.pair(H200, call(N, H), False) is not None, (N, H)
    assert tiling.pair(H200, call(64, 2048), False) is None


def test_blocks_look_when_there_is_something_to_see():
    """Clocks from telling to the first look, as a device's sweep found them best or next to it."""

    def of(N, H, dtype=torch.bfloat16):
        found = tiling.pair(H200, call(N, H, dtype), dtype == torch.float32)
        return found.forward.rest, found.backward.rest

    assert [of(*size) for size in ((64, 256), (64, 512), (1, 512), (16, 768), (20, 650), (64, 1024))] == [
        (500, 500), (500, 500), (500, 700), (500, 700), (500, 500), (500, 900),
    ]  # fmt: skip
    assert [of(*size, torch.float32) for size in ((64, 256), (64, 512), (1, 512), (16, 768))] == [
        (700, 700), (700, 700), (500, 700), (900, 900),
    ]  # fmt: skip


def test_weights_leave_a_step_its_registers_where_shared_memory_has_room_for_the_rest():
    """Elsewhere a step spills what it loads, which is still better than one launch a step."""
    held = {
        device.name: [
            (cut.blocks, cut.in_registers, cut.in_shared)
            for found in [tiling.pair(device, call(4096, 128, norm="ba2016"), False)]
            for cut in (found.forward, found.backward)
        ]
        for device in DEVICES
    }
    wide, narrow = [(1, 3, 1), (1, 1, 3)], [(1, 3, 1), (1, 4, 0)]
    assert held == {
        "H200": wide, "B200": wide, "A100": narrow, "L4": narrow, "RTX 4090": narrow,
    }  # fmt: skip
    exact = tiling.pair(H200, call(4096, 128, torch.float32), False).forward
    assert (exact.column_tiles, exact.in_registers) == (2, 2)
    together = [
        tiling.pair(H200, call(*size, norm=norm), False).backward.in_registers
        for size, norm in (
            ((20, 650, torch.bfloat16), "ba2016"),
            ((20, 650, torch.bfloat16), "none"),
            ((20, 650, torch.float32), "none"),
            ((64, 1024, torch.float32), "none"),
        )
    ]
    assert together == [4, 8, 14, 12]
    projected = tiling.pair(DEVICES[3], call(2200, 128, torch.float32, P=64), False)
    assert projected is not None and projected.forward.blocks == 1


def test_only_a_block_of_one_sequence_shares_a_cell_s_gates_out():
    for N, single in ((1, True), (132, True), (133, False)):
        cuts = tiling.pair(H200, call(N, 64), False)
        assert (cuts.forward.single, cuts.backward.single) == (single, single), N
    for more in ({"norm": "ba2016"}, {"P": 24}):
        assert not tiling.pair(H200, call(1, 64, **more), False).forward.single


def test_the_kernels_count_their_memory_as_the_plan_does():
    """The plan's formula is the kernel's own constant: the host compiles a program that prints it."""
    cuts, printed = [], []
    for backward, kernel in ((False, "PersistentForward"), (True, "PersistentBackward")):
        sizes = ((7, 40), (64, 128), (25, 150), (64, 512), (4096, 100))
        kinds = (("none", None), ("ba2016", None), ("none", 24), ("per_gate", 40))
        pairs = [tiling.pair(H200, call(N, H, norm=norm, P=P), False) for N, H in sizes for norm, P in kinds]
        mine = [p.backward if backward else p.forward for p in pairs]
        text = sources.assembled(f"persistent_{'back' if backward else 'for'}ward.cu", twin=emulator.HERE)
        argument = "longshort::Arguments<longshort::bfloat16, float>"
        lines = [
            f'std::printf("%d ", longshort::{kernel}<longshort::Open, {cut.template}, {argument}>::Bytes);'
            for cut in mine
        ]
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder) / "bytes.cpp", Path(folder) / "bytes"
            source.write_text(text + "int main() {\n" + "\n".join(lines) + "\n}\n")
            command = [emulator.COMPILER, "-std=c++17", "-O0", "-w", str(source), "-o", str(program)]
            subprocess.run(command, check=True)
            printed += subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
        cuts += mine
    assert [int(word) for word in printed] == [cut.shared for cut in cuts]
    assert {cut.inputs for cut in cuts} == {0, 128}


@pytest.mark.parametrize("wanted, H, together", [
    ("step", 64, None), ("alone", 64, 1), ("alone", 256, None), ("persistent", 64, 1), ("persistent", 256, 8),
    ("persistent", 2048, None),
])  # fmt: skip
def test_which_plan_runs(wanted, H, together, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", wanted)
    machine = emulator.Emulator()
    machine.properties = H200
    found = plans.persistent(call(64, H), machine)
    assert (found and found.forward.blocks) == together


@pytest.mark.parametrize("kind, N, H, forward, backward", [
    (KINDS[0], 64, 128, 1, 1), (KINDS[2], 64, 128, 4, 4), (KINDS[2], 128, 128, 4, 1),
    (KINDS[2], 1024, 128, 1, 1), (KINDS[3], 512, 128, 4, 4), (KINDS[3], 1024, 128, 1, 1),
    (KINDS[3], 64, 64, 1, 1), (KINDS[3], 64, 96, 3, 3),
])  # fmt: skip
def test_few_sequences_of_wide_numbers_are_shared_out(kind, N, H, forward, backward):
    """Weights of four bytes, up to 128 units: by several blocks, unless none may wait for another."""
    found = tiling.pair(H200, call(N, H, kind[0]), kind[1])
    assert (found.forward.blocks, found.backward.blocks) == (forward, backward)
    alone = tiling.pair(H200, call(N, H, kind[0]), kind[1], waits=False)
    assert (alone.forward.blocks, alone.backward.blocks) == (1, 1)


@pytest.mark.parametrize(
    "T, stride, short", [(100, None, True), (1 << 24, None, False), (100, 1 << 30, False)]
)
def test_long_arrays_are_counted_in_64_bits(T, stride, short):
    asked = call(2, 40)._replace(T=T)
    packed = packing.Packed(asked, Inputs(*[None] * len(Inputs._fields)))
    if stride is not None:
        dy = torch.empty_strided((2, T, 40), (stride, 40, 1), dtype=asked.dtype, device="meta")
        packed.arriving(asked, Grads(dy, None, None))
    assert packed.short is short


def test_two_parts_of_four_gates_are_counted_too():
    """A norm with a narrow projection: z̄ in 16 bits is the longest array."""
    asked = call(512, 1024)._replace(T=800, P=64)
    assert 2 * asked.T * asked.N * 4 * asked.H > 1 << 31
    assert not packing.Packed(asked, Inputs(*[None] * len(Inputs._fields))).short


def test_padded_units_are_counted_too():
    """r̄ of a norm in bfloat16 has three parts of units that 32 divides."""
    asked = call(1024, 33, norm="ba2016")._replace(T=2740)
    assert 3 * asked.T * asked.N * 4 * 64 > 1 << 31
    assert not packing.Packed(asked, Inputs(*[None] * len(Inputs._fields))).short


@pytest.mark.parametrize("H, N", [(32, 3), (160, 3), (64, 3)], ids=["alone", "together", "by teams"])
def test_weights_that_are_not_aligned_are_copied(H, N, on, monkeypatch, request):
    """Blocks load what they keep 16 bytes at a time, which a device refuses at other addresses."""
    if "teams" in request.node.callspec.id:
        monkeypatch.setattr(tiling, "MOST_CELLS", 0)
        monkeypatch.setattr(tiling, "MOST_UNITS", 0)
    plans._teams.cache_clear(), plans._cut.cache_clear()
    on(multiprocessors=5)
    case, put, seen = Case("ordinary", N=N, T=2, H=H), packing.Packed.put, []

    def noted(self, name, value):
        if name == "weights":
            seen.append(value.data_ptr() % 16)
        return put(self, name, value)

    monkeypatch.setattr(packing.Packed, "put", noted)
    tensors = case.make(torch.bfloat16)
    want = case.differentiate(tensors, backend="gpu")
    room = torch.empty(tensors["w_hh"].numel() + 8, dtype=torch.bfloat16)
    odd = room[1 + -room.data_ptr() % 16 // 2 :][: tensors["w_hh"].numel()].view_as(tensors["w_hh"])
    tensors["w_hh"] = odd.copy_(tensors["w_hh"])
    assert odd.data_ptr() % 16 == 2
    for what, got in case.differentiate(tensors, backend="gpu").items():
        assert torch.equal(got, want[what]), what
    assert seen and not any(seen)
    plans._teams.cache_clear(), plans._cut.cache_clear()


def test_an_unknown_plan_is_named(monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "fast")
    with pytest.raises(
        SettingError,
        match=r"^LONGSHORT_CUDA_PLAN must be 'step', 'alone' or 'persistent', got 'fast'\. Unset it\.$",
    ):
        plans.persistent(call(64, 64), emulator.Emulator())


def test_more_blocks_than_are_resident_are_refused_before_the_launch():
    machine = emulator.Emulator(multiprocessors=3)
    cut = tiling.pair(H200, call(64, 512), False).forward
    with pytest.raises(RuntimeError, match=r"^128 blocks of persistent_forward must be resident, and 3 are$"):
        persistent_plan.kernel(machine, call(64, 512), cut, cooperative=True)
