"""A digest of an ONNX model's nodes and weights, kept in the file, so that a changed byte is found."""

from __future__ import annotations

import hashlib
from typing import Any

DIGEST = "longshort.sha256"
"""The key in the file's metadata."""


def digest(model: Any) -> str:
    """Return the SHA-256 of a model's graph: its nodes, weights and ports.

    Args:
        model: an onnx.ModelProto.
    """
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
