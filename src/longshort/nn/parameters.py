"""Names and shapes of the parameters: torch.nn.LSTM's, then those of the options."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..errors import SettingError
from ..scan import Noise, Variant
from ..scan.checks import FLOATS

if TYPE_CHECKING:
    from .layer import LSTM


class Shape(NamedTuple):
    """Sizes of a stack of layers: inputs C, cells H, outputs P, layers, directions."""

    C: int
    H: int
    P: int
    layers: int
    directions: int
    projected: bool

    @staticmethod
    def of(layer: LSTM) -> Shape:
        """Check a layer's arguments and return its sizes.

        Raises:
            SettingError: an argument is of another type, a size is below 1, `dropout` is out of [0, 1], or
                `proj_size` out of [0, H).
        """
        whole("LSTM", input_size=layer.input_size, hidden_size=layer.hidden_size, num_layers=layer.num_layers)
        names = ("bias", "batch_first", "bidirectional", "learn_initial")
        switch("LSTM", **{name: getattr(layer, name) for name in names})
        _options(layer)
        return Shape(
            layer.input_size,
            layer.hidden_size,
            layer.proj_size or layer.hidden_size,
            layer.num_layers,
            2 if layer.bidirectional else 1,
            bool(layer.proj_size),
        )

    @property
    def number(self) -> int:
        """Layers times directions."""
        return self.layers * self.directions

    def suffix(self, k: int) -> str:
        """The end of a parameter's name for layer and direction k, as in torch.nn.LSTM."""
        return f"_l{k // self.directions}{'_reverse' if k % self.directions else ''}"

    def width(self, k: int) -> int:
        """Input channels of layer and direction k."""
        return self.C if k < self.directions else self.P * self.directions


def _options(layer: LSTM) -> None:
    """Check a layer's arguments but for its three sizes and its switches."""
    for name, kind in (("variant", Variant), ("noise", Noise)):
        if not isinstance(getattr(layer, name), kind):
            raise SettingError(
                f"LSTM: `{name}` must be a longshort.{kind.__name__}, got {getattr(layer, name)!r}. "
                f"Name its options: longshort.{kind.__name__}(...)."
            )
    if not _number(layer.dropout) or not 0 <= layer.dropout <= 1:
        raise SettingError(
            f"LSTM: `dropout` must be in [0, 1], got {layer.dropout!r}. "
            f"It is the share silenced between layers."
        )
    if not _whole(layer.proj_size, 0) or layer.proj_size >= layer.hidden_size:
        raise SettingError(
            f"LSTM: `proj_size` must be in [0, hidden_size) = [0, {layer.hidden_size}), "
            f"got {layer.proj_size!r}. 0 is no projection."
        )
    if layer.variant.projection_clip is not None and not layer.proj_size:
        raise SettingError(
            f"LSTM: `projection_clip` = {layer.variant.projection_clip} clips the projection, and there "
            f"is none. Give `proj_size`, or leave out `projection_clip`."
        )
    every = layer.checkpoint_every
    if every is not None and not _whole(every, 1):
        raise SettingError(f"LSTM: `checkpoint_every` must be a number of steps, at least 1, got {every!r}.")


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def switch(caller: str, **flags: object) -> None:
    """Check arguments that are true or false, by name.

    Raises:
        SettingError: one is neither.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise SettingError(f"{caller}: `{name}` must be True or False, got {value!r}.")


def check_dtype(caller: str, dtype: torch.dtype | None) -> None:
    """Check the dtype that parameters are to have.

    Raises:
        SettingError: no layer can compute in it.
    """
    if dtype is not None and dtype not in FLOATS:
        raise SettingError(
            f"{caller}: `dtype` must be torch.float32, float64, bfloat16 or float16, got {dtype!r}."
        )


def whole(caller: str, **sizes: object) -> None:
    """Check sizes, by name.

    Raises:
        SettingError: one is no whole number, or below 1.
    """
    for name, value in sizes.items():
        if not _whole(value, 1):
            raise SettingError(f"{caller}: `{name}` must be a whole number, at least 1, got {value!r}.")


def parameters(
    shape: Shape, k: int, variant: Variant, bias: bool, learn_initial: bool
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each parameter of layer and direction k, in torch.nn.LSTM's order."""
    rows, sigmoids, H = len(variant.gates) * shape.H, len(variant.sigmoids) * shape.H, shape.H
    wanted: dict[str, tuple[int, ...]] = {"weight_ih": (rows, shape.width(k)), "weight_hh": (rows, shape.P)}
    if bias:
        wanted |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    if shape.projected:
        wanted["weight_hr"] = (shape.P, H)
    sizes = {
        "peephole": ("weight_peephole", (sigmoids,)),
        "w_gates": ("weight_gates", (sigmoids, sigmoids)),
        "gain_ih": ("gain_ih", (rows,)),
        "gain_hh": ("gain_hh", (rows,)),
        "gain_c": ("gain_c", (H,)),
        "shift_c": ("shift_c", (H,)),
    }
    wanted |= {sizes[name][0]: sizes[name][1] for name in variant.weights}
    if learn_initial:
        wanted |= {"initial_h": (shape.P,), "initial_c": (H + sigmoids * variant.gate_recurrence,)}
    return wanted
