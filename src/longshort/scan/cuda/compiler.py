"""A program becomes a binary: NVRTC at first use, the binary kept on disk for the next process."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import site
import sys
import tempfile
import threading
import warnings
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Final

from ...errors import BackendError

OPTIONS: Final = ("--std=c++17", "--diag-suppress=177", "--device-as-default-execution-space")
_MARK: Final = b"longshort-cuda-1\n"
_LOCK: Final = threading.Lock()


@lru_cache(maxsize=1)
def nvrtc() -> ctypes.CDLL | None:
    """Return NVIDIA's run-time compiler, or None where it is not installed.

    It comes with torch's CUDA wheels and with `nvidia-cuda-nvrtc`; a system's own is taken too. It needs
    neither a driver nor a device.
    """
    folders = [Path(p) for p in dict.fromkeys([*sys.path, *site.getsitepackages()]) if p]
    found = sorted({p for folder in folders for p in folder.glob("nvidia/*/lib/libnvrtc.so.1[0-9]")})
    for path in reversed(found):
        try:
            for builtins in sorted(path.parent.glob("libnvrtc-builtins.so*")):
                ctypes.CDLL(str(builtins))  # NVRTC opens it by its name alone, which then is known
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    for name in ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def why_not() -> str | None:
    """Say why nothing can be compiled, as a clause, or None."""
    if nvrtc() is None:
        return "NVRTC, which compiles them, is not installed; install it with: pip install 'longshort[cuda]'"
    return None


@lru_cache(maxsize=1)
def version() -> tuple[int, int]:
    """Return NVRTC's version."""
    library, major, minor = _library(), ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def _library() -> ctypes.CDLL:
    library = nvrtc()
    if library is None:
        raise BackendError(f"lstm: the kernels cannot be compiled: {why_not()}.")
    return library


def compiled(source: str, architecture: str) -> bytes:
    """Compile a translation unit.

    Args:
        source:       CUDA C++ without includes.
        architecture: such as "sm_90a".

    Returns:
        The binary for that architecture.

    Raises:
        BackendError: NVRTC is missing, does not know the architecture, or refuses the source; the first line
            of its log is in the message.
    """
    return _built(source, architecture, OPTIONS)[0]


def cost(source: str, architecture: str) -> dict[str, int]:
    """Return what a unit of one kernel takes: `registers` of a thread, and bytes that `spills` to memory."""
    log = _built(source, architecture, (*OPTIONS, "--ptxas-options=-v"))[1]
    found = re.search(r"Used (\d+) registers", log)
    spilled = re.search(r"(\d+) bytes spill stores", log)
    if found is None or spilled is None:
        raise BackendError(f"lstm: NVRTC {'.'.join(map(str, version()))} does not say what a kernel takes.")
    return {"registers": int(found[1]), "spills": int(spilled[1])}


def _built(source: str, architecture: str, options: tuple[str, ...]) -> tuple[bytes, str]:
    """The binary and the log."""
    library, program = _library(), ctypes.c_void_p()

    def log() -> str:
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value + 1)
        library.nvrtcGetProgramLog(program, text)
        return text.value.decode("utf8", "replace").strip()

    def check(code: int) -> None:
        if code:
            raise BackendError(
                f"lstm: NVRTC {'.'.join(map(str, version()))} could not compile the kernels for "
                f"{architecture} (error {code}): {log().partition(chr(10))[0] or 'it left no log'}. "
                f"Use backend='plain' meanwhile."
            )

    unit = source.encode()
    check(library.nvrtcCreateProgram(ctypes.byref(program), unit, b"longshort.cu", 0, None, None))
    try:
        words = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in options)]
        check(library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words)))
        size = ctypes.c_size_t()
        check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        binary = ctypes.create_string_buffer(size.value)
        check(library.nvrtcGetCUBIN(program, binary))
        return binary.raw, log()
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def folder() -> Path:
    """Return where binaries are kept: LONGSHORT_CACHE, or the user's cache folder."""
    named = os.environ.get("LONGSHORT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(home) / "longshort"


def binary(source: str, architecture: str) -> bytes:
    """Return the binary of a source, from the disk where it was compiled before.

    The key is a digest of source, options, architecture and NVRTC's version. A file is written under a
    temporary name and renamed, so several processes may start together; a damaged file is made anew; where
    nothing can be written the binary is compiled in each process, and a warning says so once. A thread that
    asks for what another is compiling waits for that.

    Raises:
        BackendError: as `compiled`.
    """
    path = _place(source, architecture)
    found = _read(path)
    if found is None:
        future, mine = _joined(path)
        if mine:
            _make(future, path, source, architecture)
        found = future.result()
    return found


def ahead(source: str, architecture: str) -> None:
    """Begin to compile what `binary` will be asked for, in a thread of its own; errors are kept for then."""
    path = _place(source, architecture)
    if path.is_file():
        return
    future, mine = _joined(path)
    if mine:
        threading.Thread(target=_make, args=(future, path, source, architecture)).start()


_UNDERWAY: Final[dict[Path, Future[bytes]]] = {}
"""What is being compiled, by where it will be kept."""


def _place(source: str, architecture: str) -> Path:
    text = "\0".join((source, *OPTIONS, architecture, str(version())))
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.cubin"


def _joined(path: Path) -> tuple[Future[bytes], bool]:
    """What becomes of a binary, and whether the caller has to make it."""
    with _LOCK:
        found = _UNDERWAY.get(path)
        if found is not None:
            return found, False
        _UNDERWAY[path] = found = Future()
        return found, True


def _make(future: Future[bytes], path: Path, source: str, architecture: str) -> None:
    try:
        found = _read(path)  # another may have made it since
        if found is None:
            found = compiled(source, architecture)
            _write(path, found)
        future.set_result(found)
    except BaseException as error:  # goes to whoever waits
        future.set_exception(error)
    finally:
        with _LOCK:
            del _UNDERWAY[path]


def _read(path: Path) -> bytes | None:
    """The binary in a file of ours, or None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = len(_MARK) + 32
    mark, digest, found = content[: len(_MARK)], content[len(_MARK) : head], content[head:]
    return found if mark == _MARK and hashlib.sha256(found).digest() == digest else None


def _write(path: Path, found: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MARK + hashlib.sha256(found).digest() + found)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        _say_once(path.parent, error)


_SAID: set[str] = set()


def _say_once(where: Path, error: OSError) -> None:
    with _LOCK:
        if str(where) in _SAID:
            return
        _SAID.add(str(where))
    warnings.warn(
        f"longshort cannot keep compiled kernels in {where} ({error.strerror or error}), so every process "
        f"compiles them anew. Set LONGSHORT_CACHE to a folder that can be written.",
        stacklevel=2,
    )
