"""A forecast as a picture: history, truth, point forecast and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Panel:
    """One series in one set of axes.

    Args:
        title: the name of the series, written above its axes.
        time: (T,) times of the history, datetime64 or numbers.
        history: (T,) what was known, NaN where missing: drawn as a gap, never bridged.
        ahead: (h,) times of the forecast.
        point: (h,) the point forecast.
        intervals: level in percent -> (low (h,), high (h,)), such as ``{80: (lo80, hi80)}``.
        truth: (h,) what happened, if it is known; NaN where missing.
        baseline: (h,) a forecast to compare with, if any, named by `baseline_name`.
    """

    title: str
    time: Array
    history: Array
    ahead: Array
    point: Array
    intervals: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)
    truth: Array | None = None
    baseline: Array | None = None
    baseline_name: str = "seasonal naive"


def forecast_figure(panels: Panel | Sequence[Panel], *, unit: str = "", title: str = "") -> Figure:
    """Draw one or several forecasts, each in its own axes below the other (two columns from four on).

    Args:
        panels: what to draw; at most 12.
        unit: what the values measure, written at the vertical axis.
        title: written above everything.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        ShapeError: the arrays of a panel have different lengths.
        SettingError: no panel, or more than 12.
        MissingExtra: matplotlib is not installed.
    """
    raise NotImplementedError
