"""The static picture of a look: what a page shows where scripts do not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..figures import Strip, figure_bytes, strips_figure
from .replay import QUANTITIES
from .vocabulary import WORDS

if TYPE_CHECKING:
    from .looking import Look

STEPS, UNITS = 250, 64
"""Last steps, and units of the longest memory, that a picture shows at most: its bytes grow with them."""


def picture(look: Look, format: str = "png") -> bytes:
    """Draw the measured layer's gates, cells and outputs of the first sequence over time.

    Args:
        look: the numbers.
        format: "png" or "svg".

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    layer = look.trace.layer(look.layer)
    half = look.half_lives.get(look.layer)
    order = half.order() if half is not None else None
    length = int(layer.mask[0].sum())
    first, seen = max(0, length - STEPS), min(layer.units, UNITS)
    strips = []
    for name in QUANTITIES[layer.kind]:
        values = layer.values[name][0, first:length].T
        if order is not None and len(values) == len(order):
            values = values[order]
        strips.append(Strip(WORDS[look.vocabulary][name], values[:seen].numpy(), signed=name in "gcnh"))
    title = look.title[:80]
    if first or seen < layer.units:
        title += f": steps {first} to {length - 1}, {seen} of {layer.units} units"
    return figure_bytes(strips_figure(strips, title=title), format)
