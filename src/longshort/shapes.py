"""Axis names, and the one function that checks them.

    N  sequences in the batch        C  input channels per step
    T  time steps                    H  hidden units
    P  projected units (= H without a projection)
    4H the four gates stacked, always in the order i, f, g, o

A contract is a string such as ``"N T C"`` or ``"4H H"``. A letter means the same length wherever it
occurs in one call; a number in front multiplies it; a number alone is that length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn, Protocol

from .errors import ShapeError

_AXIS = re.compile(r"(\d*)([A-Z]?)")


class Shaped(Protocol):
    """Anything with a shape: a NumPy array or a torch tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """The length of each axis."""
        ...


def check(caller: str, hint: str = "", /, **contract: tuple[Shaped, str]) -> dict[str, int]:
    """Return the length of every axis letter, or raise naming the first tensor that disagrees.

    Args:
        caller: the public function on whose behalf the check is made; the message begins with it.
        hint: one sentence on the convention at stake, added to the message; may be empty.
        contract: for each tensor by name, the tensor and its axes, such as ``x=(x, "N T C")``.

    Returns:
        The length of each letter. Reading it back into the contracts gives every shape exactly.

    Raises:
        ShapeError: a tensor has another number of axes, or an axis another length, than its contract.

    >>> import numpy as np
    >>> check("demo", x=(np.zeros((2, 5, 3)), "N T C"), w=(np.zeros((8, 3)), "4H C"))
    {'N': 2, 'T': 5, 'C': 3, 'H': 2}
    """
    sizes: dict[str, int] = {}
    taken_from: dict[str, str] = {}
    for name, (tensor, axes) in contract.items():
        got, wanted = tuple(tensor.shape), axes.split()
        if len(got) != len(wanted):
            _fail(caller, hint, name, wanted, got, sizes, taken_from, None)
        clash = None
        for length, axis in zip(got, wanted, strict=True):
            times, letter = _split(axis)
            if letter and letter not in sizes and length % times == 0:
                sizes[letter] = length // times
                taken_from[letter] = f"`{name}` {_tuple(wanted)} = {_tuple(got)}"
            elif length != times * (sizes.get(letter, -1) if letter else 1):
                clash = clash or axis
        if clash is not None:
            _fail(caller, hint, name, wanted, got, sizes, taken_from, clash)
    return sizes


def _split(axis: str) -> tuple[int, str]:
    match = _AXIS.fullmatch(axis)
    if match is None:
        raise ValueError(f"an axis is a number, a capital letter, or both: got {axis!r}")
    return int(match[1] or 1), match[2]


def _fail(
    caller: str,
    hint: str,
    name: str,
    wanted: list[str],
    got: tuple[int, ...],
    sizes: dict[str, int],
    taken_from: dict[str, str],
    clash: str | None,
) -> NoReturn:
    numbers = []
    for axis in wanted:
        times, letter = _split(axis)
        known = not letter or letter in sizes
        numbers.append(str(times * (sizes[letter] if letter else 1)) if known else axis)
    must = _tuple(wanted) if numbers == wanted else f"{_tuple(wanted)} = {_tuple(numbers)}"
    lines = [f"{caller}: `{name}` must be {must}, got {_tuple(got)}."]
    letter = _split(clash)[1] if clash else ""
    if letter in taken_from:
        lines.append(f"{letter} = {sizes[letter]} was taken from {taken_from[letter]}.")
    raise ShapeError("\n  ".join([*lines, *([hint] if hint else [])]))


def _tuple(parts: Sequence[object]) -> str:
    return "(" + ", ".join(map(str, parts)) + ("," if len(parts) == 1 else "") + ")"
