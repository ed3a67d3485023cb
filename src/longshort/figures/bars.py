"""Scores beside baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scores_figure(scores: Mapping[str, Mapping[str, float]], *, ours: str, title: str = "") -> Figure:
    """Draw one bar a method, one set of axes a metric; the bar of `ours` stands out.

    Args:
        scores: metric -> method -> score, such as ``{"MASE": {"longshort": 0.8, "naive": 1.2}}``. Less is
            better; a NaN is left out and said so.
        ours: the method in the foreground colour.
        title: written above the axes.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        SettingError: there is no score, or `ours` is in none of them.
        MissingExtra: matplotlib is not installed.
    """
    raise NotImplementedError
