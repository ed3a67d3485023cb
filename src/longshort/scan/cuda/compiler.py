"""A program becomes a binary: NVRTC at first use, the binary kept on disk for the next process."""

from __future__ import annotations

import ctypes
import hashlib
import os
import site
import sys
import tempfile
import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ...errors import BackendError

OPTIONS: Final = ("--std=c++17", "--diag-suppress=177")
_MARK: Final = b"longshort-cuda-1\n"


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
        BackendError: NVRTC is missing, does not know the architecture, or refuses the source; its log is in
            the message.
    """
    library, program = _library(), ctypes.c_void_p()
    _check(
        library, program,
        library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"longshort.cu", 0, None, None),
        architecture,
    )  # fmt: skip
    try:
        words = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in OPTIONS)]
        options = (ctypes.c_char_p * len(words))(*words)
        _check(library, program, library.nvrtcCompileProgram(program, len(words), options), architecture)
        size = ctypes.c_size_t()
        _check(library, program, library.nvrtcGetCUBINSize(program, ctypes.byref(size)), architecture)
        binary = ctypes.create_string_buffer(size.value)
        _check(library, program, library.nvrtcGetCUBIN(program, binary), architecture)
        return binary.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _check(library: Any, program: ctypes.c_void_p, code: int, architecture: str) -> None:
    if code == 0:
        return
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    library.nvrtcGetProgramLog(program, log)
    first = log.value.decode("utf8", "replace").strip().splitlines()
    raise BackendError(
        f"lstm: NVRTC {'.'.join(map(str, version()))} could not compile the kernels for {architecture} "
        f"(error {code}): {first[0] if first else 'it left no log'}. Use backend='plain' meanwhile."
    )


def folder() -> Path:
    """Return where binaries are kept: LONGSHORT_CACHE, or the user's cache folder."""
    named = os.environ.get("LONGSHORT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(home) / "longshort"


def binary(source: str, architecture: str) -> bytes:
    """Return the binary of a source, from the disk where it was compiled before.

    The key is a digest of source, options, architecture and NVRTC's version. A file is written under a
    temporary name and renamed, so several processes may start together; a damaged file is made anew; where
    nothing can be written the binary is compiled in each process, and a warning says so once.
    """
    text = "\0".join((source, *OPTIONS, architecture, str(version())))
    path = folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.cubin"
    found = _read(path)
    if found is None:
        found = compiled(source, architecture)
        _write(path, found)
    return found


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
_LOCK = threading.Lock()


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
