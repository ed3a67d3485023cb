"""The numbers of a look as one JSON value, small enough for a file that is sent around.

Colour layers go as 8 bits with their range, curves and the units of the theatre as float32, all in base64.
Where the limit asks for it, first sequences and then units and steps are left out, and the page says so.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .account import has_ledger
from .memory_findings import diagnosis
from .replay import QUANTITIES, Layer, zoneout
from .vocabulary import NOTE, WORDS

if TYPE_CHECKING:
    from .looking import Horizons, Look

SEQUENCES, STEPS, UNITS, PINNED = 5, 1000, 128, 8
"""At most so many sequences, last steps, units in a strip, and units with exact numbers in a layer."""
TOKEN = 200
"""Letters of a token that go into the page."""


def payload(look: Look, limit: float) -> dict[str, Any]:
    """All that the page shows.

    Args:
        look: the numbers.
        limit: bytes that the strips and exact units may take together, in base64.

    Returns:
        A value that JSON can hold.
    """
    trace, part = look.trace, look.trace.layer(look.layer)
    N, T = part.mask.shape
    notes = list(look.notes)
    plan = _plan(look, limit, notes)
    rows, first = plan["sequences"], T - plan["steps"]
    if first:
        notes.append(
            f"The page shows the last {plan['steps']:,} of {T:,} steps; the horizons and the statistics of "
            "units cover all of them."
        )
    if rows < N:
        notes.append(f"It shows {rows} of {N} sequences; the statistics are of all of them.")
    names = [*look.names, *(f"{n + 1}" for n in range(len(look.names), N))]
    layers = [_layer(look, layer, plan, first) for layer in trace.layers.values()]
    call = trace.calls[0]
    source = call.x if look.source is None or not look.source.is_floating_point() else look.source
    channels = source[:rows, first:].transpose(1, 2)
    strongest = channels.float().std((0, 2)).argsort(descending=True)[:6].sort().values
    named = len(look.channels) == source.shape[2]
    labels = look.channels if named else [f"channel {c}" for c in range(source.shape[2])]
    lengths = part.mask.sum(1).tolist()
    return {
        "words": WORDS,
        "scheme": NOTE,
        "vocabulary": look.vocabulary,
        "title": look.title,
        "notes": notes,
        "findings": [vars(finding) for finding in look.findings()],
        "difference": trace.difference,
        "tolerance": trace.tolerance,
        "steps": plan["steps"],
        "first": first,
        "total": T,
        "sequences": [{"name": names[n], "length": max(1, lengths[n] - first)} for n in range(rows)],
        "channels": [labels[c] for c in strongest.tolist()],
        "input": _floats(channels[:, strongest]),
        "tokens": None
        if look.tokens is None
        else [[str(w)[:TOKEN] for w in r[first:]] for r in look.tokens[:rows]],
        "layers": layers,
        "measured": list(trace.layers).index(look.layer),
        "horizon": _horizon(look),
        "rivers": [
            {"layer": r.layer, "gates": r.gates, "norms": _floats(r.norms[:, first:])} for r in look.rivers
        ],
        "riverOf": "The gradient is that of the loss."
        if look.used
        else "The gradient is that of the last answer.",
        "influence": _influence(look, rows, first),
        "units": _units(look),
        "film": look.film,
    }


def _plan(look: Look, limit: float, notes: list[str]) -> dict[str, int]:
    """How many sequences, steps, units and exact units fit."""
    layers = list(look.trace.layers.values())
    N, T = layers[0].mask.shape
    plan = {
        "sequences": min(N, SEQUENCES),
        "steps": min(T, STEPS),
        "units": min(max(layer.units for layer in layers), UNITS),
        "pinned": PINNED,
    }

    def size() -> float:
        total = 0
        for layer in layers:
            count = len(QUANTITIES[layer.kind])
            pinned = min(plan["pinned"], layer.units)
            total += (
                plan["sequences"] * plan["steps"] * (count * min(plan["units"], layer.units) + 28 * pinned)
            )
        return total * 4 / 3

    for name, least in (
        ("sequences", 2),
        ("units", 64),
        ("sequences", 1),
        ("units", 16),
        ("pinned", 2),
        ("steps", 64),
    ):
        while size() > limit and plan[name] > least:
            plan[name] = max(least, plan[name] // 2 if name in ("units", "steps") else plan[name] - 1)
    while size() < 0.8 * limit and plan["pinned"] < 64:
        plan["pinned"] += 1
    if size() > limit:
        plan["pinned"] -= 1
    for layer in layers:
        if plan["units"] < layer.units:
            notes.append(
                f"Of {layer.name} it shows {plan['units']} of {layer.units:,} units: those that the loss "
                f"needs most, "
                f"then those with the longest memory."
            )
    return plan


def _rank(look: Look, layer: Layer) -> list[int]:
    """Units, first those that the loss needs, then those that remember long."""
    half = look.half_lives.get(layer.name)
    order = half.order() if half else list(range(layer.units))
    cut = look.surgery if look.surgery is not None and layer.name == look.layer else None
    needed = [j for j, rise in sorted(cut.units.items(), key=lambda p: -p[1]) if rise > 0] if cut else []
    half_way = [
        needed[k // 2] if k % 2 == 0 else order[k // 2] for k in range(2 * min(len(needed), len(order)))
    ]
    return list(dict.fromkeys([*half_way, *order]))


def _layer(look: Look, layer: Layer, plan: dict[str, int], first: int) -> dict[str, Any]:
    seen, rows = plan["sequences"], _rank(look, layer)[: plan["units"]]
    half, health = look.half_lives.get(layer.name), look.healths[layer.name]
    if half is not None:
        rows.sort(key=half.order().index)
    pinned = _rank(look, layer)[: plan["pinned"]]
    values = dict(layer.values)
    projected = values["h"].shape[-1] != layer.units
    strips = {
        q: [
            _bytes(values[q][n, first:, [j for j in rows if j < values[q].shape[-1]]].T, q)
            for n in range(seen)
        ]
        for q in QUANTITIES[layer.kind]
        if not (projected and q == "h")
    }
    v = layer.variant
    still = zoneout(look.trace.call_of(layer)) == (1, 1)
    plain = layer.kind == "gru" or (
        layer.kind == "lstm" and v.norm == "none" and v.cell_clip is None and v.output_activation and still
    )
    memory = "c" if layer.kind == "lstm" else "h"
    start = layer.start[-1][:, : layer.units][:, None]
    start = start[:, 0] if first == 0 or layer.reverse else values[memory][:, first - 1]
    kept = {q: values[q] for q in QUANTITIES[layer.kind] if q != "h" or layer.kind != "lstm"}
    if not has_ledger(layer):
        kept |= {"keep": values["log_keep"], "write": values["write"]}
        kept |= {"opened": 1 - values["z"]} if layer.kind == "gru" else {}
    return {
        "name": layer.name,
        "kind": layer.kind,
        "reverse": layer.reverse,
        "rows": rows,
        "strips": strips,
        "open": {g: _list(s) for g, s in health.open.items()},
        "shut": {g: _list(s) for g, s in health.shut.items()},
        "pinned": {
            "units": pinned,
            "values": {q: _floats(t[:seen, first:, pinned].transpose(1, 2)) for q, t in kept.items()},
            "start": _floats(start[:seen, pinned]),
        },
        "ledger": has_ledger(layer),
        "theatre": bool(plain),
    }


def _horizon(look: Look) -> dict[str, Any]:
    from .looking import Horizons

    part = look.trace.layer(look.layer)
    half = look.half_lives.get(look.layer)
    this = look.name or (f"this {part.kind.upper()}" if look.others else "this model")
    runs = {this: [Horizons(part.kind, look.flow, look.stored, look.used)]}
    for name, others in look.others.items():
        runs.setdefault(name, []).extend(others)
    models = [_curves(name, several) for name, several in runs.items() if several]
    for k, model in enumerate(models):
        model["shade"] = sum(other["kind"] == model["kind"] for other in models[:k])
    longest = max(
        (max(m[c]["lags"]) for m in models for c in ("learnable", "stored", "used") if m.get(c)), default=1
    )
    flow, stored = look.flow, look.stored
    foot = []
    if flow is not None:
        foot.append(f"The gradient at lag 0 has size {flow.scale:.2e}.")
    if stored is not None:
        foot.append(
            "Stored: the last lag at which a probe explains a tenth or more of "
            + ("a symbol's entropy" if math.isnan(stored.capacity) else "what the latest inputs leave open")
            + f", beyond chance and doubt; probes are scored on {stored.held_out}."
        )
        if not math.isnan(stored.capacity):
            foot.append(f"Memory capacity (the sum of R² over lags) {stored.capacity:.1f}.")
    if look.used is not None and look.used.note:
        foot.append(look.used.note)
    if look.others:
        foot.append("Other cells are comparable at equal numbers of weights, over several seeds.")
    return {
        "models": models,
        "required": look.required,
        "half": [] if half is None else _list(half.upper),
        "censored": [] if half is None else half.upper_censored.tolist(),
        "length": look.length,
        "layer": look.layer,
        "asked": look.asked,
        "longest": max(longest, look.required or 0, 1),
        "sentence": diagnosis(look),
        "foot": " ".join(foot),
    }


def _curves(name: str, runs: Sequence[Horizons]) -> dict[str, Any]:
    """One model's curves: the median over its seeds, and the band they span."""
    made: dict[str, Any] = {"name": name, "kind": runs[0].kind, "seeds": len(runs), "ends": {}}
    flows = [run.flow for run in runs if run.flow is not None]
    if flows:
        carried = [flow.carousel for flow in flows if flow.carousel is not None]
        made["learnable"] = {
            "lags": flows[0].lags.tolist(),
            **_band("full", [flow.full for flow in flows]),
            "carousel": _list(torch.stack(carried).median(0).values) if carried else None,
        }
        made["ends"]["learnable"] = _end([(flow.horizon, flow.censored) for flow in flows])
    probed = [run.stored for run in runs if run.stored is not None]
    if probed:
        made["stored"] = {
            "lags": probed[0].lags.tolist(),
            **_band("bits", [one.bits for one in probed]),
            "control": _list(torch.stack([one.control for one in probed]).median(0).values),
            "error": _list(torch.stack([one.error for one in probed]).median(0).values),
        }
        made["ends"]["stored"] = _end([(one.horizon, one.censored) for one in probed])
    cut = [run.used for run in runs if run.used is not None]
    if cut:
        made["used"] = {
            "lags": cut[0].lags.tolist(),
            **_band("zero", [one.zero for one in cut]),
            "mean": _list(torch.stack([one.mean for one in cut]).median(0).values),
        }
        made["ends"]["used"] = _end([(one.horizon, one.censored) for one in cut])
    return made


