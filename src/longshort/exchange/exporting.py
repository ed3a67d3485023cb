"""One function for every way out, chosen by the name of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RunError, SettingError
from ..nn import LSTM
from ..runs import Run
from .keras_writing import save_keras
from .onnx_writing import Report, save_onnx
from .runtime_writing import checked_form, save_runtime
from .torch_layers import save_torch

ENDINGS = {"onnx": ".onnx", "keras": ".keras", "torch": ".safetensors", "runtime": ""}
"""Format -> how its files end; the runtime's is a folder."""


def export(
    model: Any,
    path: str | Path,
    *,
    streaming: bool = False,
    reset: bool = False,
    weights: str = "float32",
    overwrite: bool = False,
) -> Report | Path:
    """Write a model to a file of another format, checked against the model before it is kept.

    Args:
        model: a `longshort.LSTM`, or a fitted `longshort.Forecaster`.
        path: the file; its ending is the format. `.onnx`: a graph with the state as ports, or a forecaster's
            graph from rows to quantiles. `.keras`: a Keras model of the LSTM. `.safetensors`: weights that
            torch.nn.LSTM.load_state_dict takes. Of a forecaster these two hold its LSTM alone. A name without
            an ending: a folder for `longshort.runtime`.
        streaming: for ONNX and a layer: the graph of one step.
        reset: for ONNX and a layer: a graph with `reset` as an input.
        weights: for the runtime: how it keeps the LSTMs' weights unless `load` is told otherwise, "float32",
            "bfloat16" or "int8". The short ones are checked too.
        overwrite: replace a file that is there.

    Returns:
        For ONNX a `Report`, else the path.

    Raises:
        SettingError: the model or the ending is none of these, or the format lacks an option of the layer.
        BackendError: the file does not give the model's numbers; it was not kept.
        RunError: the file exists or cannot be written.
        MissingExtra: a library that the format needs is not installed.

    >>> import pathlib, tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "layer.safetensors"
    >>> export(LSTM(3, 4), target).name
    'layer.safetensors'
    """
    path = Path(path)
    if path.suffix not in ENDINGS.values():
        raise SettingError(
            f"export: `path` must end in .onnx, .keras or .safetensors, or be a folder without an ending, "
            f"got {path.name!r}. The ending is the format."
        )
    if path.exists() and not overwrite:
        raise RunError(
            f"{path}: exists. Give another name, or overwrite it: `overwrite=True`, or --overwrite."
        )
    if (streaming or reset) and (path.suffix != ".onnx" or not isinstance(model, LSTM)):
        raise SettingError(
            "export: `streaming` and `reset` are for a longshort.LSTM that becomes ONNX. Leave them out."
        )
    if weights != "float32" and path.suffix != "":
        raise SettingError("export: `weights` is for the runtime, a folder without an ending. Leave it out.")
    if path.suffix == ".onnx":
        return _onnx(model, path, streaming, reset)
    if path.suffix == "":
        return _runtime(model, path, weights, overwrite)
    lstm = layer_of(model)
    save_keras(lstm, path) if path.suffix == ".keras" else save_torch(lstm, path)
    return path


def _runtime(model: Any, path: Path, weights: str, overwrite: bool) -> Path:
    checked_form(weights)
    if isinstance(model, LSTM):
        return save_runtime(model, path, weights=weights, overwrite=overwrite)
    layer_of(model)
    from .forecast_stream import forecast_stream  # loads the tasks
    from .program_writing import save_program

    whole, stream = forecast_stream(model)
    return save_program(whole, path, stream=stream, weights=weights, overwrite=overwrite)


def _onnx(model: Any, path: Path, streaming: bool, reset: bool) -> Report:
    if isinstance(model, LSTM):
        return save_onnx(model, path, streaming=streaming, reset=reset)
    layer_of(model)
    from .onnx_forecast import save_forecast  # loads the tasks

    return save_forecast(model, path)


def layer_of(model: Any) -> LSTM:
    """Return the layer of a model that `export` knows.

    Raises:
        SettingError: it is neither a layer nor a fitted forecaster.
    """
    if isinstance(model, LSTM):
        return model
    if type(model).__name__ == "Forecaster":
        from ..tasks import Forecaster

        if isinstance(model, Forecaster):
            lstm = model._fitted()[1].lstm
            return lstm
    raise SettingError(
        f"export: `model` must be a longshort.LSTM or a longshort.Forecaster, got {type(model).__name__}. "
        f"Any torch model whose LSTMs are longshort's goes to ONNX with torch.onnx.export(model, inputs, "
        f"dynamo=True); export the LSTM inside it for the rest."
    )


def load_model(folder: str | Path) -> Any:
    """Return the fitted model of a run folder.

    Raises:
        RunError: it is no run, or one of a task whose models this cannot export yet.
    """
    run = Run.open(folder)
    if run.task != "forecast":
        raise RunError(
            f"{folder}: holds a run of `{run.task}`, and only those of `forecast` can be exported. "
            f"Load the model and export its LSTM with longshort.export."
        )
    from ..tasks import Forecaster

    return Forecaster.load(folder)
