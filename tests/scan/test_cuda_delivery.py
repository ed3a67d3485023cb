"""From source to launch: every kernel compiles for every architecture, binaries are kept, faults are named.

NVRTC needs neither driver nor device. The driver's library is a stub that records what it is asked.
"""

import contextlib
import ctypes
import hashlib
import multiprocessing
import re
import threading
import types
import warnings

import pytest
import torch

from longshort.errors import BackendError
from longshort.scan import gpu
from longshort.scan.call import Call, Grads, Inputs, Options, call_of
from longshort.scan.cuda import (
    compiler,
    copying,
    driver,
    dropping,
    machine,
    persistent_plan,
    rounding,
    sources,
    step_plan,
    tiling,
)
from longshort.scan.cuda.machine import Properties
from longshort.scan.masks import Noise
from longshort.scan.plan import choose
from longshort.scan.variant import Variant

ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
needs_nvrtc = pytest.mark.skipif(compiler.nvrtc() is None, reason=f"no NVRTC: {compiler.why_not()}")
H200 = Properties("H200", (9, 0), 132, 227 * 1024)


def call(N=64, H=512, dtype=torch.bfloat16, given=(), device="cuda", P=None, **options):
    return Call(Options(**options), device, dtype, N, 128, H, H, P or H, frozenset(given), True)


MANY = Options(
    Variant(norm="ba2016", peephole=True, gate_recurrence=True, cell_clip=1.0, projection_clip=1.0),
    Noise(variational_h=0.1, recurrent_dropout=0.1, zoneout_h=0.1, zoneout_c=0.1),
)
FEW = Options(Variant(peephole=True, coupled=True), Noise(recurrent_dropout=0.1, zoneout_h=0.1), reverse=True)


def programs():
    """One program for each kernel, type and kind of cut."""
    specialised = types.SimpleNamespace(specialises=True)
    for dtype in sources.TYPES:
        yield step_plan.program(specialised, call(dtype=dtype), step_plan.AHEAD + step_plan.BACK)
    much = call(given=("w_hr", "reset", "lengths", "seed"))._replace(options=MANY)
    yield step_plan.program(specialised, much, step_plan.AHEAD + step_plan.BACK)
    for H, dtype, norm in ((1150, torch.bfloat16, "per_gate"), (128, torch.float64, "products")):
        normed = call(H=H, dtype=dtype)._replace(options=Options(Variant(norm=norm)))
        yield step_plan.program(specialised, normed, ("step_forward", "step_backward"))
    for dtype, norm, N, H, P in (
        (torch.bfloat16, "ba2016", 64, 512, None),
        (torch.bfloat16, "per_gate", 64, 128, None),
        (torch.float32, "products", 64, 200, 100),
        (torch.float16, "ba2016", 25, 128, None),
        (torch.bfloat16, "none", 64, 1024, 512),
        (torch.float32, "none", 64, 128, 40),
    ):
        spanning = call(N, H, dtype, given=() if P is None else ("w_hr",), P=P)
        spanning = spanning._replace(options=Options(Variant(norm=norm)))
        cuts = tiling.pair(H200, spanning, False)
        for cut in filter(None, (cuts.forward, cuts.backward)):
            yield persistent_plan.program(spanning, cut, specialises=True)
        if norm != "none":
            yield step_plan.program(specialised, spanning, step_plan.NORMS)
    for dtype, tf32 in (
        (torch.bfloat16, False),
        (torch.float16, False),
        (torch.float32, True),
        (torch.float32, False),
    ):
        for N, H in ((64, 128), (64, 512), (4096, 96)):
            cuts = tiling.pair(H200, call(N, H, dtype), tf32)
            asked = call(N, H, dtype)
            if H == 128:
                asked = call(N, H, dtype, given=("seed", "reset"))._replace(options=FEW)
            for cut in (cuts.forward, cuts.backward):
                yield persistent_plan.program(asked, cut, specialises=True)
    for dtype in sources.TYPES:
        for adjacent in (1, 2, 4):
            yield dropping.program(dtype, adjacent)
        yield rounding.program(dtype)
        yield from (copying.program(dtype, name) for name in ("transposed", "copied"))


PROGRAMS = {f"{p.file}-{str(p.dtype)[6:]}-{k}": p for k, p in enumerate(programs())}


