"""Where the gradient flows: by lag, and per gate per step.

    full      δc_t = dL/dc_t through everything                                                   (1)
    carousel  δc_t = F_{t:T} δc_T, the self-loop of the cell alone                                (2)
    G(k) = E ‖dL/dc_{T-k}‖ / E ‖dL/dc_T‖                                                          (3)
    dL/dW_ih = Σ_t δ_t x_tᵀ,   dL/dW_hh = Σ_t δ_t h_{t-1}ᵀ                                          (4)

(2) is the gradient with all gates and candidates detached: the constant error carousel of 1997.

Source: Hochreiter & Schmidhuber (1997) for (2); Gram's trick for the norms of (4): the squared norm of
Σ_b δ_b u_bᵀ is Σ_{b,b'} (δ_b·δ_b')(u_b·u_b').
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .account import has_ledger, remains
from .replay import GATES, Layer
from .specimen import Played, Specimen, answers

SHORTEST = 1e-2
"""The share of G(0) down to which a lag still counts as learnable."""
WHOLE = 1 << 40
"""More steps than any sequence has."""


@dataclass(frozen=True)
class Flow:
    """The gradient of something said at the last step with respect to the memory k steps before."""

    lags: Tensor
    "(K,) 0 ... T - 1"
    full: Tensor
    "(K,) G(k) of equation (3), through everything"
    carousel: Tensor | None
    "(K,) the same by equation (2); None where there is none"
    scale: float
    "E ‖dL/dc_T‖ itself: a curve normalised by its own beginning hides an explosion"
    horizon: int
    "the largest lag with G >= 0.01"
    censored: bool
    "G is still above 0.01 at the longest lag"


def flow(
    specimen: Specimen,
    layer: str | None = None,
    *,
    probes: int = 4,
    seed: int = 0,
    window: int | None = None,
    played: Played | None = None,
) -> Flow:
    """Measure G(k): how much gradient of the last step's answer reaches the memory k steps before.

    The scalar is the loss where the specimen has one of the last step alone (a scalar or (N,)); else random
    projections of the last answer stand for it, which makes G a property of the model, not of a target.

    Args:
        specimen: the model and its inputs.
        layer: such as "lstm.l0"; the last one by default.
        probes: how many random projections.
        seed: of the projections.
        window: how many last steps the gradient goes back through; all if None.
        played: what `specimen.replayed(graph=window)` gave with gradients on, if it was run already.

    Returns:
        The curves over lags 0 ... T - 1, T of the shortest sequence (or the window).
    """
    with torch.enable_grad():
        out, done, calls = played or specimen.replayed(graph=window or WHOLE)
        part = done[-1] if layer is None else next(d for d in done if d.name == layer)
        nodes = part.nodes["c" if part.kind == "lstm" else "h"]
        call = next(c for c in calls if part.name.startswith(c.name + ".l"))
        said = answers(out, call)
        rng = torch.Generator().manual_seed(seed)
        own = None if specimen.loss is None else specimen.losses(out)
        if own is not None and own.dim() < 2:
            scalars = [own.sum()]
        else:
            scalars = [(said * torch.randn(said.shape, generator=rng).to(said)).sum() for _ in range(probes)]
        curves = []
        for scalar in scalars:
            grads = gradients_of(scalar, nodes)
            curves.append(_by_lag(part, torch.stack(grads, 1), window or WHOLE))
    full = torch.stack([f for f, _ in curves]).mean(0)
    carried = [d for _, d in curves if d is not None]
    return _flow(full, torch.stack(carried).mean(0) if carried else None)


def gradients_of(scalar: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    """D scalar / d node for each node, zero where the scalar does not depend on it or no gradient was
    kept.
    """
    asked = [node for node in nodes if node.requires_grad]
    found = iter(torch.autograd.grad(scalar, asked, retain_graph=True, allow_unused=True))
    grads = [next(found) if node.requires_grad else None for node in nodes]
    return [torch.zeros_like(node) if g is None else g for node, g in zip(nodes, grads, strict=True)]


def _by_lag(layer: Layer, grads: Tensor, window: int) -> tuple[Tensor, Tensor | None]:
    """Mean norms over sequences at lag 0, 1, ... before each sequence's last step, full and carousel."""
    lengths = layer.mask.sum(1)
    shortest = int(lengths.min())
    T = layer.mask.shape[1]
    shortest = min(shortest, max(1, shortest - max(0, T - window)))
    rows = torch.arange(len(lengths))
    places = torch.stack(
        [torch.full_like(lengths, k) if layer.reverse else lengths - 1 - k for k in range(shortest)]
    )
    full = grads[rows, places].norm(dim=-1).mean(1)
    if has_ledger(layer):
        return full.detach(), None
    with torch.no_grad():
        direct = []
        for n, length in enumerate(lengths.tolist()):
            one = Layer(
                **{
                    **vars(layer),
                    "values": {k: v[n : n + 1] for k, v in layer.values.items()},
                    "mask": layer.mask[n : n + 1],
                }
            )
            last = 0 if layer.reverse else length - 1
            carried = remains(one, last)[0] * grads[n, last]
            direct.append(carried.norm(dim=-1)[places[:, n]])
    return full.detach(), torch.stack(direct).mean(0)


