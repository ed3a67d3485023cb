"""One or more LSTM layers on the engine: arrays in, arrays out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .. import engine
from ..errors import DataError
from .files import Array

ENGINE_NAME = {"weight_hr": "w_hr", "weight_peephole": "peephole", "weight_gates": "w_gates"}
"""What the engine calls a weight that the layer names otherwise."""
BASIC = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "initial_h", "initial_c")


class State(NamedTuple):
    """What a model carries from one step to the next: h (L, N, P) and c (L, N, H); L layers times "
    "directions.
    """

    h: Array
    c: Array


class Stack:
    """The layers of a `longshort.LSTM`, ready to run.

    Args:
        settings: its sizes and options, as `longshort.export` wrote them.
        arrays: its weights, by the layer's own names.
        where: the beginning of every message.

    Raises:
        DataError: a weight is missing or of another shape than the settings say.
        BackendError: the engine is not installed.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, Array], where: str) -> None:
        try:
            self.C, self.H, self.P = (int(settings[k]) for k in ("C", "H", "P"))
            self.layers, self.directions = int(settings["layers"]), int(settings["directions"])
            self.variant = SimpleNamespace(**settings["variant"])
            rates = SimpleNamespace(variational_h=0.0, recurrent_dropout=0.0, **settings["zoneout"])
            gates, sigmoids = int(settings["gates"]), int(settings["sigmoids"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: its settings lack {error}. Export the model again.") from None
        self.noise = engine.noise(rates, training=False)
        self.width = self.H * (1 + sigmoids * bool(self.variant.gate_recurrence))
        self.places: list[tuple[Any, Array | None, Array | None]] = []
        for k in range(self.layers * self.directions):
            end = f"_l{k // self.directions}{'_reverse' if k % self.directions else ''}"
            part = {n.removesuffix(end): a for n, a in arrays.items() if n.endswith(end)}
            width = self.C if k < self.directions else self.P * self.directions
            for name, shape in (
                ("weight_ih", (gates * self.H, width)),
                ("weight_hh", (gates * self.H, self.P)),
            ):
                if name not in part or part[name].shape != shape:
                    got = part[name].shape if name in part else "none"
                    raise DataError(
                        f"{where}: `{name}{end}` must be {shape}, got {got}. Export the model again."
                    )
            self.places.append((self._packed(part), part.get("initial_h"), part.get("initial_c")))

    def _packed(self, part: dict[str, Array]) -> Any:
        bias = part["bias_ih"] + part["bias_hh"] if "bias_ih" in part else None
        more: dict[str, Any] = {
            ENGINE_NAME.get(name, name): value for name, value in part.items() if name not in BASIC
        }
        return engine.pack(part["weight_ih"], part["weight_hh"], bias, variant=self.variant, **more)

    def initial(self, N: int) -> State:
        """Return the state before the first step of N sequences: learned, or zeros."""
        shapes = ((N, self.P), (N, self.width))
        parts = [
            [np.zeros(shape, np.float32) if v is None else np.broadcast_to(v, shape) for v in place]
            for place, shape in zip(zip(*(p[1:] for p in self.places), strict=True), shapes, strict=True)
        ]
        return State(*(np.ascontiguousarray(np.stack(part), dtype=np.float32) for part in parts))

    def run(
        self, x: Array, state: State, lengths: Array | None = None, reset: Array | None = None
    ) -> tuple[Array, State]:
        """Run all layers over x (N, T, C) from a state; y (N, T, D P) and the state after the last step."""
        resets, hs, cs = [reset, _turned(reset, lengths) if self.directions == 2 else None], [], []
        start = self.initial(len(x)) if reset is not None else None
        for layer in range(self.layers):
            outs = []
            for d in range(self.directions):
                k = layer * self.directions + d
                initial = {} if start is None else {"initial_h": start.h[k], "initial_c": start.c[k]}
                out = engine.forward(
                    self.places[k][0],
                    x,
                    state.h[k],
                    state.c[k],
                    reset=resets[d],
                    lengths=lengths,
                    reverse=d == 1,
                    noise=self.noise,
                    **initial,
                )
                outs.append(out.y)
                hs.append(out.h)
                cs.append(out.c)
            x = outs[0] if len(outs) == 1 else np.concatenate(outs, axis=2)
        if len(hs) == 1:
            return x, State(hs[0][None], cs[0][None])
        return x, State(np.stack(hs), np.stack(cs))


def _turned(reset: Array | None, lengths: Array | None) -> Array | None:
    """The resets of the reversed direction: a reset before step t parts t - 1 from t in both."""
    if reset is None:
        return None
    inside = reset if lengths is None else reset & (np.arange(reset.shape[1]) < lengths[:, None])
    return np.concatenate((inside[:, 1:], np.zeros_like(inside[:, :1])), axis=1)
