"""A traced function without the nodes that change nothing or compute what another one has."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

SAME = ("alias", "clone", "contiguous", "dropout")
"""Operators that give what they are given, as nothing is written in place."""
FAR = 1 << 62
"""No axis is as long: the end of a slice that goes to the end."""


def simplified(nodes: list[SimpleNamespace]) -> tuple[list[SimpleNamespace], dict[str, str]]:
    """Return the nodes that are needed, in order, and for the name of each other one that of its value.

    Args:
        nodes: with name, op, args, kwargs and dtype; a reference to a node is {"$": name}.

    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError: a node is damaged.
    """
    kept: list[SimpleNamespace] = []
    instead: dict[str, str] = {}
    seen: dict[str, str] = {}
    for node in nodes:
        node.args, node.kwargs = _renamed(node.args, instead), _renamed(node.kwargs, instead)
        if node.op in SAME or (node.op == "slice" and _everything(*node.args[1:])):
            instead[node.name] = node.args[0]["$"]
            continue
        what = json.dumps([node.op, node.args, node.kwargs, str(node.dtype)])
        if what in seen:
            instead[node.name] = seen[what]
            continue
        seen[what] = node.name
        kept.append(node)
    return kept, instead


def _everything(axis: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> bool:
    """Whether a slice is of all that there is."""
    return start in (None, 0) and step == 1 and (end is None or (isinstance(end, int) and end >= FAR))


def _renamed(value: Any, instead: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$"}:
            return {"$": instead.get(value["$"], value["$"])}
        return {key: _renamed(one, instead) for key, one in value.items()}
    return [_renamed(one, instead) for one in value] if isinstance(value, list) else value
