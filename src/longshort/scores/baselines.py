"""The forecasts that a model has to beat: naive, seasonal naive, drift, and Naive2 of the M4 competition.

Each takes the history of any number of series or windows, (..., T), and gives (..., horizon). NaN marks
what is missing, and fills the front of a history that is shorter than the longest. A history without a
single value gives NaN.
"""

from __future__ import annotations

import numpy as np

from ..errors import SettingError, ShapeError
from .points import Array
from .seasons import is_seasonal


def histories(values: Array, origins: Array, longest: int | None = None) -> Array:
    """What is known at each of many origins of one series, for the baselines to start from.

    Args:
        values: (T,) the whole series.
        origins: (W,) integers in [0, T]; window w knows values[:origins[w]] and nothing later.
        longest: keep only so many values before each origin; all of them if None.

    Returns:
        (W, L) with the value before the origin last and NaN in front of what is shorter.

    Memory: 8 W L bytes, where L is the largest origin or `longest`.

    >>> histories(np.array([1.0, 2.0, 3.0]), np.array([1, 3]))
    array([[nan, nan,  1.],
           [ 1.,  2.,  3.]])
    """
    values, origins = np.asarray(values, float), np.asarray(origins)
    length = int(origins.max(initial=0))
    length = length if longest is None else min(length, longest)
    padded = np.concatenate([np.full(length, np.nan), values])
    return np.asarray(padded[origins[:, None] + np.arange(length)])


def naive(history: Array, horizon: int) -> Array:
    """The last known value, `horizon` times.

    Args:
        history: (..., T), NaN where missing.
        horizon: steps to forecast, at least 1.

    Returns:
        (..., horizon).

    Raises:
        SettingError: `horizon` is below 1.

    >>> naive(np.array([1.0, 5.0, np.nan]), 2)
    array([5., 5.])
    """
    history = _checked("naive", history, horizon, 1)
    return np.repeat(_at(history, _last(history))[..., None], horizon, axis=-1)


def seasonal_naive(history: Array, horizon: int, season: int) -> Array:
    """The last known value at the same place of the season; `naive` where a place was never observed.

    Args:
        history: (..., T), NaN where missing.
        horizon: steps to forecast, at least 1; beyond one season the season repeats.
        season: steps of one season, at least 1; with 1 this is `naive`.

    Returns:
        (..., horizon).

    Raises:
        SettingError: `horizon` or `season` is below 1.

    >>> seasonal_naive(np.array([1.0, 2.0, 3.0, 4.0, np.nan, 6.0]), 4, season=3)
    array([4., 2., 6., 4.])
    """
    history = _checked("seasonal_naive", history, horizon, season)
    cycles = _cycles(history, season)
    places = _last(np.moveaxis(cycles, -2, -1))
    latest = np.take_along_axis(cycles, places[..., None, :], axis=-2)[..., 0, :]
    latest = np.where(np.isnan(latest), naive(history, 1), latest)
    return np.asarray(latest[..., np.arange(horizon) % season])


def drift(history: Array, horizon: int) -> Array:
    r"""The straight line through the first and the last known value, continued.

    $$\hat y_{T+h} = y_T + h \, \frac{y_T - y_1}{T - 1}$$

    Arguments, result and errors as in `naive`; one known value gives `naive`.

    >>> drift(np.array([1.0, 2.0, 5.0]), 2)
    array([7., 9.])
    """
    history = _checked("drift", history, horizon, 1)
    last, first = _last(history), np.argmax(~np.isnan(history), axis=-1)
    end = _at(history, last)
    slope = (end - _at(history, first)) / np.maximum(last - first, 1)
    ahead = np.arange(1, horizon + 1) + (history.shape[-1] - 1 - last)[..., None]
    return np.asarray(end[..., None] + slope[..., None] * ahead)


