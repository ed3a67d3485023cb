"""Who remembers for how long: scores against lags, one line a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SettingError, ShapeError, need
from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MemoryLine:
    """One cell's scores.

    Args:
        name: of the cell.
        lags: at which it was tried, in order.
        middle: the median score of its seeds at each lag.
        low: the least.
        high: the most.
    """

    name: str
    lags: Sequence[int]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("middle", "low", "high"):
            if len(getattr(self, name)) != len(self.lags):
                raise ShapeError(
                    f"MemoryLine {self.name!r}: `{name}` must be ({len(self.lags)},), got "
                    f"({len(getattr(self, name))},)."
                )


_MOST = 12
_FIELD = 0.76
"""Width of the cells' marks at one lag, of the way to the next."""
_MARKS = "osD^vP*XdhH8"


def memory_figure(
    lines: Sequence[MemoryLine],
    trivial: tuple[Sequence[int], Sequence[float]],
    *,
    bound: float,
    measure: str,
    logarithmic: bool = False,
    title: str = "",
    across: str = "lag",
) -> Figure:
    """Draw scores against lags: a line a cell, a bar for its seeds, and what one without memory scores.

    The axis counts lags, it does not measure them: each lag has a band of its own with its name in bold
    below it, in which the cells' marks stand side by side, so that equal scores do not hide each other. A bar
    through a mark goes from the least to the most of its seeds; a thin line finds a cell again in the next
    band.

    Args:
        lines: the cells; 1 to 12.
        trivial: lags and the score at each of one who remembers nothing.
        bound: the score from which on downwards the problem is solved.
        measure: what the score counts.
        logarithmic: the axis of scores is logarithmic from the bound upwards, and linear below it.
        title: written above the axes.
        across: what the lag means.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        SettingError: no line, or more than 12.
        MissingExtra: matplotlib is not installed.
    """
    if not 1 <= len(lines) <= _MOST:
        raise SettingError(f"memory_figure: `lines` must be 1 to {_MOST}, got {len(lines)}.")
    ticker: Any = need("matplotlib.ticker", extra="tasks", to="draw a figure")
    figure = style.new_figure(3.9 + (0.3 if title else 0))
    style.heading(figure, title)
    axes = figure.subplots()
    style.dress(axes)
    lags = sorted({lag for line in lines for lag in line.lags} | set(trivial[0]))
    for place in range(len(lags)):
        if place % 2 == 0:
            axes.axvspan(place - 0.5, place + 0.5, color=style.RULE, alpha=0.3, linewidth=0)
        if place:
            axes.axvline(place - 0.5, color=style.QUIET, linewidth=0.7)
    for place, line in enumerate(lines):
        colour = style.LINES[place % len(style.LINES)]
        thin: dict[str, Any] = {"color": colour, "linestyle": style.DASHES[place % 4], "linewidth": 0.7}
        mark: dict[str, Any] = {"color": colour, "linestyle": "", "marker": _MARKS[place], "markersize": 5}
        beside = ((place + 0.5) / len(lines) - 0.5) * _FIELD
        across_at = [lags.index(lag) + beside for lag in line.lags]
        axes.plot(across_at, line.middle, alpha=0.6, **thin)
        axes.plot(across_at, line.middle, label=line.name, **mark)
        axes.vlines(across_at, line.low, line.high, color=colour, linewidth=1.4)
    axes.step(
        [-0.5, *(lags.index(lag) + 0.5 for lag in trivial[0])], [trivial[1][0], *trivial[1]],
        color=style.INK, linewidth=1.0, label="without memory",
    )  # fmt: skip
    bar: dict[str, Any] = {"color": style.INK, "linestyle": "", "marker": "|", "markersize": 9}
    axes.plot([], [], label="least to most of the seeds", **bar)
    axes.axhline(bound, color=style.QUIET, linewidth=0.9, linestyle=":", label="solved below")
    axes.set_xlim(-0.5, len(lags) - 0.5)
    if logarithmic:
        axes.set_yscale("symlog", linthresh=bound, linscale=0.5)
    highest = max([*trivial[1], *(score for line in lines for score in line.high)])
    axes.set_ylim(-0.15 * bound if logarithmic else -0.03 * highest, None)
    axes.set_xticks(range(len(lags)), [f"lag {lag:,}" for lag in lags], fontweight="bold")
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(style.plain_number))
    axes.minorticks_off()
    axes.set_xlabel(f"one band for each {across}", fontsize=style.SMALL, color=style.INK, parse_math=False)
    axes.set_ylabel(measure, fontsize=style.SMALL, color=style.INK, parse_math=False)
    _names(figure, axes)
    return figure


def _names(figure: Figure, axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right upper", frameon=False, fontsize=style.SMALL, labelcolor=style.INK,
        handlelength=2.6,
    )  # fmt: skip
