"""Memory being learnt: small summaries of a model, kept while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError
from .gradients import flow
from .memory import half_life, health
from .specimen import Specimen

LAGS = 48
"""Lags that a frame keeps, evenly spread."""


class Recorder:
    """Keeps how far back the gradient reaches, the half-lives and the saturation, every few steps.

    Args:
        model: the model in training.
        input: a few sequences, always the same; a tensor or a tuple of arguments.
        every: steps of training between two frames.
        loss: as for `look`; may be left out.
        output: as for `look`.

    Raises:
        SettingError: `every` is less than 1, or the model has no recurrent layer.

    >>> import torch
    >>> recorder = Recorder(torch.nn.GRU(2, 3, batch_first=True), torch.randn(4, 9, 2), every=10)
    >>> for step in range(25):
    ...     recorder.note(step)
    >>> [frame["step"] for frame in recorder.film]
    [0, 10, 20]
    """

    def __init__(
        self,
        model: nn.Module,
        input: Any,
        *,
        every: int = 100,
        loss: Callable[[Tensor], Tensor] | None = None,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if every < 1:
            raise SettingError(f"Recorder: `every` must be at least 1, got {every}.")
        self.specimen = Specimen(model, input if type(input) is tuple else (input,), output, loss)
        self.every = every
        self.film: list[dict[str, Any]] = []

    def note(self, step: int) -> None:
        """Keep a frame, if the step is one of those that are kept.

        Costs one pass forward and one back through the replay; leaves gradients, modes and random numbers of
        the training as they are.

        Args:
            step: of the training.
        """
        if step % self.every:
            return
        with torch.random.fork_rng(devices=[]):
            seen = flow(self.specimen, probes=1)
            layer = self.specimen.trace(tolerance=float("inf")).layer()
        places = torch.linspace(0, len(seen.full) - 1, min(LAGS, len(seen.full))).round().long()
        gated = layer.kind != "rnn"
        state = health(layer)
        saturated = [state.open[g] + state.shut[g] for g in state.open]
        self.film.append({
            "step": step,
            "lags": places.tolist(),
            "full": [float(f"{v:.4g}") for v in seen.full[places].tolist()],
            "half": float(half_life(layer).steps.median()) if gated else 0.0,
            "saturated": float(torch.stack(saturated).mean()) if saturated else 0.0,
        })  # fmt: skip
