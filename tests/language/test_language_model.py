"""Fit, score, generate, stream, save, load."""

import itertools
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from language.texts import RHYME, SMALL, fitted, words
from longshort.errors import DataError, RunError, SettingError
from longshort.runs import Run
from longshort.tasks import LanguageModel
from longshort.tasks.language import objective, scoring
from longshort.train.optimisers import learning_rate


def weights(model):
    return torch.cat([value.flatten() for value in model.network.state_dict().values()])


def test_a_small_text_is_learned_by_heart():
    learned = LanguageModel(
        hidden=64,
        embedding=16,
        batch=2,
        window=19,
        max_steps=300,
        every=50,
        dropout=0.0,
        average=0.0,
        lr=0.01,
    ).fit(RHYME * 10, quiet=True, device="cpu")
    assert learned.score(RHYME * 3)["nats"] < 0.1
    assert learned.generate("one for the ", 64, temperature=0) == (RHYME * 2)[12:76]


@pytest.mark.parametrize("unit", ["char", "byte", "word", "subword"])
def test_every_unit_is_fitted_scored_and_written(unit, tmp_path):
    if unit == "subword":
        pytest.importorskip("tokenizers")
    model = LanguageModel(**SMALL, unit=unit, vocabulary=300).fit(words(600), quiet=True, device="cpu")
    found = model.score(words(100, seed=1))
    row = found.rows()["LSTM"]
    assert row["ppl"] == pytest.approx(np.exp(row["nats"]))
    assert row["bits"] == pytest.approx(row["nats"] * found.tokens / found.chars / np.log(2))
    assert {"1-gram"} < set(found.rows()) and isinstance(model.generate("the ", 5), str)
    again = LanguageModel.load(model.save(tmp_path / "run"))
    assert again.score(words(100, seed=1))["nats"] == found["nats"]
    assert again.generate("the ", 20, seed=4) == model.generate("the ", 20, seed=4)
    assert repr(again) == repr(model)


@pytest.mark.parametrize("window", [1, 7, 10_000])
def test_the_score_does_not_depend_on_the_window(monkeypatch, window):
    text = RHYME * 3
    expected = fitted().score(text)["nats"]
    monkeypatch.setattr(scoring, "WINDOW", window)
    assert fitted().score(text)["nats"] == pytest.approx(expected, abs=1e-6)


def test_the_score_does_not_depend_on_the_batch_of_the_fit(tmp_path):
    model = fitted()
    other = LanguageModel(**{**SMALL, "batch": 1, "window": 3})
    other._parts = model._parts
    assert other.score(RHYME)["nats"] == pytest.approx(model.score(RHYME)["nats"], abs=1e-6)


def test_the_score_is_that_of_one_step_after_the_other():
    model = fitted()
    tokens = model.vocabulary.encode(RHYME)[0]
    state, total = model.network.initial(1), 0.0
    with torch.no_grad():
        for now, after in itertools.pairwise(tokens):
            read = model.network(torch.tensor([[now]]), state)
            state = read.state
            total -= model.network.decoder(read.h)[0, 0].log_softmax(-1)[after].item()
    assert model.score(RHYME)["nats"] == pytest.approx(total / (len(tokens) - 1), abs=1e-5)


def test_baselines_are_those_of_the_training_text():
    model = fitted()
    found = model.score(RHYME)
    assert list(found.rows()) == ["LSTM", "6-gram", "1-gram", "xz"]
    assert "xz" not in model.score(RHYME + "猫").rows()
    assert found.rows()["6-gram"]["nats"] < found.rows()["1-gram"]["nats"] < np.log(len(model.vocabulary))
    assert model.score_held_out().tokens == len(RHYME) * 12 - int(0.9 * len(RHYME) * 12) - 1


