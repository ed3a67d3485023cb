"""The driver's own library, called directly: load a binary, launch a kernel in a few microseconds.

No CUDA runtime, no compiler, none of torch's C++: torch has made the context, and what is called here has
been stable since CUDA 12.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import torch

from ...errors import BackendError

_SHARED_ATTRIBUTE: Final = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_COOPERATIVE: Final = 2  # CU_LAUNCH_ATTRIBUTE_COOPERATIVE
_EARLY: Final = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute, 72 bytes."""

    _fields_ = (("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_uint * 16))


class _Config(ctypes.Structure):
    """CUlaunchConfig, 56 bytes."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )


class _Launch(ctypes.Structure):
    """What a launch is told, side by side: `config` points to `attributes`, `argument` to what is packed."""

    _fields_ = (("attributes", _Attribute * 2), ("config", _Config), ("argument", ctypes.c_void_p))


_ADDRESS, _ADDRESSES = struct.Struct("=Q"), struct.Struct("=QQ")


@lru_cache(maxsize=1)
def library() -> Any:
    """Return the driver's library, or None. Calls keep the interpreter's lock: giving it up costs more."""
    try:
        found = ctypes.PyDLL("libcuda.so.1")
    except OSError:
        return None
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    found.cuLibraryLoadData.argtypes = [
        pointer, ctypes.c_char_p, pointer, pointer, ctypes.c_uint, pointer, pointer, ctypes.c_uint
    ]  # fmt: skip
    found.cuLibraryGetKernel.argtypes = [pointer, pointer, ctypes.c_char_p]
    found.cuKernelGetFunction.argtypes = [pointer, pointer]
    found.cuKernelSetAttribute.argtypes = [integer, integer, pointer, integer]
    found.cuOccupancyMaxActiveBlocksPerMultiprocessor.argtypes = [pointer, pointer, integer, size]
    found.cuLaunchKernelEx.argtypes = [pointer] * 4
    found.cuDriverGetVersion.argtypes = [pointer]
    found.cuGetErrorName.argtypes = [integer, pointer]
    found.cuCtxGetCurrent.argtypes = [pointer]
    found.cuCtxSetCurrent.argtypes = [pointer]
    found.cuDevicePrimaryCtxRetain.argtypes = [pointer, integer]
    return found


def version() -> int:
    """Return the newest CUDA the driver knows, such as 13; 0 without a driver."""
    found, number = library(), ctypes.c_int()
    if found is None or found.cuDriverGetVersion(ctypes.byref(number)):
        return 0
    return number.value // 1000


def check(code: int, what: str) -> None:
    """Raise where the driver refused.

    Raises:
        BackendError: with the driver's own name for the error. Out of memory is torch's own error.
    """
    if code == 0:
        return
    name = ctypes.c_char_p()
    library().cuGetErrorName(code, ctypes.byref(name))
    said = name.value.decode() if name.value else str(code)
    if code == 2:
        raise torch.cuda.OutOfMemoryError(f"lstm: the driver could not {what}: {said}")
    raise BackendError(f"lstm: the driver could not {what}: {said}. Use backend='plain' meanwhile.")


def stream_of(device: int) -> int:
    """Return torch's current stream of a device."""
    quick = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a twentieth of the public way's time
    found = torch.cuda.current_stream(device).cuda_stream if quick is None else quick(device)
    return int(found)


class Kernel:
    """One kernel on one device.

    Args:
        binary: what the compiler made.
        name:   the entry point.
        threads: of a block.
        shared: bytes of dynamic shared memory.
        device: its index.
    """

    def __init__(self, binary: bytes, name: str, threads: int, shared: int, device: int) -> None:
        self.threads, self.shared, self.device, self._binary = threads, shared, device, binary
        _context(device)
        loaded, handle = ctypes.c_void_p(), ctypes.c_void_p()
        driver = library()
        check(
            driver.cuLibraryLoadData(ctypes.byref(loaded), binary, None, None, 0, None, None, 0),
            "load a kernel",
        )
        check(driver.cuLibraryGetKernel(ctypes.byref(handle), loaded, name.encode()), f"find kernel {name}")
        if shared > 48 * 1024:
            check(
                driver.cuKernelSetAttribute(_SHARED_ATTRIBUTE, shared, handle, device),
                f"give kernel {name} {shared} bytes of shared memory",
            )
        self.name, self.handle = name, handle
        self._forms: dict[tuple[int, int, bool, bool], bytes] = {}

    def resident(self, multiprocessors: int) -> int:
        """Return how many blocks the device can hold at once, which bounds a cooperative launch."""
        function, blocks = ctypes.c_void_p(), ctypes.c_int()
        driver = library()
        _context(self.device)
        check(driver.cuKernelGetFunction(ctypes.byref(function), self.handle), f"find kernel {self.name}")
        check(
            driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
                ctypes.byref(blocks), function, self.threads, self.shared
            ),
            f"count the blocks of kernel {self.name}",
        )
        return blocks.value * multiprocessors

    def bind(
        self, argument: bytearray, x: int, y: int = 1, cooperative: bool = False, early: bool = False
    ) -> Callable[[], None]:
        """Prepare launches on torch's current stream.

        Args:
            argument: the packed argument, read anew at every launch.
            x:        blocks.
            y:        blocks for each of them.
            cooperative: whether all blocks must be resident at once; the launch fails otherwise.
            early:    whether it may start while the kernel before it in the stream ends, for which it then
                waits itself, as `wait_for_previous` of device.cuh says. Needs compute capability 9.0.

        Returns:
            The launch. Everything it needs is its own, so threads may launch side by side.
        """
        if vars(_THREAD).get("device") != self.device:
            _context(self.device)
            _THREAD.device = self.device
        form = self._forms.get((x, y, cooperative, early))
        if form is None:
            form = self._forms[x, y, cooperative, early] = _form(x, y, self, cooperative, early)
        made = bytearray(form)
        here, memory = ctypes.c_char.from_buffer(made), ctypes.c_char.from_buffer(argument)
        where = ctypes.addressof(here)
        _ADDRESSES.pack_into(
            made, _Launch.config.offset + _Config.stream.offset, stream_of(self.device), where
        )
        _ADDRESS.pack_into(made, _Launch.argument.offset, ctypes.addressof(memory))
        start, arguments, what = library().cuLaunchKernelEx, where + _Launch.argument.offset, self.handle
        where += _Launch.config.offset

        def launch(kept: object = (here, memory)) -> None:
            code = start(where, what, arguments, None)
            if code:
                check(code, f"launch kernel {self.name} in {x * y} blocks")

        return launch


def _form(x: int, y: int, kernel: Kernel, cooperative: bool, early: bool) -> bytes:
    """A launch's structures, complete but for addresses and the stream."""
    made = _Launch()
    wanted = [name for name, on in ((_COOPERATIVE, cooperative), (_EARLY, early)) if on]
    for attribute, name in zip(made.attributes, wanted, strict=False):
        attribute.id, attribute.value[0] = name, 1
    made.config = _Config((x, y, 1), (kernel.threads, 1, 1), kernel.shared, None, None, len(wanted))
    return bytes(made)


_THREAD: Final = threading.local()
"""Of what device a thread's last launch was: it has a context."""


def _context(device: int) -> None:
    """Make torch's context current in a thread whose first call to CUDA this is."""
    driver, current = library(), ctypes.c_void_p()
    check(driver.cuCtxGetCurrent(ctypes.byref(current)), "find the current context")
    if not current.value:
        check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(current), device), "find torch's context")
        check(driver.cuCtxSetCurrent(current), "make torch's context current")