@needs_nvrtc
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_kernel_compiles(name):
    """On one architecture each; those that differ in nothing but the architecture take turns."""
    architecture = ARCHITECTURES[list(PROGRAMS).index(name) % len(ARCHITECTURES)]
    assert compiler.compiled(PROGRAMS[name].text(), architecture)[:4] == b"\x7fELF"


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "file",
    [
        "step_backward.cu",
        "persistent_forward.cu",
        "persistent_backward.cu",
        "norms.cu",
        "dropped.cu",
        "copied.cu",
    ],
)
def test_each_architecture_has_every_instruction(file, architecture):
    program = [p for p in PROGRAMS.values() if p.file == file and p.dtype == torch.bfloat16][-1]
    assert compiler.compiled(program.text(), architecture)


def instructions(source):
    """A unit as the compiler's own assembly, before it is one device's."""
    library, program, size = compiler.nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"k.cu", 0, None, None) == 0
    words = [word.encode() for word in ("--gpu-architecture=compute_90", *compiler.OPTIONS)]
    assert library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words)) == 0
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, text)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return text.value.decode()


@needs_nvrtc
@pytest.mark.parametrize("kind", ["variational_h", "recurrent_dropout", "zoneout_h", "zoneout_c"])
@pytest.mark.parametrize("name", ["step_forward", "step_backward"])
def test_adjacent_units_share_one_call_of_philox(name, kind):
    """Ten rounds of two products, however many units a thread owns."""
    specialised = types.SimpleNamespace(specialises=True)
    for H in (512, 510, 511):
        asked = call(H=H, given=("seed",), noise=Noise(**{kind: 0.1}))
        text = instructions(step_plan.program(specialised, asked, (name,)).text())
        assert len(re.findall(r"mul\.(?:hi|wide)\.u32", text)) == 20, H


@needs_nvrtc
def test_what_nvrtc_refuses_is_said():
    with pytest.raises(BackendError) as error:
        compiler.compiled("this is no C++", "sm_80")
    assert re.fullmatch(
        r"lstm: NVRTC [\d.]+ could not compile the kernels for sm_80 \(error 6\): longshort\.cu\(1\): "
        r"error: .* Use backend='plain' meanwhile\.",
        str(error.value),
    )
    with pytest.raises(BackendError, match=r"could not compile the kernels for sm_10 \(error \d\)"):
        compiler.compiled('extern "C" __global__ void k() {}', "sm_10")


def test_the_layout_is_the_struct_s():
    layout = sources.layout()
    text = (sources.FOLDER / "arguments.cuh").read_text()
    body = text[text.index("struct Arguments") : text.index("\n};\n\n}")]
    assert len(layout.place) == len(re.findall(r"^  [\w* ]+;", body, re.M))
    packed = layout.pack({"N": 3, "cell_clip": 0.5})
    assert packed[:8] == (3).to_bytes(8, "little")
    assert len(packed) == layout.size == 8 * len(layout.place)
    assert ctypes.c_double.from_buffer(packed, layout.place["cell_clip"]).value == 0.5


