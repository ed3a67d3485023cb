"""Everything longshort raises on purpose, on one screen.

    LongshortError
    ├── ShapeError      a tensor breaks the shape, type or device its contract states  (a ValueError)
    ├── SettingError    an argument lies outside its stated range                      (a ValueError)
    │   └── Diverged    training at these settings left the finite numbers
    ├── BackendError    a backend was asked for that cannot run this call              (a RuntimeError)
    ├── DataError       a file or a table breaks its reader's contract                 (a ValueError)
    ├── RunError        a run folder is missing, foreign, damaged or of another task   (a ValueError)
    └── MissingExtra    an optional dependency is not installed                        (an ImportError)

Each also derives from the builtin a caller would guess, so `except ValueError` keeps working.
Every message has three parts, in this order: where and what must hold; what was got; what to do.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class LongshortError(Exception):
    """Base of every error above; catch it to catch only what longshort meant to raise."""


class ShapeError(LongshortError, ValueError):
    """A tensor breaks the shape, type or device that its contract states."""


class SettingError(LongshortError, ValueError):
    """An argument or a setting lies outside its stated range."""


class Diverged(SettingError):
    """A loss is no longer finite: the learning rate or the weights' start is too large."""


class BackendError(LongshortError, RuntimeError):
    """A backend was asked for by name that cannot run this call."""


class DataError(LongshortError, ValueError):
    """A file or a table breaks its reader's contract."""


class RunError(LongshortError, ValueError):
    """A run folder is missing, foreign, damaged, or holds another task."""


class MissingExtra(LongshortError, ImportError):
    """An optional dependency is not installed."""


def need(module: str, *, extra: str, to: str) -> ModuleType:
    """Import an optional dependency, or say in one line how to get it.

    Args:
        module: what to import, such as ``"polars"`` or ``"matplotlib.figure"``.
        extra: the extra of pyproject.toml that installs it.
        to: what the caller was doing, as an infinitive: ``"read a table"``.

    Returns:
        The imported module.

    Raises:
        MissingExtra: `module` itself is absent. A *broken* install (present, but one of its own
            imports fails) is raised unchanged: hiding it would send the reader the wrong way.

    >>> need("json", extra="tasks", to="write a file").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name != package:
            raise
        raise MissingExtra(
            f"longshort needs `{package}` to {to}, and it is not installed. "
            f"Install it with: pip install 'longshort[{extra}]'"
        ) from None
