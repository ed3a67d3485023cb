"""Module and objective in, fitted module out."""

from .fit import Fitted, FitSettings, Objective, Validation, fit

__all__ = ["FitSettings", "Fitted", "Objective", "Validation", "fit"]
