"""In from and out to other formats: torch.nn.LSTM, Keras files, ONNX.

Every way out is checked against the original before its file is kept; every way in reads data and runs
nothing of the file.
"""

from __future__ import annotations

from .exporting import export
from .keras_files import keras_names, load_keras
from .keras_layers import from_keras_weights, to_keras_weights
from .keras_writing import save_keras
from .onnx_reading import OnnxLSTM, load_onnx, onnx_nodes
from .onnx_tracing import onnx_decompositions
from .onnx_writing import Report, save_onnx
from .runtime_writing import save_runtime
from .torch_layers import load_torch, save_torch, to_torch

__all__ = [
    "OnnxLSTM",
    "Report",
    "export",
    "from_keras_weights",
    "keras_names",
    "load_keras",
    "load_onnx",
    "load_torch",
    "onnx_decompositions",
    "onnx_nodes",
    "save_keras",
    "save_onnx",
    "save_runtime",
    "save_torch",
    "to_keras_weights",
    "to_torch",
]
