"""Which step do these times keep?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .calendar import Step, Times

_DAY = 86_400_000_000
_LENGTHS = (
    ("week", 7 * _DAY),
    ("day", _DAY),
    ("hour", _DAY // 24),
    ("minute", 60_000_000),
    ("second", 1_000_000),
)


def infer(groups: Sequence[Times]) -> Step | None:
    """The step that most neighbours keep.

    Args:
        groups: the times of each series, in order and without duplicates.

    Returns:
        The most common distance, the shorter of two equally common ones; months, quarters and years where
        every stamp stands at the same place of its month (or all at its end); business days where a daily
        table skips every weekend. None where no series has two rows.

    >>> infer([np.array(["2024-01-31", "2024-02-29", "2024-03-31"], "datetime64[us]")])
    Step(count=1, unit='month', end=True)
    """
    gaps = np.concatenate([np.diff(times.astype(np.int64)) for times in groups])
    if len(gaps) == 0:
        return None
    common = most_common(gaps)
    if groups[0].dtype.kind != "M":
        return Step(common, "integer")
    stamps = np.concatenate(groups).astype("datetime64[us]")
    if common >= 28 * _DAY:
        end = at_month_end(groups)
        edge = stamps.astype("datetime64[M]") + int(end)
        if len(np.unique(stamps - edge.astype("datetime64[us]"))) == 1:
            months = [np.diff(times.astype("datetime64[M]").astype(np.int64)) for times in groups]
            return Step(most_common(np.concatenate(months)), "month", end)
    if common == _DAY and gaps.max() > _DAY and np.is_busday(stamps.astype("datetime64[D]")).all():
        return Step(1, "business day")
    return _fixed(common)


def at_month_end(groups: Sequence[Times]) -> bool:
    """Whether every stamp is the last day of its month, and the months are not all Februaries of 28 days."""
    days = np.concatenate(groups).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    last = days + 1 == (months + 1).astype("datetime64[D]")
    return bool(last.all() and (days - months.astype("datetime64[D]")).max() >= np.timedelta64(28, "D"))


def finer(step: Step, groups: Sequence[Times]) -> Step:
    """The longest step on which all these times stand, for a message."""
    gaps = np.concatenate([np.diff(times.astype(np.int64)) for times in groups])
    common = int(np.gcd.reduce(gaps))
    return _fixed(common) if step.calendar else Step(common, "integer")


def most_common(gaps: np.ndarray) -> int:
    """The value that occurs most often, the smallest of several."""
    values, counts = np.unique(gaps, return_counts=True)
    return int(values[np.argmax(counts)])


def _fixed(microseconds: int) -> Step:
    unit, length = next(((u, n) for u, n in _LENGTHS if microseconds % n == 0), ("microsecond", 1))
    return Step(microseconds // length, unit)
