"""The compiled module and the machine it runs on."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import BackendError


def _loaded() -> tuple[Any, str]:
    try:
        return importlib.import_module("._core", __package__), ""
    except ImportError as error:
        return (
            None,
            f"the compiled module is not there ({error}); install longshort where there is a C++20 compiler",
        )


_core, _MISSING = _loaded()


def available() -> bool:
    """Whether the compiled module is there."""
    return _core is not None


def why_not() -> str | None:
    """Why the engine is not available, as a clause; None if it is."""
    return _MISSING or None


def there() -> Any:
    """Return the compiled module.

    Raises:
        BackendError: there is none.
    """
    if _core is None:
        raise BackendError(f"engine: {_MISSING}.")
    return _core


def isa() -> str:
    """Return the instruction set that runs: the best one, or the one LONGSHORT_ENGINE_ISA names."""
    name: str = there().isa()
    return name


def isas() -> list[str]:
    """Return the instruction sets of this processor that were compiled in, best first."""
    names: list[str] = there().isas()
    return names


def pairs() -> bool:
    """Whether bfloat16 is multiplied in pairs: the instruction set that runs has such products."""
    found: bool = there().pairs()
    return found


def peak(*, paired: bool = False) -> float:
    """Return the operations a second that one core reaches in a product from its first cache.

    Args:
        paired: of bfloat16 in pairs, not of float32.

    Raises:
        BackendError: the set that runs has no such products.
    """
    if paired and not pairs():
        raise BackendError(f"engine: the set {isa()} has no products of bfloat16. Ask for those of float32.")
    rate: float = there().peak(paired)
    return rate


def reading(size: int) -> float:
    """Return the bytes a second that one core reads, of `size` bytes over and over: of the cache they fit."""
    rate: float = there().reading(size)
    return rate


def meeting() -> float:
    """Return the seconds that two threads take to meet at a barrier."""
    seconds: float = there().meeting()
    return seconds


def trim() -> None:
    """Give the memory that is kept for reuse back to the system."""
    there().trim()


def join_openmp() -> bool:
    """Run on OpenMP's threads from now on, if a library has brought it into this process.

    Those threads spin for milliseconds after each job of torch, on the very cores that the engine's own would
    need. The layer calls this; a program without torch has no reason to.

    Returns:
        Whether there is an OpenMP.
    """
    joined: bool = there().join_openmp()
    return joined
