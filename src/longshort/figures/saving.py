"""A figure as bytes and as a file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError, need
from ..runs import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


def figure_bytes(figure: Figure, format: str) -> bytes:
    """The figure as "png" (200 dots an inch) or "svg" (letters as outlines).

    Args:
        figure: what a function of this package drew.
        format: "png" or "svg".

    Returns:
        The same bytes for the same figure and version of matplotlib: no date, no random names.

    Raises:
        SettingError: another format.
    """
    if format not in FORMATS:
        raise SettingError(f"figure_bytes: `format` must be one of {', '.join(FORMATS)}, got {format!r}.")
    matplotlib: Any = need("matplotlib", extra="tasks", to="draw a figure")
    file = io.BytesIO()
    metadata = {"Software": None} if format == "png" else {"Date": None, "Creator": None}
    rc = matplotlib.rc_context({"svg.hashsalt": "longshort", "svg.fonttype": "path"})
    with rc, warnings.catch_warnings():
        # a name may have signs that no font here has: a box stands for each, and the user can do nothing
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(file, format=format, dpi=200, metadata=metadata)
    return file.getvalue()


def save_figure(figure: Figure, *paths: str | Path) -> None:
    """Write the figure to each path, complete or not at all.

    Args:
        figure: what a function of this package drew.
        paths: each ends in `.png` or `.svg`.

    Raises:
        SettingError: a path ends in neither; then none is written.
        OSError: a file cannot be written; what stood there before is still there.
    """
    content = [(path, figure_bytes(figure, _format(Path(path)))) for path in paths]
    for path, data in content:
        with replacing(path) as file:
            file.write(data)


def _format(path: Path) -> str:
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise SettingError(f"save_figure: a path must end in .png or .svg, got {str(path)!r}.")
    return format
