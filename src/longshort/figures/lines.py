"""How numbers change while a model is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
        SettingError: there is no curve.
        MissingExtra: matplotlib is not installed.
    """
    raise NotImplementedError
