"""Rows that a forecast is asked of: refused where `Forecaster.predict` would refuse them.

The exported nodes compute numbers of whatever they are given. So before they run, values are finite, the
context has one, rows stand one step apart, and what is known in advance is there for the horizon.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from .files import Array

SHOWN = 10
"""Missing values that a message lists."""
NAT = np.iinfo(np.int64).min
"""No time, as in NumPy's datetime64."""
FIXED = {
    "microsecond": 1,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
"""Microseconds."""
MONTHS = {"month": 1, "quarter": 3, "year": 12}


class Rows:
    """What the rows of an exported forecast are held to.

    Args:
        step: between two rows, as text.
        horizon: rows forecast.
        context: rows that set the scale.
        lookback: rows before them.
        columns: of each role, and the categories of those that have some.
        transform: of the target: "log" takes values above 0, "sqrt" of at least 0, any other all.
    """

    def __init__(
        self,
        step: str,
        horizon: int,
        context: int,
        lookback: int,
        columns: dict[str, Any],
        transform: str = "none",
    ) -> None:
        self.step, self.horizon, self.context, self.lookback = step, horizon, context, lookback
        self.columns, self.transform = columns, transform

    @classmethod
    def of(cls, about: dict[str, Any]) -> Rows | None:
        """What there is to know of a forecast; None where the model is none, or says too little."""
        names = ("step", "horizon", "context", "lookback", "columns")
        if about.get("task") != "forecast" or not all(name in about for name in names):
            return None
        return cls(**{name: about[name] for name in names}, transform=about.get("transform", "none"))

    def begin(self, caller: str, given: dict[str, Array]) -> Array:
        """Hold the rows of a whole forecast, or of the beginning of a stream, to what they must be.

        Args:
            caller: the beginning of every message.
            given: the inputs by name, of the right shapes.

        Returns:
            (N,) the time of the last row of each series, NaT where the model reads none.

        Raises:
            DataError: a value is infinite, a context has none, a category is unknown, rows are not one step
                apart, or a covariate known in advance is missing.
        """
        every = np.arange(len(given["target"]))
        self._finite(caller, given, every)
        self._some(caller, given["target"])
        first = _first(given["target"][:, self.lookback :])
        self._rest(caller, given, every, first)
        return self._last(given, every)

    def go_on(self, caller: str, given: dict[str, Array], mask: Array | None, last: Array) -> Array:
        """Hold one more row of some series to what it must be; its target may be missing.

        Args:
            caller: the beginning of every message.
            given: the inputs by name, of the right shapes.
            mask: (N,) bool, the series that step; all if None.
            last: (N,) the time of the row before, NaT where it is not known.

        Returns:
            (N,) the time of the last row of each series, as `begin`.

        Raises:
            DataError: as `begin`, or the row is not one step after the row before.
        """
        which = np.arange(len(given["target"]))
        if mask is not None:
            which, given = which[mask], {name: part[mask] for name, part in given.items()}
        self._finite(caller, given, which)
        self._rest(caller, given, which, np.zeros(len(which), np.int64))
        if "time" in given:
            self._follows(caller, given["time"][:, 0], which, last[which])
        now = last.copy()
        now[which] = self._last(given, which)
        return now

    def _last(self, given: dict[str, Array], which: Array) -> Array:
        return given["time"][:, -1 - self.horizon] if "time" in given else np.full(len(which), NAT)

    def _rest(self, caller: str, given: dict[str, Array], which: Array, first: Array) -> None:
        """`which` numbers the series; `first` (N,) is the first row of each, of those that are read."""
        self._categories(caller, given, which)
        if "time" in given:
            self._spaced(caller, given["time"], which, first)
        if "future" in given:
            self._ahead(caller, given["future"], which)

    def _finite(self, caller: str, given: dict[str, Array], which: Array) -> None:
        for name in ("target", "past", "future", "static"):
            if name not in given:
                continue
            found = np.argwhere(np.isinf(given[name]))
            if len(found):
                n, *place = found[0].tolist()
                raise DataError(
                    f"{caller}: `{name}` must hold finite numbers, and that of series {which[n]} is "
                    f"{given[name][tuple(found[0])]}{self._where(name, place)}. "
                    f"Give NaN where nothing was observed."
                )

    def _where(self, name: str, place: list[int]) -> str:
        """The row, and the column, of a value."""
        words = [] if name == "target" else [f"in column {self._column(name, place[-1])}"]
        rows = place if name == "target" else place[:-1]
        return "".join(f" {word}" for word in (*(f"in row {row}" for row in rows), *words))

    def _column(self, role: str, k: int) -> str:
        names = self.columns.get(role, ())
        return repr(names[k]) if k < len(names) else str(k)

    def _some(self, caller: str, target: Array) -> None:
        first, end = self.lookback, self.lookback + self.context
        context = target[:, first:end]
        with np.errstate(invalid="ignore"):
            read = {"log": context > 0, "sqrt": context >= 0}.get(self.transform, ~np.isnan(context))
        reach = {"log": " above 0", "sqrt": " of at least 0"}.get(self.transform, "")
        empty = np.flatnonzero(~read.any(1))
        if len(empty):
            raise DataError(
                f"{caller}: `target` must have at least one value{reach} in the context of each series, rows "
                f"{first} to {end - 1}, which set its scale, and series {empty[0]} has none. "
                f"Leave the series out, or end its rows where it was observed last."
            )

    def _categories(self, caller: str, given: dict[str, Array], which: Array) -> None:
        for role in ("past", "future", "static"):
            for k, name in enumerate(self.columns.get(role, ()) if role in given else ()):
                known = self.columns.get("categories", {}).get(name)
                if known is None:
                    continue
                codes = given[role][..., k]
                wrong = ~np.isnan(codes) & ~(np.isin(codes, np.arange(len(known))))
                if wrong.any():
                    place = np.argwhere(wrong)[0]
                    advice = "" if role == "future" else " Give NaN if none applies."
                    raise DataError(
                        f"{caller}: `{role}`, column {name!r}, must hold the number of a category known "
                        f"since training, in [0, {len(known)}), and that of series {which[place[0]]} is "
                        f"{codes[tuple(place)]:g}{self._where('target', place[1:].tolist())}.{advice}"
                    )

    def _spaced(self, caller: str, time: Array, which: Array, first: Array) -> None:
        """From its first row on, a series has a time at every row, each one step after the one before."""
        no_time = time == NAT
        start = np.minimum(np.argmin(no_time, 1), first)
        late = np.arange(time.shape[1]) >= start[:, None]
        if (no_time & late).any():
            n, row = np.argwhere(no_time & late)[0]
            raise DataError(
                f"{caller}: `time` must be a time at every row of a series and of its horizon, and that of "
                f"series {which[n]} is NaT in row {row}. Only rows before its first may have none."
            )
        later = next_of(time, self.step)
        wrong = (time[:, 1:] != later[:, :-1]) & late[:, :-1]
        if wrong.any():
            n, row = np.argwhere(wrong)[0]
            now, after = (str(t).replace("T", " ") for t in time[n, row : row + 2].astype("datetime64[us]"))
            raise DataError(
                f"{caller}: `time` must rise by one step, {self.step}, from row to row, and that of series "
                f"{which[n]} goes from {now} in row {row} to {after}. Give datetime64, or int64 microseconds "
                f"since 1970, and NaN in `target` where a row is missing."
            )

    def _follows(self, caller: str, time: Array, which: Array, last: Array) -> None:
        wrong = np.flatnonzero((last != NAT) & (time != next_of(last, self.step)))
        if len(wrong):
            n = wrong[0]
            before, now = (str(t.astype("datetime64[us]")).replace("T", " ") for t in (last[n], time[n]))
            raise DataError(
                f"{caller}: `time` must go on one step, {self.step}, after the row before, and that of "
                f"series {which[n]} goes from {before} to {now}. Give every row, with NaN in `target` "
                f"where it is missing; a row that was given cannot be given again."
            )

    def _ahead(self, caller: str, future: Array, which: Array) -> None:
        before = future.shape[1] - self.horizon
        missing = np.argwhere(np.isnan(future[:, before:]))
        if len(missing):
            shown = [
                f"{which[n]}, {before + row}, {self._column('future', k)}" for n, row, k in missing[:SHOWN]
            ]
            more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise DataError(
                f"{caller}: {len(missing)} values of covariates known in advance are missing "
                f"(series, row, column):\n  " + "\n  ".join(shown) + more + "\n  Give them in the last "
                f"{self.horizon} rows of `future`, those of the horizon; earlier ones may be NaN."
            )


def _first(target: Array) -> Array:
    """(N,) the first row of a series that is certain: that of its first value, or the last row."""
    some = ~np.isnan(target)
    return np.asarray(np.where(some.any(1), some.argmax(1), target.shape[1] - 1))


def next_of(time: Array, step: str) -> Array:
    """The times one step after times, of microseconds since 1970; NaT gives anything.

    Args:
        time: (...) int64.
        step: as text, such as "30 minutes", "business day" or "month end".
    """
    count, _, unit = step.removesuffix(" end").partition(" ")
    many, unit = int(count), unit if unit in FIXED or unit in MONTHS else unit.removesuffix("s")
    if unit in FIXED:
        return np.asarray(time + many * FIXED[unit])
    stamp = np.where(time == NAT, 0, time).astype("datetime64[us]")
    if unit == "business day":
        day = stamp.astype("datetime64[D]")
        later = np.busday_offset(day, 1, roll="forward").astype("datetime64[us]") + (stamp - day)
    else:
        edge = stamp.astype("datetime64[M]") + np.timedelta64(int(step.endswith(" end")), "M")
        later = (edge + many * MONTHS[unit]).astype("datetime64[us]") + (
            stamp - edge.astype("datetime64[us]")
        )
    return np.asarray(later.astype(np.int64))
