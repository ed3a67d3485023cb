"""Which inputs an answer rests on, by four methods that disagree for known reasons.

    (1)  donor     y(x) - E_d[ y(x with x_t := d_t) ],  d another sequence
    (2)  ig        Σ_c (x - b)_{t,c} ∫ dy/dx_{t,c}(b + α (x - b)) dα,  b the mean input
    (3)  gradient  Σ_c x_{t,c} dy/dx_{t,c}
    (4)  ledger    what is left in the answer of what was written at t (`account.readout`)

(2) sums to y(x) - y(b), (4) to y; how nearly is printed. (1) stays among inputs the model knows. (3) and (2)
follow gradients, which fade with distance even where the input matters (Ismail et al. 2019). All of them
reach the answer through the recurrent layer only: what passes beside it is left as it is. A constant input
shows how much is warm-up: the first steps weigh more in any recurrent net.

Source: Sundararajan, Taly & Yan (2017) for (2); Murdoch & Szlam (2017) for (4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import SettingError
from .layers import Call
from .replay import Layer, replay
from .specimen import Specimen, answers
from .trace import Trace

METHODS = ("donor", "ig", "gradient", "ledger")
FEWEST = 12
"""Steps that donors replace at least, however large the model."""


@dataclass(frozen=True)
class Influence:
    """What each step (and channel) of the input contributes to one answer at the last step."""

    output: int
    "which component of the answer"
    answer: Tensor
    "(N,) the component itself"
    steps: dict[str, Tensor]
    "method -> (N, T); NaN where a step was left out"
    channels: dict[str, Tensor]
    "method -> (N, T, C), for ig and gradient"
    complete: dict[str, tuple[float, float]]
    "method -> (largest |sum - what it should be|, relative to the largest |what it should be|)"
    agreement: dict[tuple[str, str], float]
    "Spearman correlation of |influence| over steps between two methods"
    warmup: Tensor | None
    "(T,) donor influence when the input is the same at every step: the control"
    notes: list[str] = field(default_factory=list)


def influence(
    specimen: Specimen,
    *,
    output: int | None = None,
    methods: tuple[str, ...] = METHODS,
    donors: int = 4,
    points: int = 32,
    work: float = 4e10,
    seed: int = 0,
    window: int | None = None,
    trace: Trace | None = None,
) -> Influence:
    """Measure the influence of each input step of the first recurrent layer on one answer: equations (1) to
    (4).

    Args:
        specimen: the model and its inputs; two sequences or more for donors of other sequences, else the
            donors are other steps.
        output: which component of the answer at the last step; the one with the largest spread if None.
        methods: some of "donor", "ig", "gradient", "ledger"; those that do not apply are left out with a
            note.
        donors: replacements per step.
        points: of the integral of (2), by the midpoint rule.
        work: multiplications allowed for donors; where they would be more, steps are left out, with a note.
        seed: of the choice of donors.
        window: how many last steps gradients go back through; all if None.
        trace: a trace of the same specimen, if there is one.

    Returns:
        The contributions with their completeness and agreement.

    Raises:
        SettingError: an unknown method or output.
    """
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise SettingError(
            f"influence: `methods` must be of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}."
        )
    trace = trace or specimen.trace(tolerance=float("inf"))
    call, said = trace.calls[0], answers(trace.output, trace.calls[-1]).detach()
    if output is None:
        output = int(said.var(0).argmax()) if len(said) > 1 else int(said[0].abs().argmax())
    if not 0 <= output < said.shape[1]:
        raise SettingError(f"influence: `output` must lie in 0 ... {said.shape[1] - 1}, got {output}.")
    steps: dict[str, Tensor] = {}
    channels: dict[str, Tensor] = {}
    complete: dict[str, tuple[float, float]] = {}
    notes: list[str] = []
    warmup = None
    less = 1 if call.work * 400 < work else 4 if call.work < 2e9 else 8
    points, donors = max(1, points // less), max(1, donors // less)
    if less > 1:
        notes.append(
            f"For its size, influence was measured with {points} points and "
            f"{donors} donor{'s' if donors > 1 else ''} a step."
        )
    if "gradient" in methods:
        channels["gradient"] = call.x * _gradient(specimen, call, call.x, output, window)
    if "ig" in methods:
        channels["ig"], complete["ig"] = _integrated(specimen, call, said[:, output], output, points, window)
    steps |= {name: value.sum(-1) for name, value in channels.items()}
    if "donor" in methods:
        layers = [layer for layer in trace.layers.values() if trace.call_of(layer) is call]
        places = _places(call, donors, work, _goes_on(call, layers), notes)
        steps["donor"] = _donors(specimen, call, layers, said[:, output], output, donors, places, seed)
        warmup = _warmup(specimen, call, output, places)
    if "ledger" in methods:
        _ledger(specimen, trace, said[:, output], output, steps, complete, notes)
    return Influence(output, said[:, output], steps, channels, complete, _agreement(steps), warmup, notes)


def _gradient(specimen: Specimen, call: Call, x: Tensor, output: int, window: int | None) -> Tensor:
    """The gradient of the summed answers with respect to x (N, T, C).

    Through the replay where only the last steps are wanted, and on a GPU, where fused layers refuse a
    backward pass in evaluation mode.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()

        def answer(made: Call, own: object) -> tuple[Tensor, tuple[Tensor, ...]]:
            made.x = x if made.name == call.name else made.x
            return replay(made, graph=window or 0)[:2]

        fused = x.device.type == "cpu" and (window is None or window >= x.shape[1])
        out = specimen.with_input(call.name, x) if fused else specimen.run(answer)
        said = answers(out, call)[:, output]
        found = torch.autograd.grad(said.sum(), x)[0]
    T = x.shape[1]
    if window is not None and window < T:
        found[:, : T - window] = torch.nan
    return found


