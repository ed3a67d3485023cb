"""What a person may choose about a language model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Self

from ...scan import Noise
from ...settings import setting
from ...train import FitSettings

UNITS = ("char", "byte", "subword", "word")


@dataclass(frozen=True, kw_only=True)
class LanguageSettings(FitSettings):
    """Units of text, the size of the model, what keeps it from learning by heart, and how it is trained."""

    called = "language"
    unit: str = setting("char", "What the model reads and writes, one at a time.", choices=UNITS)
    vocabulary: int | None = setting(
        None,
        "Most units in the vocabulary, the frequent ones; by default all characters, 10,000 words, 4,096 "
        "subwords.",
        least=2,
    )
    embedding: int = setting(64, "Numbers that stand for a unit where the model reads it.", least=1)
    hidden: int = setting(512, "Hidden units of each LSTM layer.", least=1)
    layers: int = setting(1, "LSTM layers.", least=1)
    tied: bool = setting(
        False, "Score a unit by the numbers that it is read as; the last layer then has that width."
    )
    decoder: str = setting(
        "auto",
        "Softmax over all units, or an adaptive one in clusters by frequency; auto: full below 50,000 units.",
        choices=("auto", "full", "adaptive"),
    )
    short_decoder: bool = setting(
        False,
        "Multiply the scores in bfloat16 and sum them in float32: less exact, twice as fast on some CPUs.",
    )
    spread: float = setting(
        0.0, "All weights begin uniform within this; 0 for orthogonal ones with open forget gates.", least=0
    )
    batch: int = setting(16, "Streams, places of the text read side by side.", least=1)
    window: int = setting(64, "Units of each stream in a step; gradients reach no further back.", least=1)
    random_windows: bool = setting(
        False, "Draw each window's length: about the normal one, or with 0.05 chance half of it."
    )
    dropout: float = setting(
        0.2, "Share silenced between the layers and before the scores.", least=0, below=1
    )
    dropout_input: float = setting(0.0, "Share silenced before the first layer.", least=0, below=1)
    dropout_output: float | None = setting(
        None, "Share silenced before the scores; by default `dropout`.", least=0, below=1
    )
    dropout_words: float = setting(0.0, "Share of the units whose numbers are silenced.", least=0, below=1)
    locked: bool = setting(False, "Silence the same numbers at all steps of a window (variational).")
    weight_drop: float = setting(0.0, "Share of the recurrent weights silenced.", least=0, below=1)
    variational_h: float = setting(
        0.0, "Share of h silenced, the same units all through a window.", least=0, below=1
    )
    recurrent_dropout: float = setting(0.0, "Share of the candidates silenced.", least=0, below=1)
    zoneout_h: float = setting(0.0, "Share of h that keeps its value.", least=0, below=1)
    zoneout_c: float = setting(0.0, "Share of the cells that keep their value.", least=0, below=1)
    activation: float = setting(0.0, "Penalty on the size of the last layer's output.", least=0)
    temporal: float = setting(0.0, "Penalty on its change from step to step.", least=0)
    epochs: float | None = setting(
        None,
        "Passes over the text, in place of `max_steps`; then a validation and a cut come once a pass.",
        above=0,
    )
    hold_epochs: float = setting(
        0.0, "Passes before the first cut of the rate; then a validation and a cut come once a pass.", least=0
    )
    encoding: str = setting("utf-8", "How characters are written in the files, such as latin-1.")
    validation: float = setting(
        0.1,
        "Share of the text, its last and at most 250,000 units, that decides when to stop.",
        above=0,
        below=1,
    )
    average: float = setting(
        0.998,
        "Decay of the running mean of the weights, which is what is validated and kept; 0 for no mean.",
        least=0,
        below=1,
    )
    max_steps: int = setting(2500, "Optimiser steps at most, one window of all streams each.", least=1)
    schedule: str = setting(
        "cosine",
        "How the learning rate falls after its rise.",
        choices=("linear", "cosine", "decay", "plateau", "constant"),
    )
    every: int = setting(250, "Steps from one validation to the next.", least=1)
    patience: int = setting(20, "Validations without a better score after which to stop.", least=1)

    def noise(self, layer: int) -> Noise:
        """The noise inside a layer: `dropout_input` before the first and `dropout` between, if locked."""
        before = self.dropout_input if layer == 0 else self.dropout
        return Noise(
            variational_x=before if self.locked else 0.0,
            variational_h=self.variational_h,
            recurrent_dropout=self.recurrent_dropout,
            zoneout_h=self.zoneout_h,
            zoneout_c=self.zoneout_c,
            weight_drop=self.weight_drop,
        )

    def widths(self) -> list[tuple[int, int]]:
        """Inputs and hidden units of each layer."""
        last = self.embedding if self.tied else self.hidden
        outs = [self.hidden] * (self.layers - 1) + [last]
        return list(zip([self.embedding, *outs], outs, strict=False))

    @staticmethod
    def beneath_asked(beneath: dict[str, Any], asked: Collection[str]) -> dict[str, Any]:
        """What stands beneath settings that are asked for: steps that are asked for replace its passes.

        Args:
            beneath: settings by name, of a recipe or a run.
            asked: names of the settings that are asked for.
        """
        replaced = {"epochs"} if "max_steps" in asked and "epochs" not in asked else set()
        return {name: value for name, value in beneath.items() if name not in replaced}

    def in_steps(self, epoch: int) -> Self:
        """These settings with passes over the text turned into steps.

        Args:
            epoch: steps of one pass.
        """
        if self.epochs is None and not self.hold_epochs:
            return self
        steps = self.max_steps if self.epochs is None else max(1, round(self.epochs * epoch))
        hold = round(self.hold_epochs * epoch)
        return replace(self, max_steps=steps, every=min(epoch, steps), hold=hold, decay_every=epoch)
