"""Plain sentences: what was measured, against which threshold, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .memory import HalfLife, Health
from .probes import Stored
from .replay import Layer
from .vocabulary import worded

if TYPE_CHECKING:
    from .looking import Look

SHORT = 3.0
"""A half-life in steps below which a cell hardly remembers."""
MOSTLY = 0.9
"""The share of steps from which on a gate counts as saturated, a readout as blocked."""
FEW = 0.2
"""The share of units above which dead or saturated ones are worth a warning."""
LONGEST = 3
"""Units of the longest memory that are named, and silenced."""
LITTLE = 0.01
"""The share of what the whole past is worth below which a unit or a gate is not needed."""
MUCH = 0.1
"""The share of all influence from which on a step is named."""
ORDER = {"warning": 0, "note": 1, "good": 2}


@dataclass(frozen=True)
class Finding:
    """One sentence about a model."""

    tone: str
    "warning, note or good"
    text: str
    "with symbols in braces (`vocabulary.worded`)"
    number: float
    "what was measured"
    threshold: float
    "against what"
    remedy: str
    "what to do, or where to look; may be empty"
    view: str
    "the view of the page that shows it"

    def line(self, vocabulary: str = "classic") -> str:
        """The sentence and its remedy, in words, on one line."""
        mark = {"warning": "!", "note": "·", "good": "✓"}[self.tone]
        return f"{mark} {worded(self.text, vocabulary)} {worded(self.remedy, vocabulary)}".rstrip()


def find(look: Look) -> list[Finding]:
    """All findings about a model, those first that say what it remembers and whether it uses it.

    Args:
        look: its numbers; what was not measured is not spoken of.

    Returns:
        At most a dozen: the three horizons, the longest memories, then warnings, then the rest.
    """
    first = [*_unmeasured(look), *_horizons(look), *_longest(look)]
    then = [*_memory(look), *_units(look), *_flow(look), *_use(look)]
    then.sort(key=lambda f: ORDER[f.tone])
    return [*[*first, *then][:11], *_replay(look)]


def _unmeasured(look: Look) -> Iterator[Finding]:
    if look.used is None:
        yield Finding(
            "note",
            "Whether the model uses its memory was not measured: that takes a loss.",
            0.0,
            0.0,
            "Pass loss=lambda out: ... that gives the loss of each sequence (N,) or step (N, T).",
            "findings",
        )


def _replay(look: Look) -> Iterator[Finding]:
    gap, allowed = look.trace.difference, look.trace.tolerance
    yield Finding(
        "good",
        f"The replay agrees with the model's own output to {gap:.0e}; everything below is about this "
        "very model.",
        gap,
        allowed,
        "",
        "findings",
    )


def _steps(number: int, censored: bool) -> str:
    return f"{'more than ' if censored else ''}{number} step{'s' if number != 1 else ''}"


def _horizons(look: Look) -> Iterator[Finding]:
    flow, stored, used, need = look.flow, look.stored, look.used, look.required
    parts = []
    if flow is not None:
        parts.append(f"learnable over {_steps(flow.horizon, flow.censored)}")
    if stored is not None:
        parts.append(f"stored for {_kept(stored)} ({_stored_of(look)})")
    if used is not None:
        parts.append(f"used over {_steps(used.horizon, used.censored)}")
    if not parts:
        return
    text = f"Three horizons of {look.layer}: the memory is " + ", ".join(parts)
    text += f"; the task needs {need}." if need else "."
    enough = need is None or used is None or used.censored or used.horizon >= need
    number = float(used.horizon if used is not None else flow.horizon if flow is not None else stored.horizon)  # type: ignore[union-attr]
    yield Finding(
        "warning" if not enough else "good" if need else "note",
        text,
        number,
        float(need or 0),
        diagnosis(look),
        "horizon",
    )


def _stored_of(look: Look) -> str:
    """Whose input a probe looked for, and what of it lasts."""
    whose = look.asked or f"what `{look.layer}` reads"
    channel = look.stored.channel if look.stored is not None else -1
    if channel < 0:
        return f"of {whose}"
    names, source = look.channels, look.source
    own = source is not None and source.dim() == 3 and len(names) == source.shape[2]
    own &= look.asked != f"what `{look.layer}` reads"
    name = f"`{names[channel]}`" if own else f"channel {channel}"
    return f"of {whose}, {name} longest"


def diagnosis(look: Look) -> str:
    """What the three horizons say together, as a sentence; empty where one is missing."""
    flow, stored, used = look.flow, look.stored, look.used
    if flow is None or stored is None or used is None:
        return ""
    need = look.required or max(4, look.length // 10)
    needed = f"the {need} that are needed" if look.required else f"{need}, a tenth of the sequence or four"
    L, S, U = flow.horizon, max(stored.horizon, 0), used.horizon
    long = [need <= L, need <= S, need <= U]
    if long[2] and not long[1]:
        other = ", or in another layer" if len(look.trace.layers) > 1 else ""
        return (
            f"It uses {_steps(U, used.censored)} and a linear probe reads {S} from the state: what is older "
            f"is coded nonlinearly{other}."
        )
    if long[2]:
        far = " as far as is needed" if look.required else ""
        return f"It keeps and uses its past{far}; verify it on longer sequences."
    if not any(long):
        return (
            f"All three are below {needed}: raise the bias of the {{f}} (1 to ln of the lag needed), train "
            "on longer windows, or be content if the task needs no more."
        )
    if long[0] and long[1]:
        kept = f"{U or 'None'} of the {_kept(stored)} that are stored {'is' if U < 2 else 'are'} used, "
        kept += f"and gradient reaches {L}"
        if look.required:
            return (
                f"{kept}, so what is needed could be learnt: train longer, and look whether the readout "
                "takes in the units that keep longest."
            )
        return (
            f"{kept}, so more could be learnt: if the task needs {f'no more than {U}' if U else 'no past'}, "
            "a simpler model would do; if it does, train longer, or look at the readout."
        )
    if long[1]:
        return (
            f"{_kept(stored)} are stored and gradient reaches {L}: it cannot learn to use more than the {U} "
            "it uses. Add a loss at more steps, or start the {f} at long time scales (bias ln u, u uniform "
            "up to the lag needed)."
        )
    return (
        f"Gradient reaches {L} steps, and the past is overwritten after {S}: give it more units, or look "
        "whether the {i} stays open."
    )


def _kept(stored: Stored) -> str:
    return _steps(max(stored.horizon, 0), False) + (" or more" if stored.censored else "")


def _worth(look: Look) -> float:
    """How much the loss rises without any past, or without the unit that it misses most."""
    rises = list(look.surgery.units.values()) if look.surgery is not None else []
    past = 0.0 if look.used is None else float(torch.minimum(look.used.zero, look.used.mean)[0])
    return max([past, 0.0, *rises])


def _longest(look: Look) -> Iterator[Finding]:
    """Which cells keep longest, and whether the loss needs them: one sentence."""
    half, layer = look.half_lives.get(look.layer), look.trace.layers[look.layer]
    if half is None:
        return
    units = look.surgery.units if look.surgery is not None else {}
    need = torch.tensor([units.get(j, -math.inf) for j in range(layer.units)])
    first, far = half.order(need)[:LONGEST], int(half.upper_censored.sum())
    named = []
    for j in first:
        average = "" if half.upper[j] < 1.2 * half.steps[j] else f", {half.text(j)} on average"
        named.append(f"unit {j} (half-life {half.upper_text(j)}{average}{_silenced(units.get(j))})")
    text = f"Longest memory of {layer.name}, by half-lives of the {{c}} that a quarter of the sequences "
    text += f"exceed: {_listed(named)}"
    if far > len(first):
        needed = "; of those tried the loss needs these most" if units else ""
        text += f", and {far - len(first)} more of {layer.units} units that keep beyond the sequence{needed}"
    cut, worth, remedy = look.surgery, _worth(look), ""
    if cut is not None and look.used is not None and look.used.horizon == 0:
        text += "; the model uses none of the past, and so none of them as a memory"
    elif cut is not None and units:
        tried = f"of the {len(units)} tried"
        needs = [j for j in first if units.get(j, 0.0) >= LITTLE * worth > 0]
        best, rise = max(units.items(), key=lambda pair: pair[1])
        if not needs:
            text += "; the model does without any one of them"
        elif len(needs) < len(first):
            without = [str(j) for j in first if j not in needs]
            text += f"; the model uses {_listed([str(j) for j in needs])} and does without {_listed(without)}"
        else:
            text += f"; the model uses {'all of them' if len(first) > 1 else 'it'}"
        if best in needs and len(first) > 1:
            text += f", and misses unit {best} most {tried}"
        elif best not in first and rise > 0:
            text += (
                f", and misses unit {best} most {tried} (half-life {half.upper_text(best)}; silenced, the "
                f"loss rises from {cut.loss:.2g} by {rise:.2g})"
            )
        every = [j for j, cost in units.items() if cost >= LITTLE * worth]
        remedy = _anew(look, half, every) if every and worth > 0 else ""
    yield Finding("note", f"{text}.", float(half.upper[first[0]]), LITTLE * worth, remedy, "units")


def _anew(look: Look, half: HalfLife, units: Sequence[int]) -> str:
    """Says so where what is used reaches beyond what the cells that are used can hold."""
    reach = look.used.horizon if look.used is not None else 0
    left = 2 ** -(reach / max(float(half.upper[j]) for j in units))
    if bool(half.upper_censored[list(units)].any()) or left > 0.05:
        return ""
    share = "less than 0.1%" if left < 1e-3 else f"{left:.1%} or less"
    below = "" if look.layer == next(iter(look.trace.layers)) else " or by the layer below"
    return (
        f"By the half-lives of all that it misses {share} of a cell is left after the {reach} steps that are "
        f"used: what is kept so long is written anew, through the recurrence{below}, or spread over many."
    )


def _silenced(rise: float | None) -> str:
    if rise is None:
        return ""
    return f"; silenced, the loss {f'rises by {rise:.2g}' if rise > 0 else 'does not rise'}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _reaches(look: Look) -> bool:
    """Whether the memory goes as far back as is needed, so far as anybody knows."""
    if look.required is None:
        return True
    if look.used is not None:
        return look.used.censored or look.used.horizon >= look.required
    return look.stored is not None and look.stored.horizon >= look.required


def _memory(look: Look) -> Iterator[Finding]:
    for name, half in look.half_lives.items():
        layer, H = look.trace.layers[name], look.trace.layers[name].units
        longest = half.order()[0]
        short, need = int((half.steps < SHORT).sum()), look.required or 0
        cost = look.surgery.elsewhere.get((name, longest)) if look.surgery is not None else None
        best = (
            f"unit {longest} keeps its {{c}} longest (half-life {half.upper_text(longest)} in a quarter of "
        )
        best += f"the sequences{_silenced(cost)})"
        enough = int(((half.upper >= need / 3) | half.upper_censored).sum())
        text = f"{short} of {H} cells of {layer.name} forget half in under {SHORT:.0f} steps"
        if not _reaches(look) and short > FEW * H and need > SHORT and enough < max(1, H // 10):
            yield Finding(
                "warning",
                f"{text}, where {need} are needed; {best}.",
                float(short),
                FEW * H,
                f"Raise the bias of the {{f}}: ln {need} ≈ {math.log(need):.1f} gives half-lives near "
                f"{0.69 * need:.0f} steps.",
                "units",
            )
            continue
        text += ", on average over all sequences and steps"
        if name != look.layer:
            text += f"; {best}"
        elif not short:
            continue
        remedy = "" if name == look.layer else f'To measure this layer: look(..., layer="{name}").'
        yield Finding("note", f"{text}.", float(short), FEW * H, remedy, "units")


def _units(look: Look) -> Iterator[Finding]:
    for name, health in look.healths.items():
        yield from _unit_counts(name, look.trace.layers[name], health)


def _unit_counts(name: str, layer: Layer, health: Health) -> Iterator[Finding]:
    H = layer.units
    for what, flags, remedy in (
        (
            "never change (dead)",
            health.dead,
            "They can be pruned; many of them: lower the learning rate or start anew.",
        ),
        ("hold one value (stuck)", health.stuck, "They act as a bias; look at their {f} in the score."),
    ):
        count = int(flags.sum())
        if count:
            tone = "warning" if count > FEW * len(flags) else "note"
            yield Finding(
                tone,
                f"{count} of {len(flags)} units of {name} {what}.",
                count,
                FEW * len(flags),
                remedy,
                "units",
            )
    for gate, share in health.shut.items():
        shut, opened = int((share > MOSTLY).sum()), int((health.open[gate] > MOSTLY).sum())
        if shut + opened > FEW * H and gate != "f" and gate != "z":
            yield Finding(
                "note",
                f"The {{{gate}}} of {shut + opened} of {H} units of {name} is saturated at {MOSTLY:.0%} "
                "of the steps "
                f"or more ({opened} open, {shut} shut).",
                shut + opened,
                FEW * H,
                "There it passes almost no gradient; a weight decay or smaller inputs keep it in range.",
                "score",
            )
    blocked = int((health.blocked > MOSTLY).sum())
    if blocked and layer.kind == "lstm":
        yield Finding(
            "warning" if blocked > FEW * H else "note",
            f"{blocked} of {H} cells of {name} are so large that tanh hides their changes ({{c}} beyond ±3).",
            blocked,
            FEW * H,
            "Scale the inputs down, or clip the cell.",
            "units",
        )
    drifting = int(((health.drift * layer.mask.shape[1] > 1.5) & ~health.stuck).sum())
    if drifting > FEW * H:
        yield Finding(
            "note",
            f"{drifting} of {H} cells of {name} grow with time over the whole sequence.",
            drifting,
            FEW * H,
            "Counting cells do; verify the model on sequences longer than those it was trained on.",
            "score",
        )


def _flow(look: Look) -> Iterator[Finding]:
    flow = look.flow
    if flow is None:
        return
    peak = float(flow.full.max())
    if peak > 10:
        yield Finding(
            "warning",
            f"Going back in time the gradient grows to {peak:.3g} times what it is at the last step.",
            peak,
            10.0,
            "Clip gradients, and lower the learning rate if they are clipped often.",
            "horizon",
        )
    if flow.carousel is not None and len(flow.full) > 8:
        lag = min(max(flow.horizon, 4), len(flow.full) - 1)
        share = float(flow.carousel[lag] / flow.full[lag].clamp(min=1e-30))
        yield Finding(
            "note",
            f"At lag {lag} the {{carousel}} alone carries {share:.2g} times the size of the whole gradient.",
            share,
            1.0,
            "Far below 1, what reaches that far goes through the gates; far above, the two cancel."
            if not 0.3 < share < 3
            else "Near 1 it is the path by which the past is learnt.",
            "horizon",
        )


def _use(look: Look) -> Iterator[Finding]:
    cut = look.surgery
    if cut is not None and cut.units:
        rise, worth = max(cut.units.values()), _worth(look)
        if 0 < rise < LITTLE * worth:
            yield Finding(
                "note",
                f"Silencing one unit of {look.layer} raises the loss by at most {rise:.2g} (of the "
                f"{len(cut.units)} tried), cutting off the past by {worth:.2g}: the memory is spread over "
                "many.",
                rise,
                LITTLE * worth,
                "",
                "units",
            )
        elif rise > 0 and look.layer not in look.half_lives:  # else `_longest` names it
            best = max(cut.units, key=lambda j: cut.units[j])
            yield Finding(
                "note",
                f"Of the {len(cut.units)} units of {look.layer} tried, silencing unit {best} raises the loss "
                f"most: from {cut.loss:.4g} by {rise:.3g}.",
                rise,
                0.0,
                "",
                "units",
            )
        held = {k: v for k, v in cut.gates.items() if k.endswith((".f", ".z"))}
        for name, cost in held.items():
            if worth > 0 and cost < LITTLE * worth:
                yield Finding(
                    "note",
                    f"Holding the {{{name[-1]}}} of {name[:-2]} at its mean costs {max(cost, 0.0):.2g}: it "
                    "decides nothing, and the layer is a leaky integrator.",
                    cost,
                    LITTLE * worth,
                    "A layer with fixed decay would do as well.",
                    "units",
                )
    yield from _influence(look)


def _place(back: int) -> str:
    return f"{_steps(back, False)} before the last" if back else "of the last step"


def _influence(look: Look) -> Iterator[Finding]:
    made = look.influence
    if made is None or "donor" not in made.steps:
        return
    total = made.steps["donor"].abs().nan_to_num().mean(0)
    if total.sum() <= 0:
        return
    share = total / total.sum()
    order = share.argsort(descending=True).tolist()
    step = order[0]
    others = [f"{_place(len(share) - 1 - t)} {share[t]:.0%}" for t in order[1:6] if share[t] >= MUCH]
    yield Finding(
        "note",
        f"The answer rests most on the {{x}} {_place(len(share) - 1 - step)}: {share[step]:.0%} of what "
        f"replacing single steps changes{'; then ' + ', '.join(others) if others else ''}.",
        float(share[step]),
        1 / len(share),
        "",
        "influence",
    )
    if "ig" not in made.steps:
        return
    other = made.steps["ig"].abs().nan_to_num().mean(0)
    shared = float(torch.minimum(share, other / other.sum().clamp(min=1e-12)).sum())
    if shared < 0.5:
        yield Finding(
            "warning",
            f"Integrated gradients and donor swap share only {shared:.0%} of what they lay on the steps.",
            shared,
            0.5,
            "Trust the donor swap: gradients fade with distance even where the input matters.",
            "influence",
        )
