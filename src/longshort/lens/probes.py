"""What is stored: how many bits about the input k steps ago a linear probe reads from the state.

    (1)  real inputs   bits(k) = -½ log2(1 - R²(k)), summed over channels; R² on held-out sequences, ridge
    (2)  symbols       bits(k) = H(x) - CE(k), cross-entropy on held-out sequences, of a softmax that leaves
                       a fiftieth to chance

Each third of the sequences is read by a probe that was fitted to the others (`regression`). Both are lower
bounds of the mutual information in expectation ((1) for Gaussian residuals of channels that do not repeat
each other), and subject to sampling error. A probe that was fitted to shuffled targets is the control. Two
rivals of the state show what the input's own correlation gives away without a memory of k steps: a probe of
x_t, and one of x_t, its squares, cubes and random tanh features, with the inputs just before, half as many as
the lag, so far as 256 numbers hold them, or eight. A layer makes nonlinear features of the latest inputs too,
and those are no memory. Of symbols the rival knows x_t. A probe proves presence, never use.

A channel is probed at the steps at which it differs between the sequences: of a constant nothing can be
stored, and a channel that speaks at the first step alone would drown in its own silence. With b(k) the bits
of a channel, b0(k) the larger of its control and of what its best rival reads, and S the standard error of
their difference over sequences,

    (3)  stored at lag k: b(k) > b0(k) + q S, and the probe explains a tenth of what b0 leaves open,
         1 - 4^-(b(k) - b0(k)) >= 0.1, and a hundredth of the channel, 4^-b0(k) - 4^-b(k) >= 0.01;
         of symbols a tenth of their entropy, b(k) - b0(k) >= 0.1 H(x)

with q the quantile of Student's t at which, of all lags and channels tried, one in twenty looks would find a
lag where nothing is stored; at lags that fewer than six sequences tell of nothing is claimed. Channels that
differ at the same steps are also tested together, each by its own spread: a symbol written as several
channels is one thing to keep. The stored horizon is the last such lag of any channel, or of channels
together, whether or not earlier ones fail. Of numbers, a lag of which no neighbour is one must hold by 2 q S;
a symbol of one step is seen at the last lags alone, where few others are averaged with it.

Source: Jaeger (2001) for memory capacity; Hewitt & Liang (2019) for the control; Dunn (1961) for q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SettingError
from .regression import Reading, doubt, reading
from .replay import Layer

CHANNELS = 64
"""Input channels that are probed: those of the largest variance at the steps at which they differ."""
GROUPS = 8
"""Sets of steps at which channels differ, each with probes of its own; beyond, channels are probed at every
step."""
SAMPLES = 4000
"""States a probe is fitted to and scored on, at most, for each lag."""
READ = 256
"""Numbers of a state that a probe reads; a larger state is projected at random to so many: still a lower
bound."""
SHARE = 0.1
"""Of what rivals and chance leave open, the share that a probe must explain for a lag to count."""
LEAST = 0.01
"""And the share of the channel itself: rivals may leave next to nothing of it open."""
FEATURES = 64
"""Random features of today's input, at most: as many as the state has numbers."""
LATEST = 8
"""Latest inputs that a rival of the probe knows, at a lag twice as long; more where `READ` numbers do."""
BLOCKS = 16
"""Blocks of time of one sequence that count as independent where there are fewer than six."""
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
    "(K,) standard error of `bits`, over sequences (or blocks of time where there are fewer than six)"
    from_input: Tensor
    "(K,) from the latest inputs alone, the best rival: correlation of the input, not memory"
    capacity: float
    "sum over all lags of R², at most the number of state variables for white input; NaN for symbols"
    horizon: int
    "largest lag of equation (3) for any channel, or for channels together; or -1"
    channel: int
    """the input channel that is stored for so long, of channels together the one that is read best; -1 for
    symbols, or where nothing is stored"""
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
    wanted = _codes(wanted) if symbols else wanted.double().reshape(*wanted.shape[:2], -1)
    today = _today(wanted, layer.mask, min(FEATURES, states.shape[2]), seed)
    groups = [Group(wanted, [-1], torch.ones_like(layer.mask[0]))] if symbols else _groups(wanted, layer.mask)
    tried = sum(len(group.channels) for group in groups)
    if not symbols and tried == CHANNELS < wanted.shape[2]:
        notes.append(f"Probes look for {CHANNELS} of {wanted.shape[2]:,} channels: those that differ most.")
    shortest = int(layer.mask.sum(1).min())
    lags = lag_grid(shortest) if lags is None else lags[lags < shortest]
    rng = torch.Generator().manual_seed(seed)
    folds, words = _folds(layer, rng)
    count = int(layer.mask.sum())
    if count > SAMPLES and not at_end:
        notes.append(f"Probes were fitted to, and scored on, {SAMPLES:,} of {count:,} states for each lag.")
    if len(lags) < shortest:
        notes.append(f"What is stored and what is used was measured at {len(lags)} of {shortest:,} lags.")
    tests = len(lags) * sum(len(g.channels) + (len(g.channels) > 1) for g in groups)
    rows = []
    for k in lags:
        places = [_places(int(k), layer, group.where, at_end, rng) for group in groups]
        made = [
            _at_lag(int(k), layer, (states, today), group, at, folds, tests, rng)
            for group, at in zip(groups, places, strict=True)
        ]
        rows.append(Probed(*(torch.cat(column) for column in zip(*made, strict=True))))
    seen = Probed(*(torch.stack(column) for column in zip(*rows, strict=True)))
    horizon, channel = _longest(seen, lags, [channel for group in groups for channel in group.channels])
    fit = seen.fit.mean(1) if groups else torch.zeros(len(lags), dtype=torch.float64)
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


