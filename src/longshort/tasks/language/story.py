"""From a text to a run folder, and from a run folder to text and scores: what the command line calls.

runs/book/settings.json        what was asked
         data.json             the text it was trained on, as a checksum
         weights.safetensors   the best weights, and the vocabulary
         last.safetensors      the last checkpoint, with the state in the middle of the text
         tokens.bin            the text as tokens, where it is too large for memory
         metrics.jsonl         one line a validation
         scores.json           the score on the text held out, beside the baselines
         sample.txt            what the model writes
         film.json             what `--watch` kept
"""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from ...errors import DataError, LongshortError, RunError, SettingError, need
from ...runs import Run, replacing, require_writable
from ...settings import setting
from ...train import FitSettings, Fitted
from .corpus import Array
from .language_model import LanguageModel
from .recipes import recipe, recipes
from .scoring import MODEL, Score, outside
from .settings import LanguageSettings
from .stepping import manner
from .text import names_a_file, topics

SAMPLE = 400
"""Tokens of the sample that `train` writes."""
TEMPERATURE = 0.7
"""Of that sample."""

EXAMPLES = """\
    longshort train language book.txt --out runs/book
    longshort train language ptb.train.txt --recipe zaremba-small --valid ptb.valid.txt --test ptb.test.txt
    longshort train language letters.txt --start runs/book --lr 0.0005 --out runs/letters
"""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LanguageSettings):
    """Train a model of characters, bytes, subwords or words on a text, so that it can go on with it."""

    file: str | None = setting(
        None, "Text to learn from; by default the help topics of Python, which come with it."
    )
    recipe: str | None = setting(None, "Settings by name; flags change them.")
    start: str | None = setting(
        None, "Run to begin with: its weights, its vocabulary and, but for flags, its settings."
    )
    valid: str | None = setting(
        None, "Text that decides when to stop, in place of the last part of the file."
    )
    test: str | None = setting(None, "Text that is only scored, once, at the end.")

    @classmethod
    def given(cls, namespace: argparse.Namespace, beneath: Self | None = None) -> Self:
        """As for any settings; steps that are asked for stand in place of a recipe's passes."""
        if hasattr(namespace, "epochs") and hasattr(namespace, "max_steps"):
            raise SettingError(
                "language: `--epochs` and `--max-steps` both say how long. Give one of them; a run that was "
                "begun with both goes on with --settings and its settings.json."
            )
        if beneath is not None:
            beneath = cls.from_json(cls.beneath_asked(beneath.to_json(), vars(namespace)))
        return super().given(namespace, beneath)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `longshort train language` takes: the model's own settings, then the optimiser's."""
    need("rich", extra="tasks", to="train on a file")
    text = (
        "text to learn from; by default the help topics of Python, or --file; - is standard input, "
        "and so several files are one: cat *.txt | longshort train language -"
    )
    parser.add_argument("source", nargs="?", metavar="FILE", help=text)
    optimiser = [field.name for field in dataclasses.fields(FitSettings)]
    own = [f.name for f in dataclasses.fields(TrainSettings) if f.name not in optimiser]
    TrainSettings.flags(parser.add_argument_group("the model"), own)
    TrainSettings.flags(parser.add_argument_group("the optimiser"), optimiser)
    lines = [f"    {name:14} {found['about']}" for name, found in recipes().items()]
    parser.epilog = "recipes:\n" + "\n".join(lines)


def beneath(given: argparse.Namespace) -> TrainSettings:
    """The settings that hold where no flag was given: of the recipe or of the run to start from, if named.

    Raises:
        SettingError: there is no such recipe, or a run was named too.
        RunError: there is no such run.
    """
    name, start = getattr(given, "recipe", None), getattr(given, "start", None)
    if start is not None:
        if name is not None:
            raise SettingError(
                "language: `recipe` and `start` both say what to begin with. Give one of them."
            )
        before = Run.open(start, "language").settings
        own = {field.name for field in dataclasses.fields(LanguageSettings)}
        return TrainSettings.from_json({name: value for name, value in before.items() if name in own})
    return TrainSettings() if name is None else TrainSettings.from_json({**recipe(name), "recipe": name})


def train(
    settings: TrainSettings,
    out: str | Path,
    *,
    device: str = "auto",
    quiet: bool = False,
    recorder: Callable[[int, Any, Any], None] | None = None,
) -> int:
    """Train on a text, score the model on what was held out, and let it write.

    Args:
        settings: the text and the model.
        out: the run folder; an interrupted run of the same settings goes on.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: show no progress.
        recorder: is shown the training, step by step, as in `longshort.train.fit`.

    Returns:
        0, or 130 if Ctrl-C ended the training early.
    """
    model = LanguageModel(**_model_settings(settings))
    valid = None if settings.valid is None else Path(settings.valid)
    start = None if settings.start is None else LanguageModel.load(settings.start)
    if settings.test not in (None, "-"):
        _two_characters(model, str(settings.test))  # before the work, and not behind it
    introduce = None if quiet else lambda text: print(f"{settings.file or TOPICS}: {text}", flush=True)
    model.fit(
        _text(settings), valid=valid, start=start, run=out, device=device, quiet=quiet, tell=introduce,
        recorded=settings.to_json(), recorder=recorder,
    )  # fmt: skip
    run = Run.open(out, "language")
    fitted = model.fitted
    if fitted is None:
        raise SettingError("train: the fit left no result.")
    state = "interrupted" if fitted.interrupted else "done"
    print(
        f"{state} after {fitted.step} steps, {fitted.seconds:.0f} s; "
        f"the weights are those of step {fitted.best_step}"
    )
    if settings.test:
        found = model.score(Path(settings.test), quiet=quiet)
    else:
        found = model.score_held_out(quiet=quiet)
    where = settings.test or ("the validation part, which also decided when to stop")
    run.write_json("scores.json", found.to_json())
    print(f"\n{where}: {found}\n")
    if not fitted.interrupted:
        _advise(found, fitted, settings, run)
    sample = model.generate("\n", SAMPLE, temperature=TEMPERATURE, seed=settings.seed)
    run.write_bytes("sample.txt", sample.encode(errors="replace"))
    print(f"what it writes at temperature {TEMPERATURE}:\n\n{_indented(sample)}\n")
    print(f'{run.folder}: the run. longshort predict {quoted(run.folder)} "Some words"')
    if fitted.interrupted:
        print(f"Interrupted at step {fitted.step}. The same command goes on from there.", file=sys.stderr)
    return 130 if fitted.interrupted else 0  # as for any verb that Ctrl-C ends


def predict(
    folder: str | Path,
    prompts: Sequence[str] = (),
    *,
    prompt_file: str | None = None,
    encoding: str | None = None,
    length: int = 500,
    seed: int | None = None,
    out: str | Path | None = None,
    **how: Any,
) -> None:
    """Go on with prompts, and write prompt and text to standard output, as it is made, or to a file.

    Args:
        folder: the run.
        prompts: texts to go on from; "-" is standard input; without one, a new line is.
        prompt_file: a file to go on from.
        encoding: how characters are written in what is read; as in the run's own text if None.
        length: tokens to write for each prompt.
        seed: of the choices; another each time if None.
        out: a file for the text.
        **how: temperature, top_k, top_p, repetition_penalty, stop and stored, as in `LanguageModel.stream`.
    """
    model = LanguageModel.load(folder)
    if out is not None:
        require_writable(out)
    if encoding is not None:
        model.settings = dataclasses.replace(model.settings, encoding=encoding)
    seed = secrets.randbelow(2**31) if seed is None else seed
    made = manner(seed=seed, **how)
    if length < 1:
        raise SettingError(f"predict: `length` must be at least 1, got {length}.")
    texts = [_read(model, "-") if prompt == "-" else prompt for prompt in prompts]
    texts += [_read(model, prompt_file)] if prompt_file is not None else []
    for prompt in prompts:
        if names_a_file(prompt):
            note(f"{prompt!r} is taken as the prompt; --prompt-file reads the file of this name")
    strange = sum((model.vocabulary.encode(text)[1] for text in texts), Counter[str]())
    if strange:
        note(outside(strange, model.vocabulary.unit, scored=False))
    clock = Clock()
    if len(texts) > 1:
        *_, found = clock.ticks(model.continued(texts, length, made))
        count = sum(len(model.vocabulary.encode(text)[0]) for text in found)
        _write((f"{prompt}{text}\n\n" for prompt, text in zip(texts, found, strict=True)), out)
    else:
        begin = "".join(texts)
        _write(chain([begin], clock.ticks(model.pieces(begin, length, made)), ["\n"]), out)
        count = min(clock.count, length)  # a held back end is no token
    likeliest = made.sampling.temperature == 0
    again = "the likeliest each time, whatever the seed" if likeliest else f"--seed {seed} repeats this"
    note(f"{count:,} token{'' if count == 1 else 's'}{clock.pace(count)}; {again}")


def evaluate(
    folder: str | Path, source: str, *, encoding: str | None = None, out: str | Path | None = None
) -> Score:
    """Score a run on a text, and print the table.

    Args:
        folder: the run.
        source: the text; "-" is standard input.
        encoding: how its characters are written; as in the run's own text if None.
        out: where to write the scores, as .json.
    """
    model = LanguageModel.load(folder)
    if out is not None:
        require_writable(out)
    why = recall(model, Run.open(folder, "language"))
    if why is not None:
        note(f"no baselines: {why}")
    if encoding is not None:  # after the run's own text was read
        model.settings = dataclasses.replace(model.settings, encoding=encoding)
    found = model.score(Path(source), quiet=False)
    print(f"{'standard input' if source == '-' else source}: {found}")
    if out is not None:
        target = Path(out)
        Run(target.parent, "language", {}).write_json(target.name, found.to_json())
    return found


Step = TypeVar("Step")


class Clock:
    """How many steps a generator makes, and how fast, from the first that it has made: the prompt is read."""

    def __init__(self) -> None:
        self.count, self.begun, self.ended = 0, 0.0, 0.0

    def ticks(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Pass the steps on."""
        for step in steps:
            self.count, self.ended = self.count + 1, time.perf_counter()
            self.begun = self.begun or self.ended
            yield step

    def pace(self, tokens: int) -> str:
        """Tokens a second as text, if all the steps together made so many."""
        if self.count < 2:
            return ""
        return f", {tokens * (1 - 1 / self.count) / (self.ended - self.begun):,.0f} a second"


