"""A layer as a folder for `longshort.runtime`: loaded and compared before it has its name."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import runtime
from ..errors import BackendError, RunError, SettingError
from ..nn import LSTM
from ..runtime.files import SETTINGS, WEIGHTS, write_folder
from ..runtime.stack import FORMS
from .layers import array_of
from .onnx_writing import FACTOR, FLOOR

ALLOWED = {"bfloat16": 0.02, "int8": 0.06}
"""How far outputs on short weights may lie from those on full ones, root mean square as a share of theirs."""


def save_runtime(
    lstm: LSTM, folder: str | Path, *, weights: str = "float32", overwrite: bool = False
) -> Path:
    """Write a layer as a folder that `longshort.runtime.load` runs without torch.

    Args:
        lstm: the layer; exported in float32, as in evaluation.
        folder: the folder to make; its weights are in float32 whatever `weights` says.
        weights: how `load` keeps them unless told otherwise: "float32", "bfloat16" or "int8".
        overwrite: replace one that is there.

    Returns:
        The folder.

    Raises:
        SettingError: the engine lacks an option of the layer, or `weights` is none of these.
        BackendError: the engine is not installed, or its numbers differ; nothing was written.
        RunError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    if lstm.variant.gate_recurrence and lstm.variant.norm != "none":
        raise SettingError(
            f"save_runtime: the engine has no `gate_recurrence` with `norm` = {lstm.variant.norm!r}. "
            f"Export the layer to ONNX."
        )

    checked_form(weights)

    def write(made: Path) -> None:
        write_folder(made, {**settings_of(lstm), "weights": weights}, arrays)
        _agree(lstm, made, folder)
        if weights != "float32":
            _as_short_as_said(lstm, made, folder, weights)

    arrays = {name: array_of(value).astype(np.float32) for name, value in lstm.state_dict().items()}
    return placed(folder, write, overwrite)


def checked_form(weights: str) -> None:
    """Raise where `weights` is no form."""
    if weights not in FORMS:
        raise SettingError(f"export: `weights` must be 'float32', 'bfloat16' or 'int8', got {weights!r}.")


def placed(folder: Path, write: Callable[[Path], None], overwrite: bool) -> Path:
    """Make a folder whole or not at all.

    Args:
        folder: its name.
        write: fills an empty folder, and checks what it wrote.
        overwrite: replace an exported model that is there.

    Raises:
        RunError: it exists or cannot be written.
    """
    require_place(folder, overwrite)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            made, old = Path(place) / "model", Path(place) / "old"
            made.mkdir()
            write(made)
            require_place(folder, overwrite)
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}.") from None
    return folder


def require_place(folder: Path, overwrite: bool) -> None:
    """Refuse a folder's name where something stands that an exported model may not replace.

    Raises:
        RunError: it exists, and is no exported model, or is not to be overwritten.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise RunError(
            f"{folder}: exists. Give another name, or overwrite it: `overwrite=True`, or --overwrite."
        )
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {"no folder"}
    if (held and held != {SETTINGS, WEIGHTS}) or not folder.name:
        raise RunError(
            f"{folder}: is no exported model, which holds {SETTINGS} and {WEIGHTS} and nothing else, and "
            f"only such a folder is replaced. Give another name."
        )


def settings_of(lstm: LSTM) -> dict[str, Any]:
    """Return what the runtime must know of a layer besides its weights."""
    return {
        "kind": "lstm",
        "C": lstm.input_size,
        "H": lstm.hidden_size,
        "P": lstm.proj_size or lstm.hidden_size,
        "layers": lstm.num_layers,
        "directions": 2 if lstm.bidirectional else 1,
        "gates": len(lstm.variant.gates),
        "sigmoids": len(lstm.variant.sigmoids),
        "variant": lstm.variant.to_json(),
        "zoneout": {name: getattr(lstm.noise, name) for name in ("zoneout_h", "zoneout_c")},
    }


def _agree(lstm: LSTM, made: Path, folder: Path) -> None:
    """Run the folder beside the layer, whole and step by step."""
    model = runtime.load(made, weights="float32")
    exact = copy.deepcopy(lstm).cpu().double().eval()
    exact.batch_first = True
    random = np.random.default_rng(0)
    for N, T in ((2, 5), (1, 1), (3, 17)):
        x = random.normal(size=(N, T, lstm.input_size)).astype(np.float32)
        lengths = np.maximum(np.arange(T, T - N, -1), 0)
        with torch.no_grad():
            truth, (h, c) = exact(torch.tensor(x).double(), lengths=torch.tensor(lengths))
            own = copy.deepcopy(exact).float()(torch.tensor(x), lengths=torch.tensor(lengths))[0].numpy()
        y, state = model(x, lengths=lengths)
        floor = FLOOR * float(np.finfo(np.float32).eps) * max(1.0, float(truth.abs().max()))
        allowed = max(FACTOR * float(np.abs(own - truth.numpy()).max()), floor)
        pairs = [(y, truth), (state.h, h), (state.c, c)]
        error = max(float(np.abs(got - want.numpy()).max()) for got, want in pairs)
        if not error <= allowed * max(1.0, float(c.abs().max())):
            raise BackendError(
                f"{folder}: the engine errs by {error:.1e} for N = {N}, T = {T} where {allowed:.1e} is "
                "rounding. "
                f"It was not kept."
            )


def _as_short_as_said(lstm: LSTM, made: Path, folder: Path, weights: str) -> None:
    """Run short weights beside full ones, for longer than their errors need to settle."""
    short, full = (runtime.load(made, weights=form) for form in (weights, "float32"))
    x = np.random.default_rng(0).normal(size=(3, 100, lstm.input_size)).astype(np.float32)
    got, want = short(x)[0], full(x)[0]
    spread, error = (float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) for a in (want, got - want))
    if not error <= ALLOWED[weights] * spread:
        raise BackendError(
            f"{folder}: with {weights} weights the outputs err by {error:.1e}, and "
            f"{ALLOWED[weights] * spread:.1e}, {ALLOWED[weights]:.0%} of them, is allowed. It was not kept. "
            f"Export it with weights='float32'."
        )