def naive2(history: Array, horizon: int, season: int) -> Array:
    """Naive2, M4's yardstick: the naive forecast of the series without its season, and the season put back.

    Where the history passes M4's test at 90 % (`is_seasonal`), it is divided by the seasonal indices of a
    classical multiplicative decomposition; otherwise the forecast is `naive`. Where a value is zero or
    negative, for which no such indices exist, the decomposition is additive.

    Args:
        history: (..., T), NaN where missing.
        horizon: steps to forecast, at least 1.
        season: steps of one season, at least 1; with 1 this is `naive`.

    Returns:
        (..., horizon).

    Raises:
        SettingError: `horizon` or `season` is below 1.

    Source: Makridakis, Spiliotis & Assimakopoulos (2020), The M4 Competition; R's `decompose`.
    """
    history = _checked("naive2", history, horizon, season)
    plain = naive(history, horizon)
    if season == 1:
        return plain
    index, additive = _seasonal_indices(history, season)
    last = _last(history)
    gap = history.shape[-1] - 1 - last
    then = np.take_along_axis(index, ((-1 - gap) % season)[..., None], axis=-1)
    ahead = index[..., np.arange(horizon) % season]
    factor = ahead / np.where(additive[..., None], 1.0, then)
    adjusted = np.where(additive[..., None], plain - then + ahead, plain * factor)
    use = is_seasonal(history, season)[..., None] & np.isfinite(adjusted)
    return np.asarray(np.where(use, adjusted, plain))


def _seasonal_indices(history: Array, season: int) -> tuple[Array, np.ndarray]:
    """Classical decomposition: (..., season) indices from the place after the end on; which are additive.

    They are left as they come, not brought to a mean of 1 (or 0): a forecast takes only their ratios (or
    differences).
    """
    known = np.where(np.isnan(history), 0.0, history)
    sums = _window_sums(known, season)
    whole = _window_sums(np.isnan(history).astype(float), season) == 0
    sums = np.where(whole, sums, np.nan)
    trend = np.full(history.shape, np.nan)
    if season % 2:
        trend[..., season // 2 : history.shape[-1] - season // 2] = sums / season
    else:
        trend[..., season // 2 : history.shape[-1] - season // 2] = (sums[..., 1:] + sums[..., :-1]) / (
            2 * season
        )
    additive = np.asarray((history <= 0).any(axis=-1))
    trend = np.where(additive[..., None] | (trend > 0), trend, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        around = np.where(additive[..., None], history - trend, history / trend)
    cycles = _cycles(around, season)
    count = (~np.isnan(cycles)).sum(axis=-2)
    index = np.nansum(cycles, axis=-2) / np.where(count > 0, count, np.nan)
    return np.asarray(index), additive


def _window_sums(values: Array, length: int) -> Array:
    """(..., T - length + 1) sums over every run of `length` values."""
    total = np.cumsum(np.concatenate([np.zeros((*values.shape[:-1], 1)), values], axis=-1), axis=-1)
    return np.asarray(total[..., length:] - total[..., :-length])


def _cycles(values: Array, season: int) -> Array:
    """(..., cycles, season): the last row ends with the last value; NaN in front of the first."""
    front = -values.shape[-1] % season
    padded = np.concatenate([np.full((*values.shape[:-1], front), np.nan), values], axis=-1)
    return padded.reshape(*values.shape[:-1], -1, season)


def _last(history: Array) -> np.ndarray:
    """Where the last known value stands; the last place if none is known."""
    return np.asarray(history.shape[-1] - 1 - np.argmax(~np.isnan(history[..., ::-1]), axis=-1))


def _at(history: Array, place: np.ndarray) -> Array:
    return np.asarray(np.take_along_axis(history, place[..., None], axis=-1)[..., 0])


def _checked(caller: str, history: Array, horizon: int, season: int) -> Array:
    for name, value in (("horizon", horizon), ("season", season)):
        if value < 1:
            raise SettingError(f"{caller}: `{name}` must be at least 1, got {value}.")
    history = np.asarray(history, float)
    if history.ndim == 0:
        raise ShapeError(f"{caller}: `history` must be (..., T), got a single number.")
    if history.shape[-1] == 0:
        history = np.full((*history.shape[:-1], 1), np.nan)
    return history
