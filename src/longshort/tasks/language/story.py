"""From a text to a run folder, and from a run folder to text and scores: what the command line calls.

runs/book/settings.json        what was asked
         data.json             the text it was trained on, as a checksum
         weights.safetensors   the best weights, and the vocabulary
         last.safetensors      the last checkpoint, with the state in the middle of the text
         tokens.bin            the text as tokens, where it is too large for memory
         metrics.jsonl         one line a validation
         scores.json           the score on the text held out, beside the baselines
         sample.txt            what the model writes
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SettingError, need
from ...runs import Run
from ...settings import setting
from ...train import FitSettings, Fitted
from .language_model import LanguageModel
from .recipes import recipe, recipes
from .sampling import Sampling
from .scoring import Score, outside
from .settings import LanguageSettings
from .text import topics

SAMPLE = 400
"""Tokens of the sample that `train` writes."""
TEMPERATURE = 0.7
"""Of that sample."""

EXAMPLES = """\
    longshort train language book.txt --out runs/book
    longshort train language ptb.train.txt --recipe zaremba-small --valid ptb.valid.txt --test ptb.test.txt
"""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LanguageSettings):
    """Train a model of characters, bytes, subwords or words on a text, so that it can go on with it."""

    file: str | None = setting(
        None, "Text to learn from; by default the help topics of Python, which come with it."
    )
    recipe: str | None = setting(None, "Settings by name; flags change them.")
    valid: str | None = setting(
        None, "Text that decides when to stop, in place of the last part of the file."
    )
    test: str | None = setting(None, "Text that is only scored, once, at the end.")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `longshort train language` takes: the model's own settings, then the optimiser's."""
    need("rich", extra="tasks", to="train on a file")
    text = "text to learn from; - is standard input; by default the help topics of Python, or --file"
    parser.add_argument("source", nargs="?", metavar="FILE", help=text)
    optimiser = [field.name for field in dataclasses.fields(FitSettings)]
    own = [f.name for f in dataclasses.fields(TrainSettings) if f.name not in optimiser]
    TrainSettings.flags(parser.add_argument_group("the model"), own)
    TrainSettings.flags(parser.add_argument_group("the optimiser"), optimiser)
    lines = [f"    {name:14} {found['about']}" for name, found in recipes().items()]
    parser.epilog = "recipes:\n" + "\n".join(lines)


def beneath(given: argparse.Namespace) -> TrainSettings:
    """The settings that hold where no flag was given: those of the recipe, if one was named.

    Raises:
        SettingError: there is no such recipe.
    """
    name = getattr(given, "recipe", None)
    return TrainSettings() if name is None else TrainSettings.from_json({**recipe(name), "recipe": name})


def train(settings: TrainSettings, out: str | Path, *, device: str = "auto", quiet: bool = False) -> int:
    """Train on a text, score the model on what was held out, and let it write.

    Args:
        settings: the text and the model.
        out: the run folder; an interrupted run of the same settings goes on.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.

    Returns:
        0, or 1 if Ctrl-C ended the training early.
    """
    model = LanguageModel(**_model_settings(settings))
    text = topics() if settings.file is None else Path(settings.file)
    if isinstance(text, Path) and settings.file == "-":
        text = iter(model.source(text).pieces())
    run = Run.create(out, "language", settings.to_json())
    valid = None if settings.valid is None else Path(settings.valid)
    introduce = None if quiet else lambda text: print(f"{settings.file or TOPICS}: {text}", flush=True)
    model.fit(text, valid=valid, run=run, device=device, quiet=quiet, tell=introduce)
    fitted = model.fitted
    if fitted is None:
        raise SettingError("train: the fit left no result.")
    state = "interrupted" if fitted.interrupted else "done"
    print(
        f"{state} after {fitted.step} steps, {fitted.seconds:.0f} s; "
        f"the weights are those of step {fitted.best_step}"
    )
    found = model.score(Path(settings.test)) if settings.test else model.score_held_out()
    where = settings.test or ("the validation part, which also decided when to stop")
    run.write_json("scores.json", found.to_json())
    print(f"\n{where}: {found}\n")
    sample = model.generate("\n", SAMPLE, temperature=TEMPERATURE, seed=settings.seed)
    run.write_bytes("sample.txt", sample.encode(errors="replace"))
    print(f"what it writes at temperature {TEMPERATURE}:\n\n{_indented(sample)}\n")
    print(f'{run.folder}: the run. longshort predict {run.folder} "Some words"')
    if fitted.interrupted:
        print(f"Interrupted at step {fitted.step}. The same command goes on from there.", file=sys.stderr)
    return int(fitted.interrupted)


TOPICS = "Python's help topics, which come with it"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").split("\n"))


def _model_settings(settings: TrainSettings) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(LanguageSettings)}
    return {name: value for name, value in settings.to_json().items() if name in known}


_ = (Fitted, Score, Sampling, outside, Sequence)
