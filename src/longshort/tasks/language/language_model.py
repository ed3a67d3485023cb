"""LanguageModel: fit, score, generate, stream, save, load."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from ...errors import DataError, RunError, SettingError
from ...runs import Run
from ...train import Fitted, fit, reached
from ...train.fit import present_device
from .beginning import introduction, long_enough, same_text
from .corpus import NAME, Array, Corpus, Source, mapped
from .model import LanguageNetwork
from .objective import LanguageObjective
from .recipes import recipe as settings_of
from .scoring import Score, score, score_tokens
from .settings import LanguageSettings
from .stepping import Manner, check_prompt, generate, manner, together
from .text import names_a_file
from .vocabulary import Vocabulary, from_json

LENGTH = {"max_steps", "epochs", "hold_epochs", "lr", "schedule", "warmup", "every", "patience"}
"""Settings that say how long and how fast, and nothing of the model."""


class LanguageModel:
    """An LSTM that reads a text and goes on with it.

    Args:
        recipe: the name of a recipe whose settings to start from; `longshort.tasks.language.recipes()` has
            them all.
        settings: the settings of `LanguageSettings` by name: `unit`, `hidden`, `layers`, `max_steps`, `seed`
            and so on.

    Raises:
        SettingError: an unknown recipe or setting, or a value out of its range.

    >>> LanguageModel(hidden=64).settings.hidden
    64
    >>> LanguageModel("zaremba-small").settings.unit
    'word'
    """

    def __init__(self, recipe: str | None = None, **settings: Any) -> None:
        beneath = {} if recipe is None else settings_of(recipe)
        beneath = LanguageSettings.beneath_asked(beneath, settings)
        self.settings = LanguageSettings.from_json({**beneath, **settings}, "LanguageModel")
        self._parts: tuple[Vocabulary, LanguageNetwork] | None = None
        self._train: Array | None = None
        self._later: Corpus | None = None
        self.fitted: Fitted | None = None

    def __repr__(self) -> str:
        s = self.settings
        state = "not fitted" if self._parts is None else f"fitted, {len(self.vocabulary):,} {s.unit}s known"
        return f"LanguageModel({s.layers} x {s.hidden}, {s.unit}): {state}"

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters, bytes, words or subwords that it knows.

        Raises:
            SettingError: the model has not been fitted.
        """
        return self._fitted()[0]

    @property
    def network(self) -> LanguageNetwork:
        """The module: tokens in, scores of the next one out.

        Raises:
            SettingError: the model has not been fitted.
        """
        return self._fitted()[1]

    def fit(
        self,
        text: str | Path | Iterable[str],
        *,
        valid: str | Path | None = None,
        start: LanguageModel | None = None,
        run: Run | str | Path | None = None,
        device: str = "auto",
        quiet: bool = False,
        tell: Callable[[str], None] | None = None,
        recorded: dict[str, Any] | None = None,
        recorder: Callable[[int, Any, Any], None] | None = None,
    ) -> Self:
        """Fit the model to a text.

        The state goes from window to window, and the gradient ends where a window begins. The last tenth of
        the text (`validation`), or another file, decides when to stop.

        Args:
            text: the path of a file (a `Path`), or the text itself (a string, or pieces of one).
            valid: a file that decides when to stop, in place of the text's last part.
            start: a fitted model of the same sizes whose weights and vocabulary to begin with.
            run: a run folder for checkpoints; an interrupted fit of the same settings resumes there.
            device: "auto", "cpu", "cuda" or "mps".
            quiet: show no progress.
            tell: is given a sentence about text and model before the fit begins.
            recorded: the settings that a new run folder keeps; this model's if None.
            recorder: is shown the training, step by step, as in `longshort.train.fit`.

        Returns:
            This model; `fitted` says how the fit ended.

        Raises:
            DataError: the text is empty, too short, or not in its encoding.
            RunError: the folder holds another task, other settings or another text, or a damaged checkpoint.
            SettingError: `start` has other sizes, or the loss is no longer finite.
            BackendError: the device is not there.
        """
        present_device(device, self.settings.precision)  # before anything is written
        if start is not None and not isinstance(start, LanguageModel):
            raise SettingError(
                f"language: `start` must be a fitted LanguageModel, got {type(start).__name__}. "
                f"LanguageModel.load reads one from a run folder."
            )
        s, taken = self.settings, run if isinstance(run, Run) else None
        place = run if isinstance(run, str | Path) else None
        source = self.source(text)

        def further(differing: Collection[str]) -> str:
            trained = LENGTH.issuperset(differing) and Path(str(place), "weights.safetensors").exists()
            return f"To train its weights further, give --start {place} and another --out." if trained else ""

        def taken_up() -> Run:
            nonlocal taken
            taken = taken or Run.create(str(place), "language", recorded or s.to_json(), further)
            return taken

        vocabulary = source.vocabulary() if start is None else start.vocabulary
        whole = source.corpus(vocabulary, None if run is None else lambda: taken_up().folder)
        if valid is None:
            train, later = whole.split(s.validation)
        else:
            train, later = whole, self.source(_file("valid", valid)).corpus(vocabulary)
        long_enough(source.name, train, later, s, None if valid is None else str(valid))
        if run is not None:
            same_text(taken_up(), train, later)
        passes = LanguageObjective(train, later, s).passes
        settings = s.in_steps(passes.steps())
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            network = LanguageNetwork(len(vocabulary), s)
        if start is not None:
            begin_with(network, start, s)
        self._parts, self._train, self._later = (vocabulary, network), train.tokens, later
        if tell is not None:
            tell(introduction(whole, train, later, vocabulary, network, settings, passes))
        objective = LanguageObjective(train, later, settings)
        about = {"vocabulary": vocabulary.to_json()}
        self.fitted = fit(
            network,
            objective,
            settings,
            run=taken,
            about=about,
            device=device,
            quiet=quiet,
            recorder=recorder,
        )
        return self

    def source(self, text: str | Path | Iterable[str]) -> Source:
        """A text by its file (a `Path`) or as it is (a string, or pieces of one)."""
        if isinstance(text, Path):
            return Source(text, self.settings)
        if isinstance(text, str) and names_a_file(text):
            raise DataError(
                f"{text!r} is the name of a file. Give pathlib.Path({text!r}) to read it, or [{text!r}] "
                f"where the name is the text."
            )
        pieces = [text] if isinstance(text, str) or not isinstance(text, Iterable) else list(text)
        if not all(isinstance(piece, str) for piece in pieces):
            raise DataError(
                f"a text must be a string, pieces of one, or a pathlib.Path, got {type(text).__name__}."
            )
        return Source(None, self.settings, pieces)

    def score(self, text: str | Path | Iterable[str], *, quiet: bool = True) -> Score:
        """Score a text that the model has not seen: nats a token, bits a character, perplexity.

        The text is one sequence, read from the initial state. Beside the model stand n-grams counted in the
        text of the fit, and what `xz` needs, as long as this object knows that text.

        Args:
            text: the path of a file (a `Path`), or the text itself (a string, or pieces of one).
            quiet: show no progress.

        Raises:
            DataError: the text is shorter than two tokens, or none of it is in the vocabulary.
        """
        vocabulary, network = self._fitted()
        source = self.source(text)
        pieces = list(source.pieces())
        chars = sum(map(source.counter(), pieces))
        return score(network, vocabulary, "".join(pieces), self._train, source.name, quiet, chars)

    def know(self, text: str | Path | Iterable[str], run: Run, *, valid: str | Path | None) -> None:
        """Let a loaded model know the text of its fit again, for baselines.

        Args:
            text: that of the fit; it is not read where the run holds it as a memory map.
            run: the model's own.
            valid: the file that decided when to stop, if there was one.

        Raises:
            DataError: the text is not there, or is another one.
        """
        before = run.read_json("data.json")
        if run.exists(NAME):
            self._train = mapped(run.folder, self.vocabulary)[: before["trained on"]]
            return
        source = self.source(text)
        whole = source.corpus(self.vocabulary)
        if not str(before.get("sha256")).startswith(whole.digest):
            raise DataError(f"{source.name} has changed since the training.")
        train = whole if valid is not None else whole.split(self.settings.validation)[0]
        self._train = train.tokens

    def score_held_out(self, *, quiet: bool = True) -> Score:
        """Score the part of the fit's text that decided when to stop.

        Args:
            quiet: show no progress.

        Raises:
            SettingError: the model was loaded, or has not been fitted.
        """
        vocabulary, network = self._fitted()
        if self._later is None:
            raise SettingError("LanguageModel: knows no text held out. Call `fit`, or `score` with a text.")
        later = self._later
        return score_tokens(network, vocabulary, later.tokens, later.chars, self._train, quiet=quiet)

    def generate(self, prompt: str = "", length: int = 500, **how: Any) -> str:
        """Go on with a prompt.

        Args:
            prompt: what comes before; "" begins as if a line had just ended.
            length: tokens to write at most.
            **how: as in `stream`.

        Returns:
            What follows the prompt, without it.
        """
        return "".join(self.stream(prompt, length, **how))

    def generate_all(self, prompts: Sequence[str], length: int = 500, **how: Any) -> list[str]:
        """Go on with several prompts side by side, a step of all at once.

        Args:
            prompts: at least one.
            length: tokens to write for each at most.
            **how: as in `stream`. Each prompt becomes what it would become alone.

        Returns:
            What follows each prompt.
        """
        return deque(self.continued(prompts, length, manner(**how)), 1)[0]

    def continued(self, prompts: Sequence[str], length: int, manner: Manner) -> Iterator[list[str]]:
        """What follows each prompt, as `generate_all` has it, as it stands after each step."""
        if isinstance(prompts, str):
            raise SettingError("language: `prompts` must be several, got a string. `generate` takes one.")
        given: Any = prompts
        if not isinstance(given, Sequence) or not given:
            got = "none" if isinstance(given, Sequence) else type(given).__name__
            raise SettingError(f"language: `prompts` must be a list of at least one string, got {got}.")
        for prompt in prompts:
            check_prompt(prompt, length)
        vocabulary, network = self._fitted()
        return together(network, vocabulary, prompts, length, manner)

    def stream(self, prompt: str = "", length: int | None = 500, **how: Any) -> Iterator[str]:
        """Go on with a prompt, piece by piece as it is written.

        The prompt is read at once, and then each token takes one step from the state before.

        Args:
            prompt: what comes before; "" begins as if a line had just ended.
            length: tokens to write at most; without end if None.
            **how: `temperature` 0.8: what scores are divided by, 0 takes the likeliest always; `top_k`:
                choose among so many of the likeliest; `top_p`: among the likeliest of this probability
                together; `repetition_penalty` 1: above 1 what came lately becomes less likely; `stop`: a
                text or several, before which to end; `seed` 0: of the choices, None for another each time;
                `threads` of a step; `stored` "full": weights in "bfloat16" or "int8" are read faster.

        Raises:
            SettingError: an argument is out of its range, or the model has not been fitted.
        """
        return self.pieces(prompt, length, manner(**how))

    def pieces(self, prompt: str, length: int | None, manner: Manner) -> Iterator[str]:
        """What follows a prompt, as `stream` has it."""
        check_prompt(prompt, length)
        vocabulary, network = self._fitted()
        return generate(network, vocabulary, prompt, length, manner)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder: settings, weights, vocabulary. `load` reads it.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        vocabulary, network = self._fitted()
        run = Run.create(folder, "language", self.settings.to_json())
        arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        run.write_arrays("weights.safetensors", arrays, {"vocabulary": vocabulary.to_json()})
        return run.folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a run folder that `save` or `longshort train language` wrote; an unfinished one has its best.

        Raises:
            RunError: it is no run of a language model, has not come to a first validation, or is damaged.
        """
        run = Run.open(folder, "language")
        known = {field.name for field in dataclasses.fields(LanguageSettings)}
        model = cls(**{name: value for name, value in run.settings.items() if name in known})
        if not run.exists("weights.safetensors"):
            raise RunError(
                f"{run.folder}: is unfinished: its training came to step {reached(run)}, and no validation "
                f"yet. The same training command goes on from there."
            )
        arrays, about = run.read_arrays("weights.safetensors")
        path = run.path("weights.safetensors")
        vocabulary = from_json(about.get("vocabulary"), path)
        network = LanguageNetwork(len(vocabulary), model.settings)
        try:
            network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
        except RuntimeError:
            raise RunError(f"{path}: holds no weights of this run's model. Train the run again.") from None
        model._parts = (vocabulary, network.eval())
        return model

    def _fitted(self) -> tuple[Vocabulary, LanguageNetwork]:
        if self._parts is None:
            raise SettingError(
                "LanguageModel: must be fitted first. Call `fit`, or `LanguageModel.load` a run."
            )
        return self._parts


def _file(name: str, path: object) -> Path:
    """The path of a file, which a text itself is not.

    Raises:
        DataError: it is no path, or a text.
    """
    if isinstance(path, Path) or (isinstance(path, str) and (path == "-" or names_a_file(path))):
        return Path(path)
    got = f"{path[:40]!r}" if isinstance(path, str) else type(path).__name__
    raise DataError(f"language: `{name}` must be the path of a file that is there, got {got}.")


def begin_with(network: LanguageNetwork, start: LanguageModel, settings: LanguageSettings) -> None:
    """Give a network the weights of a fitted model.

    Raises:
        SettingError: they are of another unit or of other sizes.
    """
    weights = start.network.state_dict()
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if start.settings.unit != settings.unit or wanted != {k: v.shape for k, v in weights.items()}:
        raise SettingError(
            f"language: `start` must be a model of the same unit and sizes as this one "
            f"({settings.layers} x {settings.hidden}, {settings.unit}), got {start!r}."
        )
    network.load_state_dict(weights)
