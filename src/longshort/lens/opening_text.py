"""A language model and a prompt -> what `look` opens: the prompt beside windows of the model's own text."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError, LongshortError
from .opening import Opened

if TYPE_CHECKING:
    from ..runs import Run
    from ..tasks import LanguageModel

STEPS, LONGEST = 128, 1000
"""Tokens that are looked at: at least, the model's own where the prompt has fewer, and at most."""
WINDOWS, FEWEST = 48, 6
"""Sequences at most, and at least."""
READ = 3e9
"""Multiplications of one pass over all sequences, about: larger models have fewer of them."""
WARMTH = 0.7
"""The temperature at which the model goes on with a short prompt."""
SHOWN = {"\n": "↵", "\t": "⇥", "": "·"}
"""What stands for tokens that could not be seen."""


def open_text(model: LanguageModel, prompt: str | None = None, text: Any = None, why: str = "") -> Opened:
    """A prompt, gone on with by the model where it is short, and windows of a text of the same length.

    The answer is the score of the likeliest next token, the loss the cross-entropy of each next token.

    Args:
        model: a fitted language model.
        prompt: what to look at; the windows alone if None or empty.
        text: (tokens,) the text that the windows are cut from, best one not trained on; None for none.
        why: there is none, as a sentence.

    Raises:
        DataError: there is neither a prompt nor a text long enough for one window.
    """
    vocabulary, network = model.vocabulary, model.network
    notes: list[str] = []
    rows = [_begun(model, prompt, notes)] if prompt else []
    names = [f"“{prompt[:40]}” and on"] if prompt else []
    T = len(rows[0]) - 1 if rows else STEPS
    spots = _spots(text, T, _wanted(network, T) - len(rows))
    rows += [np.asarray(text[at : at + T + 1], np.int64) for at in spots]
    names += [f"the text at {vocabulary.unit} {at:,}" for at in spots]
    if spots and len(spots) * T < len(text) - T:
        notes.append(
            f"Of the text's {len(text):,} {vocabulary.unit}s {len(spots)} stretches of {T:,} were read, "
            "evenly spread."
        )
    if not rows:
        raise DataError(
            f"look: needs a prompt, or a text of {T + 1} {vocabulary.unit}s or more. {why} Give a prompt."
        )
    if len(rows) == 1:
        notes.append(f"The prompt alone was looked at, so the statistics are of one sequence. {why}".strip())
    tokens = torch.from_numpy(np.stack(rows))
    targets = tokens[:, 1:]

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view(
            targets.shape
        )

    labels = [_labels(vocabulary, row[:-1].tolist()) for row in tokens]
    with torch.no_grad():
        likeliest = int(network.decoder(network(tokens[:1, :-1]).h[0, -1]).argmax())
    word = _labels(vocabulary, [likeliest])[0]
    return Opened(
        network, (tokens[:, :-1],), lambda read: network.decoder(read.h), loss, likeliest,
        f"The score of “{word}” as the next {vocabulary.unit}", "LanguageModel",
        [f"number {k} of the {vocabulary.unit}" for k in range(network.embedding.embedding_dim)],
        names, notes, labels, last=lambda read: network.decoder(read.h[:, -1:]),
    )  # fmt: skip


def _begun(model: LanguageModel, prompt: str, notes: list[str]) -> Any:
    """(T + 1,) a prompt's tokens, and as many that the model goes on with as it takes to have enough."""
    vocabulary = model.vocabulary
    own, strange = vocabulary.encode(prompt)
    if not len(own):
        raise DataError(f"look: the prompt must have a {vocabulary.unit} or more, got {prompt[:40]!r}.")
    if strange:
        outside = ", ".join(repr(part) for part in list(strange)[:5])
        notes.append(f"Outside the vocabulary, and read as what is nearest or as unknown: {outside}.")
    if len(own) > LONGEST:
        notes.append(f"Of the prompt's {len(own):,} {vocabulary.unit}s the last {LONGEST:,} are looked at.")
    missing = max(1, STEPS + 1 - len(own))
    made = model.generate(prompt, missing + 32, temperature=WARMTH, seed=0)  # some may merge when read again
    later = vocabulary.encode(made)[0][:missing]
    if missing > 1:
        notes.append(
            f"The first {len(own)} {vocabulary.unit}s of the first sequence are the prompt; the model wrote "
            f"the rest (temperature {WARMTH}, seed 0)."
        )
    return np.concatenate((own, later))[-(LONGEST + 1) :]


def open_text_run(run: Run, source: str | None) -> Opened:
    """A run of `longshort train language`, with a prompt or a text.

    Args:
        run: the run.
        source: the prompt, beside windows of the run's own validation part; the file of a text, whose windows
            are looked at; "-" for a prompt on standard input; None for the validation part alone.
    """
    from ..tasks import LanguageModel
    from ..tasks.language.story import held_out
    from ..tasks.language.text import names_a_file

    model = LanguageModel.load(run.folder)
    if source is not None and names_a_file(source):
        return open_text(model, None, model.source(Path(source)).corpus(model.vocabulary).tokens)
    prompt = "".join(model.source(Path("-")).pieces()) if source == "-" else source
    try:
        text, why = held_out(model, run), ""
    except LongshortError as error:
        text, why = None, f"The run's own text cannot be read: {error}"
    opened = open_text(model, prompt, text, why)
    doubt = None if source is None else _like_a_name(source)
    return opened if doubt is None else replace(opened, notes=[doubt, *opened.notes])


def _like_a_name(prompt: str) -> str | None:
    """What to say of a prompt that may have been meant as the name of a file."""
    if os.path.isdir(prompt):  # noqa: PTH112 - no error where the text is too long for a name
        return f"“{prompt}” is taken as the prompt: it is the name of a folder, not of a file."
    if len(prompt) < 200 and re.fullmatch(r"\S*/\S*|.*\.[A-Za-z]\w{0,4}", prompt):
        return f"“{prompt}” is taken as the prompt: there is no file of this name."
    return None


def _wanted(network: Any, T: int) -> int:
    """Sequences whose pass takes about `READ` multiplications."""
    s = network.settings
    each = T * (
        sum(4 * h * (c + h) for c, h in s.widths()) + s.widths()[-1][1] * len(network.embedding.weight)
    )
    return int(min(max(READ / each, FEWEST), WINDOWS))


def _spots(text: Any, T: int, count: int) -> list[int]:
    """Where windows of T tokens, and one that follows, begin: evenly spread, not one over another."""
    if text is None or len(text) <= T:
        return []
    count = min(count, (len(text) - 1) // T)
    return [int(at) for at in np.unique(np.linspace(0, len(text) - T - 1, count).round())]


def _labels(vocabulary: Any, tokens: list[int]) -> list[str]:
    """What each token adds to the text, so that it can be seen."""
    decode = vocabulary.decoder()
    return [SHOWN.get(part, part) for part in map(decode, tokens)]
