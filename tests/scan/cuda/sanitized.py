"""The kernels on the host under gcc's address and undefined-behaviour sanitizers.

    sanitized.py [PART ...]       parts of the table of calls, by default all: what the tests run
    sanitized.py --all            every option in every type, at many sizes, in both layouts: twenty minutes
    sanitized.py --wrong          kernels that are wrong on purpose: each must end in an error

Every tensor, and every block's shared memory, ends where the sanitizer sees who reads or writes past it.
Where one array holds two things, as y and the first operand beside it, it does not part them.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
import emulator

from longshort.scan import gpu, masks
from longshort.scan.cuda import copying, dropping, packing, plans, sources, tiling, weights
from scan.cases import OPTIONS, SIZES, TOGETHER, Case
from scan.test_persistent import APART, MUCH

BEGUN = "LONGSHORT_SANITIZED"


def environment(symbols=True):
    """Of a process that runs this script; `symbols`: whether an error names functions, which takes long."""
    library, why_not = emulator.sanitizer()
    if why_not is not None:
        sys.exit(why_not)
    return os.environ | {
        BEGUN: "1",
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": f"detect_leaks=0:detect_stack_use_after_return=1:symbolize={symbols:d}",
        "UBSAN_OPTIONS": f"print_stacktrace={symbols:d}",
    }


TYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NORMS = [case for case in OPTIONS if case.variant.get("norm")]


@dataclasses.dataclass(frozen=True)
class Run:
    """A call, how it is laid out, and on which machine by which plan."""

    case: Case
    dtype: str
    plan: str
    by_step: bool = False
    machine: dict = dataclasses.field(default_factory=dict)
    splits: bool = False
    "whether sums are left in parts"
    widened: bool = False
    "whether rows are widened to whole 16 bytes"
    held: int | None = None
    "steps of a chunk"
    teams: bool = False
    "whether teams of warps run it forward"


def sized(case, N, H, T=3):
    return dataclasses.replace(case, N=N, H=H, T=T)


def step():
    """One launch a step: all options once, threads of one, two and four units, several blocks a row."""
    for k, case in enumerate([*OPTIONS, *SIZES]):
        if case not in NORMS and case.why != "long":
            yield Run(case, "bf16", "step", by_step=k % 2 == 0)
    for N, H, dtype in ((9, 6, "f16"), (17, 20, "f64"), (2, 600, "f32"), (3, 130, "bf16")):
        yield Run(sized(MUCH, N, H), dtype, "step", by_step=N % 2 == 0)
        yield Run(sized(Case("ordinary"), N, H), dtype, "step", by_step=N % 2 == 1)
    yield Run(MUCH, "bf16", "step", splits=True)
    yield Run(MUCH, "bf16", "step", widened=True)
    yield Run(MUCH, "bf16", "step", held=2)


def norms():
    """Rows of a norm in one warp, in several, and too wide to stay in registers; everything at once."""
    for k, case in enumerate([*NORMS, *TOGETHER]):
        yield Run(case, "f16", "step", by_step=k % 2 == 0)
        if not case.projected:
            yield Run(sized(case, 1, 33), "bf16", "step", by_step=k % 2 == 1)
    for case in NORMS:
        yield Run(sized(case, 3, 150, 2), "f32", "step")
    yield Run(sized(NORMS[0], 2, 20), "f64", "step")
    yield Run(TOGETHER[0], "f16", "step", splits=True)


def alone():
    """One block alone: all options that it has, every width of a block, columns that nobody owns."""
    for k, case in enumerate(APART):
        yield Run(case, "bf16", "alone", by_step=k % 2 == 0)
    for N, H, dtype in ((1, 20, "f32"), (9, 128, "f16")):
        yield Run(sized(MUCH, N, H), dtype, "alone", by_step=N % 2 == 0)
    yield Run(sized(MUCH, 150, 5), "bf16", "alone")
    yield Run(sized(MUCH, 9, 20), "f32", "alone", machine={"tf32": True})
    yield Run(MUCH, "bf16", "alone", held=2)
    for k, (N, H, C) in enumerate([(21, 33, 24), (17, 128, 8), (19, 64, 65)]):  # x is multiplied there
        many = dataclasses.replace(sized(Case("ordinary", lengths=True), N, H), C=C)
        yield Run(many, ("f16", "bf16")[k % 2], "alone", k < 2, {"multiprocessors": 2})


def exchange():
    """Blocks that exchange: into registers and by a stage, one group and two, several sub-batches."""
    for N, H, dtype, together in (
        (25, 150, "bf16", 5),
        (3, 150, "f32", 5),
        (1, 130, "f16", 10),
        (9, 65, "f32", 16),
    ):
        yield Run(sized(MUCH, N, H), dtype, "persistent", machine={"multiprocessors": together})
    yield Run(sized(Case("o"), 9, 150), "bf16", "persistent", True, {"multiprocessors": 5})
    for case, N, dtype, together in zip(NORMS, (9, 25, 3), ("bf16", "f32", "f16"), (5, 5, 10), strict=True):
        much = dataclasses.replace(MUCH, variant={**MUCH.variant, **case.variant})
        yield Run(sized(much, N, 150), dtype, "persistent", N == 9, {"multiprocessors": together})
        much = dataclasses.replace(much, projected=True, P=37)
        yield Run(sized(much, N, 150), dtype, "persistent", N != 9, {"multiprocessors": together})
    much = dataclasses.replace(MUCH, projected=True, P=20)
    for N, H, dtype in ((9, 150, "bf16"), (3, 40, "f32"), (17, 96, "f16")):
        yield Run(sized(much, N, H), dtype, "persistent", N == 9, {"multiprocessors": 5})


def teams():
    """Teams of four warps: every way to cut, stages used again, threads of one, two and four units."""
    for N, H, dtype, shared in (
        (9, 200, "bf16", 200),
        (30, 60, "f16", 200),
        (5, 33, "bf16", 200),
        (17, 254, "f16", 42),
    ):
        machine = {"shared": shared * 1024}
        yield Run(sized(MUCH, N, H), dtype, "persistent", N % 2 == 0, machine, teams=True)
    yield Run(sized(Case("ordinary"), 9, 200), "bf16", "persistent", True, held=2, teams=True)
    yield Run(sized(Case("ordinary"), 3, 40), "f32", "persistent", machine={"tf32": True}, teams=True)


def everything():
    """Every option in every type and both layouts, by each plan and at many sizes."""
    for part in (step, norms, alone, exchange, teams):
        yield from part()
    cases = [*OPTIONS, *TOGETHER, MUCH]
    for k, (case, dtype) in enumerate((c, d) for c in cases for d in TYPES):
        for N, H in ((1, 5), (3, 20), (9, 33), (17, 64), (3, 130), (2, 260)):
            yield Run(sized(case, N, H), dtype, "step", by_step=(k + N) % 2 == 0)
    for k, (case, dtype) in enumerate((c, d) for c in [*APART, MUCH] for d in TYPES if d != "f64"):
        for N, H in ((1, 5), (3, 20), (9, 33), (17, 64), (17, 96), (3, 128)):
            yield Run(sized(case, N, H), dtype, "alone", by_step=(k + N) % 2 == 0)
        for N, H, together in ((1, 150, 5), (9, 130, 10), (17, 150, 5), (33, 150, 5)):
            yield Run(sized(case, N, H), dtype, "persistent", N % 3 == 0, {"multiprocessors": together})
    for k, case in enumerate([Case("ordinary"), MUCH, *TOGETHER]):
        for plan in ("step", "alone"):
            yield Run(case, list(TYPES)[k % 4], plan, True, {"specialises": True})


class Machine(emulator.Emulator):
    """Compiles for the persistent plans no more of the other's kernels than they run."""

    def kernel(self, program, name, shared=0):
        if name == "step_operands" and os.environ["LONGSHORT_CUDA_PLAN"] != "step":
            alone = tuple(entry for entry in program.entries if entry.name == name)
            program = dataclasses.replace(program, entries=alone)
        return super().kernel(program, name, shared)