def recall(model: LanguageModel, run: Run) -> str | None:
    """Give a loaded model the text it was trained on, for the baselines, or say why that cannot be."""
    try:
        settings = TrainSettings.from_json(run.settings)
        if settings.file == "-":
            return "the run was trained on standard input"
        model.know(_text(settings), run, valid=settings.valid)
    except LongshortError as error:
        return str(error)
    return None


def held_out(model: LanguageModel, run: Run) -> Array:
    """The tokens of the text that decided when a run's training stopped.

    Raises:
        DataError: the text cannot be read, or has changed. RunError: the run was trained on standard input,
        or does not say on what.
    """
    settings = TrainSettings.from_json(run.settings)
    if settings.valid is not None:
        return model.source(Path(settings.valid)).corpus(model.vocabulary).tokens
    if settings.file == "-":
        raise RunError(f"{run.folder}: was trained on standard input.")
    whole = model.source(_text(settings)).corpus(model.vocabulary)
    if not str(run.read_json("data.json").get("sha256")).startswith(whole.digest):
        raise DataError(f"{settings.file or TOPICS}: has changed since the training.")
    return whole.split(model.settings.validation)[1].tokens


def note(text: str) -> None:
    """Tell the person, beside the text that standard output is for."""
    print(f"note: {text}", file=sys.stderr)


