"""Settings by name: each paper's own, in one file, to be run by one command."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from ...errors import SettingError


def recipes() -> dict[str, dict[str, Any]]:
    """Return every recipe: its settings, what it is, its source and its number, by name."""
    folder = files(__package__) / "recipes"
    found = {}
    for file in folder.iterdir():
        if file.name.endswith(".json"):
            found[file.name.removesuffix(".json")] = json.loads(file.read_text("utf-8"))
    return dict(sorted(found.items()))


def recipe(name: str) -> dict[str, Any]:
    """Return the settings of a recipe.

    Raises:
        SettingError: there is none of this name; the message lists all.

    >>> recipe("zaremba-small")["hidden"]
    200
    """
    known = recipes()
    if name not in known:
        raise SettingError(f"language: `recipe` must be one of {', '.join(known)}, got {name!r}.")
    settings: dict[str, Any] = known[name]["settings"]
    return settings
