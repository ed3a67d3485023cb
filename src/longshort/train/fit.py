"""The training loop: one function that reads from top to bottom.

What happens in step s is a function of (settings, seed, s), of the weights, and of what the objective says it
carries: the batch, the dropout masks and the learning rate carry nothing from one step to the next. All of it
is in the checkpoint. So a run that was stopped and resumed is, on a CPU, the uninterrupted run bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BackendError, Diverged, SettingError, need
from ..runs import Run
from ..settings import Settings, setting
from .averaging import Mean
from .checkpoint import Checkpoint, Place, load_best, save_best
from .interrupt import interruptible
from .optimisers import OPTIMISERS, SCHEDULES, learning_rate, make_optimiser
from .progress import Progress, watch

DEVICES = ("auto", "cpu", "cuda", "mps")
SAVE_AFTER = 60.0
"""Seconds after which a checkpoint is written though no validation is due."""


@dataclass(frozen=True, kw_only=True)
class FitSettings(Settings):
    """How long, how fast and how carefully to fit."""

    max_steps: int = setting(800, "Optimiser steps at most, one batch each.", least=1)
    optimiser: str = setting("adamw", "What makes a step of a gradient.", choices=OPTIMISERS)
    lr: float = setting(2e-3, "Learning rate at its peak, after warm-up.", above=0, most=1000)
    warmup: int = setting(50, "Steps over which the learning rate rises to `lr`.", least=0)
    schedule: str = setting("linear", "How the learning rate falls afterwards.", choices=SCHEDULES)
    hold: int = setting(0, 'Steps before the first cut of schedule "decay".', least=0)
    decay: float = setting(0.5, 'Factor of a cut of the schedules "decay" and "plateau".', above=0, most=1)
    decay_every: int = setting(100, 'Steps from one cut of schedule "decay" to the next.', least=1)
    nonmono: int = setting(
        5, 'Validations that "nt-asgd" looks back at: averaging begins when none since was better.', least=1
    )
    weight_decay: float = setting(
        1e-2, "Decay of the weights: with adamw a share of `lr` a step, else an L2 penalty's.", least=0
    )
    average: float = setting(
        0.0,
        "Decay of the running mean of the weights, which is what is validated and kept; 0 for no mean.",
        least=0,
        below=1,
    )
    clip: float = setting(1.0, "Longest gradient (2-norm over all weights) left unscaled.", above=0)
    caution: float = setting(
        0.0, "Standard errors by which a validation must beat the best one to count as better.", least=0
    )
    every: int = setting(25, "Steps from one validation, and checkpoint, to the next.", least=1)
    patience: int = setting(10, "Validations without a better score after which to stop.", least=1)
    goal: float | None = setting(None, "Validation score, lower is better, that is good enough to stop at.")
    precision: str = setting(
        "32-true", "Arithmetic of the forward pass.", choices=("32-true", "bf16-mixed", "16-mixed", "64-true")
    )
    seed: int = setting(0, "Decides the first weights, the batches and the dropout.", least=0)
    tensorboard: bool = setting(False, "Also write the metrics for TensorBoard, in `tensorboard/`.")


@dataclass(frozen=True, eq=False)
class Validation:
    """How good a model is on the validation part.

    Args:
        scores: for people and metrics.jsonl, by name.
        losses: (W,) one loss a case; their mean is what training is to make small.
        independent: how many independent cases the W are worth, where they overlap; W by default.
    """

    scores: dict[str, float]
    losses: np.ndarray
    independent: float | None = None


class Objective(Protocol):
    """What a task tells the loop: its batches, its loss, and how good the model is by now."""

    metric: str
    """The key of the validation's scores that the progress bar shows."""
    unit: str
    """What a batch consists of, in the plural, such as "windows"; for the throughput."""
    size: int
    """How many of them a batch holds."""

    def batch(self, step: int) -> Any:
        """The batch of step `step`: a function of the step (and a seed) alone."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, a scalar; `batch` is on the model's device."""

    def validate(self, model: nn.Module) -> Validation:
        """Score the model on the validation part; it is in evaluation mode, without gradients."""


