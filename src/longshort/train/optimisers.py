"""What a step does to the weights: the optimisers, and the learning rate of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .fit import FitSettings

OPTIMISERS = ("adamw", "adam", "rmsprop", "sgd", "nt-asgd")
SCHEDULES = ("linear", "cosine", "decay", "plateau", "constant")


def make_optimiser(
    module: nn.Module, settings: FitSettings, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name, over all weights of a module.

    "nt-asgd" steps as "sgd" does; that its weights are averaged is `fit`'s work (Merity et al. 2018).

    Args:
        module: whose weights.
        settings: name it.
        fused: let AdamW and Adam make a step in one pass over a weight, torch's own choice if None; not
            beside scaled gradients, which they would unscale too late to be clipped.
    """
    weights, lr, decay = module.parameters(), settings.lr, settings.weight_decay
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(weights, lr, weight_decay=decay, fused=fused)
    if settings.optimiser == "adam":
        return torch.optim.Adam(weights, lr, weight_decay=decay, fused=fused)
    if settings.optimiser == "rmsprop":
        return torch.optim.RMSprop(weights, lr, alpha=0.95, weight_decay=decay)
    return torch.optim.SGD(weights, lr, weight_decay=decay)


def learning_rate(settings: FitSettings, step: int, cuts: int = 0) -> float:
    """The learning rate of step `step` (from 0).

    A rise over `warmup` steps, times

        linear    a straight fall to 1/20
        cosine    half a cosine down to 1/20
        decay     1 for `hold` steps, then one more factor `decay` at once and after every `decay_every` steps
        plateau   `decay` for each time that the validation got no better
        constant  1

    Args:
        settings: the schedule.
        step: optimiser steps made before this one.
        cuts: how often "plateau" has cut the rate.

    >>> from longshort.train import FitSettings
    >>> [round(learning_rate(FitSettings(lr=1.0, warmup=2, max_steps=4), s), 4) for s in range(4)]
    [0.5, 0.7625, 0.525, 0.2875]
    >>> halved = FitSettings(lr=1.0, warmup=0, schedule="decay", hold=2, decay=0.5, decay_every=2)
    >>> [learning_rate(halved, s) for s in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.lr * rise * _fall(settings, step, cuts)


def _fall(settings: FitSettings, step: int, cuts: int) -> float:
    import math

    share = min(step / settings.max_steps, 1.0)
    if settings.schedule == "linear":
        return 1 - 0.95 * share
    if settings.schedule == "cosine":
        return 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2
    if settings.schedule == "decay":
        times = 0 if step < settings.hold else 1 + (step - settings.hold) // settings.decay_every
        return settings.decay**times
    return settings.decay**cuts if settings.schedule == "plateau" else 1.0
