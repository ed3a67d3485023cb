"""What drives a gate: its pre-activation is a sum of three.

    a_t = W_ih x_t + W_hh h_{t-1} + b                                                              (1)
    Var_t a = Var_t(W_ih x) + Var_t(W_hh h) + 2 Cov_t(W_ih x, W_hh h)                              (2)

Source: Levy et al. (2018) ask how much the recurrence inside the gates matters; (2) answers for one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError
from .replay import Layer


@dataclass(frozen=True)
class Drivers:
    """The pre-activation of every gate of a layer, split: each (N, T, H) by gate; the bias (H,)."""

    input: dict[str, Tensor]
    recurrence: dict[str, Tensor]
    bias: dict[str, Tensor]
    shares: dict[str, Tensor]
    "gate -> (H, 3) shares of the variance over time: input, recurrence, covariance; they sum to 1"


def drivers(layer: Layer) -> Drivers:
    """Split each gate's pre-activation into input, recurrence and bias: equations (1) and (2).

    For the candidate n of a GRU the recurrence is r ⊙ (W_hn h + b_hn).

    Args:
        layer: a replayed layer without layer norm, peepholes or gate recurrence.

    Returns:
        Parts that sum to the pre-activation exactly; where it does not vary the shares are zero.

    Raises:
        SettingError: the variant's pre-activation is not this sum.
    """
    v, w = layer.variant, layer.weights
    if layer.kind == "lstm" and (v.norm != "none" or v.peephole or v.gate_recurrence):
        raise SettingError(
            f"look: the pre-activations of `{layer.name}` are not input + recurrence + bias: {v}."
        )
    gates, h = layer.gates, layer.before("h")
    by_x = dict(zip(gates, (layer.x @ w["weight_ih"].T).chunk(len(gates), -1), strict=True))
    by_h = dict(zip(gates, (h @ w["weight_hh"].T).chunk(len(gates), -1), strict=True))
    none = torch.zeros(len(w["weight_ih"]), device=h.device, dtype=h.dtype)
    b_x, b_h = w.get("bias_ih", none), w.get("bias_hh", none)
    bias = dict(zip(gates, (b_x + b_h).chunk(len(gates)), strict=True))
    if layer.kind == "gru":
        b_n = b_h.chunk(3)[2]
        by_h["n"] = layer.values["r"] * (by_h["n"] + b_n)
        bias["n"] = b_x.chunk(3)[2]
    shares = {g: _shares(by_x[g][layer.mask], by_h[g][layer.mask]) for g in gates}
    return Drivers(by_x, by_h, bias, shares)


def _shares(x: Tensor, h: Tensor) -> Tensor:
    x, h = x - x.mean(0), h - h.mean(0)
    parts = torch.stack((x.square().mean(0), h.square().mean(0), 2 * (x * h).mean(0)), -1)
    total = parts.sum(-1, keepdim=True)
    return torch.where(total > 1e-20, parts / total.clamp(min=1e-20), 0)
