"""Scores beside baselines."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

from ..errors import SettingError
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scores_figure(scores: Mapping[str, Mapping[str, float]], *, ours: str, title: str = "") -> Figure:
    """Draw one bar a method, one set of axes a metric (at most four); the bar of `ours` stands out.

    Args:
        scores: metric -> method -> score, such as ``{"MASE": {"longshort": 0.8, "naive": 1.2}}``. Less is
            better; a NaN is left out and said so.
        ours: the method in the foreground colour.
        title: written above the axes.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        SettingError: there is no score, more than four metrics, or `ours` is in none of them.
        MissingExtra: matplotlib is not installed.
    """
    if not 1 <= len(scores) <= 4:
        raise SettingError(f"scores_figure: `scores` must hold 1 to 4 metrics, got {len(scores)}.")
    methods = list(dict.fromkeys(method for column in scores.values() for method in column))
    if ours not in methods:
        raise SettingError(f"scores_figure: `ours` must be one of {', '.join(methods)}, got {ours!r}.")
    figure = style.new_figure(0.75 + 0.3 * len(methods) + (0.3 if title else 0))
    style.heading(figure, title)
    grid = figure.subplots(1, len(scores), squeeze=False, sharey=True)
    for axes, (metric, column) in zip(grid.flat, scores.items(), strict=True):
        _draw(axes, metric, [column.get(method, float("nan")) for method in methods], methods.index(ours))
    grid[0, 0].set_yticks(range(len(methods)), methods, fontsize=style.NORMAL, parse_math=False)
    grid[0, 0].get_yticklabels()[methods.index(ours)].set_fontweight("bold")
    grid[0, 0].invert_yaxis()
    return figure


def _draw(axes: Axes, metric: str, values: list[float], ours: int) -> None:
    style.dress(axes, grid="x")
    largest = max((value for value in values if isfinite(value)), default=1.0)
    for row, value in enumerate(values):
        known = isfinite(value)
        places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
        text = f"{value:,.{places}f}" if known else "no score"
        colour = style.BLUE if row == ours else "#b5b5b5"
        axes.barh(row, value if known else 0, height=0.66, color=colour)
        axes.text(
            (value if known else 0) + 0.02 * largest,
            row,
            text,
            va="center",
            fontsize=style.SMALL,
            color=style.INK,
            fontweight="bold" if row == ours else "normal",
        )
    axes.set_xlim(0, 1.22 * largest if largest > 0 else 1)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.tick_params(bottom=False, labelbottom=False, left=False)
    axes.set_title(
        f"{metric}, less is better", loc="left", fontsize=style.NORMAL, color=style.INK, parse_math=False
    )
