"""What is used: how much the loss rises when the model sees only the last k steps.

    U(k) = E[ L | only the last k inputs ] - E[ L | all of them ]                                  (1)
    used horizon = the smallest k from which on U <= 1 % of U(0)                                       (2)

The context is cut by starting the layer anew, from the zero state and, since a state of zeros may be one the
model never saw, from the mean state.

Source: Khandelwal et al. (2018), "Sharp nearby, fuzzy far away", cut the context of language models so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .layers import Call, own_answer
from .probes import lag_grid
from .specimen import Specimen
from .trace import Trace

SMALL = 0.01
"""The share of U(0) that no longer counts."""


@dataclass(frozen=True)
class Used:
    """How much worse the loss is with only the last k inputs."""

    lags: Tensor
    "(K,) k, the inputs that are left"
    zero: Tensor
    "(K,) U(k), starting from the zero state"
    mean: Tensor
    "(K,) U(k), starting from the mean state"
    error: Tensor
    "(K,) standard error of `zero` over sequences; 0 for a scalar loss"
    full: float
    "the loss with the whole context"
    horizon: int
    """steps back: k - 1 for the k of equation (2), by the start that harms less; 0 where for either start U(0) is
    within two of its standard errors of nothing, and no more sequences lose than would by chance"""
    censored: bool
    "more than the longest context measured"
    note: str
    "what the cut does not reach, in words; often empty"


def used(specimen: Specimen, lags: Tensor | None = None, *, trace: Trace | None = None) -> Used:
    """Cut the context to the last k steps and measure the loss: equations (1) and (2).

    A loss per step (N, T) is compared at the steps that have had exactly k inputs; a loss per sequence or a
    scalar is taken to be of each sequence's last steps.

    Args:
        specimen: a model, its inputs and its loss.
        lags: (K,) the k to measure; about 24 up to T if None.
        trace: a trace of the same specimen, if there is one.

    Returns:
        The rise of the loss by k, and the used horizon.

    Raises:
        SettingError: the specimen has no loss.
    """
    with torch.no_grad():
        trace = trace or specimen.trace(tolerance=float("inf"))
        call = trace.calls[-1]
        T = int(call.mask.sum(1).min())
        lags = (lag_grid(T + 1) if lags is None else lags[lags <= T]).clone()
        lags = lags[lags > 0] if specimen.losses(trace.output).dim() == 2 else lags
        means = _mean_states(trace)
        whole = specimen.losses(trace.output)
        rows = [[_rise(specimen, int(k), T, start, whole) for k in lags] for start in (None, means)]
    zero, mean = (torch.stack([rise.mean() for rise in row]) for row in rows)
    error = torch.stack([_error(rise) for rise in rows[0]])
    smaller = torch.minimum(zero, mean)
    matters = all(_matters(row[0]) for row in rows)
    fine = smaller <= max(SMALL * smaller[0].item(), 1e-9)
    bad = (~fine).nonzero().flatten()
    place = int(bad[-1]) + 1 if len(bad) and matters else 0
    censored = place >= len(lags)
    bidirectional = any(c.module.bidirectional for c in trace.calls)
    note = (
        "Only the past is cut: the backward direction still reads all that comes later."
        if bidirectional
        else ""
    )
    return Used(
        lags,
        zero,
        mean,
        error,
        whole.mean().item(),
        max(0, int(lags[min(place, len(lags) - 1)]) - 1),
        censored,
        note,
    )


def _mean_states(trace: Trace) -> dict[str, tuple[Tensor, ...]]:
    """For each call the mean over sequences and steps of every layer's state."""
    states: dict[str, tuple[Tensor, ...]] = {}
    for call in trace.calls:
        layers = [layer for layer in trace.layers.values() if trace.call_of(layer) is call]
        names = ("h", "c") if call.kind == "lstm" else ("h",)
        states[call.name] = tuple(
            torch.stack([layer.values[q][layer.mask].mean(0) for layer in layers]).to(call.x.dtype)
            for q in names
        )
    return states


def _rise(
    specimen: Specimen, k: int, T: int, start: dict[str, tuple[Tensor, ...]] | None, whole: Tensor
) -> Tensor:
    """U(k) for one k: the rise of the loss of each sequence (N,), or of all, where k inputs are left."""
    if whole.dim() == 2:
        spots = list(range(k, T, max(1, T // 4))) or [T - 1]  # the step whose k-th input is its last
        rises = [specimen.losses(specimen.run(_cut(t - k + 1, start)))[:, t] - whole[:, t] for t in spots]
        return torch.stack(rises).mean(0)
    return specimen.losses(specimen.run(_cut(T - k, start, from_end=k))) - whole


def _matters(rise: Tensor) -> bool:
    """Whether what is lost is more than chance: by its mean, or, where one sequence that the model has wrong anyway
    makes the mean uncertain, by how many lose.
    """
    each = rise.reshape(-1)
    more = (each > 0).sum() - (each < 0).sum()
    return bool(rise.mean() > 2 * _error(rise)) or bool(rise.mean() > 0 and more > 3 * len(each) ** 0.5)


def _error(rise: Tensor) -> Tensor:
    return (
        rise.std() / len(rise) ** 0.5 if rise.dim() and len(rise) > 1 else torch.zeros((), dtype=rise.dtype)
    )


def _cut(
    place: int, start: dict[str, tuple[Tensor, ...]] | None, from_end: int | None = None
) -> Callable[..., tuple[Tensor, tuple[Tensor, ...]]]:
    """An answer that starts every recurrent layer anew before step `place`, or `from_end` steps before the
    end.
    """

    def answer(call: Call, own: Callable[..., Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
        lengths = call.mask.sum(1).tolist()
        firsts = [place if from_end is None else length - from_end for length in lengths]
        if len(set(firsts)) == 1 and len(set(lengths)) == 1:
            return _restarted(call, own, firsts[0], lengths[0], start, slice(None))
        each = zip(firsts, lengths, strict=True)
        parts = [_restarted(call, own, a, b, start, slice(n, n + 1)) for n, (a, b) in enumerate(each)]
        return torch.cat([y for y, _ in parts]), tuple(
            torch.cat(s, 1) for s in zip(*(s for _, s in parts), strict=True)
        )

    return answer


def _restarted(
    call: Call,
    own: Callable[..., Any],
    first: int,
    length: int,
    start: dict[str, tuple[Tensor, ...]] | None,
    rows: slice,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    x, module = call.x[rows], call.module
    ways = 1 + bool(module.bidirectional)
    size = getattr(module, "proj_size", 0) or module.hidden_size
    if start is None:
        widths = (size, module.hidden_size) if call.kind == "lstm" else (size,)
        state = tuple(x.new_zeros(module.num_layers * ways, len(x), width) for width in widths)
    else:
        state = tuple(s[:, None].expand(-1, len(x), -1).contiguous() for s in start[call.name])
    whole = x.new_zeros(len(x), x.shape[1], ways * size)
    if first < length:
        y, after = own_answer(call, own, x[:, first:length], state)
        whole[:, first:length] = y
        return whole, tuple(after)
    whole[:, length - 1] = torch.cat(list(state[0][-ways:]), -1)  # nothing was read: the state is the answer
    return whole, state