def test_foreign_characters_are_counted_and_not_scored():
    found = fitted().score("one for the 猫猫 money é")
    assert found.strange == {"猫": 2, "é": 1} and found.tokens == len("one for the 猫猫 money é") - 1 - 3
    assert str(found).splitlines()[-2:] == [
        "3 characters outside the vocabulary, read as the likest one the model knows, and not scored: "
        "'猫' 2x, 'é' 1x",
        "no row for xz, which cannot leave such characters out",
    ]


def test_the_table_stands_as_text():
    lines = str(fitted().score(RHYME)).splitlines()
    assert lines[0] == f"{len(RHYME) - 1} characters scored"
    assert lines[2].split() == ["nats/char", "bits/char", "perplexity", "of", "a", "char"]
    assert [line.split()[0] for line in lines[3:]] == ["LSTM", "6-gram", "1-gram", "xz"]


def test_the_same_seed_writes_the_same_and_pieces_make_the_whole():
    model = fitted()
    text = model.generate("one ", 40, seed=3)
    assert len(text) == 40 and text == model.generate("one ", 40, seed=3) == "".join(
        model.stream("one ", 40, seed=3)
    )
    assert text != model.generate("one ", 40, seed=4)
    assert model.generate("one ", 40, seed=None) != model.generate("one ", 40, seed=None)


def test_several_prompts_become_what_each_becomes_alone():
    model, prompts = fitted(), ["one for", "t", "", "and four to"]
    how = {"seed": 5, "temperature": 0.9, "stop": ("y",)}
    assert model.generate_all(prompts, 30, **how) == [model.generate(p, 30, **how) for p in prompts]


def test_words_go_on_after_a_blank():
    model = LanguageModel(**SMALL, unit="word").fit(words(600), quiet=True, device="cpu")
    how = {"length": 6, "temperature": 0}
    texts = {prompt: model.generate(prompt, **how) for prompt in ("the cat", "the cat ", "the\n", "")}
    assert texts["the cat"].startswith((" ", "\n"))
    assert texts["the cat"].lstrip() == texts["the cat "].lstrip() and not texts["the cat "].startswith(" ")
    assert not texts["the\n"].startswith(" ") and not texts[""].startswith(" ")
    assert list(texts.values())[:2] == model.generate_all(["the cat", "the cat "], **how)


def test_a_stop_text_ends_it():
    whole = fitted().generate("one ", 60, seed=1)
    assert fitted().generate("one ", 60, seed=1, stop=whole[10:13]) == whole[: whole.find(whole[10:13])]


def test_without_a_prompt_it_begins_as_after_a_line():
    assert fitted().generate("", 20, seed=2) == fitted().generate("\n", 20, seed=2)