def _band(name: str, curves: Sequence[Tensor]) -> dict[str, Any]:
    """A curve's median over seeds, and with several the least and the most at each lag."""
    every = torch.stack(list(curves))
    found = {name: _list(every.median(0).values)}
    return found | ({"band": [_list(every.amin(0)), _list(every.amax(0))]} if len(every) > 1 else {})


def _end(horizons: Sequence[tuple[int, bool]]) -> dict[str, Any]:
    """A horizon's (lower) median over seeds, and their range."""
    order = sorted(horizons)
    value, censored = order[(len(order) - 1) // 2]
    return {"value": value, "censored": censored, "least": order[0][0], "most": order[-1][0]}


def _influence(look: Look, rows: int, first: int) -> dict[str, Any] | None:
    made = look.influence
    if made is None:
        return None
    order = [m for m in ("donor", "ig", "gradient", "ledger") if m in made.steps]
    return {
        "methods": {m: _floats(made.steps[m][:rows, first:]) for m in order},
        "complete": {m: list(v) for m, v in made.complete.items()},
        "agreement": [[a, b, rho] for (a, b), rho in made.agreement.items() if not math.isnan(rho)],
        "warmup": None if made.warmup is None else _floats(made.warmup[first:]),
        "name": look.answer or f"Answer {made.output}",
        "answers": _list(made.answer[:rows]),
    }


def _units(look: Look) -> dict[str, Any]:
    half, cut, driven = look.half_lives.get(look.layer), look.surgery, look.driven.get(look.layer)
    units = look.trace.layer(look.layer).units
    return {
        "layer": look.layer,
        "half": [] if half is None else _list(half.upper),
        "average": [] if half is None else _list(half.steps),
        "censored": [] if half is None else half.upper_censored.tolist(),
        "screen": [0.0] * units if cut is None else _list(cut.screen),
        "exact": {} if cut is None else {str(j): rise for j, rise in cut.units.items()},
        "gates": {} if cut is None else cut.gates,
        "loss": None if cut is None else cut.loss,
        "shares": {} if driven is None else {g: s.mean(0).tolist() for g, s in driven.shares.items()},
    }


def _list(values: Tensor | Sequence[float]) -> list[float]:
    """Numbers with four digits."""
    return [float(f"{float(v):.4g}") for v in values]


def _floats(values: Tensor) -> dict[str, Any]:
    array = np.ascontiguousarray(values.detach().cpu().numpy().astype("<f4"))
    return {"type": "f4", "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def _bytes(values: Tensor, quantity: str) -> dict[str, Any]:
    """8 bits with their range: gates 0 to 1, signed values symmetric about 0."""
    array = values.detach().cpu().double().numpy()
    size = max(float(np.abs(array).max(initial=0)), 1e-9)
    low, high = (0.0, 1.0) if quantity in "ifozr" else (-size, size)
    scaled = np.clip(np.round((array - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    data = base64.b64encode(np.ascontiguousarray(scaled).tobytes()).decode()
    return {"type": "u8", "shape": list(scaled.shape), "lo": low, "hi": high, "data": data}
