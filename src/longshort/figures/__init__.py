"""Numbers in, PNG and SVG out; the same numbers give the same bytes. matplotlib, without its global state."""

from .bars import scores_figure
from .forecast import Panel, forecast_figure
from .lines import metrics_figure
from .memory import MemoryLine, memory_figure
from .saving import figure_bytes, save_figure
from .strips import Strip, strips_figure

__all__ = [
    "MemoryLine",
    "Panel",
    "Strip",
    "figure_bytes",
    "forecast_figure",
    "memory_figure",
    "metrics_figure",
    "save_figure",
    "scores_figure",
    "strips_figure",
]
