"""Plain sentences: what was measured, against which threshold, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .memory import HalfLife, Health
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
    """All findings about a model, warnings first.

    Args:
        look: its numbers; what was not measured is not spoken of.

    Returns:
        At most a dozen.
    """
    found = [*_replay(look), *_horizons(look), *_memory(look), *_units(look), *_flow(look), *_use(look)]
    return sorted(found, key=lambda f: ORDER[f.tone])[:12]


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
        parts.append(f"stored for {_steps(max(stored.horizon, 0), stored.censored)}")
    if used is not None:
        parts.append(f"used over {_steps(used.horizon, used.censored)}")
    if not parts:
        return
    text = "Three horizons: the memory is " + ", ".join(parts)
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


def diagnosis(look: Look) -> str:
    """What the three horizons say together, as a sentence; empty where one is missing."""
    flow, stored, used = look.flow, look.stored, look.used
    if flow is None or stored is None or used is None:
        return ""
    need = look.required or max(4, look.length // 10)
    long = [flow.horizon >= need, stored.horizon >= need, used.horizon >= need]
    if long[2] and not long[1]:
        return "It uses more than a linear probe can read from the state: what it keeps is coded nonlinearly."
    if long[2]:
        return "It keeps and uses its past as far as is asked here; verify it on longer sequences."
    if not any(long):
        return (
            "Short on all three: raise the bias of the {f} (1 to ln of the lag needed), train on longer "
            "windows, or be content if the task needs no more."
        )
    if long[0] and long[1]:
        return (
            "The past is learnable and stored, and not used: the task does not need it, or the readout "
            "ignores it. If it does not, a simpler model is fine."
        )
    if long[1]:
        return (
            "The past is kept and no gradient reaches it: it cannot learn to use it. Add a loss at more "
            "steps, or start the {f} at long time scales (bias ln u, u uniform up to the lag needed)."
        )
    return (
        "The gradient reaches far, and the past is overwritten: give it more units, or look "
        "whether the {i} stays open."
    )


def _memory(look: Look) -> Iterator[Finding]:
    for layer, half in look.half_lives.items():
        yield _half_life(look, look.trace.layers[layer], half)


def _half_life(look: Look, layer: Layer, half: HalfLife) -> Finding:
    H = layer.units
    longest = int(torch.where(half.censored, half.steps + 1, half.steps).argmax())
    short = int((half.steps < SHORT).sum())
    best = f"unit {longest} of {layer.name} keeps its {{c}} longest, with a half-life of {half.text(longest)}"
    used = look.used.horizon if look.used is not None else 0
    need = look.required or used
    enough = int(((half.steps >= need / 3) | half.censored).sum())
    if short > FEW * H and need > SHORT and enough < max(1, H // 10):
        return Finding(
            "warning",
            f"{short} of {H} cells of {layer.name} forget half in under {SHORT:.0f} steps, where {need} are "
            f"needed; {best}.",
            float(short),
            FEW * H,
            f"Raise the bias of the {{f}}: ln {need} ≈ {torch.tensor(float(need)).log().item():.1f} gives "
            f"half-lives near {0.69 * need:.0f} steps.",
            "units",
        )
    text = f"Of {H} cells {best}; {short} forget half in under {SHORT:.0f} steps."
    return Finding("note", text[0].upper() + text[1:], float(half.steps[longest]), SHORT, "", "units")


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
        best, rise = max(cut.units.items(), key=lambda pair: pair[1])
        worth = (
            rise if look.used is None else max(rise, float(torch.minimum(look.used.zero, look.used.mean)[0]))
        )
        if 0 < rise < 0.01 * worth:
            yield Finding(
                "note",
                f"Silencing one unit of {look.layer} raises the loss by at most {rise:.2g} "
                f"({len(cut.units)} were tried), cutting off the past by {worth:.2g}: the memory is spread "
                "over many.",
                rise,
                0.01 * worth,
                "",
                "units",
            )
        elif rise > 0:
            yield Finding(
                "note",
                f"Silencing unit {best} of {look.layer} raises the loss most: from {cut.loss:.4g} by "
                f"{rise:.3g}.",
                rise,
                0.0,
                "",
                "units",
            )
        held = {k: v for k, v in cut.gates.items() if k.endswith((".f", ".z"))}
        for name, cost in held.items():
            if worth > 0 and cost < 0.01 * worth:
                yield Finding(
                    "note",
                    f"Holding the {{{name[-1]}}} of {name[:-2]} at its mean costs {max(cost, 0.0):.2g}: it "
                    "decides nothing, and the layer is a leaky integrator.",
                    cost,
                    0.01 * worth,
                    "A layer with fixed decay would do as well.",
                    "units",
                )
    yield from _influence(look)


def _influence(look: Look) -> Iterator[Finding]:
    made = look.influence
    if made is None or "donor" not in made.steps:
        return
    total = made.steps["donor"].abs().nan_to_num().mean(0)
    if total.sum() <= 0:
        return
    share = total / total.sum()
    step = int(share.argmax())
    back = len(share) - 1 - step
    where = f"{_steps(back, False)} before the last" if back else "of the last step"
    yield Finding(
        "note",
        f"The answer rests most on the {{x}} {where}: {share[step]:.0%} of what "
        "replacing single steps changes.",
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
