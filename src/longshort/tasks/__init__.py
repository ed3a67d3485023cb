"""Files in, answers out; one story each. A task is loaded when it is first used: each has its own needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .forecast import Forecaster as Forecaster
    from .language import LanguageModel as LanguageModel

_HOME = {"Forecaster": "forecast", "LanguageModel": "language"}

__all__ = ["Forecaster", "LanguageModel"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
