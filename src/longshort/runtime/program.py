"""A traced model: whole, and as a stream."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, ShapeError
from .files import Array
from .nodes import Nodes
from .rows import NAT, Rows


class Program:
    """A model that was exported whole.

    Attributes:
        about: what there is to know of it besides: a language model's vocabulary; a forecast's step, columns
            and levels of its quantiles.

    Args:
        settings: inputs, outputs and nodes, as `longshort.export` wrote them.
        arrays: its weights.
        where: the beginning of every message.
        form: how the LSTMs' weights are kept, of `stack.FORMS`.
        threads: of the LSTMs.

    Raises:
        DataError: a node is damaged, of an operator that this longshort lacks, or not for short weights.
        BackendError: the engine is not installed.
    """

    def __init__(
        self, settings: dict[str, Any], arrays: dict[str, Array], where: str, form: str, threads: int
    ) -> None:
        about = settings.get("about")
        self.about: dict[str, Any] = about if isinstance(about, dict) else {}
        self.rows = Rows.of(self.about)
        self.whole = Nodes(settings, arrays, where, form, threads)
        self.next: Nodes | None = None
        self.kept = 0
        if "step" in settings:
            step = settings["step"]
            try:
                own = {node: arrays[name] for node, name in step["arrays"].items()}
                self.kept = int(step["kept"])
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise DataError(f"{where}: its step lacks {error}. Export the model again.") from None
            self.next = Nodes(step, own, where, form, threads)

    @property
    def inputs(self) -> dict[str, tuple[str, list[Any]]]:
        """Name -> type and shape of each input; a free axis has its letter."""
        return dict(self.whole.inputs)

    @property
    def step_inputs(self) -> dict[str, tuple[str, list[Any]]]:
        """The same of what a stream's `step` takes; empty where the model has no stream."""
        return {} if self.next is None else dict(list(self.next.inputs.items())[self.kept :])

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run the model.

        Args:
            *given: arrays for the inputs, in order.
            **named: the same by name.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
            SettingError: a token is none that the model knows.
            DataError: the rows are none that a forecast could be made of: see `rows.Rows`.
        """
        results, _ = self._begun("model", given, named)
        return _one(results[: len(results) - self.kept])

    def stream(self, *given: Any, **named: Any) -> ProgramStream:
        """Begin a stream: read what the model reads at once, and go on from there step by step.

        Args:
            *given: arrays for the inputs, in order.
            **named: the same by name.

        Raises:
            ShapeError: the model was exported without a step, or an input does not fit.
            DataError: the rows are none that a forecast could be made of.
        """
        if self.next is None:
            raise ShapeError("stream: the model was exported without a step. Call it on whole sequences.")
        begun, last = self._begun("stream", given, named)
        return ProgramStream(self.next, self.kept, begun, self.rows, last)

    def _begun(
        self, caller: str, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[list[Any], Array | None]:
        """The outputs and what is kept after whole sequences, and the times of a forecast's last rows."""
        rows, last = self.rows, None

        def hold(values: dict[str, Array]) -> None:
            nonlocal last
            last = None if rows is None else rows.begin(caller, values)

        return self.whole.run(caller, given, named, hold=hold), last


class ProgramStream:
    """N sequences of a whole model, somewhere in their course. Made by `Program.stream`.

    Args:
        step: the traced step: what is kept and new inputs in, outputs and what is kept out.
        kept: how many of its first inputs and last outputs are the state.
        begun: outputs and state after the beginning.
        rows: what a forecast's rows are held to.
        last: (N,) the time of the last row of each series of the beginning.
    """

    def __init__(
        self,
        step: Nodes,
        kept: int,
        begun: list[Any],
        rows: Rows | None = None,
        last: Array | None = None,
    ) -> None:
        self._step, self._names = step, list(step.inputs)[:kept]
        self._begun, self._rows = begun, rows
        self._began, self._last = last, last
        self._outputs, self._state = begun[:-kept], begun[-kept:]

    @property
    def output(self) -> Any:
        """What the model says after the last step, or after the beginning."""
        return _one(self._outputs)

    @property
    def state(self) -> dict[str, Array]:
        """A copy of all that is kept."""
        return {name: value.copy() for name, value in zip(self._names, self._state, strict=True)}

    @state.setter
    def state(self, state: dict[str, Array]) -> None:
        """Go on from a state of before; `output` stays until the next step.

        It does not know the time of its last row, so the next row's is taken as it is.

        Raises:
            ShapeError: a part is missing, unknown, or of another shape.
        """
        shapes = {name: value.shape for name, value in zip(self._names, self._state, strict=True)}
        got = {name: np.shape(value) for name, value in state.items()}
        if got != shapes:
            raise ShapeError(f"stream: `state` must have {shapes}, got {got}.")
        self._state = [np.array(state[name], self._step.inputs[name][0]) for name in self._names]
        self._last = None if self._last is None else np.full_like(self._last, NAT)

    def reset(self, mask: Any = None) -> None:
        """Go back to where the stream began, after what it was begun with.

        Args:
            mask: (N,) bool, the sequences that go back; all if None.

        Raises:
            ShapeError: mask has another shape.
        """
        mask = self._mask("stream.reset", mask)
        self._take(self._begun if mask is None else self._merged(self._begun, mask))
        if self._began is not None and self._last is not None:
            self._last = self._began if mask is None else np.where(mask, self._began, self._last)

    def step(self, *given: Any, mask: Any = None, **named: Any) -> Any:
        """Take one step.

        Args:
            *given: arrays for the inputs of the step, in order.
            mask: (N,) bool, the sequences that step; all if None. The others stay as they are, with the
                outputs of their last step.
            **named: the inputs by name.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            ShapeError: an input is missing, unknown, or of another shape.
            SettingError: a token is none that the model knows.
            DataError: the rows are none that a forecast could be made of: see `rows.Rows`.
        """
        mask, rows, last = self._mask("stream.step", mask), self._rows, self._last

        def hold(values: dict[str, Array]) -> None:
            nonlocal last
            if rows is not None and last is not None:
                last = rows.go_on("stream.step", values, mask, last)

        results = self._step.run("stream.step", given, named, self._state, hold)
        self._last = last
        self._take(results if mask is None else self._merged(results, mask))
        return self.output

    def _take(self, results: list[Any]) -> None:
        count = len(results) - len(self._names)
        self._outputs, self._state = results[:count], results[count:]

    def _mask(self, caller: str, mask: Any) -> Array | None:
        """The sequences of a mask; None for all."""
        if mask is None:
            return None
        chosen: Array = np.asarray(mask)
        N = self._state[0].shape[self._step.inputs[self._names[0]][1].index("N")]
        if chosen.shape != (N,) or chosen.dtype != np.bool_:
            raise ShapeError(
                f"{caller}: `mask` must be (N,) = ({N},) of bool, got {chosen.shape} of {chosen.dtype}."
            )
        return chosen

    def _merged(self, results: list[Any], mask: Array) -> list[Any]:
        """Outputs and state of the sequences of a mask; those of before for the others."""
        shapes = [self._step.inputs[name][1] for name in self._names]
        before = [*self._outputs, *self._state]
        axes = [0] * len(self._outputs) + [shape.index("N") for shape in shapes]
        return [_chosen(*each, mask) for each in zip(results, before, axes, strict=True)]


def _one(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _chosen(new: Array, old: Array, axis: int, mask: Array) -> Array:
    """New where the mask is true along an axis, old elsewhere."""
    return np.where(mask.reshape([-1 if k == axis else 1 for k in range(new.ndim)]), new, old)
