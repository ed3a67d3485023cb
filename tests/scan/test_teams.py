"""The kernel of teams of four warps on the host: tiles, stages, posts, and the waits between them."""

import dataclasses
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from longshort.scan import Noise, Variant, gpu, plain
from longshort.scan.call import Call, Options
from longshort.scan.cuda import compiler, plans, sources, team_plan, tiling
from scan.cases import Case, ids
from scan.test_persistent import APART, DEVICES, H200, KINDS, MUCH, PAIRED, by_step, call

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

planning = importlib.import_module("longshort.scan.plan")
pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))
SMALL = 42 * 1024
"""Bytes of shared memory that leave three stages beside 256 units and 17 sequences, used again and again."""


@pytest.fixture
def on(monkeypatch):
    """Put a machine on the host behind the backend "gpu", where teams run whatever fits."""

    def put(**settings):
        return emulator.put(emulator.Emulator(**settings), monkeypatch.setattr)

    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "persistent")
    monkeypatch.setattr(tiling, "MOST_CELLS", 0)
    monkeypatch.setattr(tiling, "MOST_UNITS", 0)
    plans._teams.cache_clear(), plans._cut.cache_clear()
    yield put
    plans._teams.cache_clear(), plans._cut.cache_clear()


@pytest.fixture
def ran(monkeypatch):
    """How each call that teams ran was cut."""
    cuts, forward = [], team_plan.forward

    def noted(machine, call, *words):
        cuts.append(words[-1])
        return forward(machine, call, *words)

    monkeypatch.setattr(team_plan, "forward", noted)
    return cuts


def check(case, dtype, tensors=None):
    tensors = case.make(dtype) if tensors is None else tensors
    got = case.differentiate(tensors, backend="gpu")
    case.assert_as_accurate(got, tensors)
    return got


