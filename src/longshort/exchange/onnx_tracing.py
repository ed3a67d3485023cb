"""Programs of torch.export on their way to ONNX: what the layer's one node becomes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..scan import graph, symbolic
from ..scan.call import Inputs


def onnx_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the table that turns `longshort::lstm` nodes into what ONNX can say.

    torch.onnx.export of a model needs no table. A program that torch.export made has the layer as one node,
    for which torch's exporter has no translation; with the table it becomes ONNX' LSTM, or a Scan:

        program = torch.export.export(model, (x,), dynamic_shapes=...)
        torch.onnx.export(program.run_decompositions(onnx_decompositions()), dynamo=True)

    Returns:
        A table for `run_decompositions` with one entry. Merge it with torch's own where others are needed.
    """
    return {torch.ops.longshort.lstm.default: _decomposed}


def _decomposed(*args: Any) -> list[Tensor]:
    options, _ = graph.read(args[-1])
    outputs = symbolic.run(options, Inputs(*args[:-1]))
    return [output for output in outputs if output is not None]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch's exporter says about itself from the caller."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(n) for n in list(logging.root.manager.loggerDict) if n.startswith(names)]
    loggers += [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
