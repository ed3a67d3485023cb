"""What is stored: how many bits about the input k steps ago a linear probe reads from the state.

    (1)  real inputs   bits(k) = -½ log2(1 - R²(k)), summed over channels; R² on held-out sequences, ridge
    (2)  symbols       bits(k) = H(x) - CE(k), cross-entropy on held-out sequences, softmax

Both are lower bounds of the mutual information in expectation ((1) for Gaussian residuals), and subject to
sampling error. A probe that was fitted to shuffled targets is the control; a probe that sees only x_t shows
what the input's own correlation gives away without any memory. A probe proves presence, never use.

A channel is probed at the steps at which it differs between the sequences: of a constant nothing can be
stored, and a channel that speaks at the first step alone would drown in its own silence. With b(k) the bits
of the channel, b0(k) the larger of its control and of what x_t alone gives, and S the standard error,

    (3)  stored at lag k: b(k) > b0(k) + 2 S, and the probe explains a tenth of what b0 leaves open,
         1 - 4^-(b(k) - b0(k)) >= 0.1, and a hundredth of the channel, 4^-b0(k) - 4^-b(k) >= 0.01;
         of symbols a tenth of their entropy, b(k) - b0(k) >= 0.1 H(x)

and the stored horizon is the last such lag of any channel, whether or not earlier ones fail.

Source: Jaeger (2001) for memory capacity; Hewitt & Liang (2019) for the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SettingError
from .replay import Layer

CHANNELS = 8
"""Input channels that are probed: those of the largest variance."""
SAMPLES = 4000
"""States a probe is fitted to and scored on, at most, for each lag."""
READ = 256
"""Numbers of a state that a probe reads; a larger state is projected at random to so many: still a lower
bound."""
SHARE = 0.1
"""Of what x_t and chance leave open, the share that a probe must explain for a lag to count: equation (3)."""
LEAST = 0.01
"""And the share of the channel itself: x_t may leave next to nothing of it open."""
SYMBOLS = 32
"""Symbols told apart; the rarer ones count as one."""


@dataclass(frozen=True)
class Stored:
    """What a linear probe reads from the state about the input k steps before."""

    lags: Tensor
    "(K,)"
    bits: Tensor
    "(K,) held out"
    control: Tensor
    "(K,) the same probe on shuffled targets: what chance gives"
    error: Tensor
    "(K,) standard error of `bits`, over held-out sequences (or blocks of time of a single one)"
    from_input: Tensor
    "(K,) from x_t alone: correlation of the input, not memory"
    capacity: float
    "sum over all lags of R², at most the number of state variables for white input; NaN for symbols"
    horizon: int
    "largest lag of equation (3) for any channel (by 4 standard errors where no neighbour joins); or -1"
    channel: int
    "the input channel that is stored for so long; -1 for symbols, or where nothing is stored"
    censored: bool
    "that is the largest lag measured"
    held_out: str
    "what the probe was scored on, in words"
    notes: list[str]
    "what was left out, in sentences"


def stored(
    layer: Layer,
    target: Tensor | None = None,
    *,
    read: str = "hc",
    lags: Tensor | None = None,
    at_end: bool = False,
    seed: int = 0,
) -> Stored:
    """Probe a layer's state for its own input k steps ago: equations (1) and (2).

    Args:
        layer: a replayed layer, best of 20 sequences or more.
        target: (N, T) int64 symbols or (N, T, K) numbers to look for; the layer's own input if None.
        read: "h", "c" or "hc": which part of the state is read.
        lags: (K,) steps back; about 24 up to T - 1 if None.
        at_end: read only each sequence's last state, for models that answer once; else every state.
        seed: of the sequences held out and of the shuffled control.

    Returns:
        Bits by lag with their control and error.

    Raises:
        SettingError: `read` is none of the three.
    """
    if read not in ("h", "c", "hc"):
        raise SettingError(f"stored: `read` must be 'h', 'c' or 'hc', got {read!r}.")
    parts = [layer.values[q] for q in read if q in layer.values]
    states = torch.cat(parts or [layer.values["h"]], -1).detach()
    notes = []
    if states.shape[2] > READ:
        notes.append(f"Probes read {READ} random projections of a state's {states.shape[2]:,} numbers.")
        states = states @ torch.randn(
            states.shape[2], READ, generator=torch.Generator().manual_seed(seed)
        ).to(states)
    wanted = layer.x if target is None else target
    symbols = not wanted.is_floating_point()
    wanted, order = (_codes(wanted), [-1]) if symbols else _channels(wanted.double(), layer.mask)
    lengths = layer.mask.sum(1)
    shortest = int(lengths.min())
    lags = lag_grid(shortest) if lags is None else lags[lags < shortest]
    rng = torch.Generator().manual_seed(seed)
    held, words = _held_out(layer, rng)
    count = int(layer.mask.sum())
    if count > SAMPLES and not at_end:
        notes.append(f"Probes were fitted to, and scored on, {SAMPLES:,} of {count:,} states for each lag.")
    if len(lags) < shortest:
        notes.append(f"What is stored and what is used was measured at {len(lags)} of {shortest:,} lags.")
    groups = _groups(wanted, layer.mask, symbols)
    rows = []
    for k in lags:
        made = [_at_lag(int(k), layer, states, wanted, *g, held, at_end, symbols, rng) for g in groups]
        rows.append(Probed(*(torch.cat(column) for column in zip(*made, strict=True))))
    seen = Probed(*(torch.stack(column) for column in zip(*rows, strict=True)))
    last = [_last(seen, c, symbols) for c in range(seen.bits.shape[1])]
    best = max(range(len(last)), key=lambda c: (last[c], float(seen.bits[last[c], c])), default=0)
    horizon = int(lags[last[best]]) if last and last[best] >= 0 else -1
    channel = -1 if symbols or horizon < 0 else order[best]
    fit = seen.fit.mean(1) if seen.fit.shape[1] else torch.zeros(len(lags), dtype=torch.float64)
    total = math.nan if symbols else float(torch.trapezoid(fit, lags.double())) + float(fit[0])
    return Stored(
        lags, seen.bits.sum(1), seen.control.sum(1), seen.error.square().sum(1).sqrt(), seen.alone.sum(1),
        total, horizon, channel, horizon == int(lags[-1]), words, notes,
    )  # fmt: skip


def lag_grid(T: int, count: int = 24) -> Tensor:
    """About `count` lags from 0 to T - 1, evenly spaced in their logarithm; all of them where T is small."""
    if count >= T:
        return torch.arange(T)
    grid = torch.logspace(0, math.log10(T), count).round().long() - 1
    lags: Tensor = torch.unique(torch.cat((torch.arange(8), grid)).clamp(0, T - 1))
    return lags


def _held_out(layer: Layer, rng: torch.Generator) -> tuple[Tensor, str]:
    """(N, T) bool, a third of the sequences, or the last third of the time where there are fewer than six."""
    N, T = layer.mask.shape
    held = torch.zeros(N, T, dtype=torch.bool)
    if N >= 6:
        held[torch.randperm(N, generator=rng)[: max(2, N // 3)]] = True
        return held, f"{max(2, N // 3)} of {N} sequences"
    held[:, T - T // 3 :] = True
    return held, f"the last third of the time of {N} sequence{'s' if N > 1 else ''}"


def _codes(x: Tensor) -> Tensor:
    """(N, T) symbols numbered by frequency, the rarest as one."""
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    rank = torch.empty_like(counts)
    rank[counts.argsort(descending=True)] = torch.arange(len(values))
    return rank[inverse].clamp(max=SYMBOLS - 1)


class Probed(NamedTuple):
    """What one probe found for each channel (C,), or for symbols (1,); stacked over lags (K, C)."""

    bits: Tensor
    control: Tensor
    error: Tensor
    "standard error of `bits`"
    alone: Tensor
    "bits from x_t alone"
    fit: Tensor
    "R² of numbers, the share that is right of symbols"
    unknown: Tensor
    "bits there are to know: the entropy of symbols; infinite for numbers"


def _channels(x: Tensor, mask: Tensor) -> tuple[Tensor, list[int]]:
    """The channels of the largest variance, and which they are."""
    x = x if x.dim() == 3 else x[..., None]
    spread = x[mask].var(0)
    best = spread.argsort(descending=True)[:CHANNELS]
    best = best[spread[best] > 1e-12]
    return x[..., best], best.tolist()


def _groups(wanted: Tensor, mask: Tensor, symbols: bool) -> list[tuple[Tensor, Tensor]]:
    """Targets (N, T, C') or (N, T), each with the (T,) steps at which they differ between the sequences.

    In order of channels, so that neighbours with the same steps share a probe.
    """
    T, C = mask.shape[1], 1 if symbols else wanted.shape[2]
    where = torch.ones(C, T, dtype=torch.bool, device=mask.device)
    if not symbols and len(mask) >= 6:
        count = mask.sum(0).clamp(min=1)[:, None]
        mean = (wanted * mask[..., None]).sum(0) / count
        spread = ((wanted - mean).square() * mask[..., None]).sum(0) / count  # (T, C)
        differs = (spread > 1e-9 * spread.amax(0)).T
        where = torch.where(differs.any(1, keepdim=True), differs, where)
    groups: list[tuple[Tensor, Tensor]] = []
    first = 0
    for c in range(1, C + 1):
        if c == C or not torch.equal(where[c], where[first]):
            groups.append((wanted if symbols else wanted[..., first:c], where[first]))
            first = c
    return groups


def _last(seen: Probed, c: int, symbols: bool) -> int:
    """The place of the last lag of equation (3) for one channel; -1 where there is none."""
    bits, error = seen.bits[:, c], seen.error[:, c]
    floor = torch.maximum(seen.control[:, c], seen.alone[:, c]).clamp(min=0)
    gain = bits - floor
    share = gain / seen.unknown[:, c].clamp(min=1e-12) if symbols else 1 - 4.0**-gain
    over = (gain > 2 * error) & (share >= SHARE)
    over &= symbols | (4.0**-floor - 4.0**-bits >= LEAST)
    near = torch.cat((over[1:], over[-1:])) | torch.cat((over[:1], over[:-1]))
    kept = (over & (near | (gain > 4 * error))).nonzero().flatten()
    return int(kept[-1]) if len(kept) else -1


def _at_lag(
    k: int,
    layer: Layer,
    states: Tensor,
    wanted: Tensor,
    target: Tensor,
    where: Tensor,
    held: Tensor,
    at_end: bool,
    symbols: bool,
    rng: torch.Generator,
) -> Probed:
    """What is read of `target`, which differs between sequences at the steps `where`, at one lag."""
    T = layer.mask.shape[1]
    usable = layer.mask.clone()
    if layer.reverse:  # the reversed layer's past lies to the right
        usable[:, T - k :] = False
        usable &= torch.cat((layer.mask[:, k:] & where[k:], torch.zeros_like(layer.mask[:, :k])), 1)
    else:
        usable[:, :k] = False
        usable[:, k:] &= where[: T - k]
        if at_end:
            last = layer.mask.sum(1)[:, None] - 1
            usable &= torch.arange(T)[None] == last
    n, t = usable.nonzero(as_tuple=True)
    if len(n) > SAMPLES:
        some = torch.randperm(len(n), generator=rng)[:SAMPLES].sort().values
        n, t = n[some], t[some]
    then = target[n, t + k if layer.reverse else t - k]
    now = wanted[n, t]
    now = torch.nn.functional.one_hot(now, SYMBOLS).double() if symbols else now
    test, group = held[n, t], n if layer.mask.shape[0] >= 6 else t * 8 // T + 8 * n
    if test.sum() < 4 or (~test).sum() < 8:
        none = torch.zeros(1 if symbols else target.shape[2], dtype=torch.float64)
        return Probed(none, none, none + 1, none, none, none + math.inf)
    probe: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _soft if symbols else _ridge
    now_at = states[n, t].double()
    bits, error, fit, unknown = probe(now_at, then, test, group)
    order = torch.arange(len(then))
    for side in (test, ~test):
        places = side.nonzero().flatten()
        order[places] = places[torch.randperm(len(places), generator=rng)]
    control = probe(now_at, then[order], test, group)[0]
    alone = probe(now, then, test, group)[0] if k else torch.zeros_like(bits)
    return Probed(bits, control, error, alone, fit, unknown)


def _ridge(x: Tensor, y: Tensor, test: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bits, their error, R² and infinity of each channel."""
    x = torch.cat(((x - x[~test].mean(0)) / (x[~test].std(0) + 1e-6), torch.ones(len(x), 1).to(x)), 1)
    gram, cross = x[~test].T @ x[~test], x[~test].T @ y[~test]
    best: tuple[Tensor, Tensor] | None = None
    for strength in (1e-3, 1e-1, 10.0, 100.0):  # chosen by leave-one-out on the fitting part
        inverse = torch.linalg.inv(gram + strength * torch.eye(len(gram)).to(x))
        weights = inverse @ cross
        leverage = ((x[~test] @ inverse) * x[~test]).sum(1, keepdim=True).clamp(max=0.999)
        left_out = ((y[~test] - x[~test] @ weights) / (1 - leverage)).square().mean()
        if best is None or left_out < best[0]:
            best = left_out, weights
    wrong = (y[test] - x[test] @ (best[1] if best else cross)).square()
    spread = (y[test] - y[~test].mean(0)).square()
    share = (wrong.mean(0) / spread.mean(0).clamp(min=1e-12)).clamp(min=1e-6)
    bits = (-0.5 * share.log2()).clamp(min=0)
    score = (wrong / wrong.mean(0).clamp(min=1e-12) - spread / spread.mean(0).clamp(min=1e-12)) / (
        2 * math.log(2)
    )
    return bits, _error(score, group[test]), (1 - share).clamp(min=0), torch.full_like(bits, math.inf)


def _soft(x: Tensor, y: Tensor, test: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bits, their error, the share that is right and the entropy of the symbols, each (1,)."""
    x = torch.cat(((x - x[~test].mean(0)) / (x[~test].std(0) + 1e-6), torch.ones(len(x), 1).to(x)), 1)
    count, (seen, said) = int(y.max()) + 1, (x[~test], y[~test])
    weights = torch.zeros(x.shape[1], count, dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(seen @ weights, said) + 1e-3 * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(objective)
    with torch.no_grad():
        wrong = torch.nn.functional.cross_entropy(x[test] @ weights, y[test], reduction="none") / math.log(2)
    share = (torch.bincount(said, minlength=count).double() + 0.5) / (len(said) + 0.5 * count)
    prior = -share.log2()[y[test]]
    right = (wrong < 1).double().mean()[None]
    gain = (prior - wrong)[:, None]
    return gain.mean(0).clamp(min=0), _error(gain, group[test]), right, prior.mean()[None]


def _error(scores: Tensor, group: Tensor) -> Tensor:
    """Standard error (C,) of the mean of scores (M, C) over groups: steps of one sequence are not
    independent.
    """
    names, inverse = group.unique(return_inverse=True)
    if len(names) < 2:
        return scores.std(0) / len(scores) ** 0.5 if len(scores) > 1 else torch.ones_like(scores[0])
    sums = torch.zeros(len(names), scores.shape[1]).to(scores).index_add(0, inverse, scores)
    counts = (
        torch.zeros(len(names), 1).to(scores).index_add(0, inverse, torch.ones(len(scores), 1).to(scores))
    )
    gaps = sums - counts * scores.mean(0)
    return gaps.square().sum(0).sqrt() / counts.sum()
