"""One or more LSTM layers on the engine: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
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


FORMS = {"float32": "full", "bfloat16": "bfloat16", "int8": "int8"}
"""How an LSTM's weights may be kept -> the engine's name for it."""


@dataclass(frozen=True)
class Variant:
    """Which LSTM, as `longshort.Variant` says it; by default that of torch.nn, which takes single steps."""

    peephole: bool = False
    coupled: bool = False
    input_gate: bool = True
    forget_gate: bool = True
    output_gate: bool = True
    input_activation: bool = True
    output_activation: bool = True
    gate_recurrence: bool = False
    norm: str = "none"
    norm_eps: float = 1e-5
    cell_clip: float | None = None
    projection_clip: float | None = None
    gate_activation: str = "sigmoid"

    @property
    def options(self) -> set[str]:
        """What differs from the LSTM of torch.nn."""
        usual = Variant(norm_eps=self.norm_eps)
        return {one.name for one in fields(self) if getattr(self, one.name) != getattr(usual, one.name)}


class Layer:
    """One layer in one direction on the engine.

    Args:
        weights: w_ih (G H, C), w_hh (G H, P), bias (G H,) or None, and what else the variant has.
        variant: which LSTM.
        rates: zoneout's.
        form: how the weights are kept, of FORMS.
        threads: of a step.
        where: the beginning of every message.

    Raises:
        DataError: the form is short, and the layer is not torch.nn.LSTM's.
    """

    def __init__(
        self,
        weights: dict[str, Array | None],
        variant: Variant,
        rates: Any,
        form: str,
        threads: int,
        where: str,
    ) -> None:
        self.noise, self.threads = engine.noise(rates, training=False), threads
        options = variant.options
        options |= {"projection"} if weights.get("w_hr") is not None else set()
        options |= {name for name in ("zoneout_h", "zoneout_c") if getattr(rates, name)}
        if options and form != "float32":
            raise DataError(
                f"{where}: has {', '.join(sorted(options))}, and `weights` = {form!r} serves the LSTM of "
                f"torch.nn. Load it with weights='float32'."
            )
        self.packed: Any = engine.pack(**weights, variant=variant)  # type: ignore[arg-type]
        self.step: Any = None
        if not options:
            self.step = engine.step(self.packed, stored=FORMS[form], threads=threads)
        self.short = form != "float32"
        if self.short:
            self.packed = None

    def run(
        self, x: Array, h: Array, c: Array, *, lengths: Array | None = None, reset: Array | None = None,
        reverse: bool = False, initial: tuple[Array, Array] | None = None, keep_cells: bool = False,
        keep_gates: bool = False,
    ) -> engine.Forward:  # fmt: skip
        """Run x (N, T, C) from h and c (N, H) on; y, h, c and what is kept."""
        one = self.step is not None and x.shape[1] == 1 and lengths is None and reset is None
        if self.short or (one and not (reverse or keep_cells or keep_gates)):
            return self._stepped(x, h, c, lengths, reset, reverse, initial or (h, c))
        initial_h, initial_c = initial or (None, None)
        return engine.forward(
            self.packed, x, h, c, reset=reset, lengths=lengths, reverse=reverse, noise=self.noise,
            threads=self.threads, initial_h=initial_h, initial_c=initial_c, keep_cells=keep_cells,
            keep_gates=keep_gates,
        )  # fmt: skip

    def moving(self, h: Array, c: Array) -> Callable[[Array, Array | None], None]:
        """Return what takes a step of x (N, C), of the sequences of a mask, and writes h and c (N, H)."""
        if self.step is not None:
            moving: Callable[[Array, Array | None], None] = self.step.moving(h, c)
            return moving

        def move(x: Array, only: Array | None) -> None:
            lengths = None if only is None else only.astype(np.int64)
            out = self.run(x.reshape(len(h), 1, -1), h, c, lengths=lengths)
            h[:], c[:] = out.h, out.c

        return move

    def _stepped(
        self, x: Array, h: Array, c: Array, lengths: Array | None, reset: Array | None, reverse: bool,
        initial: tuple[Array, Array],
    ) -> engine.Forward:  # fmt: skip
        """The steps of a layer with short weights, one after the other where a mask changes."""
        if lengths is None and reset is None and not reverse:
            y, c = self.step(x, h, c)
            return engine.Forward(y, y[:, -1].copy() if x.shape[1] else h.copy(), c, None, None, None)
        N, T = x.shape[:2]
        h, c = h.copy(), c.copy()
        y = np.zeros((N, T, h.shape[1]), np.float32)
        for t in reversed(range(T)) if reverse else range(T):
            only = np.ones(N, np.bool_) if lengths is None else lengths > t
            if reset is not None:
                begins = reset[:, t] & only
                h[begins], c[begins] = initial[0][begins], initial[1][begins]
            self.step.move(np.ascontiguousarray(x[:, t]), h, c, only)
            y[only, t] = h[only]
        return engine.Forward(y, h, c, None, None, None)


class Stack:
    """The layers of a `longshort.LSTM`, ready to run.

    Args:
        settings: its sizes and options, as `longshort.export` wrote them.
        arrays: its weights, by the layer's own names.
        where: the beginning of every message.
        form: how the weights are kept, of FORMS.
        threads: of a step.

    Raises:
        DataError: a weight is missing or of another shape than the settings say, or the form is short and
            the layers are not torch.nn.LSTM's.
        BackendError: the engine is not installed.
    """

    def __init__(
        self, settings: dict[str, Any], arrays: dict[str, Array], where: str, form: str, threads: int
    ) -> None:
        try:
            self.C, self.H, self.P = (int(settings[k]) for k in ("C", "H", "P"))
            self.layers, self.directions = int(settings["layers"]), int(settings["directions"])
            self.variant = Variant(**settings["variant"])
            rates = SimpleNamespace(variational_h=0.0, recurrent_dropout=0.0, **settings["zoneout"])
            gates, sigmoids = int(settings["gates"]), int(settings["sigmoids"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: its settings lack {error}. Export the model again.") from None
        self.width = self.H * (1 + sigmoids * bool(self.variant.gate_recurrence))
        self.places: list[tuple[Layer, Array | None, Array | None]] = []
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
            layer = Layer(_engine_names(part), self.variant, rates, form, threads, where)
            self.places.append((layer, part.get("initial_h"), part.get("initial_c")))

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
                out = self.places[k][0].run(
                    x, state.h[k], state.c[k], reset=resets[d], lengths=lengths, reverse=d == 1,
                    initial=None if start is None else (start.h[k], start.c[k]),
                )  # fmt: skip
                outs.append(out.y)
                hs.append(out.h)
                cs.append(out.c)
            x = outs[0] if len(outs) == 1 else np.concatenate(outs, axis=2)
        if len(hs) == 1:
            return x, State(hs[0][None], cs[0][None])
        return x, State(np.stack(hs), np.stack(cs))


def _engine_names(part: dict[str, Array]) -> dict[str, Array | None]:
    """A layer's weights as `engine.pack` calls them."""
    more = {ENGINE_NAME.get(name, name): value for name, value in part.items() if name not in BASIC}
    bias = part["bias_ih"] + part["bias_hh"] if "bias_ih" in part else None
    return {"w_ih": part["weight_ih"], "w_hh": part["weight_hh"], "bias": bias, **more}


def _turned(reset: Array | None, lengths: Array | None) -> Array | None:
    """The resets of the reversed direction: a reset before step t parts t - 1 from t in both."""
    if reset is None:
        return None
    inside = reset if lengths is None else reset & (np.arange(reset.shape[1]) < lengths[:, None])
    return np.concatenate((inside[:, 1:], np.zeros_like(inside[:, :1])), axis=1)
