"""longshort: LSTM, complete. The layer, its tasks, and a look at what it remembers.

Importing this loads neither torch nor anything else that is slow: each public name is fetched from its
home when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # read by type checkers and editors, never run
    from .exchange import export as export
    from .lens import look as look
    from .nn import LSTM as LSTM
    from .nn import LSTMCell as LSTMCell
    from .nn import convert as convert
    from .scan import Noise as Noise
    from .scan import State as State
    from .scan import Variant as Variant
    from .scan import dones_to_resets as dones_to_resets
    from .scan import lstm as lstm
    from .scan.functional import plan as plan
    from .tasks import Forecaster as Forecaster
    from .tasks import LanguageModel as LanguageModel

__version__ = "0.1.0"

_HOME = {
    "look": "lens",
    "export": "exchange",
    "LSTM": "nn",
    "LSTMCell": "nn",
    "convert": "nn",
    "Noise": "scan",
    "State": "scan",
    "Variant": "scan",
    "dones_to_resets": "scan",
    "lstm": "scan",
    "plan": "scan",
    "Forecaster": "tasks",
    "LanguageModel": "tasks",
}
"""Public name -> the package that defines it."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'longshort' has no attribute {name!r}")
    from .errors import need

    need("torch", extra="tasks" if _HOME[name] == "tasks" else "torch", to=f"offer {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
