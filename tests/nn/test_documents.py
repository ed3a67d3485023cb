"""docs/options.md names every option, and its column on the engine says what the engine says."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

import longshort as ls
from longshort import engine
from longshort.errors import BackendError
from longshort.scan import Noise, Variant

TEXT = (Path(__file__).parents[2] / "docs" / "options.md").read_text("utf8")
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| `\w", line)]


@pytest.mark.parametrize("settings", [Variant, Noise])
def test_every_option_has_a_row(settings):
    named = {re.match(r"\| `(\w+)", row)[1] for row in ROWS}
    assert {field.name for field in dataclasses.fields(settings)} <= named


def test_every_argument_of_a_call_has_a_row():
    wanted = {
        "reset",
        "initial",
        "lengths",
        "keep",
        "hx",
        "learn_initial",
        "proj_size",
        "checkpoint_every",
        "backend",
    }
    first = " ".join(row.split("|")[1] for row in ROWS)
    assert all(f"`{name}`" in first or f"`{name}" in first for name in wanted)


VARIANT_ROWS = [row for row in ROWS if re.match(r"\| `(\w+)", row)[1] in Variant.__dataclass_fields__]


@pytest.mark.skipif(not engine.available(), reason="needs the compiled engine, whose column this is")
@pytest.mark.parametrize("row", VARIANT_ROWS, ids=lambda row: row.split("`")[1])
def test_the_engine_runs_what_its_column_says(row):
    name, _, value = row.split("`")[1].partition("=")
    defaults = {"cell_clip": 1.0, "projection_clip": 1.0, "norm_eps": 1e-3}
    value = defaults.get(name, True) if not value else {"False": False}.get(value, value.strip('"'))
    layer = ls.LSTM(4, 6, proj_size=3, variant=Variant(**{name: value}), backend="cpu")
    x = torch.zeros(2, 3, 4)
    says = row.rstrip(" |").rpartition("|")[2].strip()
    assert says in ("yes", "but with a norm")
    assert str(layer.plan(x)).startswith("layer 0: cpu; ")
    if says != "yes":
        both = ls.LSTM(4, 6, variant=Variant(**{name: value}, norm="ba2016"), backend="cpu")
        with pytest.raises(BackendError, match="cannot run this call"):
            both.plan(x)
