"""Many units over time, one strip for each quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingError, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Strip:
    """One quantity of many units over time."""

    name: str
    values: np.ndarray[Any, Any]
    "(units, T)"
    signed: bool = False
    "drawn symmetric about zero; else from 0 to 1"


def strips_figure(strips: Sequence[Strip], *, title: str = "") -> Figure:
    """Draw heat strips, one below the other, over one time axis.

    Args:
        strips: at least one; all of one T.
        title: written above.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        SettingError: there is no strip.
        MissingExtra: matplotlib is not installed.
    """
    if not strips:
        raise SettingError("strips_figure: `strips` must hold at least one strip, got none.")
    module: Any = need("matplotlib.figure", extra="tasks", to="draw a figure")
    figure: Figure = module.Figure(figsize=(6.5, 0.75 * len(strips) + 0.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(strips), 1, sharex=True))
    for axis, strip in zip(axes, strips, strict=True):
        size = max(float(np.abs(strip.values).max(initial=0)), 1e-9)
        low, colours = (-size, "RdBu_r") if strip.signed else (0.0, "viridis")
        axis.imshow(
            strip.values, aspect="auto", vmin=low, vmax=size if strip.signed else 1.0, cmap=colours,
            interpolation="nearest",
        )  # fmt: skip
        axis.set_yticks([])
        label = f"{strip.name}\n±{size:.2g}" if strip.signed else f"{strip.name}\n0 … 1"
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("step", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9, parse_math=False)
    return figure
