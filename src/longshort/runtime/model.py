"""`load` and `Model`: an exported LSTM that answers for whole batches, and starts streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, SettingError, ShapeError
from .files import Array, read_folder
from .given import array, whole
from .program import Program
from .stack import FORMS, Stack, State
from .streams import Stream


class Model:
    """An exported LSTM. Batch first, float32, no torch.

    Args:
        stack: its layers.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def __call__(
        self,
        x: Any,
        state: State | None = None,
        *,
        lengths: Any = None,
        reset: Any = None,
    ) -> tuple[Array, State]:
        """Run whole sequences.

        Args:
            x: (N, T, C).
            state: before the first step; the initial state if None.
            lengths: (N,) whole numbers in [0, T]; the steps from there on are padding.
            reset: (N, T) bool; true where a sequence starts step t from its initial state.

        Returns:
            y (N, T, D P), zero in the padding, and the state after the last step of each sequence, h
            (L, N, P) and c (L, N, H). Feeding the state back in continues the sequences.

        Raises:
            ShapeError: an argument has another shape.
        """
        x = array("model: `x`", x, "float32")
        C = self.stack.C
        if x.ndim != 3 or x.shape[2] != C:
            raise ShapeError(f"model: `x` must be (N, T, C) = (N, T, {C}), got {x.shape}.")
        N, T = x.shape[:2]
        state = self.initial_state(N) if state is None else self.checked("model", state, N)
        if lengths is not None:
            lengths = array("model: `lengths`", lengths, "int64")
            if lengths.shape != (N,) or (N and not (lengths.min() >= 0 and lengths.max() <= T)):
                raise ShapeError(
                    f"model: `lengths` must be (N,) = ({N},) whole numbers in [0, T] = [0, {T}]."
                )
        if reset is not None:
            reset = np.ascontiguousarray(reset)
            if reset.shape != (N, T) or reset.dtype != np.bool_:
                raise ShapeError(
                    f"model: `reset` must be (N, T) = ({N}, {T}) of bool, got {reset.shape} of {reset.dtype}."
                )
        return self.stack.run(x, state, lengths, reset)

    def initial_state(self, N: int) -> State:
        """Return the state before the first step of N sequences: learned, or zeros."""
        return self.stack.initial(N)

    def checked(self, caller: str, state: Any, N: int) -> State:
        """Return a state as float32 arrays.

        Raises:
            ShapeError: it is not that of N sequences of this model.
        """
        zero = self.initial_state(N)
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise ShapeError(f"{caller}: `state` must be a State(h, c), got {type(state).__name__}.")
        names = zip(State._fields, state, strict=True)
        parts = [array(f"{caller}: `state.{name}`", part, "float32") for name, part in names]
        for name, part, wanted in zip(State._fields, parts, zero, strict=True):
            if part.shape != wanted.shape:
                raise ShapeError(
                    f"{caller}: `state.{name}` must be (layers x directions, N, units) = {wanted.shape}, "
                    f"got {part.shape}."
                )
        return State(*parts)

    def stream(self) -> Stream:
        """Return one sequence that goes on step by step.

        Raises:
            ShapeError: the model runs in both directions, so that no step stands alone.
        """
        return Stream(self, None)

    def streams(self, n: int) -> Stream:
        """Return n sequences that go on step by step, together or some of them.

        Args:
            n: how many.

        Raises:
            ShapeError: the model runs in both directions, so that no step stands alone.
        """
        return Stream(self, n)


def load(folder: str | Path, *, weights: str | None = None, threads: int = 1) -> Any:
    """Load a model that `longshort.export(model, folder)` wrote.

    Args:
        folder: the folder.
        weights: how the LSTMs' weights are kept: "float32", "bfloat16" or "int8"; what was chosen at the
            export if None. Short ones take a half and a quarter of the memory and of the time of a step, and
            serve the LSTM of torch.nn; docs/engine.md says what each costs in accuracy.
        threads: used where a call is long enough to pay for them.

    Returns:
        A `Model` for a layer, a `Program` for a whole model.

    Raises:
        DataError: it is missing, damaged, changed, of a newer longshort, of a kind this one does not run, or
            has an option that short weights do not serve.
        SettingError: `weights` or `threads` is none that there is.
        BackendError: the engine is not installed.
    """
    settings, arrays = read_folder(folder)
    form = settings.get("weights", "float32") if weights is None else weights
    if form not in FORMS:
        raise SettingError(f"load: `weights` must be 'float32', 'bfloat16' or 'int8', got {form!r}.")
    threads = whole("load: `threads`", threads)
    if settings.get("kind") == "program":
        return Program(settings, arrays, str(folder), form, threads)
    if settings.get("kind") != "lstm":
        raise DataError(
            f"{folder}: holds a model of kind {settings.get('kind')!r}, and this longshort runs 'lstm' and "
            f"'program'. Install a newer longshort."
        )
    return Model(Stack(settings, arrays, str(folder), form, threads))
