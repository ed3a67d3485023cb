"""An exported model without torch: whole batches, and streams that keep their state between steps.

NumPy and the compiled engine are all it needs. `longshort.export(layer, "folder")` writes what `load` reads.
"""

from __future__ import annotations

from .model import Model, load
from .program import Program
from .stack import State
from .streams import Stream

__all__ = ["Model", "Program", "State", "Stream", "load"]
