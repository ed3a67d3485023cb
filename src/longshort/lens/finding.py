"""One plain sentence about a model, and the thresholds that sentences go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .vocabulary import worded

if TYPE_CHECKING:
    from .looking import Look

SHORT = 3.0
"""A half-life in steps below which a cell hardly remembers."""
MOSTLY = 0.9
"""The share of steps from which on a gate counts as saturated, a readout as blocked."""
FEW = 0.2
"""The share of units above which dead or saturated ones are worth a warning."""
LONGEST = 3
"""Units of the longest memory that are named, and silenced."""
LITTLE = 0.01
"""The share of what the whole past is worth below which a unit or a gate is not needed."""
MUCH = 0.1
"""The share of all influence from which on a step is named."""


@dataclass(frozen=True)
class Finding:
    """One sentence about a model."""

    tone: str
    "warning, note or good"
    text: str
    "with symbols in braces (`vocabulary.worded`)"
    number: float
    "what was measured"
    threshold: float
    "against what"
    remedy: str
    "what to do, or where to look; may be empty"
    view: str
    "the view of the page that shows it"

    def line(self, vocabulary: str = "classic") -> str:
        """The sentence and its remedy, in words, on one line."""
        mark = {"warning": "!", "note": "·", "good": "✓"}[self.tone]
        return f"{mark} {worded(self.text, vocabulary)} {worded(self.remedy, vocabulary)}".rstrip()


def steps_text(number: int, censored: bool) -> str:
    """Steps in words; "more than" so many where the number is only a lower bound."""
    return f"{'more than ' if censored else ''}{number} step{'s' if number != 1 else ''}"


def worth_of(look: Look) -> float:
    """How much the loss rises without any past, or without the unit that it misses most."""
    rises = list(look.surgery.units.values()) if look.surgery is not None else []
    past = 0.0 if look.used is None else float(torch.minimum(look.used.zero, look.used.mean)[0])
    return max([past, 0.0, *rises])
