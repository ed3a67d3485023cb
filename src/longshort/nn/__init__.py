"""Tensors in, tensors out, with weights: the layer, the cell, and how their weights begin."""

from __future__ import annotations

from .cell import LSTMCell
from .initialise import chrono, uniform
from .layer import LSTM
from .torch_weights import convert

__all__ = ["LSTM", "LSTMCell", "chrono", "convert", "uniform"]
