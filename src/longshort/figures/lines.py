"""How numbers change while a model is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingError, ShapeError, need
from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def metrics_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    across: str = "step",
    best: int | None = None,
) -> Figure:
    """Draw metrics of a training run as lines over one horizontal axis.

    Args:
        curves: name -> (steps, values), such as ``{"training loss": ([1, 2], [0.9, 0.7])}``.
        title: written above the axes.
        across: the name of the horizontal axis.
        best: the step whose weights are kept; marked.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        ShapeError: steps and values of a curve differ in length.
        SettingError: there is no curve, or more than six.
        MissingExtra: matplotlib is not installed.
    """
    if not curves:
        raise SettingError("metrics_figure: `curves` must hold at least one curve, got none.")
    if len(curves) > len(style.LINES):
        raise SettingError(f"metrics_figure: `curves` must be at most {len(style.LINES)}, got {len(curves)}.")
    ticker: Any = need("matplotlib.ticker", extra="tasks", to="draw a figure")
    figure = style.new_figure(2.9 + (0.3 if title else 0))
    style.heading(figure, title)
    axes = figure.subplots()
    style.dress(axes)
    for place, (name, (steps, values)) in enumerate(curves.items()):
        if len(steps) != len(values):
            raise ShapeError(
                f"metrics_figure: {name!r} must have as many values as steps ({len(steps)}), got "
                f"{len(values)}."
            )
        look: dict[str, Any] = {
            "color": style.LINES[place],
            "linestyle": style.DASHES[place],
            "linewidth": 1.5,
        }
        look |= {"marker": "o"} if len(steps) == 1 else {}
        axes.plot(steps, values, label=name, **look)
    if best is not None:
        axes.axvline(best, color=style.QUIET, linewidth=0.9, linestyle=":", label=f"kept: {across} {best:,}")
    everything = np.concatenate([np.asarray(values, float) for _, values in curves.values()])
    finite = everything[np.isfinite(everything)]
    if len(finite) and finite.min() > 0 and finite.max() > 100 * finite.min():
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(style.plain_number))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(style.plain_number))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=8, integer=True))
    axes.margins(x=0.01)
    axes.set_xlabel(across, fontsize=style.SMALL, color=style.INK)
    style.legend(figure, dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True)))
    return figure
