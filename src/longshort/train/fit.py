"""The training loop: one function that reads from top to bottom.

What happens in step s is a function of (settings, seed, s) and of the weights alone: the batch, the dropout
masks and the learning rate carry nothing from one step to the next. So a run that was stopped and resumed
is, on a CPU, the uninterrupted run bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BackendError, Diverged, SettingError, need
from ..runs import Run
from ..settings import Settings, setting
from .checkpoint import Place, load_best, resume, save_best, save_last
from .interrupt import interruptible
from .progress import Progress, watch

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, kw_only=True)
class FitSettings(Settings):
    """How long, how fast and how carefully to fit."""

    max_steps: int = setting(800, "Optimiser steps at most, one batch each.", least=1)
    lr: float = setting(2e-3, "Learning rate at its peak, after warm-up.", above=0, most=1)
    warmup: int = setting(50, "Steps over which the learning rate rises to `lr`.", least=0)
    weight_decay: float = setting(1e-2, "AdamW's decay of the weights, as a share of `lr` a step.", least=0)
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


@dataclass(frozen=True)
class Fitted:
    """How a fit ended.

    Args:
        step: optimiser steps made, those before a resume included.
        best_step: the step whose weights the module now has.
        best: the validation score there; lower is better.
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
) -> Fitted:
    """Fit a module and leave it with the weights of its best validation.

    AdamW, a learning rate that rises over `warmup` steps and then falls linearly to a twentieth, gradients
    clipped by their norm, and an end once `patience` validations brought nothing better, or one reached
    `goal`.

    Args:
        module: what to fit; trained in place, and back on the CPU in its own dtype when this returns.
        objective: batches, loss and validation.
        settings: how long and how fast.
        run: where checkpoints and metrics go, and from where an interrupted fit resumes; none if None.
        about: a JSON object to keep beside the best weights, such as what it takes to build the module.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.

    Returns:
        How it ended; `module` has the best weights, in evaluation mode.

    Raises:
        SettingError: an unknown device.
        Diverged: the loss is no longer finite.
        BackendError: the device is not there.
        RunError: the run's checkpoint is damaged or of another module.

    Memory: four copies of the weights (weights, gradient, two moments) and, without a run, the best ones.
    """
    fabric = _fabric(device, settings.precision)
    dtype = next(module.parameters()).dtype
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        optimiser = torch.optim.AdamW(module.parameters(), settings.lr, weight_decay=settings.weight_decay)
        model, optimiser = fabric.setup(module, optimiser)
        kept = copy.deepcopy(module) if settings.average else module
        shown = fabric.setup_module(kept) if settings.average else model
        place = resume(run, module, kept, optimiser) if run is not None else Place()
        best = copy.deepcopy(kept.state_dict())
        board = _board(run, settings) if run is not None and settings.tensorboard else None
        over = place.over(settings.max_steps, settings.patience, settings.goal)
        bar = stack.enter_context(watch(objective, settings.max_steps, place, quiet=quiet, over=over))
        stop = stack.enter_context(interruptible())
        started = time.monotonic() - place.seconds
        while not place.over(settings.max_steps, settings.patience, settings.goal) and not stop:
            torch.manual_seed(step_seed(settings.seed, place.step))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(settings, place.step)
            model.train()
            loss = objective.loss(model, fabric.to_device(objective.batch(place.step)))
            fabric.backward(loss)
            fabric.clip_gradients(model, optimiser, max_norm=settings.clip, error_if_nonfinite=False)
            optimiser.step()
            optimiser.zero_grad()
            if settings.average:
                move_towards(kept, module, settings.average, place.step)
            place.advance(_finite(loss, place.step))
            bar.step(place)
            if place.step % settings.every == 0 or place.step == settings.max_steps:
                shown.eval()
                with torch.no_grad():
                    found = objective.validate(shown)
                place.seconds = time.monotonic() - started
                if place.better(found.losses, found.independent or len(found.losses), settings.caution):
                    best = copy.deepcopy(kept.state_dict())
                    if run is not None:
                        save_best(run, kept, place, about or {})
                _report(run, board, bar, place, found.scores, optimiser.param_groups[0]["lr"])
                if run is not None:
                    save_last(run, module, kept, optimiser, place)
        place.seconds = time.monotonic() - started
        interrupted = bool(stop)
        if interrupted and run is not None:
            save_last(run, module, kept, optimiser, place)
    if run is not None and run.exists("weights.safetensors"):
        load_best(run, module)
    else:
        module.load_state_dict(best)
    module.to("cpu", dtype).eval()
    return Fitted(place.step, place.best_step, place.best, place.seconds, interrupted)


def learning_rate(settings: FitSettings, step: int) -> float:
    """The learning rate of step `step` (from 0): a rise over `warmup` steps times a fall to 1/20.

    >>> [round(learning_rate(FitSettings(lr=1.0, warmup=2, max_steps=4), s), 4) for s in range(4)]
    [0.5, 0.7625, 0.525, 0.2875]
    """
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.lr * rise * (1 - 0.95 * step / settings.max_steps)


@torch.no_grad()
def move_towards(kept: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Make `kept` the running mean of the module's weights, over fewer steps at first than later."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(kept.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, share)
    for copied, buffer in zip(kept.buffers(), module.buffers(), strict=True):
        copied.copy_(buffer)


def step_seed(seed: int, step: int) -> int:
    """The seed of everything random on the device in step `step`; different for any two pairs in use."""
    return (seed * 1_000_003 + step) % 2**63


def _fabric(device: str, precision: str) -> Any:
    fabric = need("lightning_fabric", extra="tasks", to="train")
    if device not in DEVICES:
        raise SettingError(f"fit: `device` must be one of {', '.join(map(repr, DEVICES))}, got {device!r}.")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next((name for name, there in present.items() if there), "cpu")
    if not present.get(device, True):
        raise BackendError(f"fit: `device` {device!r} is not available on this machine. Use 'cpu' or 'auto'.")
    return fabric.Fabric(accelerator=device, devices=1, precision=precision)


def _finite(loss: Tensor, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(
            f"fit: the loss must stay finite, and is {value} at step {step}. Lower `lr` or `clip`, "
            f"or look for extreme values in the data."
        )
    return value


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
