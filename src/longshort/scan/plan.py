"""Who runs a call, and why not a faster one. A decision about sizes and types, never about values."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ..errors import BackendError
from . import plain, segments
from .call import Backend, Call


@lru_cache(maxsize=1)
def backends() -> tuple[Backend, ...]:
    """Return every backend, fastest first; the last two refuse nothing."""
    found = []
    for name in ("gpu", "cpu"):
        if importlib.util.find_spec(f"{__package__}.{name}") is not None:
            found.append(importlib.import_module(f"{__package__}.{name}").BACKEND)
    return (*found, plain.PLAIN, plain.DEFINITION)


@dataclass(frozen=True)
class Plan:
    """Which backend runs a call, which faster ones cannot and why, and what training keeps.

    >>> import torch
    >>> from longshort.scan import plan
    >>> print(plan(torch.zeros(2, 5, 3), torch.zeros(16, 3), torch.zeros(16, 4), backend="plain"))
    plain; training keeps 960 bytes
    """

    backend: Backend
    passed_over: tuple[tuple[str, str], ...]
    "(name, reason) of each faster backend"
    kept_bytes: int
    "what a training call keeps until its backward pass, besides its own inputs and weights"
    how: str | None = None
    "in which way the backend runs it, where it has several"

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name

    def __str__(self) -> str:
        refusals = [f"not {name}: {why}" for name, why in self.passed_over]
        name = self.name if self.how is None else f"{self.name}, {self.how}"
        return "; ".join([name, *refusals, f"training keeps {self.kept_bytes:,} bytes"])


def check_name(caller: str, backend: str) -> None:
    """Check the name of a backend, of which a call that fits it may know more.

    Raises:
        BackendError: there is none of that name.
    """
    names = ["auto", *(known.name for known in backends())]
    if backend not in names:
        raise BackendError(
            f"{caller}: `backend` must be one of {', '.join(map(repr, names))}, got {backend!r}."
        )


def choose(call: Call) -> tuple[Backend, tuple[tuple[str, str], ...]]:
    """Return the first backend that does not refuse a call, and the refusals before it.

    Raises:
        BackendError: the call names a backend that does not exist or that refuses it. A named backend is
            never replaced behind the caller's back.
    """
    found = _CHOICES.get(call.kind)
    if found is None:
        if len(_CHOICES) > 1000:
            _CHOICES.clear()
        found = _CHOICES[call.kind] = _chosen(call)
    return found


_CHOICES: dict[Call, tuple[Backend, tuple[tuple[str, str], ...]]] = {}
"""Choices made, by the kind of a call: sound because a backend may not look at what that blanks out."""


def _chosen(call: Call) -> tuple[Backend, tuple[tuple[str, str], ...]]:
    wanted, known = call.options.backend, backends()
    check_name("lstm", wanted)
    passed_over: list[tuple[str, str]] = []
    for backend in known:
        if wanted not in ("auto", backend.name):
            continue
        if wanted == "auto" and backend.device not in (None, call.device):
            continue
        why = backend.refuses(call)
        if why is None:
            every = call.options.checkpoint_every
            return (backend if every is None else segments.segmented(backend, every)), tuple(passed_over)
        passed_over.append((backend.name, why))
    raise BackendError(
        f"lstm: backend {wanted!r} cannot run this call: {passed_over[-1][1]}. "
        f"Use backend='auto' to let longshort pick one that can."
    )


def planned(call: Call) -> Plan:
    """Return the plan of a call."""
    backend, passed_over = choose(call)
    saved = sum(prod(shape) * dtype.itemsize for shape, dtype in backend.saves(call))
    wide, narrow = call.wide.itemsize, call.dtype.itemsize
    kept = (
        call.N
        * call.T
        * (call.P * narrow + wide * call.H * (call.options.keep_cells + 4 * call.options.keep_gates))
    )
    return Plan(backend, passed_over, saved + kept, backend.said(call) if backend.said is not None else None)
