"""The series a model was fitted to, as a file of its run: forecasts and scores go on from them."""

from __future__ import annotations

import hashlib

import numpy as np

from ...data import Columns, Series, SeriesTable, Step
from ...errors import RunError
from ...runs import Run
from ...train import reached

NAME = "history.safetensors"
WEIGHTS = "weights.safetensors"


def same_data(run: Run, table: SeriesTable) -> None:
    """Note in a run which rows it is trained on, or hold a resumed run to them.

    Raises:
        RunError: the run was begun with other rows.
    """
    digest = hashlib.sha256()
    for series in table:
        digest.update(series.name.encode())
        for array in (series.time, series.target, series.past, series.future[: len(series)], series.static):
            digest.update(np.ascontiguousarray(array).tobytes())
    now = {"series": len(table), "rows": sum(map(len, table)), "sha256": digest.hexdigest()}
    if not run.exists("data.json"):
        run.write_json("data.json", now)
        return
    before = run.read_json("data.json")
    if before != now:
        raise RunError(
            f"{run.folder}: was trained on other rows ({before.get('rows')} of {before.get('series')} "
            f"series; now {now['rows']} of {now['series']}). Give another folder to train on the new ones."
        )


def finished(run: Run) -> None:
    """Refuse a run without its history: its training was killed before its end, or the file is gone.

    Raises:
        RunError: the message says how far it came, and how to go on.
    """
    if not run.exists(NAME):
        if run.exists(WEIGHTS) and "widening" in run.read_arrays(WEIGHTS)[1]:  # written after the training
            raise RunError(
                f"{run.path(NAME)}: there is no such file, and forecasts go on from the rows in it. The run "
                f"is trained to its end: the same training command writes the file again, and trains no "
                f"further."
            )
        raise RunError(
            f"{run.folder}: is unfinished: its training came to step {reached(run)} of "
            f"{run.settings.get('max_steps')}. The same training command goes on from there."
        )


def write_history(run: Run, table: SeriesTable) -> None:
    """Write a table whole or not at all; all series lie end to end in one array a role."""
    calendar = table.step.calendar
    arrays = {
        "time": np.concatenate([series.time.astype(np.int64) for series in table]),
        "target": np.concatenate([series.target for series in table]),
        "past": np.concatenate([series.past for series in table]),
        "future": np.concatenate([series.future for series in table]),
        "static": np.stack([series.static for series in table]),
    }
    about = {
        "names": list(table.names),
        "rows": [len(series) for series in table],
        "ahead": [len(series.future) for series in table],
        "step": str(table.step),
        "calendar": calendar,
        "columns": table.columns.to_json(),
    }
    run.write_arrays(NAME, arrays, about)


def read_history(run: Run) -> SeriesTable:
    """The table that `write_history` wrote.

    Raises:
        RunError: the file is missing, damaged, or holds something else.
    """
    arrays, about = run.read_arrays(NAME)
    try:
        kind = "datetime64[us]" if about["calendar"] else "int64"
        rows, ahead = np.cumsum(about["rows"])[:-1], np.cumsum(about["ahead"])[:-1]
        parts = zip(
            about["names"],
            np.split(arrays["time"].astype(kind), rows),
            np.split(arrays["target"], rows),
            np.split(arrays["past"], rows),
            np.split(arrays["future"], ahead),
            arrays["static"],
            strict=True,
        )
        series = tuple(Series(*each) for each in parts)
        return SeriesTable(series, Step.parse(about["step"]), Columns.from_json(about["columns"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path(NAME)}: is damaged: {error}.") from None