@pytest.mark.parametrize(
    "file, name, doubles",
    [("dropped.cu", "Dropped", {"scale"}), ("copied.cu", "Transposed", set()), ("copied.cu", "Part", set())],
)
def test_the_layout_of_another_argument_is_its_struct_s(file, name, doubles):
    layout = sources.layout(file, name)
    text = (sources.FOLDER / file).read_text()
    body = text[text.index(f"struct {name} {{") :]
    fields = re.findall(r"^  (?:const )?\w+\*? (\w+);", body[: body.index("\n};")], re.M)
    assert list(layout.place) == fields and {k for k, v in layout.formats.items() if v == "<d"} == doubles


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache in an empty folder, and a compiler that counts."""
    made = []

    def count(source, architecture):
        made.append(source)
        return b"binary of " + source.encode()

    monkeypatch.setenv("LONGSHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "compiled", count)
    monkeypatch.setattr(compiler, "version", lambda: (13, 0))
    monkeypatch.setattr(compiler, "_SAID", set())
    return made


def test_a_binary_is_compiled_once(kept, tmp_path):
    assert compiler.binary("a", "sm_80") == compiler.binary("a", "sm_80") == b"binary of a"
    assert kept == ["a"]
    compiler.binary("a", "sm_90a")
    compiler.binary("b", "sm_80")
    assert kept == ["a", "a", "b"]
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".cubin"] * 3


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "foreign"])
def test_a_damaged_binary_is_made_anew(kept, tmp_path, damage):
    compiler.binary("a", "sm_80")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-2], "changed": whole[:-1] + b"!", "empty": b"", "foreign": b"x" * 99}[damage]
    )
    assert compiler.binary("a", "sm_80") == b"binary of a"
    assert kept == ["a", "a"] and path.read_bytes() == whole


def test_where_nothing_can_be_kept_it_says_so_once(kept, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGSHORT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning) as said:
        assert compiler.binary("a", "sm_80") == compiler.binary("a", "sm_80") == b"binary of a"
    assert [str(w.message) for w in said] == [
        f"longshort cannot keep compiled kernels in {tmp_path / 'file'} (File exists), so every process "
        f"compiles them anew. Set LONGSHORT_CACHE to a folder that can be written."
    ]
    assert kept == ["a", "a"]


def _compile(folder):
    import os

    os.environ["LONGSHORT_CACHE"] = folder
    compiler.compiled = lambda source, architecture: source.encode() * 10000
    compiler.version = lambda: (13, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return hashlib.sha256(compiler.binary("together", "sm_80")).hexdigest()


def test_processes_that_start_together_agree(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_compile, [str(tmp_path)] * 8)
    assert len(set(found)) == 1
    assert [p.suffix for p in tmp_path.iterdir()] == [".cubin"]


def test_what_is_compiled_ahead_is_waited_for_and_not_compiled_again(kept, monkeypatch):
    quick, began, ends = compiler.compiled, threading.Event(), threading.Event()

    def slow(source, architecture):
        began.set()
        assert ends.wait(60)
        return quick(source, architecture)

    monkeypatch.setattr(compiler, "compiled", slow)
    compiler.ahead("a", "sm_80")
    compiler.ahead("a", "sm_80")
    assert began.wait(60)
    threading.Timer(0.05, ends.set).start()
    assert compiler.binary("a", "sm_80") == b"binary of a"
    compiler.ahead("a", "sm_80")  # is on the disk
    assert kept == ["a"] and not compiler._UNDERWAY


def test_an_error_ahead_is_that_of_whoever_needs_it(kept, monkeypatch):
    quick, began, ends = compiler.compiled, threading.Event(), threading.Event()

    def refuse(source, architecture):
        began.set()
        assert ends.wait(60)
        raise BackendError("refused")

    monkeypatch.setattr(compiler, "compiled", refuse)
    compiler.ahead("a", "sm_80")
    assert began.wait(60)
    threading.Timer(0.05, ends.set).start()
    with pytest.raises(BackendError, match="refused"):
        compiler.binary("a", "sm_80")
    monkeypatch.setattr(compiler, "compiled", quick)
    assert compiler.binary("a", "sm_80") == b"binary of a"  # a refusal is not remembered


class Library:
    """A stub of the driver: every call succeeds unless `fails` names it."""

    def __init__(self, context=1, **fails):
        self.context, self.fails, self.calls = context, fails, []

    def __getattr__(self, name):
        def answer(*arguments):
            self.calls.append(name)
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_OF_THE_TEST"
            if name == "cuCtxGetCurrent":
                arguments[0]._obj.value = self.context or None
            if name == "cuCtxSetCurrent":
                self.context = 1
            if name == "cuLibraryGetKernel":
                arguments[0]._obj.value = 77
            if name == "cuOccupancyMaxActiveBlocksPerMultiprocessor":
                arguments[0]._obj.value = 2
            if name == "cuDriverGetVersion":
                arguments[0]._obj.value = 12040
            if name == "cuLaunchKernelEx":
                config = driver._Config.from_address(arguments[0])
                attribute = driver._Attribute.from_address(config.attributes)
                packed = ctypes.c_void_p.from_address(arguments[2]).value
                first = ctypes.c_longlong.from_address(packed).value
                self.launched = (
                    tuple(config.grid), config.block[0], config.shared, config.stream, config.count,
                    (attribute.id, attribute.value[0]), arguments[1].value, first, threading.get_ident(),
                )  # fmt: skip
            return self.fails.get(name, 0)

        return answer


@pytest.fixture
def stub(monkeypatch):
    def put(**settings):
        found = Library(**settings)
        monkeypatch.setattr(driver, "library", lambda: found)
        monkeypatch.setattr(driver, "stream_of", lambda device: 1234)
        return found

    return put


def test_structures_have_the_driver_s_sizes():
    assert (ctypes.sizeof(driver._Config), ctypes.sizeof(driver._Attribute)) == (56, 72)


def test_a_launch_says_all_that_it_should(stub):
    library = stub()
    kernel = driver.Kernel(b"binary", "k", threads=256, shared=100_000, device=0)
    assert "cuKernelSetAttribute" in library.calls
    argument = bytearray(16)
    launch = kernel.bind(argument, 5, 3, cooperative=True)
    argument[0] = 9  # read at the launch, not before
    launch()
    assert library.launched == (
        (5, 3, 1), 256, 100_000, 1234, 1, (2, 1), 77, 9, threading.get_ident(),
    )  # fmt: skip
    assert kernel.resident(132) == 264


def test_a_plain_launch_asks_for_no_residence_and_no_more_memory(stub):
    library = stub()
    driver.Kernel(b"binary", "k", threads=256, shared=512, device=0).bind(bytearray(8), 5)()
    assert library.launched[4] == 0
    assert "cuKernelSetAttribute" not in library.calls


def test_a_thread_without_a_context_gets_torch_s(stub):
    library = stub(context=0)
    driver.Kernel(b"binary", "k", threads=256, shared=512, device=0)
    assert library.calls[:3] == ["cuCtxGetCurrent", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]


def test_an_early_launch_may_start_before_the_kernel_before_it_ends(stub):
    library = stub()
    driver.Kernel(b"binary", "k", threads=256, shared=512, device=0).bind(bytearray(8), 5, early=True)()
    assert library.launched[4:6] == (1, (6, 1))


@pytest.mark.parametrize(
    "where, what",
    [("cuLibraryLoadData", "load a kernel"), ("cuLaunchKernelEx", "launch kernel k in 15 blocks")],
)
def test_what_the_driver_refuses_is_named(stub, where, what):
    stub(**{where: 720})
    with pytest.raises(BackendError) as error:
        driver.Kernel(b"binary", "k", threads=256, shared=0, device=0).bind(bytearray(8), 5, 3)()
    assert str(error.value) == (
        f"lstm: the driver could not {what}: CUDA_ERROR_OF_THE_TEST. Use backend='plain' meanwhile."
    )


def test_out_of_memory_is_torch_s_own_error(stub):
    stub(cuLibraryLoadData=2)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="could not load a kernel"):
        driver.Kernel(b"binary", "k", threads=256, shared=0, device=0)


@pytest.fixture
def a_device(stub, monkeypatch):
    """A computer where everything is as it should be."""
    stub()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: "the device")
    monkeypatch.setattr(compiler, "nvrtc", lambda: object())
    monkeypatch.setattr(compiler, "version", lambda: (12, 9))
    monkeypatch.setattr(gpu, "proven", lambda device, spans: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


def test_with_a_device_it_runs(a_device):
    assert gpu.refuses(call()) is None


def test_each_of_several_devices_is_asked(a_device, monkeypatch):
    """Whichever is the current one: the second is too old here, and the third errs."""
    capability = {None: (9, 0), 0: (9, 0), 1: (7, 5), 2: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability.__getitem__)
    monkeypatch.setattr(gpu, "proven", lambda device, spans: "it errs" if device.index == 2 else None)
    asked = call()
    assert choose(asked)[0].name == choose(asked._replace(ordinal=0))[0].name == "gpu"
    for ordinal, why in (
        (1, "the device has compute capability 7.5, and the kernels need 8.0"),
        (2, "it errs"),
    ):
        backend, passed_over = choose(asked._replace(ordinal=ordinal))
        assert backend.name == "plain" and ("gpu", why) in passed_over


@pytest.mark.parametrize(
    "place, name, value, why",
    [
        (torch.version, "cuda", None, "this torch is built without CUDA"),
        (torch.cuda, "is_available", lambda: False, "torch finds no CUDA device"),
        (driver, "library", lambda: None, "the driver's library libcuda.so.1 is not to be found"),
        (
            torch.cuda, "get_device_capability", lambda index: (7, 5),
            "the device has compute capability 7.5, and the kernels need 8.0",
        ),
        (
            compiler, "nvrtc", lambda: None,
            "NVRTC, which compiles them, is not installed; install it with: pip install 'longshort[cuda]'",
        ),
        (
            compiler, "version", lambda: (13, 5),
            "the driver knows CUDA 12, and NVRTC 13 makes binaries for a newer one; update the driver, "
            "or install nvidia-cuda-nvrtc-cu12",
        ),
    ],
    ids=["no CUDA", "no device", "no driver", "too old a device", "no NVRTC", "too old a driver"],
)  # fmt: skip
def test_why_not_is_said(a_device, monkeypatch, place, name, value, why):
    monkeypatch.setattr(place, name, value)
    assert gpu.refuses(call()) == why


def test_a_wait_that_was_too_long_is_told_by_the_next_call():
    cuda = machine.Cuda.__new__(machine.Cuda)
    cuda._report = torch.tensor([3, 41])
    with pytest.raises(BackendError) as error:
        cuda.report()
    assert str(error.value) == (
        "lstm: block 2 of an earlier kernel waited too long for another block at step 41, and the kernel "
        "ended. Start a new process, and use backend='plain', or set LONGSHORT_CUDA_PATIENCE to more seconds "
        "where a debugger slows the device down."
    )


@needs_nvrtc
@pytest.mark.parametrize(
    "N, H, plan, launches",
    [
        (
            3,
            40,
            "step",
            [
                "copied",
                "step_begin",
                *["step_forward"] * 2,
                *["step_backward"] * 2,
                "step_end",
                "step_operands",
                "copied",
            ],
        ),
        (
            3,
            40,
            "alone",
            [
                "copied",
                "persistent_forward",
                "transposed",
                "persistent_backward",
                "step_operands",
                "copied",
                "rounded",
            ],
        ),
        (
            64,
            160,
            "persistent",
            [
                "copied",
                "persistent_forward",
                "transposed",
                "persistent_backward",
                "step_operands",
                "copied",
            ],
        ),
    ],
)
def test_a_training_step_from_python_to_the_driver(N, H, plan, launches, stub, monkeypatch, tmp_path):
    """All that a device's host does, compiler included; only the driver is a stub, which computes nothing."""
    monkeypatch.setenv("LONGSHORT_CACHE", str(tmp_path))
    library, made = stub(), {}
    whole = driver.Kernel.__init__

    def named(self, binary, name, threads, shared, device):
        assert binary[:4] == b"\x7fELF" and binary.count(name.encode())
        whole(self, binary, name, threads, shared, device)
        self.handle = ctypes.c_void_p(len(made) + 1)
        made[self.handle.value] = name

    monkeypatch.setattr(driver.Kernel, "__init__", named)
    device = machine.Cuda.__new__(machine.Cuda)
    device.index, device.properties, device._lock, device._kernels = 0, H200, threading.Lock(), {}
    device._report, device._begun, compiled = torch.zeros(2, dtype=torch.int64), set(), []
    slow = compiler.compiled
    monkeypatch.setattr(compiler, "compiled", lambda *words: compiled.append(words[0]) or slow(*words))
    monkeypatch.setattr(machine.Cuda, "current", lambda self: contextlib.nullcontext())
    seen, launch = [], library.__getattr__

    class Seeing:
        def __getattr__(self, name):
            answer = launch(name)
            if name != "cuLaunchKernelEx":
                return answer

            def record(*arguments):
                config = driver._Config.from_address(arguments[0])
                attribute = driver._Attribute.from_address(config.attributes)
                kind = {0: "", 2: "cooperative", 6: "early"}[attribute.id if config.count else 0]
                seen.append((made[arguments[1].value], kind, config.grid[0]))
                return answer(*arguments)

            return record

    monkeypatch.setattr(driver, "library", lambda: Seeing())
    given = Inputs(*(torch.randn(*s) for s in ((N, 2, 5), (4 * H, 5), (4 * H, H), (4 * H,), (N, H), (N, H))))
    asked = call_of(Options(), given, save=True)
    outputs, saved = gpu.forward(asked, given, device, plan)
    # the way back as well, side by side; and copies, of x and of W_hh there and back, of the operands; sums
    assert len(compiled) == {"step": 3, "persistent": 5, "alone": 6}[plan]
    grads = Grads(torch.randn_like(outputs.y), None, None)
    needs = [True] * len(Inputs._fields)
    found = gpu.backward(asked, given, outputs, saved, grads, needs, device, plan)
    assert len(compiled) == len(set(compiled)) == {"step": 3, "persistent": 5, "alone": 6}[plan]
    assert [g.shape for g in found if g is not None] == [t.shape for t in given if t is not None]
    assert [name for name, _, _ in seen] == launches
    for name, kind, grid in seen:
        exchanges = plan == "persistent" and name.startswith("persistent")
        assert (kind == "cooperative") == exchanges and (grid <= 264 or not exchanges)
    # the first of each direction comes behind what makes z, or the gradients that arrive
    early = [kind == "early" for name, kind, _ in seen if name in ("step_forward", "step_backward")]
    assert early == ([False, True] * 2 if plan == "step" else [])
