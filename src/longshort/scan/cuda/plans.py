"""Which of the ways runs a call: all steps in one launch, forward by teams of warps, or one launch a step."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from ...errors import SettingError
from ..call import Call
from . import team_plan, tiling
from .machine import Machine, Properties


def persistent(call: Call, machine: Machine, plan: str | None = None) -> tiling.Pair | None:
    """Return how a call is cut to run in one launch, or None where one launch a step runs it.

    Where it shares the device, its blocks that exchange fit its part, so that no other call waits for room.

    LONGSHORT_CUDA_PLAN, or `plan`, names one: "step", "persistent" (where it fits), the default, or "alone":
    persistent only where no block waits for another.
    """
    wanted, tf32 = wanted_plan(plan), call.dtype == torch.float32 and machine.tf32()
    part = machine.properties.part(machine.sharing())
    whole = _cut(machine.properties, call, wanted, tf32)
    if part != machine.properties:
        found = _cut(part, call, wanted, tf32)
        more = whole is not None and whole.backward is not None  # the whole device runs both ways
        if found is not None and found.exchanges and (found.backward is not None or not more):
            return found
    return whole


def wanted_plan(plan: str | None) -> str:
    """Return the plan that the call or LONGSHORT_CUDA_PLAN names."""
    wanted = plan or os.environ.get("LONGSHORT_CUDA_PLAN") or "persistent"
    if wanted not in ("step", "alone", "persistent"):
        raise SettingError(
            f"LONGSHORT_CUDA_PLAN must be 'step', 'alone' or 'persistent', got {wanted!r}. Unset it."
        )
    return wanted


def teams(call: Call, machine: Machine, plan: str | None = None) -> team_plan.Teams | None:
    """Return how a call is cut to run forward by teams of warps, or None where another plan runs it.

    They run what would else be one launch a step: elsewhere other kernels are faster.
    """
    if wanted_plan(plan) != "persistent" or team_plan.refuses(call) is not None:
        return None
    if persistent(call, machine, plan) is not None:
        return None
    part = machine.properties.part(machine.sharing())
    return _teams(part, call, call.dtype == torch.float32 and machine.tf32())


@lru_cache(maxsize=4096)
def _teams(properties: Properties, call: Call, tf32: bool) -> team_plan.Teams | None:
    return team_plan.cut(properties, call, tf32)


@lru_cache(maxsize=4096)
def _cut(properties: Properties, call: Call, wanted: str, tf32: bool) -> tiling.Pair | None:
    if wanted == "step" or tiling.refuses(call) is not None:
        return None
    if call.H > tiling.MOST_UNITS and (wanted == "alone" or call.N * call.H > tiling.MOST_CELLS):
        return None
    return tiling.pair(properties, call, tf32, waits=wanted != "alone")
