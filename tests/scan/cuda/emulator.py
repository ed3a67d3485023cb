"""A machine without a GPU: the kernels themselves, compiled for the host against the twin of `device.cuh`.

Every thread of a launch is a fiber, products of a warp follow the PTX manual's layout, and the order in which
threads run is drawn from `seed`; with it 0 they run in turn. What it cannot show: speed, and a memory model.
"""

import contextlib
import ctypes
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from longshort.scan import gpu, plain
from longshort.scan.cuda.machine import Properties

planning = importlib.import_module("longshort.scan.plan")
HERE = Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")
WHY_NOT = None if COMPILER else "no C++ compiler to run the kernels on the host"
OPTIONS = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
"""Of the compiler. A process that appends SANITIZERS to them, and was started with the library of `sanitizer`
preloaded, runs the kernels under gcc's sanitizers."""
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize=null,object-size,vptr",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g1",
]


@cache
def sanitizer():
    """The library of gcc's address sanitizer, and why there is none; one of the two is None."""
    if WHY_NOT is not None:
        return None, WHY_NOT
    if "clang" in COMPILER:
        return None, f"the sanitizers are asked of gcc, and the compiler is {COMPILER}"
    asked = [COMPILER, "-print-file-name=libasan.so"]
    path = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    if not path.is_absolute() or path.read_bytes()[:4] != b"\x7fELF":
        return None, f"{COMPILER} has no libasan.so to preload"
    return path, None


@cache
def library(program):
    """The program as a shared library; kept between sessions by the digest of its text."""
    return compiled(program.text(twin=HERE))


def compiled(text):
    """A translation unit as a shared library, likewise kept."""
    headers = "".join(re.findall(r"^#include <\w+>\n", text, re.M))
    parsed = made(headers, "-x", "c++-header", ending=".hpp.gch") if headers else None
    return ctypes.CDLL(
        str(made(text, *(["-include", parsed.with_suffix("")] if parsed else []), ending=".so"))
    )


def made(text, *how, ending):
    """What the compiler makes of a text, kept under its digest; a header's text lies beside it, for gcc."""
    digest = hashlib.sha256("\n".join([text, *OPTIONS]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"longshort-emulated-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest}{ending}"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, product = Path(scratch) / "text.cpp", Path(scratch) / "product"
            source.write_text(text)
            subprocess.run([COMPILER, *OPTIONS, *how, source, "-o", product], check=True)
            if ending == ".hpp.gch":
                source.replace(path.with_suffix(""))
            product.replace(path)
    return path


PREVIOUS = ctypes.CFUNCTYPE(None)
TOGETHER = 2048
"""Threads of a launch that run at once, unless all must."""


class Kernel:
    def __init__(self, machine, function, threads, shared):
        self.machine, self.function, self.threads, self.shared = machine, function, threads, shared

    def bind(self, argument, x, y=1, cooperative=False, early=False):
        memory = (ctypes.c_char * len(argument)).from_buffer(argument)
        if cooperative:
            assert x * y <= self.resident(self.machine.properties.multiprocessors), (
                "not all blocks are resident"
            )

        def launch():
            self.machine.launches += 1
            seed = self.machine.seed and self.machine.seed + self.machine.launches
            if not early:
                self.machine.settle()
            previous = PREVIOUS(self.machine.settle)
            size = (x, y, x * y if cooperative else max(1, TOGETHER // self.threads), self.shared)
            if not self.function(memory, *size, ctypes.c_ulonglong(seed), previous):
                raise RuntimeError("a kernel gave up")

        return launch

    def resident(self, multiprocessors):
        return multiprocessors


class Emulator:
    """Runs kernels on the host."""

    def __init__(self, seed=0, multiprocessors=16, shared=200 * 1024, tf32=False, specialises=False):
        self.specialises = specialises
        self.properties = Properties("emulator", (9, 0), multiprocessors, shared)
        self.seed, self.launches, self.allows_tf32 = seed, 0, tf32
        self.reported = torch.zeros(2, dtype=torch.int64)
        self.unfinished, self.splits_sums, self.beside, self.shared_by = None, False, 0, 1

    def kernel(self, program, name, shared=0):
        threads = next(e.threads for e in program.entries if e.name == name)
        assert shared <= self.properties.shared, f"{shared} bytes of shared memory"
        return Kernel(self, getattr(library(program), name), threads, shared)

    def ahead(self, program):
        pass

    def product(self, a, b, out):
        return out.copy_(a.to(out.dtype) @ b.to(out.dtype))

    def repeated(self, a, b, out):
        """A product done as late as can be: when a kernel waits for it, or before one that would not."""

        prepared = b.clone()  # a device may try it here
        pieces = list(zip(a.chunk(len(out), 2), b.chunk(len(out)), out, strict=True))

        def multiply(s):
            return lambda: [self.product(x[s], y, z) for x, y, z in pieces]

        def run(s):
            torch.testing.assert_close(b, prepared, rtol=0, atol=0, equal_nan=True)
            self.settle()
            self.unfinished = multiply(s)

        return run

    def splits(self, a, b, out, parts):
        return self.splits_sums

    def settle(self):
        done, self.unfinished = self.unfinished, None
        if done is not None:
            done()

    def current(self):
        return contextlib.nullcontext()

    def side_by_side(self, works):
        """One after the other, and last first."""
        self.beside += 1
        before, self.shared_by = self.shared_by, self.shared_by * len(works)
        try:
            return [work() for work in reversed(works)][::-1]
        finally:
            self.shared_by = before

    def sharing(self):
        return self.shared_by

    def report(self):
        return self.reported

    def tf32(self):
        return self.allows_tf32


class Missing(Emulator):
    """One block of a kernel never starts."""

    def __init__(self, name, **settings):
        super().__init__(**settings)
        self.incomplete = name

    def kernel(self, program, name, shared=0):
        kernel = super().kernel(program, name, shared)
        if name == self.incomplete:
            whole = kernel.bind
            kernel.bind = lambda argument, x, y, together: whole(argument, x - 1, y, together)
        return kernel


def put(machine, set_attribute):
    """Put a machine behind the backend "gpu", beside plain torch alone, by a `setattr`."""
    backend = gpu.backend("gpu", on_the_host, lambda device: machine)
    set_attribute(planning, "backends", lambda: (backend, plain.PLAIN, plain.DEFINITION))
    set_attribute(planning, "_CHOICES", {})
    return machine


def on_the_host(call):
    """Why the emulator cannot run a call: it runs on the CPU what the kernels run on a GPU."""
    return None if call.device == "cpu" else f"the tensors are on {call.device}"


def empty(device):
    return torch.empty(0, device=device)