def _integrated(
    specimen: Specimen, call: Call, said: Tensor, output: int, points: int, window: int | None
) -> tuple[Tensor, tuple[float, float]]:
    mean = call.x[call.mask].mean(0).expand_as(call.x)
    gap, total = call.x - mean, torch.zeros_like(call.x)
    for k in range(points):
        total += _gradient(specimen, call, mean + (k + 0.5) / points * gap, output, window)
    parts = gap * total / points
    with torch.no_grad():
        base = answers(specimen.with_input(call.name, mean), call)[:, output]
    parts = parts * call.mask[..., None]
    error = (parts.nansum((1, 2)) - (said - base)).abs().max().item()
    return parts, (error, error / max((said - base).abs().max().item(), 1e-12))


def _places(call: Call, donors: int, work: float, tails: bool, notes: list[str]) -> list[int]:
    """The steps that donors replace: all, or as many as the work allows, denser towards the end."""
    T = count = call.x.shape[1]
    lags = list(range(T))
    while count > FEWEST and _work(call, lags, donors, tails) > work:
        count = int(0.8 * count)
        grid = torch.logspace(0, math.log10(T), count).round().long() - 1
        lags = torch.unique(grid.clamp(0, T - 1)).tolist()
    if len(lags) < T:
        notes.append(
            f"Donors were put in the place of {len(lags)} of {T:,} steps, denser towards the end; the others "
            f"are left out."
        )
    return sorted(T - 1 - k for k in lags)


def _work(call: Call, lags: list[int], donors: int, tails: bool) -> float:
    """Multiplications for donors, and for the control, at each of the lags."""
    passes = sum(k + 1 for k in lags) / call.x.shape[1] if tails else len(lags)
    return call.work * passes * (donors + 1)


def _goes_on(call: Call, layers: list[Layer]) -> bool:
    """Whether the call can be run on from the state that its replay had at any step."""
    plain = call.packed is None and call.lengths is None and call.reset is None
    gated = any(layer.variant.gate_recurrence for layer in layers)
    return plain and not call.module.bidirectional and not gated


def _answers_from(
    specimen: Specimen, call: Call, layers: list[Layer], t: int, x: Tensor, output: int
) -> Tensor:
    """(N,) the answer with the inputs x (N, T - t, C) from step t on; only those steps are run if may be."""
    if t == 0 or not _goes_on(call, layers):
        whole = torch.cat((call.x[:, :t], x), 1)
        return answers(specimen.with_input(call.name, whole), call)[:, output]
    names = ("h", "c") if call.kind == "lstm" else ("h",)
    before = [torch.stack([layer.values[q][:, t - 1] for layer in layers]) for q in names]
    return answers(specimen.with_tail(call, tuple(s.to(x.dtype) for s in before), x), call)[:, output]


