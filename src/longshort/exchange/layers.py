"""The weights of an LSTM as NumPy arrays, between `longshort.LSTM` and any other form of it.

Every format meets here, so that the order of the gates and the layout of the axes are turned in one place.
Names and shapes are `longshort.LSTM`'s: `weight_ih` (G H, C), `weight_hh` (G H, P), `bias_ih` and `bias_hh`
(G H,), `weight_hr` (P, H), and what the variant adds, in the gate order i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import shapes
from ..errors import DataError, SettingError, ShapeError
from ..nn import LSTM
from ..scan import Noise, Variant

Array = NDArray[Any]
Weights = dict[str, Array]
"""One layer in one direction, by name."""

OWN_NAME = {"peephole": "weight_peephole", "w_gates": "weight_gates"}
"""What the layer calls a weight that `longshort.scan` names otherwise."""


@dataclass(frozen=True)
class Layers:
    """An LSTM without its framework.

    Attributes:
        weights: one entry a layer; each holds one `Weights` a direction, the forward one first.
        variant: which LSTM.
        noise: what is drawn in training.
        dropout: between layers, in training.
        batch_first: whether the layer's input is (N, T, C).
    """

    weights: tuple[tuple[Weights, ...], ...]
    variant: Variant = field(default_factory=Variant)
    noise: Noise = field(default_factory=Noise)
    dropout: float = 0.0
    batch_first: bool = False

    @property
    def first(self) -> Weights:
        """The first layer, forwards."""
        return self.weights[0][0]

    @property
    def H(self) -> int:
        """Hidden units."""
        return len(self.first["weight_ih"]) // len(self.variant.gates)

    @property
    def P(self) -> int:
        """Projected units; H without a projection."""
        return int(self.first["weight_hh"].shape[1])

    @property
    def bidirectional(self) -> bool:
        """Whether each layer runs in both directions."""
        return len(self.weights[0]) == 2


def layers_of(lstm: LSTM) -> Layers:
    """Return the weights and settings of a `longshort.LSTM`, as copies; 16-bit weights become float32."""
    suffixes = ("", "_reverse") if lstm.bidirectional else ("",)
    tensors = dict(lstm.named_parameters(recurse=False))
    layers = []
    for k in range(lstm.num_layers):
        ends = [f"_l{k}{suffix}" for suffix in suffixes]
        layers.append(
            tuple(
                {n.removesuffix(end): array_of(t) for n, t in tensors.items() if n.endswith(end)}
                for end in ends
            )
        )
    return Layers(tuple(layers), lstm.variant, lstm.noise, float(lstm.dropout), lstm.batch_first)


def array_of(tensor: torch.Tensor) -> Array:
    """Return a tensor's numbers as an array of float32 or float64 that shares no memory with it."""
    wide = tensor.detach().cpu()
    wide = wide if wide.dtype == torch.float64 else wide.float()
    return wide.numpy().copy()


def lstm_of(layers: Layers, caller: str) -> LSTM:
    """Build the `longshort.LSTM` of these weights, in evaluation mode.

    Args:
        layers: what is wanted; all layers of one width and one kind.
        caller: where the weights come from, the beginning of every message.

    Raises:
        DataError: shapes disagree, layers cannot be stacked, or a weight is not finite.
    """
    checked(layers, caller)
    one = layers.first
    C, H = one["weight_ih"].shape[1], layers.H
    dtype = torch.float64 if one["weight_ih"].dtype == np.float64 else torch.float32
    try:
        lstm = LSTM(
            C,
            H,
            len(layers.weights),
            bias="bias_ih" in one,
            batch_first=layers.batch_first,
            dropout=layers.dropout if len(layers.weights) > 1 else 0.0,
            bidirectional=layers.bidirectional,
            dtype=dtype,
            variant=layers.variant,
            noise=layers.noise,
            learn_initial="initial_h" in one,
            proj_size=layers.P if "weight_hr" in one else 0,
        )
    except (SettingError, ValueError) as error:
        raise DataError(f"{caller}: {error}") from None
    fill(lstm, layers)
    return lstm.eval()