def _flow(full: Tensor, direct: Tensor | None) -> Flow:
    scale = full[0].item()
    share = full / max(scale, 1e-300)
    kept = (share >= SHORTEST).nonzero().flatten()
    horizon = int(kept[-1]) if len(kept) else 0
    carousel = None if direct is None else direct / max(direct[0].item(), 1e-300)
    return Flow(torch.arange(len(full)), share, carousel, scale, horizon, horizon == len(full) - 1)


@dataclass(frozen=True)
class River:
    """The gradient of the loss with respect to the weights of each gate, before it is summed over time."""

    layer: str
    gates: tuple[str, ...]
    norms: Tensor
    "(gates, T) ‖Σ_n δ_{n,t} u_{n,t}ᵀ‖ with u = [x_t; h_{t-1}]"
    sums: dict[str, Tensor]
    "weight_ih and weight_hh: the sum over all steps of the steps' gradients"


def river(specimen: Specimen, *, window: int | None = None, played: Played | None = None) -> list[River]:
    """Measure the gradient per gate per step: equation (4) before the sum.

    Args:
        specimen: the model, its inputs and, if it has one, its loss; without one, the sum of the last
            answers.
        window: how many last steps the gradient goes back through; all if None.
        played: what `specimen.replayed(graph=window)` gave with gradients on, if it was run already.

    Returns:
        One river for each layer and direction. `sums` equals the weights' gradient of one backward pass.
    """
    with torch.enable_grad():
        out, done, calls = played or specimen.replayed(graph=window or WHOLE)
        said = answers(out, calls[-1]) if specimen.loss is None else specimen.losses(out)
        scalar = said.sum()
        nodes = [n for layer in done for n in (*layer.nodes["zx"], *layer.nodes["zh"])]
        grads = gradients_of(scalar, nodes)
    rivers = []
    for layer in done:
        count = len(layer.nodes["zh"])
        own, grads = grads[: count + 1], grads[count + 1 :]
        rivers.append(_river(layer, own[0], torch.stack(own[1:], 1)))
    return rivers


def _river(layer: Layer, by_x: Tensor, by_h: Tensor) -> River:
    with torch.no_grad():
        x, h = layer.x.detach(), layer.before("h").detach()
        gates = layer.gates if layer.kind == "lstm" else GATES[layer.kind]
        norms = [
            (_norms(d_x, x) + _norms(d_h, h)).sqrt()
            for d_x, d_h in zip(by_x.chunk(len(gates), -1), by_h.chunk(len(gates), -1), strict=True)
        ]
        sums = {
            "weight_ih": torch.einsum("ntg,ntc->gc", by_x, x),
            "weight_hh": torch.einsum("ntg,ntp->gp", by_h, h),
        }
    return River(layer.name, tuple(gates), torch.stack(norms), sums)


def _norms(delta: Tensor, u: Tensor) -> Tensor:
    """(T,) squared norms of Σ_n δ_{n,t} u_{n,t}ᵀ."""
    d, v = delta.transpose(0, 1), u.transpose(0, 1)
    return ((d @ d.transpose(1, 2)) * (v @ v.transpose(1, 2))).sum((1, 2)).clamp(min=0)