def call(run):
    """The forward pass and the way back, on a machine on the host."""
    print(run, flush=True)  # an error ends the process: the last line says where
    machine = Machine(seed=3, **run.machine)
    machine.splits_sums = run.splits
    emulator.put(machine, setattr)
    os.environ["LONGSHORT_CUDA_PLAN"] = run.plan
    dtype = TYPES[run.dtype]
    tensors = run.case.make(dtype)
    row = 4 * run.case.N * run.case.H * max(4, dtype.itemsize)
    gpu.HELD = 256 << 20 if run.held is None else run.held * row
    tiling.MOST_CELLS, tiling.MOST_UNITS = (0, 0) if run.teams else (128 * 1024, 128)
    plans._teams.cache_clear(), plans._cut.cache_clear()
    packing.WIDENED = 0 if run.widened else 1 << 20
    weights._results.cache_clear()
    if run.by_step:
        tensors["x"] = tensors["x"].transpose(0, 1).contiguous().transpose(0, 1)
    for name, value in run.case.differentiate(tensors, backend="gpu").items():
        assert value.isfinite().all(), f"{run}: {name} is not finite"  # fresh memory is NaN


def dropped(types=tuple(TYPES)):
    """Tensors under their masks: every type, widths of one, two and four units, rows that lie apart."""
    machine, seed = emulator.Emulator(), torch.tensor(-(2**61) - 5)
    for dtype in types:
        for N, T, K in ((3, 5, 7), (1, 1, 1), (2, 3, 6), (3, 2, 24), (300, 1, 10)):
            x = torch.randn(N, T, K).to(TYPES[dtype])
            apart = torch.randn(N, T, K + 1).to(TYPES[dtype])[..., :K]
            for given in (x, x.transpose(0, 1).contiguous().transpose(0, 1), apart, x[:1, :1].expand_as(x)):
                for kind in ("variational_x", "dropout"):
                    got = dropping.dropped(machine, given, kind, 0.3, seed)
                    assert torch.equal(got, masks.dropped(given, kind, 0.3, seed))