@torch.no_grad()
def _donors(
    specimen: Specimen,
    call: Call,
    layers: list[Layer],
    said: Tensor,
    output: int,
    donors: int,
    places: list[int],
    seed: int,
) -> Tensor:
    N, T, _ = call.x.shape
    rng = torch.Generator().manual_seed(seed)
    found = torch.full((N, T), torch.nan, dtype=call.x.dtype)
    pool = call.x[call.mask]
    for t in places:
        changed = torch.zeros_like(said)
        for _ in range(donors):
            if donors < N:  # the same step of another sequence
                other = call.x[(torch.arange(N) + int(torch.randint(1, N, (), generator=rng))) % N, t]
            else:
                other = pool[torch.randint(len(pool), (N,), generator=rng)]
            x = call.x[:, t:].clone()
            x[:, 0] = other
            changed += _answers_from(specimen, call, layers, t, x, output)
        found[:, t] = said - changed / donors
    return torch.where(call.mask, found, 0)


@torch.no_grad()
def _warmup(specimen: Specimen, call: Call, output: int, places: list[int]) -> Tensor:
    """|donor influence| of each step where all inputs are the mean: what position alone does."""
    mean = call.x[call.mask].mean(0).expand_as(call.x).clone()
    spread = call.x[call.mask].std(0)
    still = replace(call, x=mean)
    still.output, _, layers = replay(still)
    plain = answers(specimen.with_input(call.name, mean), call)[:, output]
    found = torch.full((call.x.shape[1],), torch.nan, dtype=call.x.dtype)
    for t in places:
        x = mean[:, t:].clone()
        x[:, 0] += spread
        found[t] = (_answers_from(specimen, still, layers, t, x, output) - plain).abs().mean()
    return found


def _ledger(
    specimen: Specimen,
    trace: Trace,
    said: Tensor,
    output: int,
    steps: dict[str, Tensor],
    complete: dict[str, tuple[float, float]],
    notes: list[str],
) -> None:
    """Equation (4), where the answer is a linear function of the last layer's last h: found out by trying."""
    from .account import has_ledger, readout

    layer = trace.layer()
    call = trace.call_of(layer)
    lengths = layer.mask.sum(1)
    even = bool((lengths == layer.mask.shape[1]).all())
    if has_ledger(layer) or layer.reverse or not even or layer.variant.norm == "ba2016":
        notes.append(
            has_ledger(layer) or "The ledger of an answer needs one direction and sequences of one length."
        )
        return
    weight, bias = _linear(specimen, call, layer.values["h"].shape[-1], output)
    told = layer.values["h"][:, -1] @ weight + bias
    error = (told - said).abs().max().item()
    if error > 1e-3 * max(1.0, said.abs().max().item()):
        notes.append("The answer is not linear in the last h, so it has no ledger; the cell has one.")
        return
    parts = readout(layer, weight, bias)
    steps["ledger"] = parts.contributions
    complete["ledger"] = ((parts.contributions.sum(1) + parts.rest - said).abs().max().item(), parts.residual)


def _linear(specimen: Specimen, call: Call, units: int, output: int) -> tuple[Tensor, float]:
    """The weights of the answer on the last h at the state zero: its gradient and its value there."""
    with torch.enable_grad():
        N, T, _ = call.x.shape
        h = torch.zeros(N, T, units, dtype=call.x.dtype, requires_grad=True)

        def answer(made: Call, own: object) -> tuple[Tensor, tuple[Tensor, ...]]:
            y, state, _ = replay(made)
            if made.name != call.name:
                return y, state
            final = h[:, -1][None].expand(state[0].shape[0], -1, -1)
            return h, (final, *state[1:])

        said = answers(specimen.run(answer), call)[:, output]
        if not said.requires_grad:
            return torch.zeros(units, dtype=h.dtype), float(said.mean())
        slope = torch.autograd.grad(said[0], h)[0][0, -1]
    return slope.detach(), float(said.detach().mean())


def _agreement(steps: dict[str, Tensor]) -> dict[tuple[str, str], float]:
    names = list(steps)
    return {
        (a, b): _spearman(steps[a].abs().flatten(), steps[b].abs().flatten())
        for k, a in enumerate(names)
        for b in names[k + 1 :]
    }


def _spearman(a: Tensor, b: Tensor) -> float:
    both = torch.isfinite(a) & torch.isfinite(b)
    both &= (a > 0.01 * a[both].max()) | (b > 0.01 * b[both].max())  # the order of nothings says nothing
    if both.sum() < 3:
        return float("nan")
    ranks = [v[both].argsort().argsort().double() for v in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
