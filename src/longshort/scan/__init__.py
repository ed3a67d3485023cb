"""Tensors in, tensors out: a whole sequence through one LSTM layer, in one direction."""

from __future__ import annotations

from .call import Backend, Call, Inputs, Options, Outputs
from .functional import lstm, plan
from .masks import Noise
from .ragged import Jagged
from .state import Kept, State, dones_to_resets
from .variant import Variant

__all__ = [
    "Backend",
    "Call",
    "Inputs",
    "Jagged",
    "Kept",
    "Noise",
    "Options",
    "Outputs",
    "State",
    "Variant",
    "dones_to_resets",
    "lstm",
    "plan",
]
