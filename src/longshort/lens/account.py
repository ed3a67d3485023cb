"""The ledger: what a memory is made of, as an exact sum over the steps at which it was written.

    c_T = F_{0:T} c_0 + Σ_k F_{k:T} w_k            F_{k:T} = Π_{s=k+1..T} f_s            w_k = i_k g_k     (1)
    A_{T,k} = F_{k:T} i_k                          effective attention of an LSTM's cell                   (2)
    A_{T,k} = (Π_{s>k} z_s) (1 - z_k)              of a GRU's unit; with Π z over all steps it sums to 1   (3)

(1) says when something was written, not what caused it: later gates depend on earlier inputs through h. A
plain RNN's state is squashed at every step and has no such sum.

Source: Murdoch & Szlam, "Automatic Rule Extraction from LSTM" (2017), for (1); Levy et al. (2018) for the
weighted sum; the logarithms are taken of pre-activations, where float32 would round f to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError
from .replay import Layer
from .trace import step_of, unit_of


@dataclass(frozen=True)
class Ledger:
    """A cell at one step, taken apart."""

    parts: Tensor
    "(N, T, H) what is left at that step of what was written at each; zero after it"
    from_start: Tensor
    "(N, H) what is left of the state before the first step"
    total: Tensor
    "(N, H) the cell itself"
    residual: float
    "largest |sum of the parts - cell|"


def has_ledger(layer: Layer) -> str | None:
    """None where the identity holds, else the reason why it does not, as a sentence."""
    if layer.kind == "rnn":
        return (
            "A plain RNN squashes its whole state at every step, so its state is no sum of what was written: "
            "there is no such identity."
        )
    if layer.kind == "lstm" and layer.variant.norm == "per_gate":
        return (
            "The layer norm rescales the whole cell at every step, so the cell is no sum of what was written."
        )
    return None


def remains(layer: Layer, step: int) -> Tensor:
    """F_{k:T} for T = `step`: the share of what was written at k that is left, (N, T, H).

    Args:
        layer: a replayed LSTM or GRU.
        step: T, counted from 0; in a reversed layer the sum runs from the right.

    Returns:
        Zero for the steps that come after T in the layer's direction.

    Raises:
        SettingError: the identity does not hold for this layer, or there is no such step.
    """
    why = has_ledger(layer)
    if why:
        raise SettingError(f"look: `{layer.name}` has no ledger. {why}")
    step = step_of(layer, step)
    log = layer.values["log_keep"]
    log = log.flip(1) if layer.reverse else log
    end = log.shape[1] - 1 - step if layer.reverse else step
    later = torch.zeros_like(log)
    later[:, :end] = log[:, 1 : end + 1].flip(1).cumsum(1).flip(1)
    share = later.exp()
    share[:, end + 1 :] = 0
    return share.flip(1) if layer.reverse else share


def ledger(layer: Layer, step: int = -1) -> Ledger:
    """Take the cell at one step apart by the step at which each part was written: equation (1).

    Args:
        layer: a replayed LSTM (its cells) or GRU (its units).
        step: T; the last one by default.

    Returns:
        A ledger whose parts sum to the cell; the residual says how exactly.

    Raises:
        SettingError: the identity does not hold for this layer, or there is no such step.
    """
    step = step_of(layer, step)
    share = remains(layer, step)
    parts = share * layer.values["write"]
    first = layer.mask.shape[1] - 1 if layer.reverse else 0
    log = layer.values["log_keep"]
    start = layer.start[-1][:, : log.shape[2]].to(share)
    from_start = share[:, first] * log[:, first].exp() * start
    total = layer.values["c" if layer.kind == "lstm" else "h"][:, step]
    inside = layer.mask[:, step]
    gap = (parts.sum(1) + from_start - total)[inside]
    return Ledger(parts, from_start, total, gap.abs().max().item() if gap.numel() else 0.0)


def attention(layer: Layer, unit: int, sequence: int = 0) -> Tensor:
    """How much of each step is in the memory at each later step: equations (2) and (3).

    Args:
        layer: a replayed LSTM or GRU.
        unit: which cell.
        sequence: which sequence.

    Returns:
        (T, T), row T and column k, zero where k comes after T. Rows of a GRU sum to at most 1: what is
        missing belongs to the state before the first step.

    Raises:
        SettingError: the identity does not hold for this layer, or there is no such unit.
    """
    why = has_ledger(layer)
    if why:
        raise SettingError(f"look: `{layer.name}` has no effective attention. {why}")
    unit_of(layer, unit)
    log = layer.values["log_keep"][sequence, :, unit]
    gate = layer.values["i"] if layer.kind == "lstm" else 1 - layer.values["z"]
    opened = gate[sequence, :, unit]
    if layer.reverse:
        log, opened = log.flip(0), opened.flip(0)
    T = len(log)
    later = torch.tril(torch.ones(T, T, dtype=torch.bool, device=log.device), -1)  # s > k as [s, k]
    steps = torch.where(later, log[:, None], 0)
    share = steps.cumsum(0).exp().tril()
    weights = share * opened
    return weights.flip(0, 1) if layer.reverse else weights


@dataclass(frozen=True)
class Readout:
    """A linear answer, taken apart by the step at which each part was written."""

    contributions: Tensor
    "(N, T)"
    rest: Tensor
    "(N,) bias and what is left of the state before the first step"
    total: Tensor
    "(N,) the answer"
    residual: float
    "largest |sum - answer|, the answer being weight . h + bias"


def readout(layer: Layer, weight: Tensor, bias: Tensor | float = 0.0, step: int = -1) -> Readout:
    r"""Take a linear readout y = w · h_T + b of an LSTM or GRU layer apart by the step of writing.

    $$\text{contribution}(k) = \sum_j w_j\, o_{T,j} \frac{\tanh c_{T,j}}{c_{T,j}} F_{k:T,j}\, i_{k,j}
    g_{k,j}$$

    The ratio goes to 1 as c goes to 0. With a projection w is carried back through it. For a GRU the factor
    before F is 1.

    Args:
        layer: a replayed LSTM (without layer norm) or GRU.
        weight: (units of h,) w.
        bias: b.
        step: T.

    Returns:
        Contributions that sum with the rest to the answer; the residual says how exactly.

    Raises:
        SettingError: the identity does not hold for this layer.
    """
    step = step_of(layer, step)
    made = ledger(layer, step)
    factor = torch.ones_like(made.total)
    total = layer.values["h"][:, step] @ weight.to(made.total) + bias
    w = weight.to(made.total)
    if layer.kind == "lstm":
        v = layer.variant
        if v.norm == "ba2016" or v.projection_clip is not None:
            raise SettingError(
                f"look: the readout of `{layer.name}` is no linear function of its cell's parts."
            )
        c = made.total
        squashed = c.tanh() if v.output_activation else c
        factor = layer.values["o"][:, step] * torch.where(c.abs() < 1e-6, torch.ones_like(c), squashed / c)
        w = w @ layer.weights["weight_hr"] if "weight_hr" in layer.weights else w
    scale = factor * w
    parts = (made.parts * scale[:, None]).sum(2)
    rest = (made.from_start * scale).sum(1) + bias
    inside = layer.mask[:, step]
    gap = (parts.sum(1) + rest - total)[inside]
    return Readout(parts, rest, total, gap.abs().max().item() if gap.numel() else 0.0)