def padded_by(machine, matrix, *more):
    """One copy alone."""
    copies = copying.Copies(machine, matrix.dtype)
    found = copies.padded(matrix, *more)
    copies.run()
    return found


def copied(types=tuple(TYPES)):
    """Matrices padded and transposed: one tile and several, rows that lie apart, odd addresses."""
    machine = emulator.Emulator(seed=3)
    for dtype in types:
        for G, H, P, padded in (
            (1, 1, 1, 1),
            (3, 31, 31, 32),
            (4, 33, 33, 48),
            (4, 65, 130, 65),
            (3, 64, 64, 64),
        ):
            dense = torch.randn(G * H, P).to(TYPES[dtype])
            # the last row ends with the memory: nothing lies behind the matrix
            apart = torch.empty((G * H - 1) * (P + 1) + P + 1, dtype=TYPES[dtype])[1:]
            for w_hh in (dense, apart.as_strided((G * H, P), (P + 1, 1)).copy_(dense)):
                room = torch.zeros(8 * P, dtype=TYPES[dtype])
                got = copying.transposed(machine, w_hh, G, padded, room)
                assert bool((room.view(torch.uint8) == 255).all())
                want = torch.nn.functional.pad(w_hh.view(G, H, P).permute(2, 0, 1), (0, padded - H))
                assert torch.equal(got, want)
                for more in (1, 2, 8):
                    want = torch.nn.functional.pad(w_hh, (0, more))
                    assert torch.equal(padded_by(machine, w_hh, P + more), want)
                want = torch.nn.functional.pad(w_hh.view(G, H, P), (0, 3, 0, 2)).flatten(0, 1)
                assert torch.equal(padded_by(machine, w_hh, P + 3, G, H + 2), want)


