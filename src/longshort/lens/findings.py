"""Plain sentences: what was measured, against which threshold, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from .finding import FEW, LITTLE, MOSTLY, MUCH, Finding, steps_text, worth_of
from .memory import Health
from .memory_findings import half_lives, horizons, longest_memory, unmeasured
from .replay import Layer

if TYPE_CHECKING:
    from .looking import Look

ORDER = {"warning": 0, "note": 1, "good": 2}


def find(look: Look) -> list[Finding]:
    """All findings about a model, those first that say what it remembers and whether it uses it.

    Args:
        look: its numbers; what was not measured is not spoken of.

    Returns:
        At most a dozen: the three horizons, the longest memories, then warnings, then the rest.
    """
    first = [*unmeasured(look), *horizons(look), *longest_memory(look)]
    then = [*half_lives(look), *_units(look), *_flow(look), *_use(look)]
    then.sort(key=lambda f: ORDER[f.tone])
    return [*[*first, *then][:11], *_replay(look)]


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
        rise, worth = max(cut.units.values()), worth_of(look)
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
    return f"{steps_text(back, False)} before the last" if back else "of the last step"


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
