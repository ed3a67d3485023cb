"""A figure as bytes and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_bytes(figure: Figure, format: str) -> bytes:
    """The figure as "png" or "svg"; the same figure gives the same bytes, without a date in them.

    Raises:
        SettingError: another format.
    """
    raise NotImplementedError


def save_figure(figure: Figure, *paths: str | Path) -> None:
    """Write the figure to each path (`.png` or `.svg`), complete or not at all.

    Raises:
        SettingError: a path ends in neither `.png` nor `.svg`.
    """
    raise NotImplementedError
