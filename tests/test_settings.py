"""A setting is declared once; the check, the flag, the help and the JSON follow. Every one of the package
refuses every value outside its stated range, and says so."""

import argparse
import dataclasses
import importlib
import json
import pkgutil
import re
from dataclasses import dataclass

import pytest

import longshort
from longshort.errors import SettingError
from longshort.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    steps: int = setting(10, "Optimiser steps.", least=1)
    rate: float = setting(0.1, "Share of units.", least=0, below=1)
    unit: str = setting("step", "What is counted.", choices=("step", "epoch"))
    tied: bool = setting(False, "Share the weights.")
    season: int | None = setting(None, "Steps in a season.", least=1)
    levels: tuple[float, ...] = setting((80.0, 95.0), "Interval levels in percent.", above=0, below=100)


def everything():
    """Import every module of the package, then list every group of settings in it."""
    for module in pkgutil.walk_packages(longshort.__path__, "longshort."):
        if "__main__" not in module.name and not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
    return [cls for cls in Settings.__subclasses__() if cls.__module__.startswith("longshort.")]


GROUPS = [*everything(), Sample]
FIELDS = [pytest.param(c, f, id=f"{c.__name__}.{f.name}") for c in GROUPS for f in dataclasses.fields(c)]


def outside(field):
    """Values just beyond each end of what a field allows, made from its own statement."""
    match = re.fullmatch(r"in ([\[(])(.+), (.+)([\])])", field.metadata["allowed"])
    if match is None:
        return [f"not {field.metadata['choices'][0]}"]
    left, low, high, right = match.groups()
    whole = "int" in str(field.type)
    step = 1 if whole else 1e-9
    values = []
    if low != "-inf":
        values.append(float(low) - (step if left == "[" else 0))
    if high != "inf":
        values.append(float(high) + (step if right == "]" else 0))
    values = [int(v) if whole else v for v in values]
    return values if whole or low == "-inf" == high.replace("inf", "-inf") else [*values, float("nan")]


@pytest.mark.parametrize(("cls", "field"), FIELDS)
def test_the_default_is_allowed_and_what_is_outside_is_not(cls, field):
    cls()
    for value in outside(field):
        value = (value,) if "tuple" in str(field.type) else value
        with pytest.raises(SettingError) as raised:
            cls(**{field.name: value})
        shown = repr(value[0] if isinstance(value, tuple) else value)
        for part in (
            cls.called or cls.__name__,
            f"`{field.name}`",
            field.metadata["allowed"],
            shown,
            field.metadata["help"],
        ):
            assert part in str(raised.value)


def test_a_flag_s_value_is_refused_by_the_flag_s_name():
    parser = argparse.ArgumentParser()
    Sample.flags(parser)
    with pytest.raises(SettingError) as raised:
        Sample.given(parser.parse_args(["--levels", "80,100"]))
    assert str(raised.value) == "--levels must be in (0, 100), got 100.0.\n  Interval levels in percent."


@pytest.mark.parametrize("cls", GROUPS)
def test_flags_give_back_the_defaults_and_every_flag_has_its_help(cls):
    parser = argparse.ArgumentParser()
    cls.flags(parser)
    assert cls.given(parser.parse_args([])) == cls()
    text = " ".join(parser.format_help().split())
    for field in dataclasses.fields(cls):
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("cls", GROUPS)
def test_json_gives_back_the_settings(cls):
    assert cls.from_json(json.loads(json.dumps(cls().to_json()))) == cls()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--steps", "3"], Sample(steps=3)),
        (["--tied"], Sample(tied=True)),
        (["--no-tied"], Sample(tied=False)),
        (["--season", "12"], Sample(season=12)),
        (["--levels", "50,90"], Sample(levels=(50.0, 90.0))),
    ],
)
def test_a_flag_sets_its_field(words, wanted):
    parser = argparse.ArgumentParser()
    Sample.flags(parser)
    assert Sample.given(parser.parse_args(words)) == wanted


def test_a_flag_stands_above_the_file_beneath():
    parser = argparse.ArgumentParser()
    Sample.flags(parser)
    merged = Sample.given(parser.parse_args(["--steps", "3"]), beneath=Sample(steps=7, rate=0.5))
    assert merged == Sample(steps=3, rate=0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rate": 1.0},
            "Sample: `rate` must be in [0, 1), got 1.0.\n  Share of units.",
        ),
        (
            {"steps": 2.5},
            "Sample: `steps` must be int, got 2.5 (float).\n  Optimiser steps.",
        ),
        (
            {"season": "12"},
            "Sample: `season` must be int or none, got '12' (str).\n  Steps in a season.",
        ),
        (
            {"tied": 1},
            "Sample: `tied` must be bool, got 1 (int).\n  Share the weights.",
        ),
        (
            {"unit": "week"},
            "Sample: `unit` must be one of 'step', 'epoch', got 'week'.\n  What is counted.",
        ),
        (
            {"levels": [80, 100]},
            "Sample: `levels` must be in (0, 100), got 100.\n  Interval levels in percent.",
        ),
        (
            {"stepz": 1},
            "settings: `stepz` is no setting of Sample. Known: steps, rate, unit, tied, season, levels.",
        ),
    ],
)
def test_messages_in_full(values, message):
    with pytest.raises(SettingError) as raised:
        Sample.from_json(values)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"steps": 1,\n}', "line 2: not JSON: "),
        (b"[1]", ": must hold a JSON object of settings, got list."),
        (b'{"steps": "\xff"}', ": not UTF-8 text at byte 11."),
        (None, ": cannot be read: No such file or directory."),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path, content, message):
    path = tmp_path / "s.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError) as raised:
        Sample.read(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_a_section_of_a_run_s_file_is_read(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"task": "x", "settings": {"steps": 4}}))
    assert Sample.read(path, section="settings") == Sample(steps=4)