@pytest.mark.parametrize("stop_at", [3, 10, 13, 17])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optimiser": "sgd", "lr": 1.0},
        {"optimiser": "nt-asgd", "lr": 1.0, "nonmono": 1, "every": 2, "random_windows": True},
        {"average": 0.9, "locked": True, "weight_drop": 0.2, "zoneout_c": 0.1},
    ],
    ids=["adamw", "sgd", "nt-asgd", "average"],
)
def test_resuming_in_the_middle_of_a_pass_is_exact(tmp_path, monkeypatch, stop_at, more):
    settings, text = {**SMALL, **more}, RHYME * 12  # 30 windows a pass
    whole = LanguageModel(**settings).fit(text, run=tmp_path / "whole", quiet=True, device="cpu")
    ask = objective.LanguageObjective.batch

    def batch(self, step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return ask(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(objective.LanguageObjective, "batch", batch)
        part = LanguageModel(**settings).fit(text, run=tmp_path / "part", quiet=True, device="cpu")
    assert part.fitted.interrupted and part.fitted.step == stop_at + 1
    part = LanguageModel(**settings).fit(text, run=tmp_path / "part", quiet=True, device="cpu")
    assert torch.equal(weights(part), weights(whole))
    lines = [
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for line in Run.open(tmp_path / name).read_metrics()
        ]
        for name in ("whole", "part")
    ]
    assert lines[0] == lines[1] and len(lines[0]) >= 2


def test_a_resumed_state_matters(tmp_path, monkeypatch):
    """The wrong implementation that must fail: a checkpoint that forgets the state."""
    monkeypatch.setattr(objective.LanguageObjective, "carried", lambda self: {})
    with pytest.raises(AssertionError):
        test_resuming_in_the_middle_of_a_pass_is_exact(tmp_path, monkeypatch, 13, {})


def test_a_loss_that_is_not_finite_stops_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    loss, calls = objective.LanguageObjective.loss, itertools.count()

    def broken(self, model, batch):
        return loss(self, model, batch) * (float("nan") if next(calls) == 14 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(objective.LanguageObjective, "loss", broken)
        with pytest.raises(SettingError) as raised:
            LanguageModel(**SMALL).fit(RHYME * 12, run=tmp_path / "run", quiet=True, device="cpu")
    assert str(raised.value) == (
        "fit: loss and gradient must stay finite, and at step 14 the loss is nan and the gradient's norm "
        "nan. Lower `lr` or `clip`, or look for extreme values in the data. "
        "The weights of the best validation (step 10) are kept."
    )
    kept = LanguageModel.load(tmp_path / "run")
    assert torch.isfinite(weights(kept)).all() and np.isfinite(kept.score(RHYME)["nats"])
    again = LanguageModel(**SMALL).fit(RHYME * 12, run=tmp_path / "run", quiet=True, device="cpu")
    assert again.fitted.step == 20  # from the checkpoint of step 10


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "the text: is empty. Give a text of some thousand characters."),
        ("abcd", {}, "the text: is too short: 3 chars to learn from, and one window takes 9. "
         "Give a longer text, or a smaller --window."),
        ("a" * 40, {}, "the text: must have two different characters, got 'a'."),
        ("ab" * 20, {"batch": 40}, "the text: must have more than 40 tokens, one for each stream, got 36. "
         "Give a longer text, or a smaller --batch."),
    ],
    ids=["empty", "short", "alike", "narrow"],
)  # fmt: skip
def test_texts_that_are_too_short(text, settings, message):
    with pytest.raises(DataError) as raised:
        LanguageModel(**{**SMALL, **settings}).fit(text, quiet=True, device="cpu")
    assert str(raised.value) == message


def told(text, valid=None, **settings):
    """What is said about a text and a model before the fit."""
    said = []
    LanguageModel(**{**SMALL, "max_steps": 1, **settings}).fit(
        text, valid=valid, quiet=True, device="cpu", tell=said.append
    )
    return said[0].splitlines()


def test_a_batch_that_the_text_does_not_fill_is_noted():
    assert told(RHYME * 12)[-1] == (
        "1 x 16 units, 2,139 weights; 1 steps of 4 x 8 chars, 0.04 passes over the text"
    )
    assert told(RHYME * 2, batch=20, max_steps=3)[-2:] == [
        "1 x 16 units, 2,139 weights; 3 steps of 20 x 8 chars, 3.0 passes over the text",
        "note: each of the 20 streams has 6 chars of this text, fewer than a window of 8, so a step reads "
        "less; --batch 16 fills it",
    ]


def test_what_is_outside_the_vocabulary_in_training_is_noted(tmp_path):
    (tmp_path / "later.txt").write_text("one for the 猫\n" * 2)
    assert told(RHYME * 12, valid=tmp_path / "later.txt")[-1] == (
        "note: 2 characters outside the vocabulary, read as the likest one the model knows: '猫' 2x, in the "
        "validation part"
    )
    assert told(RHYME * 12, vocabulary=18)[-1].startswith("note: 12 characters outside the vocabulary, ")


