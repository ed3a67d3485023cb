"""A forecast as a picture: history, truth, point forecast and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingError, ShapeError, need
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
        truth: (h,) what happened, if it is known; NaN where missing. It continues the line of the history.
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

    def __post_init__(self) -> None:
        ends = [(f"intervals[{level}]", end) for level, pair in self.intervals.items() for end in pair]
        optional = [(n, a) for n, a in (("truth", self.truth), ("baseline", self.baseline)) if a is not None]
        for name, array, length in (
            ("history", self.history, len(self.time)),
            *((name, array, len(self.ahead)) for name, array in [("point", self.point), *optional, *ends]),
        ):
            if np.shape(array) != (length,):
                raise ShapeError(
                    f"Panel {self.title!r}: `{name}` must be ({length},), got {np.shape(array)}."
                )


def forecast_figure(
    panels: Panel | Sequence[Panel],
    *,
    unit: str = "",
    title: str = "",
    shown: int | None = None,
    clock: str = "",
) -> Figure:
    """Draw one or several forecasts, each in its own axes below the other (two columns from four on).

    Args:
        panels: what to draw; 1 to 12.
        unit: what the values measure, written at the vertical axis.
        title: written above everything.
        shown: steps of each history that are drawn, from its end; by default two horizons, at least 36.
        clock: by which the times are; "UTC" is written below them.

    Returns:
        A matplotlib Figure that no global state knows; `save_figure` writes it.

    Raises:
        SettingError: no panel, or more than 12.
        MissingExtra: matplotlib is not installed.
    """
    panels = [panels] if isinstance(panels, Panel) else list(panels)
    if not 1 <= len(panels) <= _MOST:
        raise SettingError(f"forecast_figure: `panels` must be 1 to {_MOST}, got {len(panels)}.")
    columns = 1 if len(panels) < 4 else 2
    rows = -(-len(panels) // columns)
    figure = style.new_figure((3.3 if rows == 1 else 0.7 + 2.1 * rows) + (0.3 if title else 0))
    style.heading(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, shown)
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        if len(panels) > 1 or not title:
            axes.set_title(panel.title, loc="left", fontsize=style.NORMAL, color=style.INK, parse_math=False)
        if unit:
            axes.set_ylabel(unit, fontsize=style.SMALL, color=style.INK, parse_math=False)
        if clock == "UTC":
            axes.set_xlabel("UTC", fontsize=style.SMALL, color=style.INK, loc="left")
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    order = sorted(handles, key=lambda name: (not name.startswith("observed"), name != "forecast"))
    style.legend(figure, {name: handles[name] for name in order})
    return figure


_MOST = 12
_DATES = {
    "formats": ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"],
    "zero_formats": ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
    "offset_formats": ["", "", "%Y", "%Y", "%d %b %Y", "%d %b %Y %H:%M"],
}


def _draw(axes: Axes, panel: Panel, shown: int | None) -> None:
    ticker: Any = need("matplotlib.ticker", extra="tasks", to="draw a figure")
    style.dress(axes)
    start = max(len(panel.time) - (shown or max(2 * len(panel.ahead), 36)), 0)
    for depth, (level, (low, high)) in enumerate(sorted(panel.intervals.items(), reverse=True)):
        tint = _tint(depth, len(panel.intervals))
        axes.fill_between(
            panel.ahead, low, high, facecolor=tint, edgecolor="none", linewidth=0, label=f"{level} % interval"
        )
    if panel.baseline is not None:
        look: dict[str, Any] = {"color": style.ORANGE, "linewidth": 1.2, "linestyle": (0, (1, 1.3))}
        axes.plot(panel.ahead, panel.baseline, label=panel.baseline_name, **look)
    mark: dict[str, Any] = {"marker": "o", "markersize": 3} if len(panel.ahead) <= 12 else {}
    axes.plot(panel.ahead, panel.point, label="forecast", color=style.BLUE, linewidth=2.0, **mark)
    time, observed = panel.time[start:], panel.history[start:]
    if panel.truth is not None:
        time, observed = np.concatenate([time, panel.ahead]), np.concatenate([observed, panel.truth])
    axes.plot(time, observed, label="observed", color=style.INK, linewidth=1.1)
    axes.axvline(panel.ahead[0], color=style.QUIET, linewidth=0.7, zorder=0)
    axes.margins(x=0.01)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(style.plain_number))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6))
    if np.asarray(panel.time).dtype.kind == "M":
        dates: Any = need("matplotlib.dates", extra="tasks", to="draw a figure")
        locator = dates.AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, **_DATES))
        axes.xaxis.get_offset_text().set_fontsize(style.SMALL)
    else:
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(style.plain_number))


def _tint(depth: int, count: int) -> tuple[float, float, float]:
    """Blue mixed with white: the widest interval lightest."""
    strength = 0.16 + 0.22 * (depth / max(count - 1, 1) if count > 1 else 0.5)
    full = (0x00 / 255, 0x72 / 255, 0xB2 / 255)
    return (1 - strength * (1 - full[0]), 1 - strength * (1 - full[1]), 1 - strength * (1 - full[2]))
