"""Memory being learnt: small summaries of a model, kept while it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..runs import Run
from ..train.fit import Watchable
from .gradients import WHOLE, flow
from .memory import half_life, health
from .specimen import Specimen

LAGS, QUANTILES = 48, 33
"""Lags of the horizon curve and quantiles of the half-lives that a frame keeps, evenly spread, at most."""
FILM = "film.json"
"""The frames, in the folder of a run."""


class Recorder:
    """Keeps how far back the gradient reaches, the half-lives and the saturation, every few steps.

    Args:
        model: the model in training.
        input: a few sequences, always the same; a tensor or a tuple of arguments.
        every: steps of training between two frames.
        loss: as for `look`; may be left out.
        output: as for `look`.
        film: frames to go on from.

    Raises:
        SettingError: `every` is less than 1, or the model has no recurrent layer.

    >>> import torch
    >>> recorder = Recorder(torch.nn.GRU(2, 3, batch_first=True), torch.randn(4, 9, 2), every=10)
    >>> for step in range(25):
    ...     _ = recorder.note(step)
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
        film: Sequence[dict[str, Any]] = (),
    ) -> None:
        if every < 1:
            raise SettingError(f"Recorder: `every` must be at least 1, got {every}.")
        self.specimen = Specimen(model, input if type(input) is tuple else (input,), output, loss)
        self.every = every
        self.film = list(film)

    def note(self, step: int) -> bool:
        """Keep a frame, if the step is one of those that are kept; return whether it was.

        Costs one pass forward and one back through the replay; leaves gradients, modes and random numbers of
        the training as they are.

        Args:
            step: of the training.
        """
        if step % self.every:
            return False
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            played = self.specimen.replayed(graph=WHOLE)
            seen = flow(self.specimen, probes=1, played=played)
        with torch.no_grad():
            layer = played.layers[-1]
            state = health(layer)
            half = half_life(layer).steps.sort().values if layer.kind != "rnn" else torch.zeros(0)
        lags = _spread(len(seen.full), LAGS)
        self.film.append({
            "step": step,
            "length": int(layer.mask.sum(1).max()),
            "lags": lags.tolist(),
            "full": _digits(seen.full[lags]),
            "half": _digits(half[_spread(len(half), QUANTILES)]),
            "gates": {g: _digits([state.shut[g].mean(), state.open[g].mean()]) for g in state.open},
        })  # fmt: skip
        return True


class RunRecorder:
    """Films the training of a run: what `longshort train --watch` gives to `train.fit`.

    The frames are written to film.json in the run's folder, whole, as each is made. A resumed training goes
    on with them; those past its checkpoint are made again.

    Args:
        folder: the run's.
        every: steps of training between two frames.

    Raises:
        SettingError: `every` is less than 1.
    """

    def __init__(self, folder: str | Path, every: int) -> None:
        if every < 1:
            raise SettingError(
                f"watch: must be at least 1, got {every}: steps between two frames of the film."
            )
        self.folder, self.every = folder, every
        self._recorder: Recorder | None = None

    def __call__(self, step: int, module: nn.Module, objective: Watchable) -> None:
        """Keep a frame, if the step is one of those that are kept.

        Args:
            step: steps made.
            module: what is trained.
            objective: gives the sequences that it is watched on.
        """
        run = Run(Path(self.folder), "", {})
        if self._recorder is None:
            before = run.read_json(FILM) if run.exists(FILM) else []
            inputs, output = objective.watched()
            device = next(module.parameters()).device
            self._recorder = Recorder(
                module,
                tuple(part.to(device) for part in inputs),
                every=self.every,
                output=output,
                film=[frame for frame in before if frame["step"] < step],
            )
        if self._recorder.note(step):
            run.write_bytes(FILM, json.dumps(self._recorder.film).encode())


def _spread(count: int, most: int) -> Tensor:
    """The places of at most so many of `count` things, evenly spread."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()


def _digits(values: Any) -> list[float]:
    return [float(f"{float(v):.4g}") for v in values]