def test_a_fit_begins_with_another_models_weights():
    first = fitted()
    second = LanguageModel(**{**SMALL, "lr": 1e-6}).fit(
        "TWO for the show\n" * 20, start=first, quiet=True, device="cpu"
    )
    assert second.vocabulary is first.vocabulary
    assert torch.allclose(weights(second), weights(first), atol=1e-3)
    assert not torch.equal(weights(second), weights(first))


@pytest.mark.parametrize("other", [{"hidden": 17}, {"unit": "byte"}, {"layers": 2}])
def test_a_start_of_another_size(other):
    with pytest.raises(SettingError) as raised:
        LanguageModel(**{**SMALL, **other}).fit(RHYME * 12, start=fitted(), quiet=True, device="cpu")
    layers, hidden, unit = other.get("layers", 1), other.get("hidden", 16), other.get("unit", "char")
    assert str(raised.value) == (
        "language: `start` must be a model of the same unit and sizes as this one "
        f"({layers} x {hidden}, {unit}), got LanguageModel(1 x 16, char): fitted, 19 chars known."
    )


def test_a_text_without_anything_to_score():
    for text, message in [
        ("a", "the text: must have two chars at least, got 1."),
        ("猫猫猫", "the text: no char of it is in the vocabulary."),
    ]:
        with pytest.raises(DataError) as raised:
            fitted().score(text)
        assert str(raised.value) == message


def test_an_unknown_setting_and_an_unfitted_model(tmp_path):
    with pytest.raises(SettingError, match=r"^LanguageModel: `hiden` is no setting of"):
        LanguageModel(hiden=3)
    with pytest.raises(SettingError) as raised:
        LanguageModel().generate("a")
    assert str(raised.value) == (
        "LanguageModel: must be fitted first. Call `fit`, or `LanguageModel.load` a run."
    )


def test_a_run_of_another_text(tmp_path):
    LanguageModel(**SMALL).fit(RHYME * 12, run=tmp_path, quiet=True, device="cpu")
    with pytest.raises(RunError) as raised:
        LanguageModel(**SMALL).fit(RHYME * 13, run=tmp_path, quiet=True, device="cpu")
    assert str(raised.value) == (
        f"{tmp_path}: was trained on another text ({int(0.9 * 12 * len(RHYME))} tokens; now "
        f"{int(0.9 * 13 * len(RHYME))}). Give another folder to train on the new one."
    )


def test_a_run_before_its_first_validation(tmp_path):
    Run.create(tmp_path / "run", "language", LanguageModel(**SMALL).settings.to_json())
    with pytest.raises(RunError) as raised:
        LanguageModel.load(tmp_path / "run")
    assert str(raised.value) == (
        f"{tmp_path / 'run'}: is unfinished: its training came to step 0, and no validation yet. "
        f"The same training command goes on from there."
    )


def test_weights_of_another_model(tmp_path):
    run = Run.open(LanguageModel(**SMALL).fit(RHYME * 12, quiet=True, device="cpu").save(tmp_path / "run"))
    arrays, about = run.read_arrays("weights.safetensors")
    arrays.pop("embedding.weight")
    run.write_arrays("weights.safetensors", arrays, about)
    with pytest.raises(RunError) as raised:
        LanguageModel.load(tmp_path / "run")
    assert str(raised.value) == (
        f"{run.path('weights.safetensors')}: holds no weights of this run's model. Train the run again."
    )


