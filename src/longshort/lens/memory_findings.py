"""Sentences about memory: how far back it reaches, which cells keep longest, whether they are used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from .finding import FEW, LITTLE, LONGEST, SHORT, Finding, steps_text, worth_of
from .gradients import Flow
from .memory import HalfLife
from .probes import Stored
from .usage import Used

if TYPE_CHECKING:
    from .looking import Look


def unmeasured(look: Look) -> Iterator[Finding]:
    """Without a loss: that use was not measured."""
    if look.used is None:
        yield Finding(
            "note",
            "Whether the model uses its memory was not measured: that takes a loss.",
            0.0,
            0.0,
            "Pass loss=lambda out: ... that gives the loss of each sequence (N,) or step (N, T).",
            "findings",
        )


def horizons(look: Look) -> Iterator[Finding]:
    """How far back the past is learnable, stored and used."""
    flow, stored, used, need = look.flow, look.stored, look.used, look.required
    parts = []
    if flow is not None:
        parts.append(f"learnable over {steps_text(flow.horizon, flow.censored)}")
    if stored is not None:
        parts.append(f"stored for {_kept(stored)} ({_stored_of(look)})")
    if used is not None:
        parts.append(f"used over {steps_text(used.horizon, used.censored)}")
    if not parts:
        return
    text = f"Three horizons of {look.layer}: the memory is " + ", ".join(parts)
    text += f"; the task needs {need}." if need else "."
    number = float(used.horizon if used is not None else flow.horizon if flow is not None else stored.horizon)  # type: ignore[union-attr]
    yield Finding(_tone(look), text, number, float(need or 0), diagnosis(look), "horizon")


def _tone(look: Look) -> str:
    """A warning where the need is not met by what is used, or, where that is unknown, by what is stored and
    learnable; good where it is met by all three.
    """
    if look.required is None:
        return "note"
    met = [_met(one, look.required) for one in (look.used, look.stored, look.flow) if one is not None]
    decides = met[:1] if look.used is not None else met
    return "warning" if not all(decides) else "good" if all(met) else "note"


def _met(one: Used | Stored | Flow, need: int) -> bool:
    """Whether a horizon is as far as is needed, or as far as could be measured."""
    return one.censored or one.horizon >= need


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
    if flow is None or stored is None:
        return ""
    if used is None:
        return "" if look.required is None else _unused(flow, stored, look.required)
    need = look.required or max(4, look.length // 10)
    needed = f"the {need} that are needed" if look.required else f"{need}, a tenth of the sequence or four"
    L, S, U = flow.horizon, max(stored.horizon, 0), used.horizon
    long = [need <= L, need <= S, need <= U]
    if long[2] and not long[1]:
        other = ", or in another layer" if len(look.trace.layers) > 1 else ""
        return (
            f"It uses {steps_text(U, used.censored)} and a linear probe reads {S} from the state: what is "
            f"older is coded nonlinearly{other}, or more sequences are needed to read it."
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


def _unused(flow: Flow, stored: Stored, need: int) -> str:
    """What is learnable and stored says of a need, where use was not measured."""
    reach, kept = steps_text(flow.horizon, flow.censored), _kept(stored)
    if _met(flow, need) and _met(stored, need):
        return "What is needed is stored; whether it is used takes a loss to say."
    if _met(stored, need):
        return (
            f"What is needed is stored, and gradient reaches {reach}: more than that it cannot learn to use. "
            "Start the {f} at long time scales (bias ln u, u uniform up to the lag needed)."
        )
    if _met(flow, need):
        return (
            f"Gradient reaches {reach}, and a linear probe reads {kept} from the state: what is needed could "
            "be learnt. Train longer, or give it more units, or more sequences to read it from."
        )
    return (
        f"Both are below the {need} that are needed: raise the bias of the {{f}} (1 to ln of the lag "
        "needed), or train on longer windows."
    )


def _kept(stored: Stored) -> str:
    return steps_text(max(stored.horizon, 0), False) + (" or more" if stored.censored else "")


def longest_memory(look: Look) -> Iterator[Finding]:
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
    cut, worth, remedy = look.surgery, worth_of(look), ""
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
            text += f"; the model uses {f'these {len(first)}' if len(first) > 1 else 'it'}"
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
    one = look.used or look.stored
    return one is not None and _met(one, look.required)


def half_lives(look: Look) -> Iterator[Finding]:
    """How many cells of each layer forget soon: a warning only where the need is not met."""
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
