"""A model and its inputs as one thing that can be run, changed inside, and run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BackendError, DataError, SettingError, ShapeError
from .layers import Answer, Call, answering, own_answer, own_call, recording, recurrent_layers
from .replay import Edit, Layer, replay
from .trace import Trace

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Largest difference, relative to the largest output (at least 1), at which a replay counts as the model's
own."""
ROUNDING = 4
"""In float32 it also counts as that where the model is no further from a replay in float64 than so many times
what the replay in float32 is: over many steps and units both only round."""

REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What functions raise that are given what they do not take."""
ARRAYS = " (torch.as_tensor makes a tensor of an array or a list)"


class Played(NamedTuple):
    """The model, run on replays of its recurrent layers."""

    output: Tensor
    "the tensor that counts"
    layers: list[Layer]
    calls: list[Call]


@dataclass
class Specimen:
    """A model in evaluation mode, its inputs, its answer and its loss.

    Args:
        model: any module with a recurrent layer.
        inputs: the positional arguments of its forward.
        output: what the model returns -> the tensor that counts; by default the first tensor in it.
        loss: that tensor -> the loss of each sequence and step (N, T), of each sequence (N,), or a scalar.
    """

    model: nn.Module
    inputs: Sequence[Any]
    output: Callable[[Any], Tensor] | None = None
    loss: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self.layers = recurrent_layers(self.model)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Evaluation mode for the while; afterwards every module is in the mode it was in."""
        modes = {m: m.training for m in self.model.modules()}
        self.model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def run(self, answer: Answer | None = None) -> Tensor:
        """The tensor that counts, with `answer` in the place of the recurrent layers if given."""
        with self.quiet():
            if answer is None:
                return self._read(self.model(*self.inputs))
            with answering(self.layers, answer):
                return self._read(self.model(*self.inputs))

    def _read(self, out: Any) -> Tensor:
        try:
            found = self.output(out) if self.output else _first_tensor(out)
        except REFUSALS as error:
            raise SettingError(
                f"look: `output` must pick a tensor out of what the model returns, {_form(out)}, and says: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, Tensor):
            raise SettingError(
                f"look: `output` must pick a tensor out of what the model returns, got "
                f"{type(found).__name__}. "
                f"Pass output=lambda returned: ... that gives one."
            )
        return found

    def record(self) -> tuple[list[Call], Tensor]:
        """Run once and note every call of the recurrent layers.

        Raises:
            ShapeError: the model refuses the input, and its own message is passed on; or it is empty.
            SettingError: none of its recurrent layers was called.
        """
        with torch.no_grad(), recording(self.layers) as calls:
            try:
                with self.quiet():
                    returned = self.model(*self.inputs)
            except REFUSALS as error:
                forms = ", ".join(map(_form, self.inputs)) or "nothing"
                hint = ARRAYS if any(isinstance(i, list | np.ndarray) for i in self.inputs) else ""
                raise ShapeError(
                    f"look: `input` must be what {type(self.model).__name__} takes, got {forms}{hint}, and "
                    f"the model says: {error}"
                ) from error
        out = self._read(returned)
        for call in calls:
            if not len(call.x):
                raise ShapeError(
                    f"look: `input` must have a sequence or more, and `{call.name}` was given none."
                )
        if not calls:
            raise SettingError(
                f"look: the model must call a recurrent layer in its forward; {', '.join(self.layers)} "
                f"{'was' if len(self.layers) == 1 else 'were'} not called with this input."
            )
        return calls, out

    def trace(self, tolerance: float | None = None) -> Trace:
        """Replay the model on its inputs and verify the replay against the model's own output.

        Args:
            tolerance: largest relative difference; by default by dtype (1e-5 in float32, or more where
                float64 shows that it is rounding; 1e-10 in float64).

        Raises:
            DataError: a value is not finite; the message names layer, quantity and first step.
            BackendError: the replay differs from the model by more than the tolerance.
        """
        calls, out = self.record()
        layers: list[Layer] = []
        worst, allowed = 0.0, 0.0
        with torch.no_grad():
            for call in calls:
                y, _, done = replay(call)
                for layer in done:
                    require_finite(layer)
                truth = torch.as_tensor(call.output)
                gap = (y - truth)[call.mask].abs().max().item() if y.numel() else 0.0
                limit = TOLERANCE.get(call.x.dtype, 1e-5) if tolerance is None else tolerance
                limit *= max(1.0, truth.abs().max().item() if y.numel() else 1.0)
                if not gap <= limit and tolerance is None and call.x.dtype == torch.float32:
                    limit = _rounding(call, y, truth, limit)
                if not gap <= limit:
                    raise BackendError(
                        f"look: the replay of `{call.name}` must agree with the layer's own output within "
                        f"{limit:.1e}, differs by {gap:.1e}; nothing is shown of a copy that drifted. "
                        f"Look at the "
                        f"model in float64 (model.double()), or pass a larger tolerance."
                    )
                worst, allowed = max(worst, gap), max(allowed, limit)
                layers += done
        return Trace(layers, calls, out, worst, allowed)

    def replayed(self, edit: Edit | None = None, *, graph: int = 0) -> Played:
        """Run the model on replays of its recurrent layers, changed by `edit`; differentiable in the last
        `graph` steps.
        """
        done: list[Layer] = []
        calls: list[Call] = []

        def answer(call: Call, own: Callable[..., Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
            y, state, layers = replay(call, edit=edit, graph=graph)
            done.extend(layers)
            calls.append(call)
            return y, state

        return Played(self.run(answer), done, calls)

    def with_input(self, name: str, x: Tensor) -> Tensor:
        """Run the model with other inputs x (N, T, C) of the recurrent call `name`."""

        def answer(call: Call, own: Callable[..., Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
            return own_call(call, own, x if call.name == name else call.x)

        return self.run(answer)

    def with_tail(self, call: Call, state: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """Run the model with other inputs x (N, K, C) at the last K steps of a recorded call alone.

        Args:
            call: with its output; of one direction, without lengths or resets.
            state: before the first of those steps, as hx.
            x: the inputs from there on.
        """

        def answer(made: Call, own: Callable[..., Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
            if made.name != call.name:
                return own_call(made, own, made.x)
            y, after = own_answer(made, own, x, state)
            return torch.cat((torch.as_tensor(call.output)[:, : -x.shape[1]], y), 1), tuple(after)

        return self.run(answer)

    def losses(self, out: Tensor) -> Tensor:
        """The loss of each sequence and step (N, T), of each sequence (N,), or of all ().

        Raises:
            SettingError: the specimen has no loss, or it refuses the output, or what it gives is no tensor.
        """
        if self.loss is None:
            raise SettingError(
                "look: this needs a loss. Pass loss=lambda output: ... and it will be measured."
            )
        try:
            found = self.loss(out)
        except REFUSALS as error:
            raise SettingError(
                f"look: `loss` must take what the model returns, {_form(out)}, and says: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, Tensor):
            raise SettingError(f"look: `loss` must give a tensor, got {type(found).__name__}.")
        return found


def _rounding(call: Call, y: Tensor, truth: Tensor, limit: float) -> float:
    """The limit, or a wider one where a replay in float64 shows that the difference is rounding."""
    exact = replay(replace(call, x=call.x.double()))[0]
    own = (truth - exact)[call.mask].abs().max().item()
    ours = (y - exact)[call.mask].abs().max().item()
    return max(limit, own + ours) if own <= ROUNDING * ours else limit


def require_finite(layer: Layer) -> None:
    """Raise for the first value of a layer that is not finite, in order of time."""
    first: tuple[int, int, int, str, float] | None = None
    for name in ("x", *layer.gates, "c", "h"):
        values = layer.x if name == "x" else layer.values.get(name)
        bad = (
            torch.zeros(0) if values is None else (~torch.isfinite(values) & layer.mask[..., None]).nonzero()
        )
        if values is not None and len(bad):
            n, t, j = (int(v) for v in bad[bad[:, 1].argmin()])
            if first is None or t < first[0]:
                first = t, n, j, name, values[n, t, j].item()
    if first is not None:
        t, n, j, name, value = first
        what = {"x": "input channel", "c": "cell", "h": "output of unit"}.get(name, f"gate {name} of unit")
        raise DataError(
            f"look: every activation must be finite; layer `{layer.name}`, {what} {j}, first at step {t} of "
            f"sequence {n}, is {value}. Check the input there and the size of the weights."
        )


def require_finite_answer(specimen: Specimen, trace: Trace) -> None:
    """Raise where what the model returns is not finite, and say which of its weights are not."""
    out = trace.output
    if out.isfinite().all():
        return
    weights = [name for name, p in specimen.model.named_parameters() if not p.isfinite().all()]
    why = (
        f"The weights `{'`, `'.join(weights)}` are not finite: load an earlier checkpoint."
        if weights
        else "Its recurrent layers are; look at what comes after them, or pass output= that picks numbers "
        "which are."
    )
    bad = out[~out.isfinite()]
    raise DataError(
        f"look: what {type(specimen.model).__name__} returns must be finite; {bad.numel():,} of "
        f"{out.numel():,} numbers are not, the first is {bad[0].item()}. {why}"
    )


def answers(out: Tensor, call: Call) -> Tensor:
    """What the model says at each sequence's last step: (N, K).

    Args:
        out: the tensor that counts: (N, T, ...), (T, N, ...), (N, ...), or without N for a single sequence.
        call: a call of a recurrent layer: its N, T and lengths.

    Raises:
        ShapeError: the tensor has no axis of N sequences.
    """
    N, T = call.x.shape[:2]
    last = (call.lengths.to(out.device).long() if call.lengths is not None else torch.full((N,), T)) - 1
    rows = torch.arange(N)
    first = (N, T) if call.module.batch_first or N == T else (T, N)
    for order in (first, first[::-1]):
        if tuple(out.shape[:2]) == order:
            picked = out[rows, last] if order == (N, T) else out[last, rows]
            return picked.reshape(N, -1)
    if out.dim() and out.shape[0] == N:
        return out.reshape(N, -1)
    if N == 1:
        return (out[-1] if out.dim() and out.shape[0] == T else out).reshape(1, -1)
    raise ShapeError(
        f"look: `output` must have an axis of the {N} sequences in front, got {tuple(out.shape)}. "
        f"Pass output=lambda returned: ... that gives (N, K) or (N, T, K)."
    )


def _form(value: Any) -> str:
    """The shape of a tensor, the kind of anything else."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _first_tensor(out: Any) -> Any:
    if isinstance(out, Tensor):
        return out
    values = (
        list(out.values()) if isinstance(out, dict) else list(out) if isinstance(out, tuple | list) else []
    )
    if type(out).__name__ == "PackedSequence":
        return torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0]
    return next((t for t in map(_first_tensor, values) if isinstance(t, Tensor)), out)