@ids(
    [
        case
        for case in [*APART, *PAIRED, MUCH]
        if case.N * case.T and not case.why.startswith(("norm", "projection"))
    ]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
def test_every_option(case, dtype, on, ran):
    on(seed=3)
    check(case, dtype)
    assert ran and all(cut.K == 64 for cut in ran)


CUTS = {
    "a set, two teams": {"H": 200, "N": 9, "sets": 1, "splits": 2},
    "two sets": {"H": 60, "N": 30, "sets": 2, "splits": 1},
    "one team": {"H": 30, "N": 5, "sets": 1, "splits": 1},
    "two units a thread": {"H": 198, "N": 9, "sets": 1, "splits": 2},
    "one unit a thread": {"H": 197, "N": 9, "sets": 1, "splits": 2},
    "few stages": {"H": 256, "N": 17, "sets": 1, "splits": 1, "shared": SMALL},
    "several groups": {"H": 64, "N": 40, "sets": 2, "splits": 1},
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("options", ["plain", "much"])
def test_every_way_to_cut(name, options, on, ran, monkeypatch):
    """Also: the same bits whichever thread runs first, and where y lies step by step."""
    wanted = dict(CUTS[name])
    H, N, shared = wanted.pop("H"), wanted.pop("N"), wanted.pop("shared", 200 * 1024)
    whole = team_plan.cuts

    def only(*words):
        return (cut for cut in whole(*words) if {k: getattr(cut, k) for k in wanted} == wanted)

    monkeypatch.setattr(team_plan, "cuts", only)
    machine = on(seed=5, shared=shared)
    case = dataclasses.replace(MUCH if options == "much" else Case("plain"), N=N, T=4, H=H)
    tensors = case.make(torch.bfloat16)
    once = check(case, torch.bfloat16, tensors)
    machine.seed = 1
    for what, got in case.differentiate(by_step(tensors), backend="gpu").items():
        assert torch.equal(got, once[what]), what
    assert len(ran) == 2 and (name != "few stages" or ran[0].stages == 3)
    assert name != "several groups" or ran[0].groups > 1


def test_the_way_back_compiles_meanwhile(on, monkeypatch):
    machine, begun = on(), []
    monkeypatch.setattr(machine, "ahead", begun.append)
    case = Case("ordinary", N=3, T=3, H=40)
    case.differentiate(case.make(torch.bfloat16), backend="gpu")
    files = ["copied.cu", "rounded.cu", "step_backward.cu"]  # x lies by sequence
    assert [program.file for program in begun] == files
    case.run(case.make(torch.bfloat16), backend="gpu")
    assert [program.file for program in begun[3:]] == ["copied.cu"]


def test_tf32_rounds_operands_and_nothing_else(on, ran):
    on(tf32=True)
    case = Case("ordinary", N=4, T=6, H=40)
    tensors = case.make(torch.float32)
    exact = case.run({k: v.double() for k, v in tensors.items()}, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        error = (got.double() - exact[what]).abs().max() / exact[what].abs().max()
        assert 2**-20 < error < 2**-9, f"{what}: {error:.1e}"
    assert ran[0].size == 4


def test_a_launch_holds_a_chunk_of_steps(on, ran, monkeypatch):
    """The state goes from launch to launch through memory, and the bits are those of one."""
    machine = on()
    for case in (dataclasses.replace(MUCH, T=8), Case("plain", T=8)):
        machine.launches = 0
        once = check(case, torch.bfloat16)
        before = machine.launches
        with monkeypatch.context() as held:
            held.setattr(gpu, "HELD", 3 * 4 * case.N * 4 * case.H)  # three steps at a time
            for what, got in case.differentiate(case.make(torch.bfloat16), backend="gpu").items():
                assert torch.equal(got, once[what]), what
        assert machine.launches - before == before + 2


@pytest.mark.parametrize("where", ["x", "h", "c", "w_hh"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_passes_and_nobody_waits_for_it(value, where, on):
    on()
    case = Case("ordinary", N=3, T=3, H=70)
    tensors = case.make(torch.bfloat16)
    tensors[where].view(-1)[1] = value
    want = case.run(tensors, backend="definition")
    for what, got in case.run(tensors, backend="gpu").items():
        assert torch.equal(got.isnan(), want[what].isnan()), what


def test_a_wait_ends_and_says_who_waited(on, monkeypatch):
    machine = emulator.Missing("team_forward")
    backend = gpu.backend("gpu", emulator.on_the_host, lambda device: machine)
    on()
    monkeypatch.setattr(planning, "backends", lambda: (backend, plain.PLAIN, plain.DEFINITION))
    monkeypatch.setenv("LONGSHORT_CUDA_PATIENCE", "0.001")
    case = Case("ordinary", N=3, T=3, H=64)
    with pytest.raises(RuntimeError, match="a kernel gave up"):
        case.run(case.make(torch.bfloat16), backend="gpu")
    block, step = machine.reported.tolist()
    assert block in range(1, 4) and step == 0


WRONG = {
    "no wait for the tile": ("while (!is_over(full + taken, turn)) relax();", ""),
    "no wait for the posts": (
        "if (team % Cut::Splits == 0 && await(j) && leads()) arrive(posts);",
        "if (team % Cut::Splits == 0 && leads()) arrive(posts);",
    ),
    "no wait for the stage": ("while (!is_over(empty + fetched, (fetches - 1) % 2)) relax();", ""),
    "sums where others still multiply": ("meet();  // the sums take the place of the stages", ""),
    "half of K": ("UNROLL for (int other = 1;", "UNROLL for (int other = 2;"),
    "one buffer for two steps": ("operand + j % 2 * Cut::K", "operand + 0 * Cut::K"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_found(name, on, monkeypatch):
    """A test of the tests: some order of threads changes a result, or ends in an error."""
    settings = {} if name == "half of K" else {"shared": SMALL}
    case = Case("ordinary", N=17, T=5, H=256)
    tensors = case.make(torch.bfloat16)
    on(**settings)
    right = case.run(tensors, backend="gpu")
    whole, wrong = sources.Program.text, WRONG[name]

    def text(self, twin=None):
        found = whole(self, twin)
        if self.file == "team_forward.cu":
            assert found.count(wrong[0]) == 1
            found = found.replace(*wrong)
        return found

    monkeypatch.setattr(sources.Program, "text", text)
    emulator.library.cache_clear()
    found = False
    try:
        for seed in range(13):
            on(seed=seed, **settings)
            try:
                got = case.run(tensors, backend="gpu")
                found = any(not torch.equal(value, right[what]) for what, value in got.items())
            except RuntimeError:
                found = True
            if found:
                break
    finally:
        emulator.library.cache_clear()
    assert found


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
@pytest.mark.parametrize("kind", KINDS, ids=["bf16", "f16", "tf32", "f32"])
def test_every_cut_fits_its_device_and_covers_its_call(device, kind):
    dtype, tf32 = kind
    seen = 0
    for H in (1, 64, 130, 512, 650, 768, 1024, 1150, 1536, 2048):
        for N in (1, 7, 80, 100, 256, 512, 4096):
            for cut in team_plan.cuts(device, call(N, H, dtype), tf32):
                seen += 1
                assert cut.shared <= device.shared and cut.K >= H and cut.K % 64 == 0
                assert cut.sequences <= cut.columns and cut.columns in team_plan.COLUMNS
                assert cut.groups * cut.sets * cut.sequences >= N  # every sequence has a place
                assert (cut.groups - 1) * cut.sets * cut.sequences < N  # no group is idle
                assert cut.grid <= device.multiprocessors and cut.grid // cut.groups <= team_plan.POSTS
                chunks = cut.K * cut.size // team_plan.ROW
                assert -(-chunks // cut.splits) * (cut.splits - 1) < chunks  # every team has a part of K
                assert cut.stages >= team_plan.LEAST_STAGES
    assert bool(seen) == (device is H200 and kind is not KINDS[3])


@pytest.mark.parametrize(
    "N, H, teams",
    [
        (64, 512, 0),
        (4096, 128, 0),
        (4096, 130, 0),
        (600, 512, 1),
        (256, 512, 0),
        (256, 1024, 1),
        (512, 1024, 1),
        (80, 1150, 1),
        (64, 2048, 0),
        (128, 1536, 0),
    ],
)
def test_which_calls_they_run(N, H, teams, monkeypatch):
    """Where blocks of single warps do not fit, or do not pay, and these do."""
    monkeypatch.delenv("LONGSHORT_CUDA_PLAN", raising=False)
    machine = emulator.Emulator()
    machine.properties = H200
    assert bool(plans.teams(call(N, H), machine)) == bool(teams)
    for plan in ("step", "alone"):
        assert plans.teams(call(N, H), machine, plan) is None


def test_the_kernel_counts_its_memory_as_the_plan_does():
    calls = [call(N, H) for N, H in ((256, 1024), (80, 1150), (9, 130))]
    cuts = [cut for asked in calls for cut in team_plan.cuts(H200, asked, False)]
    text = sources.assembled("team_forward.cu", twin=emulator.HERE)
    argument = "longshort::Arguments<longshort::bfloat16, float>"
    lines = [
        f"{{ using K = longshort::TeamForward<longshort::Open, {cut.template(4)}, {argument}>;"
        ' std::printf("%d ", K::WeightBytes +'
        f" {cut.sets} * (K::SetBytes + 16 * K::Stages * {cut.splits} + 8)); }}"
        for cut in cuts
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "bytes.cpp", Path(folder) / "bytes"
        source.write_text(text + "int main() {\n" + "\n".join(lines) + "\n}\n")
        command = [emulator.COMPILER, "-std=c++17", "-O0", "-w", str(source), "-o", str(program)]
        subprocess.run(command, check=True)
        printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert [int(word) for word in printed] == [cut.shared for cut in cuts]


def test_more_blocks_than_are_resident_are_refused_before_the_launch():
    machine = emulator.Emulator(multiprocessors=3, shared=H200.shared)
    asked = call(256, 1024)
    cut = team_plan.cut(H200, asked, False)
    with pytest.raises(RuntimeError, match=r"^128 blocks of team_forward must be resident, and 3 are$"):
        team_plan.kernel(machine, asked, cut, 4)


@pytest.mark.skipif(compiler.why_not() is not None, reason=str(compiler.why_not()))
@pytest.mark.parametrize("kind", KINDS[:3], ids=["bf16", "f16", "tf32"])
@ids([Case("plain"), MUCH])
def test_it_compiles(case, kind):
    """For its one architecture, and its products do not wait for each other."""
    given = frozenset({"bias", *(["seed"] if case.noise else []), *(["reset"] if case.reset else [])})
    options = Options(Variant(**case.variant), Noise(**case.noise))
    asked = Call(options, "cuda", kind[0], 80, 9, 64, 448, 448, given, True)
    for cut in team_plan.cuts(H200, asked, kind[1]):
        text = team_plan.program(asked, cut, 4, specialises=True).text()
        log = compiler._built(text, H200.architecture, (*compiler.OPTIONS, "--ptxas-options=-v"))[1]
        assert "serializ" not in log
