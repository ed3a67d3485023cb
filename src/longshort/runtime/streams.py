"""Sequences that go on step by step, and keep their state in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from .files import Array
from .given import array, whole
from .stack import State

if TYPE_CHECKING:
    from .model import Model


class Stream:
    """One sequence, or n of them, somewhere in their course. Made by `Model.stream` and `Model.streams`.

    Args:
        model: whose.
        n: how many sequences; None for one whose x and y have no axis for it.

    Raises:
        ShapeError: the model runs in both directions.
        SettingError: n is no whole number of at least 1.
    """

    def __init__(self, model: Model, n: int | None) -> None:
        if model.stack.directions == 2:
            raise ShapeError(
                "stream: the model runs in both directions, so it must see the end before its first output. "
                "Call the model on whole sequences."
            )
        n = None if n is None else whole("stream: `n`", n)
        self.model, self.n = model, n
        self._shape = (model.stack.C,) if n is None else (n, model.stack.C)
        self._begin(model.initial_state(n or 1))

    def _begin(self, state: State) -> None:
        """Go on from a state, whose arrays are written from now on."""
        self._state, layers = state, (place[0] for place in self.model.stack.places)
        self._layers = [(layer.moving(h, c), h) for layer, h, c in zip(layers, *state, strict=True)]
        self._y: Array = state.h[-1, 0] if self.n is None else state.h[-1]

    @property
    def state(self) -> State:
        """A copy of the state, h (layers, n, P) and c (layers, n, H); n is 1 for a single stream."""
        return State(self._state.h.copy(), self._state.c.copy())

    @state.setter
    def state(self, state: State) -> None:
        """Go on from a state: this stream's own of before, or another's."""
        checked = self.model.checked("stream", state, self.n or 1)
        self._begin(State(checked.h.copy(), checked.c.copy()))

    def step(self, x: Any, mask: Any = None) -> Array:
        """Take one step.

        Args:
            x: (n, C), or (C,) for a single stream.
            mask: (n,) bool, the sequences that step; all if None. The others stay as they are, and their y is
                the last layer's h of their state: after their last step, or as they began.

        Returns:
            y (n, P), or (P,).

        Raises:
            ShapeError: x or mask has another shape.
        """
        try:
            row = np.ascontiguousarray(x, np.float32)
        except (ValueError, TypeError):
            row = array("stream.step: `x`", x, "float32")  # says what is wrong with it
        if row.shape != self._shape:
            axes = "(C,)" if self.n is None else "(n, C)"
            raise ShapeError(
                f"stream.step: `x` must be {axes} = {self._shape}, got {row.shape}. "
                f"The model was exported with {self._shape[-1]} features."
            )
        if mask is not None:
            mask, n = np.ascontiguousarray(mask), self.n or 1
            if mask.shape != (n,) or mask.dtype != np.bool_:
                raise ShapeError(
                    f"stream.step: `mask` must be (n,) = ({n},) of bool, got {mask.shape} of {mask.dtype}."
                )
        for move, h in self._layers:
            move(row, mask)
            row = h
        return self._y.copy()

    def reset(self, mask: Any = None) -> None:
        """Go back to the initial state.

        Args:
            mask: (n,) bool, the sequences that go back; all if None.

        Raises:
            ShapeError: mask has another shape.
        """
        initial = self.model.initial_state(self.n or 1)
        if mask is None:
            self._begin(initial)
            return
        mask = np.asarray(mask)
        if mask.shape != (self.n or 1,) or mask.dtype != np.bool_:
            raise ShapeError(
                f"stream.reset: `mask` must be (n,) = ({self.n or 1},) of bool, got {mask.shape}."
            )
        for part, start in zip(self._state, initial, strict=True):
            part[:, mask] = start[:, mask]
