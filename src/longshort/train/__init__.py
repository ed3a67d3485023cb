"""Module and objective in, fitted module out."""

from .checkpoint import reached
from .fit import FitSettings, Fitted, Objective, Validation, fit

__all__ = ["FitSettings", "Fitted", "Objective", "Validation", "fit", "reached"]
