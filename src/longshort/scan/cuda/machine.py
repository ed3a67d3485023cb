"""One CUDA device: its properties, its kernels, its matrix products."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import BackendError
from ..call import hashed_once
from . import compiler, driver, products, streams
from .sources import Program

OLDEST = (8, 0)
"""The first compute capability whose tensor cores multiply bfloat16 and tf32."""
MOST_ROWS = 65535
"""Blocks of a grid along y, on every device."""


@hashed_once
@dataclass(frozen=True)
class Properties:
    """What a plan may depend on."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int
    "bytes of shared memory that one block may have"
    registers: int = 65536
    "of a multiprocessor"

    def part(self, works: int) -> Properties:
        """Return the properties of one of as many equal parts of the device."""
        return replace(self, multiprocessors=self.multiprocessors // works) if works > 1 else self

    @property
    def architecture(self) -> str:
        """The compiler's name of the device."""
        return f"sm_{self.capability[0]}{self.capability[1]}" + "a" * (self.capability == (9, 0))


class Runnable(Protocol):
    """A kernel on a machine."""

    def bind(
        self, argument: bytearray, x: int, y: int = 1, cooperative: bool = False, early: bool = False
    ) -> Callable[[], None]:
        """Return a launch of x times y blocks."""

    def resident(self, multiprocessors: int) -> int:
        """Return how many blocks fit at once."""


class Machine(Protocol):
    """What runs kernels: a CUDA device, or the tests' own."""

    properties: Properties
    specialises: bool
    "whether a program is compiled for the options of one call, or reads them at run time"

    def kernel(self, program: Program, name: str, shared: int = 0) -> Runnable:
        """Return an entry point of a program, compiled at first use."""

    def ahead(self, program: Program) -> None:
        """Begin to compile a program that will be asked for."""

    def product(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Write a (m, k) times b (k, n), summed in the dtype of `out`, to `out` (m, n); or several such."""

    def repeated(self, a: Tensor, b: Tensor, out: Tensor) -> Callable[[int], object]:
        """Return what writes a[s] times b to `out` by s: `product`, prepared once.

        a is (S, m, k), b (k, n), out (parts, m, n): the sum over k is left in so many parts.
        """

    def splits(self, a: Tensor, b: Tensor, out: Tensor, parts: int) -> bool:
        """Whether that product would add up its sums in a kernel of its own, where `parts` serve instead."""

    def current(self) -> AbstractContextManager[object]:
        """Make the machine current inside a block."""

    def side_by_side(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do works that do not depend on each other, and return what they return."""

    def sharing(self) -> int:
        """Return how many works share the machine with the one at hand, itself included."""

    def report(self) -> Tensor:
        """Return two numbers on the host that kernels can write: 1 + block and step of a wait too long."""

    def tf32(self) -> bool:
        """Whether float32 products of a recurrence may round their operands to tf32."""


class Cuda:
    """A device of this computer."""

    specialises = True

    def __init__(self, index: int) -> None:
        found = torch.cuda.get_device_properties(index)
        self.index = index
        self.properties = Properties(
            found.name,
            (found.major, found.minor),
            found.multi_processor_count,
            getattr(found, "shared_memory_per_block_optin", 48 * 1024),
            getattr(found, "regs_per_multiprocessor", 65536),
        )
        self._kernels: dict[Any, driver.Kernel] = {}
        self._begun: set[Program] = set()
        self._lock = threading.Lock()
        self._report: Tensor | None = None

    def kernel(self, program: Program, name: str, shared: int = 0) -> driver.Kernel:
        """Return an entry point of a program, compiled at first use."""
        key = program, name, shared
        found = self._kernels.get(key)
        if found is None:
            binary = compiler.binary(program.text(), self.properties.architecture)
            threads = next(e.threads for e in program.entries if e.name == name)
            with self._lock:
                found = self._kernels.get(key)
                if found is None:
                    found = driver.Kernel(binary, name, threads, shared, self.index)
                    self._kernels[key] = found
        return found

    def ahead(self, program: Program) -> None:
        """Begin to compile a program in a thread of its own, where nobody has asked for it before."""
        if program not in self._begun:
            self._begun.add(program)
            compiler.ahead(program.text(), self.properties.architecture)

    def forget(self) -> None:
        """Let go of all kernels, so that the next call of each kind is a first one."""
        self._kernels.clear()
        self._begun.clear()

    def product(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Multiply by torch, and so by cuBLAS; 16 bits are summed and left in float32."""
        if a.dtype == out.dtype:
            return torch.mm(a, b, out=out) if a.dim() == 2 else torch.bmm(a, b, out=out)
        return torch.mm(a, b, out_dtype=out.dtype, out=out)

    def repeated(self, a: Tensor, b: Tensor, out: Tensor) -> Callable[[int], object]:
        """Prepare a product by cuBLASLt; torch makes it where that cannot."""

        def otherwise(s: int) -> None:
            for x, y, z in zip(a[s].chunk(len(out), 1), b.chunk(len(out)), out, strict=True):
                self.product(x, y, z)

        return products.repeated(a, b, out, _rounds(), otherwise)

    def splits(self, a: Tensor, b: Tensor, out: Tensor, parts: int) -> bool:
        """Whether cuBLASLt's rule splits the sum over k, and 16 bytes divide each of `parts` of it."""
        aligned = a.shape[2] // parts * a.element_size() % 16 == 0
        return aligned and products.splits(a, b, out, _rounds())

    def current(self) -> AbstractContextManager[object]:
        """Make the device current: a launch goes to the current one."""
        return torch.cuda.device(self.index)

    def side_by_side(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Give each but the first a stream of its own."""
        return streams.side_by_side(self.index, works)

    def sharing(self) -> int:
        """Return how many works of `side_by_side` share the device."""
        return streams.sharing()

    def report(self) -> Tensor:
        """Return the report, in pinned memory: it outlives the context that a kernel's error ends.

        Raises:
            BackendError: an earlier kernel reported.
        """
        if self._report is None:
            self._report = torch.zeros(2, dtype=torch.int64, device="cpu").pin_memory()
        block, step = self._report.tolist()
        if block:
            raise BackendError(
                f"lstm: block {block - 1} of an earlier kernel waited too long for another block at step "
                f"{step}, and the kernel ended. Start a new process, and use backend='plain', or set "
                f"LONGSHORT_CUDA_PATIENCE to more seconds where a debugger slows the device down."
            )
        return self._report

    def tf32(self) -> bool:
        """Follow torch's switch for recurrent networks, as torch.nn.LSTM does, whichever way it was set."""
        named = getattr(getattr(torch.backends.cudnn, "rnn", None), "fp32_precision", None)
        return bool(torch.backends.cudnn.allow_tf32) if named is None else named == "tf32"


def _rounds() -> bool:
    """Whether torch's products of float32 may round their operands to tf32, whichever way it was said."""
    matmul = torch.backends.cuda.matmul
    named = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if named is None else named == "tf32"


@lru_cache(maxsize=64)
def cuda(index: int) -> Cuda:
    """Return a device, the same object each time."""
    return Cuda(index)


def of(device: torch.device) -> Machine:
    """Return the machine of a tensor's device."""
    return cuda(device.index)


def device(index: int | None) -> torch.device:
    """Return the CUDA device of a number, the current one if None."""
    return torch.device("cuda", torch.cuda.current_device() if index is None else index)


def why_not(index: int | None = None) -> str | None:
    """Say why no kernel can run on a CUDA device, the current one if None, as a clause, or None."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if driver.library() is None:
        return "the driver's library libcuda.so.1 is not to be found"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        return (
            f"{torch.cuda.get_device_name(index)} has compute capability {capability[0]}.{capability[1]}, "
            f"and the kernels need {OLDEST[0]}.{OLDEST[1]}"
        )
    why = compiler.why_not()
    if why is not None:
        return why
    if driver.version() < compiler.version()[0]:
        return (
            f"the driver knows CUDA {driver.version()}, and NVRTC {compiler.version()[0]} makes binaries for "
            f"a newer one; update the driver, or install nvidia-cuda-nvrtc-cu{driver.version()}"
        )
    return None