@runtime_checkable
class Continuing(Protocol):
    """What an objective also has if each of its batches goes on where the one before ended."""

    def carried(self) -> dict[str, Tensor]:
        """What the last batch left to the next one, by name; it goes into the checkpoint."""

    def carry(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `carried` gave, on any device."""

    def share(self, step: int) -> float:
        """A factor of step `step`'s learning rate: 1, but for batches of another length."""


@runtime_checkable
class Watchable(Protocol):
    """What an objective also has if its training can be filmed."""

    def watched(self) -> tuple[tuple[Any, ...], Callable[[Any], Tensor]]:
        """A few sequences, always the same, and what picks the last answer out of what the model returns.

        The sequences are the positional arguments of the model's forward; each moves by `to(device)`.
        """


@dataclass(frozen=True)
class Fitted:
    """How a fit ended.

    Args:
        step: optimiser steps made, those before a resume included.
        best_step: the step whose weights the module now has; the last one before a first validation.
        best: the validation score there; lower is better; infinite before a first validation.
        seconds: time spent in the loop, those before a resume included.
        interrupted: Ctrl-C ended it; the same command goes on.
    """

    step: int
    best_step: int
    best: float
    seconds: float
    interrupted: bool


def fit(
    module: nn.Module,
    objective: Objective,
    settings: FitSettings,
    *,
    run: Run | None = None,
    about: dict[str, Any] | None = None,
    device: str = "auto",
    quiet: bool = False,
    recorder: Callable[[int, nn.Module, Any], None] | None = None,
) -> Fitted:
    """Fit a module and leave it with the weights of its best validation.

    By default AdamW, a learning rate that rises over `warmup` steps and then falls linearly to a twentieth,
    gradients clipped by their norm, and an end once `patience` validations brought nothing better, or one
    reached `goal`.

    Args:
        module: what to fit; trained in place, and back on the CPU in its own dtype when this returns.
        objective: batches, loss and validation. One that is `Continuing` carries a state from batch to batch.
        settings: how long and how fast.
        run: where checkpoints and metrics go, and from where an interrupted fit resumes; none if None.
        about: a JSON object to keep beside the best weights, such as what it takes to build the module.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.
        recorder: is shown the steps made, the module and the objective, before the first step and after each;
            it must leave them as they are.

    Returns:
        How it ended; `module` has the best weights, in evaluation mode.

    Raises:
        SettingError: an unknown device, or a precision that it has not.
        Diverged: loss or gradient are no longer finite; the module has the best weights, as when this
            returns, or those it began with where none was validated; the last checkpoint stays as it is.
        BackendError: the device is not there.
        RunError: the run's checkpoint is damaged or of another module.

    Memory: four copies of the weights (weights, gradient, two moments) and, without a run, the best ones.
    """
    fabric = _fabric(device, settings.precision)
    dtype = next(module.parameters()).dtype
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        fused = (fabric.device.type == "cpu" and settings.precision != "16-mixed") or None
        model, optimiser = fabric.setup(module, make_optimiser(module, settings, fused=fused))
        mean = Mean(module, settings)
        shown = model if mean.kept is module else fabric.setup_module(mean.kept)
        continuing = objective if isinstance(objective, Continuing) else None
        last = Checkpoint(run, module, mean.kept, optimiser, continuing) if run is not None else None
        place = last.resume() if last is not None else Place()
        best = copy.deepcopy(mean.kept.state_dict())
        board = _board(run, settings) if run is not None and settings.tensorboard else None
        over = place.over(settings.max_steps, settings.patience, settings.goal)
        bar = stack.enter_context(watch(objective, settings.max_steps, place, quiet=quiet, over=over))
        stop = stack.enter_context(interruptible())
        saved = time.monotonic()
        started = saved - place.seconds
        if recorder is not None:
            recorder(place.step, module, objective)
        while not place.over(settings.max_steps, settings.patience, settings.goal) and not stop:
            try:
                loss = _step(fabric, model, optimiser, objective, settings, place)
            except Diverged:
                _leave(run, module, best, dtype)
                raise
            mean.step(place)
            place.advance(loss)
            if recorder is not None:
                recorder(place.step, module, objective)
            bar.step(place)
            place.seconds = time.monotonic() - started
            due = place.step % settings.every == 0 or place.step == settings.max_steps
            if due:
                mean.before_validation(place)
                found = _validated(objective, shown)
                place.seconds = time.monotonic() - started
                if place.better(found.losses, found.independent or len(found.losses), settings.caution):
                    best, place.best_scores = copy.deepcopy(mean.kept.state_dict()), found.scores
                    if run is not None:
                        save_best(run, mean.kept, place, about or {})
                mean.after_validation(place)
                _report(run, board, bar, place, found.scores, optimiser.param_groups[0]["lr"])
            if last is not None and (due or time.monotonic() - saved > SAVE_AFTER):
                last.save(place)
                saved = time.monotonic()
        if stop and not place.scores:  # nothing is the best yet: what has been learned is kept
            mean.before_validation(place)
            best = copy.deepcopy(mean.kept.state_dict())
            if run is not None:
                save_best(run, mean.kept, place, about or {})
        if last is not None and stop:
            last.save(place)
    _leave(run, module, best, dtype)
    best_step = place.best_step if place.scores else place.step
    return Fitted(place.step, best_step, place.best, place.seconds, bool(stop))


def _step(
    fabric: Any,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    settings: FitSettings,
    place: Place,
) -> float:
    """One step of the optimiser; return the loss before it."""
    torch.manual_seed(step_seed(settings.seed, place.step))
    share = objective.share(place.step) if isinstance(objective, Continuing) else 1.0
    for group in optimiser.param_groups:
        group["lr"] = share * learning_rate(settings, place.step, place.cuts)
    model.train()
    loss = objective.loss(model, fabric.to_device(objective.batch(place.step)))
    fabric.backward(loss)
    norm = fabric.clip_gradients(model, optimiser, max_norm=settings.clip, error_if_nonfinite=False)
    value = _finite(loss, norm, settings, place)
    optimiser.step()
    optimiser.zero_grad()
    return value


def _leave(run: Run | None, module: nn.Module, best: dict[str, Any], dtype: torch.dtype) -> None:
    """Give the module the best weights, the run's where it has some, and leave it as `fit` says."""
    if run is not None and run.exists("weights.safetensors"):
        load_best(run, module)
    else:
        module.load_state_dict(best)
    module.to("cpu", dtype).eval()


def _validated(objective: Objective, model: nn.Module) -> Validation:
    model.eval()
    with torch.no_grad():
        return objective.validate(model)


def step_seed(seed: int, step: int) -> int:
    """The seed of everything random on the device in step `step`; different for any two pairs in use."""
    return (seed * 1_000_003 + step) % 2**63


def _fabric(device: str, precision: str) -> Any:
    fabric = need("lightning_fabric", extra="tasks", to="train")
    return fabric.Fabric(accelerator=present_device(device, precision), devices=1, precision=precision)


def present_device(device: str, precision: str = "32-true") -> str:
    """Return "cpu", "cuda" or "mps", whichever a name stands for here.

    Args:
        device: one of `DEVICES`.
        precision: what it has to compute in, as in `FitSettings`.

    Raises:
        SettingError: it is none of them, or has not this precision. BackendError: this machine has none such.

    >>> present_device("cpu")
    'cpu'
    """
    if device not in DEVICES:
        raise SettingError(f"fit: `device` must be one of {', '.join(map(repr, DEVICES))}, got {device!r}.")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next((name for name, there in present.items() if there), "cpu")
    if not present.get(device, True):
        raise BackendError(f"fit: `device` {device!r} is not available on this machine. Use 'cpu' or 'auto'.")
    if device == "cpu" and precision == "16-mixed":
        raise SettingError("fit: `precision` '16-mixed' is for a GPU. On a CPU use 'bf16-mixed'.")
    return device


def _finite(loss: Tensor, norm: Any, settings: FitSettings, place: Place) -> float:
    """The loss as a number. With gradient scaling a step whose norm is not finite is skipped, no fault."""
    value, length = loss.item(), float(norm)
    if math.isfinite(value) and (math.isfinite(length) or settings.precision == "16-mixed"):
        return value
    kept = f"The weights of the best validation (step {place.best_step}) are kept."
    if not place.scores:
        kept = "No validation came before, so the weights are those that this training began with."
    raise Diverged(
        f"fit: loss and gradient must stay finite, and at step {place.step} the loss is {value:.4g} and the "
        f"gradient's norm {length:.4g}. Lower `lr` or `clip`, or look for extreme values in the data. {kept}"
    )


def _board(run: Run, settings: FitSettings) -> Any:
    need("tensorboard", extra="tensorboard", to="write for TensorBoard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path("tensorboard")))


def _report(
    run: Run | None, board: Any, bar: Progress, place: Place, scores: dict[str, float], lr: float
) -> None:
    """One line of metrics to each place that wants it."""
    line = {"step": place.step, "loss": place.mean_loss(), "lr": lr, **scores, "seconds": place.seconds}
    bar.validation(place, scores)
    if run is not None:
        run.append_metrics(line)
    if board is not None:
        for name, value in line.items():
            board.add_scalar(name, value, place.step)
        board.flush()
