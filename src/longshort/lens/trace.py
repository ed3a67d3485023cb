"""Everything a replay saw, under flat names: ``trace["lstm.l0.f"]`` is (N, T, H)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from ..errors import SettingError
from .layers import Call
from .replay import QUANTITIES, Layer


class Trace(Mapping[str, Tensor]):
    """Gates, cells and outputs of every recurrent layer at every step.

    A name is ``<layer>.l<k>[_reverse].<quantity>``; the quantities are i, f, g, o, c, h of an LSTM, r, z,
    n, h of a GRU and h of a plain RNN, and x for the layer's input. Values are zero in the padding.

    Args:
        layers: the replayed layers.
        calls: the calls they come from.
        output: what the model returned.
        difference: the largest difference between the replay and the model's own output.
        tolerance: the largest that would have been accepted.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        calls: Sequence[Call],
        output: Tensor,
        difference: float,
        tolerance: float,
    ) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.calls, self.output, self.difference, self.tolerance = list(calls), output, difference, tolerance

    def layer(self, name: str | None = None) -> Layer:
        """One replayed layer; the last one by default.

        Raises:
            SettingError: there is none of that name; the message lists those there are.
        """
        if name is None:
            return list(self.layers.values())[-1]
        if name not in self.layers:
            raise SettingError(f"look: `layer` must be one of {', '.join(self.layers)}, got {name!r}.")
        return self.layers[name]

    def call_of(self, layer: Layer) -> Call:
        """The call that a layer belongs to."""
        return next(call for call in self.calls if layer.name.rpartition(".")[0] == call.name)

    def __getitem__(self, name: str) -> Tensor:
        place, _, quantity = name.rpartition(".")
        layer = self.layers.get(place)
        if layer is None or quantity not in ("x", *QUANTITIES[layer.kind]):
            raise KeyError(f"{name!r} is not in the trace; names are {', '.join(self)}")
        return layer.x if quantity == "x" else layer.values[quantity]

    def __iter__(self) -> Iterator[str]:
        return (f"{n}.{q}" for n, layer in self.layers.items() for q in ("x", *QUANTITIES[layer.kind]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{n} {tuple(layer.values['h'].shape)}" for n, layer in self.layers.items())
        return f"Trace({sizes}; largest difference from the model {self.difference:.1e})"


def unit_of(layer: Layer, unit: int) -> int:
    """The unit, if the layer has it.

    Raises:
        SettingError: it has not.
    """
    if not 0 <= unit < layer.units:
        raise SettingError(
            f"look: `unit` must lie in 0 ... {layer.units - 1} for `{layer.name}`, got {unit}."
        )
    return unit


def step_of(layer: Layer, step: int) -> int:
    """The step, counted from the end if negative, if the layer has it.

    Raises:
        SettingError: it has not.
    """
    T = int(layer.mask.shape[1])
    if not -T <= step < T:
        raise SettingError(f"look: `step` must lie in 0 ... {T - 1} for `{layer.name}`, got {step}.")
    return step % T
