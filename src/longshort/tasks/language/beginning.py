"""Before a fit: whether text and run fit each other and the model, and what a person is told of them."""

from __future__ import annotations

from ...errors import DataError, RunError
from ...runs import Run
from .corpus import Corpus
from .model import LanguageNetwork
from .scoring import outside
from .settings import LanguageSettings
from .vocabulary import Vocabulary
from .windows import Passes


def long_enough(
    name: str, train: Corpus, later: Corpus, settings: LanguageSettings, valid: str | None = None
) -> None:
    """Refuse a text that does not fill one window; `valid` names the file of `later`, if it has its own.

    Raises:
        DataError: the message says how long it must be.
    """
    unit, least = settings.unit, settings.window + 1
    if len(train.tokens) < least:
        raise DataError(
            f"{name}: is too short: {len(train.tokens)} {unit}s to learn from, and one window takes {least}. "
            f"Give a longer text, or a smaller --window."
        )
    if len(later.tokens) < 2:
        raise DataError(
            f"{valid or name}: is too short: {len(later.tokens)} {unit}s to validate on, and 2 are needed. "
            f"Give a longer text."
        )


def same_text(run: Run, train: Corpus, later: Corpus) -> None:
    """Note in a run which text it is trained on, or hold a resumed run to it.

    Raises:
        RunError: the run was begun with another text.
    """
    digest = f"{train.digest}{'' if train.digest == later.digest else later.digest}"
    now = {"trained on": len(train.tokens), "validated on": len(later.tokens), "sha256": digest}
    if not run.exists("data.json"):
        run.write_json("data.json", now)
        return
    before = run.read_json("data.json")
    if before != now:
        raise RunError(
            f"{run.folder}: was trained on another text ({before.get('trained on')} tokens; now "
            f"{now['trained on']}). Give another folder to train on the new one."
        )


def introduction(
    whole: Corpus,
    train: Corpus,
    later: Corpus,
    vocabulary: Vocabulary,
    network: LanguageNetwork,
    settings: LanguageSettings,
    passes: Passes,
) -> str:
    """What is about to be done, and what is odd about the text."""
    unit, weights = settings.unit, sum(weight.numel() for weight in network.parameters())
    seen = settings.max_steps / passes.steps()
    about = f"{seen:.1f}" if seen > 0.1 else f"{seen:.1g}"
    told = (
        f"{len(whole.tokens):,} {unit}s, {len(vocabulary):,} different\n"
        f"trained on {len(train.tokens):,}, validated on {len(later.tokens):,}\n"
        f"{settings.layers} x {settings.hidden} units, {weights:,} weights; {settings.max_steps} steps of "
        f"{settings.batch} x {settings.window} {unit}s, {about} passes over the text"
    )
    if settings.window > passes.L:
        told += (
            f"\nnote: each of the {settings.batch} streams has {passes.L} {unit}s of this text, fewer than a "
            f"window of {settings.window}, so a step reads less; "
            f"--batch {(len(train.tokens) - 1) // settings.window} fills it"
        )
    for corpus, part in ((whole, ""), (later, ", in the validation part")):
        if corpus.strange and (corpus is whole or corpus.strange is not whole.strange):
            told += f"\nnote: {outside(corpus.strange, unit, scored=False)}{part}"
    return told