def fill(lstm: LSTM, layers: Layers) -> None:
    """Copy the weights into a layer of the same shape."""
    tensors = dict(lstm.named_parameters(recurse=False))
    with torch.no_grad():
        for k, directions in enumerate(layers.weights):
            for weights, suffix in zip(directions, ("", "_reverse"), strict=False):
                for name, value in weights.items():
                    tensors[f"{name}_l{k}{suffix}"].copy_(torch.from_numpy(np.ascontiguousarray(value)))


def checked(layers: Layers, caller: str) -> None:
    """Hold every weight against its shape, and every layer against the one before it.

    Raises:
        DataError: the first that disagrees, with its layer.
    """
    if not layers.weights or not layers.weights[0]:
        raise DataError(f"{caller}: must hold at least one LSTM layer, got none.")
    first_kind, width = sorted(layers.first), None
    for k, directions in enumerate(layers.weights):
        for weights, suffix in zip(directions, ("", " reverse"), strict=False):
            where = f"{caller}, layer {k}{suffix}"
            ways = len(directions), len(layers.weights[0])
            if ways[0] != ways[1]:
                raise DataError(
                    f"{where}: must run in as many directions as layer 0, {ways[1]}, got {ways[0]}. "
                    f"Take the layers one by one, each by its name."
                )
            if sorted(weights) != first_kind:
                raise DataError(
                    f"{where}: must have the weights of layer 0, {', '.join(first_kind)}, "
                    f"got {', '.join(sorted(weights))}. Take the layers one by one, each by its name."
                )
            sizes = agreeing(where, weights, layers.variant)
            if (sizes["H"], sizes.get("P", sizes["H"])) != (layers.H, layers.P):
                raise DataError(
                    f"{where}: must have the {layers.H} units of layer 0, got {sizes['H']}: one LSTM has one "
                    f"width. Take the layers one by one."
                )
            if width is not None and sizes["C"] != width:
                raise DataError(
                    f"{where}: must read the {width} outputs of the layer before, got {sizes['C']} inputs. "
                    f"Take the layers one by one."
                )
        width = layers.P * len(directions)


def agreeing(where: str, weights: Mapping[str, Array], variant: Variant) -> dict[str, int]:
    """Check one layer in one direction, and return its axes.

    Raises:
        DataError: a shape disagrees, or a weight is no finite number.
    """
    rows = f"{len(variant.gates)}H"
    out = "P" if "weight_hr" in weights else "H"
    contract = {"weight_ih": f"{rows} C", "weight_hh": f"{rows} {out}", "bias_ih": rows, "bias_hh": rows}
    contract |= {"weight_hr": "P H"} | {OWN_NAME.get(n, n): axes for n, axes in variant.weights.items()}
    whole = {"weight_ih", "weight_hh"} | {OWN_NAME.get(name, name) for name in variant.weights}
    if "bias_ih" in weights or "bias_hh" in weights:
        whole |= {"bias_ih", "bias_hh"}
    if whole - set(weights):
        raise DataError(
            f"{where}: must have {', '.join(sorted(whole))}, got {', '.join(sorted(weights))}. The file is "
            "damaged."
        )
    try:
        sizes = shapes.check(where, **{n: (weights[n], axes) for n, axes in contract.items() if n in weights})
    except ShapeError as error:
        raise DataError(str(error)) from None
    if min(sizes.values()) < 1:
        raise DataError(f"{where}: must have at least one input and one unit, got {sizes}.")
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise DataError(
                f"{where}: `{name}` must hold finite numbers, got NaN or infinity. The file is damaged."
            )
    return sizes


def reordered(blocks: Array, have: Sequence[str], want: Sequence[str]) -> Array:
    """Return the gates' blocks along the first axis in another order.

    Args:
        blocks: equal blocks, one for each gate of `have`.
        have: their order, such as ``"iofg"`` for ONNX.
        want: the order wanted; may name fewer gates.

    >>> reordered(np.array([1, 2, 3, 4]), "iofg", "ifgo")
    array([1, 3, 4, 2])
    """
    parts = dict(zip(have, np.split(blocks, len(have)), strict=True))
    return np.concatenate([parts[gate] for gate in want])


def told(variant: Variant, allowed: Sequence[str] = ()) -> list[str]:
    """Name the options of a variant that differ from torch.nn.LSTM's and are not among the allowed."""
    default = Variant().to_json()
    return [
        name for name, value in variant.to_json().items() if value != default[name] and name not in allowed
    ]