def test_language_needs_no_table_library():
    code = (
        "import sys, longshort, longshort.tasks.language.story\n"
        "longshort.LanguageModel(hidden=4)\n"
        "heavy = {'polars', 'narwhals', 'pandas', 'matplotlib', 'lightning_fabric', 'tokenizers'}\n"
        "print(heavy & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_what_is_no_prompt_and_what_is_no_text_is_a_sentence(tmp_path, monkeypatch):
    model = fitted()
    (tmp_path / "book.txt").write_text(RHYME)
    monkeypatch.chdir(tmp_path)
    for wrong, message in (
        (lambda: model.generate(["the"], 3), "`prompt` must be a string, got list. `generate_all` takes"),
        (lambda: model.generate_all("the", 3), "`prompts` must be several, got a string. `generate` takes"),
        (lambda: model.generate_all([1], 3), "`prompt` must be a string, got int."),
        (lambda: model.generate_all([], 3), "`prompts` must be a list of at least one string, got none."),
        (
            lambda: model.generate_all(None, 3),
            "`prompts` must be a list of at least one string, got NoneType",
        ),
        (lambda: model.generate("the", "5"), "`length` must be a whole number of at least 0, got '5'."),
        (lambda: model.generate("the", 5, seed=1.5), "`seed` must be a whole number of at least 0, got 1.5."),
        (
            lambda: model.generate("the", 5, threads="x"),
            "`threads` must be a whole number of at least 1, got",
        ),
        (lambda: model.generate("the", 5, stop=3), "`stop` must be a text or several, got 3."),
        (lambda: model.fit(RHYME, start="px"), "`start` must be a fitted LanguageModel, got str."),
        (lambda: model.fit(RHYME, valid=RHYME * 99), "`valid` must be the path of a file that is there, got"),
        (
            lambda: model.fit(RHYME, valid=["x"]),
            "`valid` must be the path of a file that is there, got list.",
        ),
        (lambda: model.generate("the", -1), "`length` must be a whole number of at least 0, got -1."),
        (lambda: model.fit("book.txt"), r"'book.txt' is the name of a file. Give pathlib.Path\('book.txt'\)"),
        (lambda: model.score("book.txt"), "'book.txt' is the name of a file."),
        (lambda: model.fit(5), "a text must be a string, pieces of one, or a pathlib.Path, got int."),
        (lambda: model.fit(b"the"), "a text must be a string, pieces of one, or a pathlib.Path, got bytes."),
        (lambda: model.fit([1, 2]), "a text must be a string, pieces of one, or a pathlib.Path, got list."),
    ):
        with pytest.raises((SettingError, DataError), match=message):
            wrong()
    assert model.score(["one for the show"])["nats"] == model.score("one for the show")["nats"]
    assert model.score("от и до " * 40).strange.total(), "a short text of more bytes than a name may have"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "latin-1"])
def test_bytes_are_scored_in_bits_a_character_of_their_encoding(tmp_path, encoding):
    text = RHYME * 4 + "é" * (encoding != "latin-1")
    (tmp_path / "book.txt").write_bytes(text.encode(encoding))
    model = LanguageModel(unit="byte", encoding=encoding, **SMALL)
    found = model.fit(tmp_path / "book.txt", quiet=True).score(tmp_path / "book.txt")
    assert abs(found.chars - len(text)) <= 1  # the first byte is not scored, and a mark is no character
    assert found["bits"] == pytest.approx(found["nats"] * found.tokens / found.chars / math.log(2))
    assert model.score(RHYME).chars == pytest.approx(len(RHYME), abs=1)  # a string has no encoding
    parts = model.source(tmp_path / "book.txt").corpus(model.vocabulary).split(0.1)
    assert sum(part.chars for part in parts) == len(text)


@pytest.mark.parametrize("recipe", ["zaremba-small", "zaremba-medium", "char-rnn"])
def test_steps_stand_in_place_of_a_recipes_passes_at_the_recipes_rate(recipe):
    epoch = 100
    whole = LanguageModel(recipe).settings.in_steps(epoch)
    part = LanguageModel(recipe, max_steps=5 * epoch + 1).settings.in_steps(epoch)
    assert part.max_steps == 5 * epoch + 1 < whole.max_steps
    steps = range(0, part.max_steps, 7)
    assert [learning_rate(part, k) for k in steps] == [learning_rate(whole, k) for k in steps]
    assert len({learning_rate(whole, k) for k in range(0, whole.max_steps, epoch)}) > 2, "it is cut"
