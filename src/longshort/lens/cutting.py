"""What is needed: the rise of the loss when a unit is silenced or a gate is held still.

A unit is silenced by clamping its cell (h of a GRU or RNN) to its mean over all sequences and steps; a gate
is held still by the mean, per unit, of what it did. Both leave the rest of the network to respond. Ablation
proves need under this baseline, nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import SettingError
from .gradients import WHOLE, gradients_of
from .replay import GATES, QUANTITIES, Layer
from .specimen import Played, Specimen
from .trace import Trace, step_of, unit_of


@dataclass(frozen=True)
class Surgery:
    """How much the loss rises, and by what."""

    loss: float
    "of the model as it is"
    screen: Tensor
    "(H,) first-order estimate for every unit: |Σ dL/dc (mean - c)|"
    units: dict[int, float]
    "unit -> the exact rise when it is silenced, for the first of the screen"
    gates: dict[str, float]
    "layer and gate, such as 'lstm.l0.f' -> the rise when it is held at its mean"
    elsewhere: dict[tuple[str, int], float] = field(default_factory=dict)
    "layer and unit -> the rise when it is silenced, for units of other layers that were asked for"


def surgery(
    specimen: Specimen,
    layer: str | None = None,
    *,
    exact: int = 20,
    also: Mapping[str, Sequence[int]] = MappingProxyType({}),
    trace: Trace | None = None,
    screen: Tensor | None = None,
) -> Surgery:
    """Silence units and hold gates still, and measure the rise of the loss.

    All units are screened (`screened`); the first of them are silenced in turn.

    Args:
        specimen: a model, its inputs and its loss.
        layer: whose units; the last one by default. Gates of all layers are held.
        exact: how many units are silenced exactly.
        also: layer -> units that are silenced whatever the screen says, such as those of the longest memory;
            in the layer itself half of `exact` at most.
        trace: a trace of the same specimen, if there is one.
        screen: what `screened` gave for the same layer, if it was called already.

    Returns:
        The rises.

    Raises:
        SettingError: the specimen has no loss, or there is no such layer.
    """
    trace = trace or specimen.trace(tolerance=float("inf"))
    part = trace.layer(layer)
    with torch.no_grad():
        loss = specimen.losses(trace.output).mean().item()
    screen = screened(specimen, part.name, trace=trace) if screen is None else screen
    order = list(
        dict.fromkeys([*also.get(part.name, ())[: exact // 2], *screen.argsort(descending=True).tolist()])
    )[:exact]
    units = {j: ablate(specimen, trace, part.name, [j]) - loss for j in sorted(order)}
    gates = {
        f"{one.name}.{gate}": freeze(specimen, trace, one.name, gate) - loss
        for one in trace.layers.values()
        for gate in (one.gates if one.kind != "rnn" else ())
    }
    elsewhere = {
        (name, j): ablate(specimen, trace, name, [j]) - loss
        for name, several in also.items()
        for j in (several if name != part.name else ())
    }
    return Surgery(loss, screen, units, gates, elsewhere)


def screened(
    specimen: Specimen,
    layer: str | None = None,
    *,
    trace: Trace | None = None,
    window: int | None = None,
    played: Played | None = None,
) -> Tensor:
    r"""Estimate to first order, for every unit at once, how much the loss moves when it is silenced.

    $$\left|\sum_{n,t} \partial L/\partial c_{n,t,j}\,(\mu_j - c_{n,t,j})\right|$$

    Args:
        specimen: a model, its inputs and its loss.
        layer: whose units; the last one by default.
        trace: a trace of the same specimen, if there is one.
        window: how many last steps the gradient goes back through; all if None.
        played: what `specimen.replayed(graph=window)` gave with gradients on, if it was run already.

    Returns:
        (H,), at least 0.

    Raises:
        SettingError: the specimen has no loss, or there is no such layer.
    """
    trace = trace or specimen.trace(tolerance=float("inf"))
    part = trace.layer(layer)
    name = "c" if part.kind == "lstm" else "h"
    with torch.enable_grad():
        out, done, _ = played or specimen.replayed(graph=window or WHOLE)
        nodes = next(d for d in done if d.name == part.name).nodes[name]
        grads = torch.stack(gradients_of(specimen.losses(out).mean(), nodes), 1)
    values = part.values[name]
    moved = grads * (values[part.mask].mean(0) - values) * part.mask[..., None]
    return moved.sum((0, 1)).abs()


@torch.no_grad()
def ablate(specimen: Specimen, trace: Trace, layer: str, units: Sequence[int]) -> float:
    """The mean loss when cells are clamped to their mean.

    Args:
        specimen: a model, its inputs and its loss.
        trace: its trace, which the means are taken from.
        layer: such as "lstm.l0".
        units: which cells.

    Raises:
        SettingError: there is no such layer or unit.
    """
    part = trace.layer(layer)
    name = "c" if part.kind == "lstm" else "h"
    where = torch.tensor([unit_of(part, j) for j in units], dtype=torch.long)
    mean = part.values[name][part.mask].mean(0)[where]

    def edit(at: str, quantity: str, t: int, value: Tensor) -> Tensor:
        if at != layer or quantity != name:
            return value
        value = value.clone()
        value[:, where] = mean.to(value)
        return value

    return specimen.losses(specimen.replayed(edit).output).mean().item()


@torch.no_grad()
def freeze(specimen: Specimen, trace: Trace, layer: str, gate: str, value: float | None = None) -> float:
    """The mean loss when a gate is held still.

    Args:
        specimen: a model, its inputs and its loss.
        trace: its trace, which the means are taken from.
        layer: such as "lstm.l0".
        gate: i, f, g or o; r, z or n of a GRU.
        value: what to hold it at; the mean of each unit if None.

    Raises:
        SettingError: there is no such layer or gate.
    """
    part = trace.layer(layer)
    known = GATES[part.kind] if part.kind != "rnn" else ()
    if gate not in known:
        raise SettingError(
            f"freeze: `gate` must be one of {', '.join(known) or '(a plain RNN has none)'}, got {gate!r}."
        )
    held = part.values[gate][part.mask].mean(0) if value is None else torch.full((part.units,), value)

    def edit(at: str, quantity: str, t: int, now: Tensor) -> Tensor:
        return held.to(now).expand_as(now) if at == layer and quantity == gate else now

    return specimen.losses(specimen.replayed(edit).output).mean().item()


def override(
    layer: Layer, unit: int, step: int, *, sequence: int = 0, onward: bool = False, **gates: float
) -> dict[str, Tensor]:
    """What one unit of an LSTM would have done with other gates, all else as it was recorded.

    The same sum as the sliders of the page: from `step` on c_t = f c_{t-1} + i g is run again with the given
    gates at that step (or from it on); other units do not respond.

    Args:
        layer: a replayed LSTM without layer norm.
        unit: which cell.
        step: at which step the gates are overridden.
        sequence: of which sequence.
        onward: override all later steps too.
        gates: any of i, f, g, o, such as ``f=1.0``.

    Returns:
        c and out = o tanh(c), each (T,).

    Raises:
        SettingError: an unknown gate, unit or step, or no LSTM.
    """
    unknown = set(gates) - set("ifgo")
    if unknown or layer.kind != "lstm":
        raise SettingError(
            f"override: gates must be of i, f, g, o of an LSTM, got {', '.join(gates)} of a {layer.kind}."
        )
    unit_of(layer, unit)
    first = step_of(layer, step)
    own = {q: layer.values[q][sequence, :, unit].double() for q in QUANTITIES["lstm"] if q != "h"}
    T = int(layer.mask[sequence].sum())
    order = list(range(T - 1, -1, -1) if layer.reverse else range(T))
    c, out = own["c"].clone(), own["o"] * own["c"].tanh()
    before = layer.before("c")[sequence, first, unit].double()
    for place, t in enumerate(order[order.index(first) :]):
        now = {
            q: torch.as_tensor(gates.get(q, own[q][t]) if place == 0 or onward else own[q][t]) for q in "ifgo"
        }
        before = now["f"] * before + now["i"] * now["g"]
        c[t], out[t] = before, now["o"] * before.tanh()
    return {"c": c, "out": out}
