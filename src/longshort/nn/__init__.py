"""Tensors in, tensors out, with weights: the layer and the cell."""

from __future__ import annotations

from .layer import LSTM

__all__ = ["LSTM"]