def _folds(layer: Layer, rng: torch.Generator) -> tuple[Tensor, str]:
    """(N, T) int64 which third each state is of: of the sequences, or of the time where there are fewer than
    six.
    """
    N, T = layer.mask.shape
    if N >= 6:
        thirds = torch.arange(N)[torch.randperm(N, generator=rng)] * 3 // N
        return thirds[:, None].expand(N, T), f"each third of {N} sequences, fitted to the others"
    words = f"each third of the time of {N} sequence{'s' if N > 1 else ''}, fitted to the others"
    return (torch.arange(T) * 3 // T)[None].expand(N, T), words


def _codes(x: Tensor) -> Tensor:
    """(N, T) symbols numbered by frequency, the rarest as one."""
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    rank = torch.empty_like(counts)
    rank[counts.argsort(descending=True)] = torch.arange(len(values))
    return rank[inverse].clamp(max=SYMBOLS - 1)


def _today(x: Tensor, mask: Tensor, count: int, seed: int) -> list[Tensor]:
    """What a layer without memory could make of today's input, each (N, T, D): numbers (N, T, C) as they are,
    and with their squares, cubes and `count` random tanh features; of symbols (N, T) which it is.
    """
    if not x.is_floating_point():
        return [torch.nn.functional.one_hot(x, SYMBOLS).double()]
    rng = torch.Generator().manual_seed(seed)
    centre, scale = x[mask].mean(0), x[mask].std(0)
    z = ((x - centre) / (scale + 1e-6 * scale.max().clamp(min=1e-12))).clamp(-5, 5)
    if z.shape[2] > READ:
        z = z @ torch.randn(z.shape[2], READ, generator=rng).to(z) / z.shape[2] ** 0.5
    weights = torch.randn(z.shape[2], count, generator=rng).to(z) / z.shape[2] ** 0.5
    mixed = (z @ weights + torch.randn(count, generator=rng).to(z)).tanh()
    powers = [z.square(), z**3] if z.shape[2] <= CHANNELS else []
    return [z, torch.cat((z, *powers, mixed), 2)]


def _latest(k: int, reverse: bool, today: list[Tensor], n: Tensor, t: Tensor) -> list[Tensor]:
    """What is known at the steps (n, t) without a memory that reaches k steps back, each (M, D): today's
    input, with its features, and with the inputs just before.
    """
    plain, *wide = (x[n, t] for x in today)
    if not wide or k < 4:
        return [plain, *wide]
    back, most = -1 if reverse else 1, max(LATEST, READ // plain.shape[1])
    before = torch.cat([today[0][n, t - back * j] for j in range(1, min(k // 2, most))], 1)
    if before.shape[1] > READ:
        rng = torch.Generator().manual_seed(0)
        before = before @ torch.randn(before.shape[1], READ, generator=rng).to(before)
    return [plain, torch.cat((*wide, before), 1)]


class Group(NamedTuple):
    """Channels that differ between the sequences at the same steps."""

    target: Tensor
    "(N, T, C) numbers, or (N, T) symbols"
    channels: list[int]
    "which of the input they are; -1 for symbols"
    where: Tensor
    "(T,) bool"


class Probed(NamedTuple):
    """What probes found at one lag for each channel (C,), or for symbols (1,); stacked over lags (K, C)."""

    bits: Tensor
    control: Tensor
    error: Tensor
    "standard error of `bits`"
    alone: Tensor
    "bits from the latest inputs alone"
    fit: Tensor
    "R² of numbers, the share that is right of symbols"
    holds: Tensor
    "int64, 1 where equation (3) holds of the channel or of its group, 2 where it needs no neighbour"


def _groups(x: Tensor, mask: Tensor) -> list[Group]:
    """The channels that differ most, by the steps at which they differ between the sequences.

    A channel that differs at half of the steps or more, and any beyond so many groups, is asked for at all.
    """
    T, C = mask.shape[1], x.shape[2]
    keep = mask[..., None]
    spread = x[mask].var(0, correction=0)
    where = torch.ones(C, T, dtype=torch.bool, device=x.device)
    if len(mask) >= 6:
        count = keep.sum(0).clamp(min=1)
        mean = (x * keep).sum(0) / count
        each = ((x - mean).square() * keep).sum(0) / count  # (T, C)
        differs = (each > 1e-9 * each.amax(0)).T
        some = differs.any(1) & (differs.sum(1) < T / 2)
        where[some] = differs[some]
        spread = torch.where(some, (each * differs.T).sum(0) / differs.sum(1).clamp(min=1), spread)
    best = spread.argsort(descending=True, stable=True)[:CHANNELS]
    sets: dict[tuple[bool, ...], list[int]] = {}
    for c in sorted(best[spread[best] > 1e-12].tolist()):
        steps = tuple(where[c].tolist())
        sets.setdefault(steps if steps in sets or len(sets) < GROUPS else (True,) * T, []).append(c)
    return [Group(x[..., own], own, torch.tensor(steps)) for steps, own in sets.items()]


def _places(k: int, layer: Layer, where: Tensor, at_end: bool, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences (M,) and steps (M,) of the states that are read at lag k."""
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
    return n, t


def _at_lag(
    k: int,
    layer: Layer,
    sources: tuple[Tensor, list[Tensor]],
    group: Group,
    places: tuple[Tensor, Tensor],
    folds: Tensor,
    tests: int,
    rng: torch.Generator,
) -> Probed:
    """What is read of one group at one lag, from the states and from today's input, and whether it holds."""
    (n, t), (states, today), C = places, sources, len(group.channels)
    then, fold = group.target[n, t + k if layer.reverse else t - k], folds[n, t]
    names = n if layer.mask.shape[0] >= 6 else t * BLOCKS // layer.mask.shape[1] + BLOCKS * n
    symbols = not then.is_floating_point()
    order = torch.arange(len(then))
    for part in fold.unique():
        own = (fold == part).nonzero().flatten()
        order[own] = own[torch.randperm(len(own), generator=rng)]
    now = states[n, t].double()
    made = reading(now, then if symbols else torch.cat((then, then[order]), 1), fold, names)
    if made is None:
        none = torch.zeros(C, dtype=torch.float64)
        return Probed(none, none, none + 1, none, none, none.long())
    mixed = reading(now, then[order], fold, names) if symbols else made.part(slice(C, None))
    made = made if symbols else made.part(slice(0, C))
    rivals = []
    if k:
        inputs = _latest(k, layer.reverse, today, n, t)
        rivals = [one for one in (reading(x, then, fold, names) for x in inputs) if one is not None]
    return _judged(made, mixed or made, rivals, tests)


def _judged(made: Reading, mixed: Reading, rivals: list[Reading], tests: int) -> Probed:
    """Equation (3) for each channel, and for all together."""
    control, none = mixed.bits(), torch.zeros(made.wrong.shape[1], dtype=torch.float64)
    alone = torch.stack([none, *(rival.bits() for rival in rivals)]).amax(0)
    holds = _holds(made, control, rivals, tests)
    if made.wrong.shape[1] > 1:
        together = _holds(made.pooled(), mixed.pooled().bits(), [one.pooled() for one in rivals], tests)
        holds = torch.maximum(holds, together)
    return Probed(made.bits(), control, made.error()[0], alone, made.share(), holds)


def _holds(made: Reading, control: Tensor, rivals: list[Reading], tests: int) -> Tensor:
    """(C,) int64, 1 where equation (3) holds against the best of the rivals for each target, 2 where it does
    with 2 q, or of symbols.
    """
    wrong = torch.stack([made.plain, *(rival.wrong for rival in rivals)])
    best = wrong.mean(1).argmin(0)
    rival = wrong[best, :, torch.arange(len(best))].T
    error, groups = made.error(rival)
    bits = made.bits()
    floor = torch.maximum(control, Reading(rival, made.plain, made.group, made.symbols).bits())
    gain = bits - floor
    limit = doubt(tests, groups) * error
    if made.symbols:
        return 2 * ((gain > limit) & (gain >= SHARE * made.plain.mean(0)))
    much = (1 - 4.0**-gain >= SHARE) & (4.0**-floor - 4.0**-bits >= LEAST)
    return much * ((gain > limit).long() + (gain > 2 * limit).long())


def _longest(seen: Probed, lags: Tensor, channels: list[int]) -> tuple[int, int]:
    """The last lag at which anything is stored, and the channel: -1 where there is none, or of symbols."""
    far = [_last(seen.holds[:, c]) for c in range(len(channels))]
    if not far or max(far) < 0:
        return -1, -1
    gain = seen.bits - torch.maximum(seen.control, seen.alone)
    best = max(range(len(far)), key=lambda c: (far[c], float(gain[far[c], c])))
    return int(lags[far[best]]), channels[best]


def _last(holds: Tensor) -> int:
    """The place of the last of lags (K,) that counts: with a neighbour, or where it needs none."""
    over = (holds > 0).tolist()
    near = [any(over[max(k - 1, 0) : k] + over[k + 1 : k + 2]) for k in range(len(over))]
    return max((k for k, is_over in enumerate(over) if is_over and (near[k] or holds[k] > 1)), default=-1)