TABLE = {part.__name__: part for part in (step, norms, alone, exchange, teams)}
TENSORS = {part.__name__: part for part in (dropped, copied)}
PARTS = [*TABLE, *TENSORS]


def few():
    """A tensor of bfloat16 under its mask, unit by unit."""
    dropped(["bf16"])


def turned():
    """A matrix of float32 transposed."""
    copied(["f32"])


def block():
    """A call of one block alone, of several sequences."""
    call(Run(sized(Case("ordinary"), 5, 33), "bf16", "alone", machine={"multiprocessors": 1}))


LOADS = "load(from + first, values)"
PAST, POISON, ROW = "heap-buffer-overflow", "use-after-poison", "(u < a.H ? u : 0))"
WRONG = {
    "read past a tensor": (few, LOADS, "load(from + first + 1, values)", PAST),
    "read before a tensor": (few, LOADS, "load(from + first - 1, values)", PAST),
    "write past a tensor": (few, "store(to + first", "store(to + first + 1", PAST),
    "read past a matrix": (turned, "k * Step < H &&", "k * Step <= H &&", PAST),
    "write past a matrix": (turned, "unit + side < K &&", "unit + side <= K &&", PAST),
    "read past a tile": (turned, "= tile[side * Pitch", "= tile[Tile * Pitch + side * Pitch", POISON),
    "read past weights": (block, ROW, f"{ROW[:-1]} + 1)", PAST),
    "read past shared memory": (block, "= stage(sub, j)", "= stage(sub, j) + Core::Pitch", POISON),
    "read past a local array": (few, "factor[first + j]", "(&factor[0])[first + j + 1]", "stack-buffer-over"),
    "index past an array": (few, "factor[first + j]", "factor[first + j + 1]", "index 4 out of bounds"),
    "read of what a call left": (few, LOADS, "load(left(from + first), values)", "stack-use-after-return"),
    "shift by all bits": (few, "u32>(a.least)", "u32>(a.least) << (a.T * 32 / a.T)", "shift exponent 32"),
    "sum too large": (few, "u32>(a.least)", "u32>(int(a.T) * 0x7fffffff)", "signed integer overflow"),
}
"""By what is wrong: what runs, a piece of the kernels' text, what stands in its place, what is said then."""
LEFT = """
template <class E>
__attribute__((noinline)) static const E* left(const E* from) {
  E kept[4] = {*from};
  const E* volatile found = kept;
  return found;
}
"""


def break_kernels(old, new):
    """Replace a piece of every text that holds it, and say so."""
    whole = sources.Program.text

    def text(self, twin=None):
        found = whole(self, twin)
        if old not in found:
            return found
        print("a kernel is broken", flush=True)
        return found.replace("\ntemplate <int Adjacent", LEFT + "\ntemplate <int Adjacent").replace(old, new)

    sources.Program.text = text


def wrong(name):
    """Run a wrong kernel in a process of its own, and say how that ended."""
    run, old, new, _ = WRONG[name]
    print(f"wrong: {name}", flush=True)
    child = os.fork()
    if child == 0:
        break_kernels(old, new)
        run()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"ended: {code}", flush=True)


def main(words):
    emulator.OPTIONS += emulator.SANITIZERS
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if words[:1] == ["--wrong"]:
        for name in WRONG:
            wrong(name)
        return
    for name in ["everything"] if words == ["--all"] else words or PARTS:
        begun, count = time.monotonic(), 0
        for run in {"everything": everything, **TABLE}[name]() if name not in TENSORS else ():
            call(run)
            count += 1
        for part in TENSORS.values() if name == "everything" else filter(None, [TENSORS.get(name)]):
            part()
        print(f"{name}: {count} calls, {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    if BEGUN not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())
    os.environ.pop("LD_PRELOAD")  # the compiler goes without
    main(sys.argv[1:])
