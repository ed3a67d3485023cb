"""Every recipe is a file that loads, names its source, and takes one step."""

import json

import pytest
import torch

from language.texts import words
from longshort.errors import SettingError
from longshort.tasks import LanguageModel
from longshort.tasks.language import LanguageSettings, recipes
from longshort.tasks.language.model import LanguageNetwork
from longshort.tasks.language.recipes import recipe

NAMES = [
    "awd-lstm", "bai-ptb-char", "char-rnn", "shakespeare", "zaremba-large", "zaremba-medium", "zaremba-small",
]  # fmt: skip
each_recipe = pytest.mark.parametrize("name", NAMES)


def test_these_are_all():
    assert list(recipes()) == NAMES


@each_recipe
def test_a_recipe_says_what_it_is(name):
    found = recipes()[name]
    assert set(found) == {"about", "source", "data", "measure", "paper", "settings"}
    settings = LanguageSettings.from_json(found["settings"])
    assert {**settings.to_json(), **found["settings"]} == settings.to_json()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("name", "millions"),
    [("zaremba-small", 4.7), ("zaremba-medium", 19.8), ("zaremba-large", 66.0), ("awd-lstm", 24.2)],
)
def test_the_models_have_the_papers_sizes(name, millions):
    with torch.device("meta"):
        found = LanguageNetwork(10_000, LanguageSettings.from_json(recipe(name)))
    assert sum(weight.numel() for weight in found.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@each_recipe
def test_a_recipe_takes_a_step(name):
    small = {"batch": 2, "window": 6, "epochs": None, "max_steps": 1, "hidden": 24, "embedding": 12}
    model = LanguageModel(name, **small).fit(words(120), quiet=True, device="cpu")
    assert model.fitted.step == 1 and len(model.generate("the ", 3)) > 0


def test_a_setting_stands_above_the_recipe():
    assert LanguageModel("char-rnn", hidden=7).settings.hidden == 7


def test_an_unknown_recipe():
    with pytest.raises(SettingError) as raised:
        recipe("zaremba")
    assert str(raised.value) == f"language: `recipe` must be one of {', '.join(NAMES)}, got 'zaremba'."


def test_passes_become_steps():
    settings = LanguageSettings(epochs=13, hold_epochs=4).in_steps(2323)
    assert (settings.max_steps, settings.every, settings.hold, settings.decay_every) == (
        30199,
        2323,
        9292,
        2323,
    )
    assert LanguageSettings(max_steps=7).in_steps(2323).max_steps == 7
