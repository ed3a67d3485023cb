"""How every figure looks: set on the objects themselves, so that no global setting changes or matters.

The colours are those of Okabe & Ito (2008), which people with any colour vision tell apart; lines also
differ in width or dash, so that a grey print keeps the meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..errors import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#262626"
QUIET = "#6e6e6e"
RULE = "#dcdcdc"
BLUE = "#0072B2"
ORANGE = "#D55E00"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), "solid", (0, (5, 2)))
SMALL, NORMAL, LARGE = 8.5, 9.5, 11.5
"""Sizes of type in points; a figure is 8.3 inches wide, as wide as a README's column."""
WIDTH = 8.3


def new_figure(height: float) -> Figure:
    """An empty figure that pyplot does not know, `height` inches high."""
    figures: Any = need("matplotlib.figure", extra="tasks", to="draw a figure")
    figure: Figure = figures.Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.06, h_pad=0.06, hspace=0.06, wspace=0.05)
    return figure


def dress(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Two thin axes, a faint grid behind the data, plain numbers."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_linewidth(0.7)
    axes.grid(True, axis=grid, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, labelcolor=INK, color=QUIET, width=0.7, length=3)


def heading(figure: Figure, text: str) -> None:
    """A title flush left above everything; nothing where it is empty."""
    if text:
        figure.suptitle(
            text, x=0.012, ha="left", fontsize=LARGE, color=INK, fontweight="bold", parse_math=False
        )


def legend(figure: Figure, handles: dict[str, Any]) -> None:
    """One row of names below everything."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=1.8,
    )


def plain_number(value: float, _: object = None) -> str:
    """1234567.0 -> "1,234,567": no offset, no power of ten until it is needed.

    >>> plain_number(1234567.0), plain_number(-0.25), plain_number(3e12)
    ('1,234,567', '−0.25', '3e+12')
    """
    if abs(value) >= 1e9 or (value != 0 and abs(value) < 1e-4):
        text = f"{value:g}"
    else:
        text = f"{value:,.6f}".rstrip("0").rstrip(".")
    return text.replace("-", "−", 1) if value < 0 else text
