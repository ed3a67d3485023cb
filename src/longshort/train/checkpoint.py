"""Where a fit stands, and how that is written and read: weights, moments, place.

The best weights are written before the last checkpoint. A kill between the two leaves best weights from
ahead of the checkpoint, and the resumed run, being the same run, writes the same ones again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RunError
from ..runs import Run

if TYPE_CHECKING:
    from .fit import Continuing

BEST, LAST = "weights.safetensors", "last.safetensors"


@dataclass
class Place:
    """How far a fit has come.

    Args:
        step: optimiser steps made.
        best: the lowest validation score so far.
        best_step: the step it was reached at.
        best_scores: all that the validation said there.
        stale: validations since then.
        seconds: time spent in the loop.
        total: sum of the losses since the last validation.
        count: how many losses that is.
        losses: (W,) the losses of the validation's cases at the best step; empty before the first.
        scores: every validation's score.
        cuts: how often the learning rate was cut because the validation got no better.
        averaging: the step since which weights are averaged plainly; None if they are not.
    """

    step: int = 0
    best: float = float("inf")
    best_step: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    seconds: float = 0.0
    total: float = 0.0
    count: int = 0
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scores: list[float] = field(default_factory=list)
    cuts: int = 0
    averaging: int | None = None

    def over(self, max_steps: int, patience: int, goal: float | None = None) -> bool:
        """Whether there is nothing left to do."""
        reached = goal is not None and self.best <= goal
        return self.step >= max_steps or self.stale >= patience or reached

    def advance(self, loss: float) -> None:
        """Count one step."""
        self.step, self.total, self.count = self.step + 1, self.total + loss, self.count + 1

    def better(self, losses: np.ndarray, independent: float, caution: float) -> bool:
        """Take the losses of a validation, and say whether they are better than the best so far.

        Better means: lower on average by more than `caution` standard errors of the difference, case by
        case, where (W,) cases count as `independent` ones. So a small validation part must show more.
        """
        score, margin = float(losses.mean()), 0.0
        self.scores.append(score)
        if len(self.losses) == len(losses) > 1:
            margin = caution * float((self.losses - losses).std(ddof=1)) / max(independent, 1.0) ** 0.5
        if score < self.best - margin:
            self.best, self.best_step, self.stale, self.losses = score, self.step, 0, losses
            return True
        self.stale, self.cuts = self.stale + 1, self.cuts + 1
        return False

    def mean_loss(self) -> float:
        """The mean loss since the last call."""
        mean = self.total / max(self.count, 1)
        self.total, self.count = 0.0, 0
        return mean


def save_best(run: Run, module: nn.Module, place: Place, about: dict[str, Any]) -> None:
    """Write the module's weights, with `about` and the score beside them, as the run's best."""
    about = {**about, "step": place.step, "score": place.best if place.scores else None}
    run.write_arrays(BEST, _arrays("", module.state_dict()), about)


def load_best(run: Run, module: nn.Module) -> dict[str, Any]:
    """Give the module the run's best weights, and return what was written beside them.

    Raises:
        RunError: the file is missing, damaged, or holds the weights of another module.
    """
    arrays, about = run.read_arrays(BEST)
    _load(module, arrays, str(run.path(BEST)))
    return about


@dataclass
class Checkpoint:
    """All that an exact resume needs, but the place: what `save` writes and `resume` puts back.

    Args:
        run: where the file is.
        module: the weights.
        kept: the module with their mean; `module` itself if there is none.
        optimiser: the moments.
        continuing: the objective, if it carries something from one batch to the next; else None.
    """

    run: Run
    module: nn.Module
    kept: nn.Module
    optimiser: torch.optim.Optimizer
    continuing: Continuing | None = None

    def save(self, place: Place) -> None:
        """Write everything, whole or not at all."""
        arrays = _arrays("weights/", self.module.state_dict())
        if self.kept is not self.module:
            arrays |= _arrays("mean/", self.kept.state_dict())
        names = [name for name, _ in self.module.named_parameters()]
        for number, moments in self.optimiser.state_dict()["state"].items():
            arrays |= _arrays(f"moments/{names[number]}/", moments)
        if self.continuing is not None:
            arrays |= _arrays("carried/", self.continuing.carried())
        about = dataclasses.asdict(place)
        arrays["losses"] = about.pop("losses")
        self.run.write_arrays(LAST, arrays, {"place": about})

    def resume(self) -> Place:
        """Put everything where the last checkpoint stood; a new `Place` if there is none.

        Raises:
            RunError: the checkpoint is damaged, or is of another module.
        """
        if not self.run.exists(LAST):
            self.run.keep_metrics(lambda line: False)
            return Place()
        path = str(self.run.path(LAST))
        arrays, about = self.run.read_arrays(LAST)
        try:
            place = Place(**about["place"], losses=arrays.pop("losses"))
        except (KeyError, TypeError):
            raise RunError(f"{path}: is no checkpoint of a training: its place is missing.") from None
        _load(self.module, _under("weights/", arrays), path)
        if self.kept is not self.module:
            _load(self.kept, _under("mean/", arrays), path)
        self._moments(arrays)
        if self.continuing is not None:
            carried = _under("carried/", arrays).items()
            self.continuing.carry({name: torch.from_numpy(value) for name, value in carried})
        self.run.keep_metrics(lambda line: line.get("step", 0) <= place.step)
        return place

    def _moments(self, arrays: dict[str, np.ndarray]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for number, (name, _) in enumerate(self.module.named_parameters()):
            moments = {k: torch.from_numpy(v) for k, v in _under(f"moments/{name}/", arrays).items()}
            if moments:
                state[number] = moments
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def reached(run: Run) -> int:
    """The step of a run's last checkpoint; 0 if there is none.

    Raises:
        RunError: the checkpoint is damaged.
    """
    if not run.exists(LAST):
        return 0
    place = run.read_arrays(LAST)[1].get("place")
    if not isinstance(place, dict) or not isinstance(place.get("step"), int):
        raise RunError(f"{run.path(LAST)}: is no checkpoint of a training: its place is missing.")
    return int(place["step"])


def _arrays(prefix: str, tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {prefix + name: torch.as_tensor(t).detach().cpu().numpy() for name, t in tensors.items()}


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _load(module: nn.Module, arrays: dict[str, np.ndarray], path: str) -> None:
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    got = {name: value.shape for name, value in arrays.items()}
    for name in sorted({*wanted, *got}):
        if wanted.get(name) != got.get(name):
            raise RunError(
                f"{path}: holds the weights of another model: `{name}` must be "
                f"{wanted.get(name, 'absent')}, got {got.get(name, 'none')}."
            )
    module.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
