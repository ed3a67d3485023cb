"""The measurements of a look, one after the other, each as costly as the model's size allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .attribution import influence
from .checking import require_gradients
from .cutting import screened, surgery
from .finding import LONGEST
from .gradients import flow, river
from .opening import Opened
from .probes import stored
from .specimen import Specimen
from .usage import used

if TYPE_CHECKING:
    from .looking import Look

GRAPH = 1.2e7
"""Numbers N T H up to which gradients go through the whole sequence; beyond, through its last steps."""

HEAVY = 4e9
"""Multiplications of one pass beyond which the costly measurements take fewer samples, and say so."""


@dataclass
class Measuring:
    """What is measured of one model, written into its look."""

    made: Look
    specimen: Specimen
    opened: Opened
    seed: int
    window: int = field(init=False)
    "last steps that gradients go back through"
    heavy: bool = field(init=False)
    screen: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        trace = self.made.trace
        N, T = trace.layer(self.made.layer).mask.shape
        per_step = N * sum(layer.units for layer in trace.layers.values())
        self.window = T if per_step * T <= GRAPH else max(16, int(GRAPH / per_step))
        self.heavy = sum(call.work for call in trace.calls) > HEAVY
        if self.window < T:
            self.made.notes.append(
                f"Gradients go back through the last {self.window:,} of {T:,} steps: the whole would need "
                "too much memory."
            )

    def stages(self) -> list[Callable[[], None]]:
        """What to call, in order."""
        lossy = [self.use, self.surgery] if self.specimen.loss is not None else []
        return [self.gradients, self.storage, self.influence, *lossy]

    def gradients(self) -> None:
        """What is learnable, where it is learnt, and a first estimate of what is needed."""
        made, specimen, window = self.made, self.specimen, self.window
        with torch.enable_grad():
            played = specimen.replayed(graph=window)
        require_gradients(specimen, played)
        probes = 1 if self.heavy else 4
        made.flow = flow(specimen, made.layer, probes=probes, seed=self.seed, window=window, played=played)
        made.rivers = river(specimen, window=window, played=played)
        if specimen.loss is not None:
            self.screen = screened(specimen, made.layer, trace=made.trace, window=window, played=played)

    def storage(self) -> None:
        """What is stored."""
        made = self.made
        part = made.trace.layer(made.layer)
        fits = made.source is not None and made.source.shape[:2] == part.mask.shape
        made.asked = made.asked if fits else f"what `{part.name}` reads"
        made.stored = stored(part, made.source if fits else None, seed=self.seed)
        made.notes += made.stored.notes

    def influence(self) -> None:
        """What the answer rests on."""
        made = self.made
        specimen = replace(self.specimen, output=self.opened.last or self.specimen.output)
        made.influence = influence(
            specimen, output=self.opened.answer, seed=self.seed, window=self.window, trace=made.trace
        )
        made.notes += made.influence.notes

    def use(self) -> None:
        """What is used."""
        self.made.used = used(self.specimen, trace=self.made.trace)

    def surgery(self) -> None:
        """What is needed."""
        made, screen = self.made, self.screen
        long = {
            name: half.order(screen)[:LONGEST] if name == made.layer else half.order()[:1]
            for name, half in made.half_lives.items()
            if name == made.layer or not self.heavy
        }
        exact = 4 if self.heavy else 20
        made.surgery = surgery(
            self.specimen, made.layer, exact=exact, also=long, trace=made.trace, screen=screen
        )
        tried, units = len(made.surgery.units), made.trace.layer(made.layer).units
        if tried < units:
            made.notes.append(
                f"Of the {units:,} units of {made.layer} {tried} were silenced: those that a first-order "
                "estimate puts first, and the longest memories. What the others cost was not measured."
            )
