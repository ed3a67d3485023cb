"""A step: the distance between two neighbouring rows of a series, on the calendar or in whole numbers.

Calendar time is numpy.datetime64[us] without a zone, and whole numbers are int64. Months are counted,
never approximated by days: one month after 31 January is the end of February only where every stamp of
the series stands at the end of its month.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SettingError

Times = np.ndarray[Any, np.dtype[Any]]
"""datetime64[us] or int64, of any shape."""

_FIXED = {
    "microsecond": 1,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_UNITS = ("integer", *_FIXED, "business day", *_MONTHS)
_LARGER = (
    ("second", 60, "minute"),
    ("minute", 60, "hour"),
    ("hour", 24, "day"),
    ("day", 7, "week"),
    ("month", 12, "year"),
    ("month", 3, "quarter"),
    ("quarter", 4, "year"),
)
_SHORT = {
    "us": "microsecond",
    "s": "second",
    "min": "minute",
    "m": "minute",
    "t": "minute",
    "h": "hour",
    "d": "day",
    "b": "business day",
    "bd": "business day",
    "w": "week",
    "mo": "month",
    "ms": "month",
    "q": "quarter",
    "qs": "quarter",
    "y": "year",
    "ys": "year",
}
_ENDS = {"me": "month", "qe": "quarter", "ye": "year"}


@dataclass(frozen=True)
class Step:
    """The distance between neighbouring rows.

    Args:
        count: how many units one step takes; at least 1.
        unit: "integer" for whole numbers, or "microsecond", "second", "minute", "hour", "day",
            "business day" (Monday to Friday), "week", "month", "quarter", "year". A count that makes a
            larger unit is that unit: 60 minutes are 1 hour, 3 months 1 quarter.
        end: for months and longer: stamps stand at the end of the month, whatever its length.

    Raises:
        SettingError: an unknown unit, a count below 1, or `end` where a step is shorter than a month.

    >>> Step(60, "minute")
    Step(count=1, unit='hour', end=False)
    >>> str(Step(30, "minute")), Step(30, "minute").seasons
    ('30 minutes', (48, 336))
    """

    count: int = 1
    unit: str = "integer"
    end: bool = False

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise SettingError(f"Step: `unit` must be one of {', '.join(_UNITS)}, got {self.unit!r}.")
        if self.count < 1:
            raise SettingError(f"Step: `count` must be at least 1, got {self.count}.")
        if self.end and self.unit not in _MONTHS:
            raise SettingError(f"Step: `end` needs a step of whole months, got {self.unit!r}.")
        if self.unit == "business day" and self.count != 1:
            raise SettingError(f"Step: `count` must be 1 for business days, got {self.count}.")
        for smaller, times, larger in _LARGER:
            if self.unit == smaller and self.count % times == 0:
                object.__setattr__(self, "unit", larger)
                object.__setattr__(self, "count", self.count // times)

    @classmethod
    def parse(cls, text: str | int | Step) -> Step:
        """Read a step from what a person writes.

        Args:
            text: "hour", "30 minutes", "business day", "month end", "5" or 5 (whole numbers), or the
                short forms "30min", "h", "D", "B", "W", "MS", "ME", "QS", "YS".

        Returns:
            The step; `Step.parse(str(step)) == step`.

        Raises:
            SettingError: the text is none of these.

        >>> Step.parse("30min"), Step.parse("month end")
        (Step(count=30, unit='minute', end=False), Step(count=1, unit='month', end=True))
        """
        if isinstance(text, Step):
            return text
        number, word = re.fullmatch(r"(\d*)\s*(.*)", str(text).strip().lower(), re.S).groups()  # type: ignore[union-attr]
        unit, end = word.removesuffix(" end"), word.endswith(" end")
        if unit in _SHORT and not end:
            unit = _SHORT[unit]
        elif unit in _ENDS and not end:
            unit, end = _ENDS[unit], True
        elif unit.removesuffix("s") in _UNITS[1:]:
            unit = unit.removesuffix("s")
        elif not unit and number and not end:
            unit = "integer"
        else:
            raise _no_step(text)
        return cls(int(number or 1), unit, end)

    def __str__(self) -> str:
        if self.unit == "integer":
            return str(self.count)
        plural = "" if self.count == 1 else "s"
        return f"{self.count} {self.unit}{plural}{' end' if self.end else ''}"

    @property
    def seasons(self) -> tuple[int, ...]:
        """Lengths in steps (below 100,000) of the cycles that the calendar suggests, shortest first.

        >>> Step(1, "hour").seasons, Step(1, "month").seasons, Step(1, "integer").seasons
        ((24, 168), (12,), ())
        """
        if self.unit in _MONTHS:
            months = self.count * _MONTHS[self.unit]
            return (12 // months,) if 12 % months == 0 and months < 12 else ()
        if self.unit == "business day":
            return (5,)
        if self.unit == "week":
            return (52,) if self.count == 1 else ()
        if self.unit == "integer":
            return ()
        length = self.count * _FIXED[self.unit]
        found = []
        for cycle, fewest in (("minute", 12), ("hour", 12), ("day", 2), ("week", 2)):
            season, rest = divmod(_FIXED[cycle], length)
            if rest == 0 and fewest <= season < 100_000:
                found.append(season)
        return tuple(found)

    @property
    def calendar(self) -> bool:
        """Whether times are stamps on the calendar (datetime64[us]) rather than whole numbers (int64)."""
        return self.unit != "integer"

    def add(self, time: Any, k: Any) -> Times:
        """The time `k` steps later; shapes of `time` and `k` are broadcast, `k` may be negative.

        Args:
            time: datetime64 (calendar) or integer, one or an array.
            k: integer steps, one or an array.

        Returns:
            datetime64[us] or int64; `add(add(t, a), b) == add(t, a + b)` for every t on the grid, in steps
            of months for days 1 to 28 of a month, or the last one with `end`.

        >>> str(Step(1, "month", end=True).add(np.datetime64("2024-01-31"), 1).astype("datetime64[D]"))
        '2024-02-29'
        """
        k = np.asarray(k, np.int64)
        if self.unit == "integer":
            return np.asarray(np.asarray(time, np.int64) + self.count * k)
        stamp = np.asarray(time, "datetime64[us]")
        if self.unit == "business day":
            day = stamp.astype("datetime64[D]")
            return np.asarray(
                np.busday_offset(day, k, roll="forward").astype("datetime64[us]") + (stamp - day)
            )
        if self.unit in _MONTHS:
            edge, offset = self._month(stamp)
            later = edge + (self.count * _MONTHS[self.unit]) * k
            return np.asarray(later.astype("datetime64[us]") + offset)
        return np.asarray(stamp + (self.count * _FIXED[self.unit] * k).astype("timedelta64[us]"))

    def places(self, start: Any, times: Any) -> tuple[np.ndarray, np.ndarray]:
        """How many steps each time lies after `start`, and whether it stands on the grid at all.

        Args:
            start: one time, the zero of the grid.
            times: (...) times of the same kind.

        Returns:
            index (...) int64, rounded down where a time is off the grid; on_grid (...) bool.

        >>> index, on_grid = Step(1, "hour").places(np.datetime64("2024-01-01T00"),
        ...     np.array(["2024-01-01T02:00", "2024-01-01T03:30"], "datetime64[us]"))
        >>> index, on_grid
        (array([2, 3]), array([ True, False]))
        """
        if self.unit == "integer":
            gap, length = np.asarray(times, np.int64) - np.int64(start), self.count
        elif self.unit == "business day":
            first, stamp = np.asarray(start, "datetime64[us]"), np.asarray(times, "datetime64[us]")
            days, day = stamp.astype("datetime64[D]"), first.astype("datetime64[D]")
            on_grid = np.is_busday(days) & np.equal(stamp - days, first - day)
            return np.asarray(np.busday_count(day, days), np.int64), np.asarray(on_grid)
        elif self.unit in _MONTHS:
            edge, offset = self._month(np.asarray(times, "datetime64[us]"))
            first, lead = self._month(np.asarray(start, "datetime64[us]"))
            index, rest = np.divmod((edge - first).astype(np.int64), self.count * _MONTHS[self.unit])
            return np.asarray(index), np.asarray((rest == 0) & (offset == lead))
        else:
            gap = (np.asarray(times, "datetime64[us]") - np.asarray(start, "datetime64[us]")).astype(np.int64)
            length = self.count * _FIXED[self.unit]
        index, rest = np.divmod(gap, length)
        return np.asarray(index), np.asarray(rest == 0)

    def steps(self, start: Any, stop: Any) -> int:
        """Whole steps from `start` to `stop`, rounded down; negative where `stop` comes first.

        >>> Step(1, "month").steps(np.datetime64("2023-11-01"), np.datetime64("2024-02-01"))
        3
        """
        return int(self.places(start, np.asarray(stop))[0])

    def grid(self, start: Any, length: int) -> Times:
        """`length` times from `start` on, one step apart: (length,)."""
        return self.add(start, np.arange(length))

    def text(self, time: Any) -> str:
        """One time as a person writes it: no clock where the step is whole days, no day in whole months.

        >>> Step(1, "hour").text(np.datetime64("2024-01-01T05:00")), Step(1, "month").text("2024-01-01")
        ('2024-01-01 05:00:00', '2024-01')
        """
        if self.unit == "integer":
            return str(int(time))
        stamp = np.datetime64(time, "us")
        if self.unit in _MONTHS and stamp == stamp.astype("datetime64[M]"):
            return str(stamp.astype("datetime64[M]"))
        if stamp == stamp.astype("datetime64[D]") and (
            self.unit in (*_MONTHS, "day", "week", "business day")
        ):
            return str(stamp.astype("datetime64[D]"))
        whole = stamp == stamp.astype("datetime64[s]")
        return str(stamp.astype("datetime64[s]") if whole else stamp).replace("T", " ")

    def _month(self, stamp: Times) -> tuple[Times, Times]:
        """The month edge a stamp hangs on (the next one for `end`) and its distance from that edge."""
        edge = stamp.astype("datetime64[M]")
        if self.end:
            edge = edge + np.timedelta64(1, "M")
        return edge, stamp - edge.astype("datetime64[us]")


def _no_step(text: object) -> SettingError:
    return SettingError(
        f"step: a step is a count and a unit ({', '.join(_UNITS[1:])}) such as 'hour', '30 minutes' or "
        f"'month end', or a whole number, got {text!r}."
    )
