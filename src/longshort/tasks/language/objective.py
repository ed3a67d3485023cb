"""The loss with its penalties, the validation, and the state that goes from window to window."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ...scan import State
from ...train import Validation
from .corpus import Corpus
from .model import States
from .settings import LanguageSettings
from .windows import Passes, Streams

READ = 256
"""Tokens of each stream that a validation reads at once."""
WATCHED = 4
"""Streams that a training is filmed on."""


class Batch(NamedTuple):
    """A window of every stream."""

    tokens: Tensor
    "(N, T) what is read"
    targets: Tensor
    "(N, T) what follows"
    fresh: bool
    "whether a pass begins here"


class LanguageObjective:
    """Windows of a text one after the other, with the state carried and the gradient cut between them.

    Args:
        train: the text to learn from.
        valid: the text that decides when to stop.
        settings: streams, windows, penalties.
    """

    def __init__(self, train: Corpus, valid: Corpus, settings: LanguageSettings) -> None:
        self.settings = settings
        self.streams = Streams(train.tokens, settings.batch)
        self.passes = Passes(self.streams.L, settings.window, settings.random_windows, settings.seed)
        lanes = max(1, min(settings.batch, 20, (len(valid.tokens) - 1) // READ))
        self.valid = Streams(valid.tokens, lanes, "the validation part")
        self.metric = "ppl" if settings.unit in ("word", "subword") else "nats"
        self.unit = {"char": "characters", "byte": "bytes"}.get(settings.unit, f"{settings.unit}s")
        self.size = settings.batch * settings.window
        self.state: States | None = None

    def batch(self, step: int) -> Batch:
        """What the streams read in a step, and what follows."""
        start, end, number = self.passes.place(step)
        return Batch(*self.streams.window(start, end), number == 0)

    def share(self, step: int) -> float:
        """A window of another length moves the weights as much a token as one of the usual."""
        if not self.settings.random_windows:
            return 1.0
        start, end, _ = self.passes.place(step)
        return (end - start) / self.settings.window

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean of -log p of what follows, in nats a token, and the penalties."""
        before = None if batch.fresh or self.state is None else self.state
        if before is not None:
            before = tuple(state.to(batch.tokens.device) for state in before)
        read = model(batch.tokens, before, batch.targets)
        self.state = tuple(State(*state).detach() for state in read.state)
        loss: Tensor = read.losses.mean()
        if self.settings.activation:
            loss = loss + self.settings.activation * read.dropped.square().mean()
        if self.settings.temporal and read.h.shape[1] > 1:
            change = read.h[:, 1:] - read.h[:, :-1]
            loss = loss + self.settings.temporal * change.square().mean()
        return loss

    def carried(self) -> dict[str, Tensor]:
        """The state after the last window."""
        pairs = {} if self.state is None else {f"{k}": state for k, state in enumerate(self.state)}
        return {f"{part}{k}": getattr(state, part) for k, state in pairs.items() for part in ("h", "c")}

    def carry(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state that `carried` gave."""
        layers = len(tensors) // 2
        self.state = (
            tuple(State(tensors[f"h{k}"], tensors[f"c{k}"]) for k in range(layers)) if layers else None
        )

    def watched(self) -> tuple[tuple[Any, ...], Callable[[Any], Tensor]]:
        """The first window of a few streams, and what picks the state that the last token is scored from."""
        return (self.batch(0).tokens[:WATCHED],), lambda read: read.h[:, -1]

    def validate(self, model: nn.Module) -> Validation:
        """Read the validation part in a few streams; the first tokens of each have little before them."""
        device = next(model.parameters()).device
        sums, state = np.zeros(self.valid.N), None
        for start in range(0, self.valid.L, READ):
            pair = self.valid.window(start, min(start + READ, self.valid.L))
            tokens, targets = (part.to(device) for part in pair)
            read = model(tokens, state, targets)
            state = read.state
            sums += read.losses.double().sum(1).cpu().numpy()
        losses = sums / self.valid.L
        mean = float(losses.mean())
        return Validation({"nats": mean, "ppl": math.exp(min(mean, 700.0))}, losses)
