"""The page: numbers, modules, style and the static picture in one file that needs no network.

Modules are inlined as data URLs under an import map; a content policy forbids every other source, so not even
a mistake could fetch anything. Data are JSON with every ``<`` escaped, labels reach the page as text only.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .payload import payload

if TYPE_CHECKING:
    from .looking import Look


def page(look: Look, limit: float) -> str:
    """The page of a look.

    Args:
        look: its numbers.
        limit: its largest size in bytes.

    Returns:
        HTML; the same look gives the same page.
    """
    folder = files(__package__) / "page"
    sources = {
        f.name.removesuffix(".js"): f.read_text("utf8") for f in folder.iterdir() if f.name.endswith(".js")
    }
    modules = {
        f"lens/{name}": _url("text/javascript", text.encode()) for name, text in sorted(sources.items())
    }
    parts = {
        "title": html.escape(look.title[:200]),
        "style": (folder / "style.css").read_text("utf8"),
        "static": static(look, limit / 4),
        "modules": _json({"imports": modules}),
    }
    empty = sum(len(text.encode()) for text in parts.values())
    room = limit - empty - 2e4
    for _ in range(5):
        parts["data"] = _json(_finite(payload(look, max(room, 1e4))))
        over = empty + len(parts["data"].encode()) + 2e3 - limit
        if over <= 0 or room < 1e4:
            break
        room -= 1.1 * over
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], (folder / "page.html").read_text("utf8"))


def static(look: Look, limit: float = 5e5) -> str:
    """What stays where scripts do not run: the findings as text and one picture of so many bytes at most."""
    lines = "".join(f"<li>{html.escape(f.line(look.vocabulary))}</li>" for f in look.findings())
    picture = still(look)
    if len(picture) > limit:
        picture = "<p>The picture is left out: it would make this file too large.</p>"
    return f"<h2>Findings</h2><ul>{lines}</ul>{picture}"


def still(look: Look) -> str:
    """The static picture as an element; a sentence where matplotlib is not installed."""
    from .picture import picture

    try:
        drawn = picture(look)
    except MissingExtra as error:
        return f"<p>{html.escape(str(error))}</p>"
    name = "Gates and cells over time, and the three horizons"
    return f'<img id="still" alt="{name}" src="{_url("image/png", drawn)}">'


def notebook(look: Look) -> str:
    """The page in a frame of its own, and the picture for places that strip frames and scripts.

    The frame may run scripts and nothing else: it has no origin, and its policy forbids the network.
    """
    look_here = html.escape(page(look, 2e6))
    frame = (
        f'<iframe srcdoc="{look_here}" sandbox="allow-scripts allow-downloads" title="longshort look" '
        'style="width:100%;height:760px;border:1px solid #d9dee3;border-radius:8px"></iframe>'
    )
    return f"{frame}<details><summary>Static picture</summary>{static(look)}</details>"


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
