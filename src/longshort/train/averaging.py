"""The mean of the weights over the steps: what is validated and kept where the settings ask for it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .checkpoint import Place
    from .fit import FitSettings


class Mean:
    """A running mean of a module's weights, or the module itself where none is asked for.

    With `average` it is a mean that forgets. With the optimiser "nt-asgd" it is the weights themselves until
    a validation is worse than the best of those more than `nonmono` before it, then the plain mean.

    Args:
        module: whose weights are followed.
        settings: say which mean.

    Source: Polyak & Juditsky (1992); Merity, Keskar & Socher (2018), algorithm 1.
    """

    def __init__(self, module: nn.Module, settings: FitSettings) -> None:
        self.module, self.settings = module, settings
        self.triggered = settings.optimiser == "nt-asgd"
        self.kept = copy.deepcopy(module) if settings.average or self.triggered else module

    def step(self, place: Place) -> None:
        """Take in the weights after a step; `place` has not counted it yet."""
        if self.triggered:
            if place.averaging is not None:
                move_towards(self.kept, self.module, 1 / (place.step - place.averaging + 1))
        elif self.settings.average:
            decay = min(self.settings.average, (1 + place.step) / (10 + place.step))
            move_towards(self.kept, self.module, 1 - decay)

    def before_validation(self, place: Place) -> None:
        """Make `kept` what is to be validated."""
        if self.triggered and place.averaging is None:
            self.kept.load_state_dict(self.module.state_dict())

    def after_validation(self, place: Place) -> None:
        """Begin the plain mean at this step if the validation says so."""
        *earlier, last = place.scores
        look_back = self.settings.nonmono
        if self.triggered and place.averaging is None and len(earlier) > look_back:
            if last > min(earlier[:-look_back]):
                place.averaging = place.step


@torch.no_grad()
def move_towards(kept: nn.Module, module: nn.Module, share: float) -> None:
    """Move `kept` by a share of the way to the module's weights; buffers are copied."""
    for mean, value in zip(kept.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, share)
    for copied, buffer in zip(kept.buffers(), module.buffers(), strict=True):
        copied.copy_(buffer)
