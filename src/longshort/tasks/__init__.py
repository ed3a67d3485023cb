"""Files in, answers out; one story each."""

from .forecast import Forecaster

__all__ = ["Forecaster"]