def _advise(found: Score, fitted: Fitted, settings: TrainSettings, run: Run) -> None:
    """What to do about a model that counting beats, or that was still getting better."""
    counted = {name: row["nats"] for name, row in found.rows().items() if name != MODEL}
    best = min(counted, key=lambda name: counted[name], default=None)
    findings = []
    if best is not None and found["nats"] >= counted[best]:
        findings.append(f"the LSTM does not beat {best}")
    if fitted.best_step == fitted.step:
        findings.append("the best weights are those of the last step allowed")
    if findings:
        text, folder = "" if settings.file is None else f" {quoted(settings.file)}", str(run.folder)
        steps = max(2 * fitted.step, LanguageSettings.max_steps)
        rate = "" if fitted.step < LanguageSettings.max_steps else f" --lr {settings.lr / 4:g}"
        print(
            f"{', and '.join(findings)}: a longer text helps, and so do more steps, from these weights on:\n"
            f"    longshort train language{text} --start {quoted(folder)} --max-steps {steps}{rate} "
            f"--out {quoted(f'{folder}-more')}"
        )
        if settings.unit == "char" and found.tokens > PROSE:
            print("For prose of this length --unit subword learns more in the same time.")
        print()


PROSE = 50_000
"""Characters held out of a text that is long enough for subwords."""
TOPICS = "Python's help topics, which come with it"


def quoted(path: str | Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))


def _two_characters(model: LanguageModel, path: str) -> None:
    count = sum(map(len, model.source(Path(path)).pieces()))
    if count < 2:
        raise DataError(f"{path}: must have two {model.settings.unit}s at least, got {count}.")


def _text(settings: TrainSettings) -> Path | Iterable[str]:
    return topics() if settings.file is None else Path(settings.file)


def _read(model: LanguageModel, path: str) -> str:
    text = "".join(model.source(Path(path)).pieces())
    return text.removesuffix("\n") if path == "-" else text


def _write(pieces: Iterable[str], out: str | Path | None) -> int:
    """Write pieces to a file, or one after the other to standard output; return how many there were."""
    if out is not None:
        found = list(pieces)
        with replacing(out) as file:
            file.write("".join(found).encode(errors="replace"))
        return len(found)
    count = 0
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        count += 1
    return count


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").split("\n"))


def _model_settings(settings: TrainSettings) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(LanguageSettings)}
    return {name: value for name, value in settings.to_json().items() if name in known}
