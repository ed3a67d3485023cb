"""Module and objective in, fitted module out."""

from .checkpoint import reached
from .fit import Continuing, FitSettings, Fitted, Objective, Validation, fit

__all__ = ["Continuing", "FitSettings", "Fitted", "Objective", "Validation", "fit", "reached"]
