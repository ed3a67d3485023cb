"""One function for every way out, chosen by the name of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RunError, SettingError
from ..nn import LSTM
from ..runs import Run, require_writable
from . import keras_writing
from .onnx_writing import Graph, Report, save_graph, save_onnx
from .runtime_writing import checked_form, require_place, save_runtime
from .torch_layers import save_torch

ENDINGS = (".onnx", *keras_writing.ENDINGS, ".safetensors", "")
"""How files end; the runtime's is a folder."""


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
        model: a `longshort.LSTM`, or a fitted `longshort.Forecaster` or `longshort.LanguageModel`.
        path: the file, whose folder is made; its ending is the format. `.onnx`: a graph with the state as
            ports, or a forecaster's graph from rows to quantiles. `.keras` or `.h5`: a Keras model of the
            LSTM. `.safetensors`: weights that torch.nn.LSTM.load_state_dict takes. Of a forecaster these
            hold its LSTM alone. A name without an ending: a folder for `longshort.runtime`.
        streaming: for ONNX: the graph of one step, whose state goes in and comes out.
        reset: for ONNX and a layer: a graph with `reset` as an input.
        weights: for the runtime: how it keeps the LSTMs' weights unless `load` is told otherwise, "float32",
            "bfloat16" or "int8". The short ones are checked too.
        overwrite: replace a file that is there; of folders only one that holds an exported model.

    Returns:
        For ONNX a `Report`, else the path.

    Raises:
        SettingError: the model or the ending is none of these, or the format lacks an option of the layer.
        BackendError: the file does not give the model's numbers; it was not kept.
        RunError: the file exists, or the folder holds something else, or it cannot be written.
        MissingExtra: a library that the format needs is not installed.

    >>> import pathlib, tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "layer.safetensors"
    >>> export(LSTM(3, 4), target).name
    'layer.safetensors'
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise SettingError(
            "export: `path` must end in .onnx, .keras, .h5 or .safetensors, or be a folder without an ending,"
            f" got {path.name!r}. The ending is the format."
        )
    if path.suffix == "":
        require_place(path, overwrite)
    elif path.exists() and not overwrite:
        raise RunError(
            f"{path}: exists. Give another name, or overwrite it: `overwrite=True`, or --overwrite."
        )
    if (streaming or reset) and path.suffix != ".onnx":
        raise SettingError(
            "export: `streaming` and `reset` are for ONNX; a folder for the runtime streams anyway. "
            "Leave them out."
        )
    if reset and not isinstance(model, LSTM):
        raise SettingError("export: `reset` is an input of a longshort.LSTM's graph alone. Leave it out.")
    if weights != "float32" and path.suffix != "":
        raise SettingError("export: `weights` is for the runtime, a folder without an ending. Leave it out.")
    if not path.is_dir():
        require_writable(path)  # and not only after all the work
    if path.suffix == ".onnx":
        return _onnx(model, path, streaming, reset)
    if path.suffix == "":
        return _runtime(model, path, weights, overwrite)
    lstm = layer_of(model)
    save = save_torch if path.suffix == ".safetensors" else keras_writing.save_keras
    save(lstm, path)
    return path


def _runtime(model: Any, path: Path, weights: str, overwrite: bool) -> Path:
    checked_form(weights)
    if isinstance(model, LSTM):
        return save_runtime(model, path, weights=weights, overwrite=overwrite)
    from .program_writing import save_program

    whole, stream = _graphs(model)
    return save_program(whole, path, stream=stream, weights=weights, overwrite=overwrite)


def _onnx(model: Any, path: Path, streaming: bool, reset: bool) -> Report:
    if isinstance(model, LSTM):
        return save_onnx(model, path, streaming=streaming, reset=reset)
    whole, stream = _graphs(model)
    if streaming:
        return save_graph(stream.graph, path)
    if _task(model) == "language":
        from .language_graph import continued

        whole = continued(whole, stream.graph)
    return save_graph(whole, path)


def _graphs(model: Any) -> tuple[Graph, Any]:
    """A fitted model of a task as a graph, and as that of one step."""
    if _task(model) == "language":
        from .language_graph import language_graph

        return language_graph(model)
    layer_of(model)
    from .forecast_graph import forecast_graph

    return forecast_graph(model)


def _task(model: Any) -> str | None:
    """The task whose model this is; tasks are loaded only by the model itself."""
    tasks = {"Forecaster": "forecast", "LanguageModel": "language"}
    task = tasks.get(type(model).__name__)
    home = f"longshort.tasks.{task}."
    return task if type(model).__module__.startswith(home) else None


def layer_of(model: Any) -> LSTM:
    """Return the layer of a model that `export` knows.

    Raises:
        SettingError: it has no single layer, or is none that `export` knows.
    """
    if isinstance(model, LSTM):
        return model
    if _task(model) == "forecast":
        lstm: LSTM = model._fitted()[1].lstm
        return lstm
    if _task(model) == "language":
        raise SettingError(
            "export: a longshort.LanguageModel goes whole, to ONNX or to a folder for the runtime. For the "
            "other formats export a layer of its `network`."
        )
    raise SettingError(
        f"export: `model` must be a longshort.LSTM, a longshort.Forecaster or a longshort.LanguageModel, got "
        f"{type(model).__name__}. "
        f"Any torch model whose LSTMs are longshort's goes to ONNX with torch.onnx.export(model, inputs, "
        f"dynamo=True); export the LSTM inside it for the rest."
    )


def load_model(folder: str | Path) -> Any:
    """Return the fitted model of a run folder.

    Raises:
        RunError: it is no run, or one of a task whose models this cannot export yet.
    """
    run = Run.open(folder)
    if run.task == "forecast":
        from ..tasks import Forecaster

        return Forecaster.load(folder)
    if run.task == "language":
        from ..tasks import LanguageModel

        return LanguageModel.load(folder)
    raise RunError(
        f"{folder}: holds a run of `{run.task}`, and only those of `forecast` and `language` can be "
        f"exported. Load the model and export its LSTM with longshort.export."
    )
