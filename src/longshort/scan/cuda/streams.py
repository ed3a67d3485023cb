"""Works that do not depend on each other, side by side: one on torch's current stream, the others beside it.

Blocks of kernels of different streams share the device's multiprocessors, so two recurrences of which each
leaves some idle take little longer than one. A cooperative kernel starts when all of its blocks have room, so
those that have none together run one after the other, and nothing waits for ever. What cuts a work for the
device asks `sharing` for how many it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_HERE = threading.local()


def sharing() -> int:
    """Return how many works share the device with that of this thread, itself included."""
    return getattr(_HERE, "works", 1)


def side_by_side(device: int, works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do works as if all of it came from the current stream.

    Args:
        device: its index.
        works:  each puts what it does on torch's current stream, and reads nothing that another writes.

    Returns:
        What each returns. The current stream has waited for all; where a work raises, that too.

    Memory: what a work allocates on another stream is kept until the current one is done with it. What the
    works read, they hold until the streams have met.

    In a CUDA graph under capture the works follow each other, with the same bits.
    """
    before = sharing()
    _HERE.works = before * len(works)
    try:
        if torch.cuda.is_current_stream_capturing():
            return [work() for work in works]
        return _parted(device, works)
    finally:
        _HERE.works = before


def _parted(device: int, works: Sequence[Callable[[], Any]]) -> list[Any]:
    current, found = torch.cuda.current_stream(device), []
    streams = [_beside(device, current.cuda_stream, k) for k in range(1, len(works))]
    for stream in streams:
        stream.wait_stream(current)
    try:
        found.append(works[0]())
        for stream, work in zip(streams, works[1:], strict=True):
            with torch.cuda.stream(stream):
                found.append(work())
    finally:
        for stream in streams:
            current.wait_stream(stream)
    for made in found[1:]:
        for tensor in _tensors(made):
            tensor.record_stream(current)
    return found


@lru_cache(maxsize=64)
def _beside(device: int, current: int, number: int) -> torch.cuda.Stream:
    """One stream for each current one, so that what it did last is over before it begins anew."""
    del current, number
    return torch.cuda.Stream(device)


def _tensors(made: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, (tuple, list)):
        for part in made:
            yield from _tensors(part)
