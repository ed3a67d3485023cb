"""Whether a series has a season, and how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .points import Array, _mean

_MOST = 200
"""Series that are looked at; more would not change what most of them have."""
_LEAST = 0.3
"""Height of a peak, and its rise above the valley before it, that a season found without a calendar has."""


_BETTER = 0.9
"""Share of a shorter season's error below which a longer one is preferred to it."""


class Calendar(Protocol):
    """Whatever suggests lengths of seasons: a `longshort.data.Step`."""

    @property
    def seasons(self) -> tuple[int, ...]:
        """Candidates in steps, shortest first."""
        ...


def season_of(values: Array | Sequence[Array], step: Calendar | None = None) -> int:
    """The length of the season in steps, from the calendar or from the values.

    Args:
        values: (T,) one series, or several of any lengths; NaN where missing.
        step: the calendar step, whose cycles (for an hour, the day and the week) are the candidates; where
            it suggests none, or is None, every length up to a third of the series is tried.

    Returns:
        If the changes from step to step repeat at one of the candidates (`is_seasonal` at 99.5 %): of those
        that fit three times into the series, the one whose values one season apart differ least, a longer one
        only where it is better by a tenth. Without candidates, the lag of the highest significant peak of the
        autocorrelation, after a straight line is taken out, that is at least 0.3 and rises 0.3 above the
        valley before it. 1 if there is none. Of several series, what most of them have (of equally common
        ones the shortest season, which goes before none); of more than 200, evenly spaced ones.

    >>> season_of(np.tile([5.0, 1.0, 2.0, 2.0], 10))
    4
    """
    candidates = () if step is None else step.seasons
    many = [np.asarray(one, float) for one in ([values] if _single(values) else values)]
    many = [many[k] for k in np.linspace(0, len(many) - 1, min(len(many), _MOST)).astype(int)]
    found = [_among(one, candidates) if candidates else _anywhere(one) for one in many]
    lengths, counts = np.unique(found, return_counts=True)
    most = lengths[counts == counts.max(initial=0)]
    return int(most[most > 1].min(initial=most[-1])) if found else 1


def _single(values: Array | Sequence[Array]) -> bool:
    return len(values) > 0 and np.ndim(values[0]) == 0


def _among(values: Array, candidates: Sequence[int]) -> int:
    """If the changes repeat at any candidate, the one whose values one season apart differ least; else 1."""
    change = np.diff(values)
    if not any(_exceeds(change, m, 2.576) > 0 for m in candidates):
        return 1
    length = (~np.isnan(values)).sum()
    long_enough = [m for m in sorted(candidates) if 3 * m <= length]
    start = long_enough[-1]  # every candidate is judged on the same steps
    best, least = 1, np.inf
    for m in long_enough:
        error = float(_mean(np.abs(values[start:] - values[start - m : len(values) - m])))
        if error < _BETTER * least:
            best, least = m, error
    return best


def _anywhere(values: Array) -> int:
    """The lag of the highest peak of the autocorrelation that chance does not explain; else 1."""
    known = np.flatnonzero(~np.isnan(values))
    lags = len(known) // 3
    if lags < 3:
        return 1
    line = np.polynomial.Polynomial.fit(known, values[known], 1)
    around = values - line(np.arange(len(values)))
    if np.nanmax(np.abs(around)) <= 1e-9 * np.nanmax(np.abs(values)):
        return 1
    r, worth = _resemblance(around, lags)
    chance = 1.645 * np.sqrt((1 + 2 * np.cumsum(r[1:] ** 2) - 2 * r[1:] ** 2) / worth[1:])
    valley = np.minimum.accumulate(r)
    k = np.arange(2, lags)
    peak = (r[k] > r[k - 1]) & (r[k] >= r[k + 1]) & (r[k] > chance[k - 1])
    peak &= (r[k] >= _LEAST) & (r[k] - valley[k] >= _LEAST)
    return int(k[peak][np.argmax(r[k][peak])]) if peak.any() else 1


def is_seasonal(history: Array, season: int) -> np.ndarray:
    r"""M4's test at 90 %: is the autocorrelation at one season larger than chance allows?

    $$|r_m| > 1.645 \sqrt{\frac{1 + 2 \sum_{k<m} r_k^2}{T}}$$

    Args:
        history: (..., T), NaN where missing.
        season: m in steps.

    Returns:
        (...) bool; false where fewer than three seasons are known, or `season` is 1.

    Source: Makridakis, Spiliotis & Assimakopoulos (2020), The M4 Competition.
    """
    return np.asarray(_exceeds(history, season, 1.645) != 0)


def _exceeds(history: Array, season: int, deviations: float) -> np.ndarray:
    """The sign of the autocorrelation at one season where it is that far from chance, else 0."""
    history = np.asarray(history, float)
    length = (~np.isnan(history)).sum(axis=-1)
    if season < 2 or history.shape[-1] < 3 * season:
        return np.zeros(history.shape[:-1])
    r, pairs = _resemblance(history, season)
    chance = np.sqrt((1 + 2 * (r[..., 1:season] ** 2).sum(axis=-1)) / np.maximum(pairs[..., season], 1))
    beyond = (length >= 3 * season) & (np.abs(r[..., season]) > deviations * chance)
    return np.where(beyond, np.sign(r[..., season]), 0.0)


def autocorrelation(values: Array, lags: int) -> Array:
    r"""How much a series resembles itself k steps earlier, for k = 0 to `lags`.

    $$r_k = \frac{\sum_t (y_t - \bar y)(y_{t+k} - \bar y)}{\sum_t (y_t - \bar y)^2}$$

    Args:
        values: (..., T); a missing value (NaN) takes part in no product, and the sums are scaled to as many
            products as there would be without it.
        lags: the largest k, below T.

    Returns:
        (..., lags + 1) in [-1, 1], 1 at k = 0; NaN for a constant series.
    """
    return _resemblance(values, lags)[0]


def _resemblance(values: Array, lags: int) -> tuple[Array, Array]:
    """Autocorrelations, and how many values each is worth: all T where none is missing."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    centred = np.where(known, values - np.nansum(values, axis=-1, keepdims=True) / count, 0.0)
    span = values.shape[-1] - np.argmax(known, axis=-1) - np.argmax(known[..., ::-1], axis=-1)
    k, span = np.arange(lags + 1), span[..., None]
    pairs = np.maximum(np.rint(_products(known.astype(float), lags)), 1)
    worth = np.maximum(span * pairs / np.maximum(span - k, 1), 1)
    products = _products(centred, lags) * span / worth
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0, where=known)
    flat = (centred**2).sum(axis=-1, keepdims=True) <= count * (1e-12 * largest) ** 2
    return np.asarray(products / np.where(flat, np.nan, products[..., :1])), np.asarray(worth)


def _products(values: Array, lags: int) -> Array:
    """The sum of y[t] y[t + k] for every k up to `lags`, through the Fourier transform."""
    size = 1 << int(values.shape[-1] + lags - 1).bit_length()
    spectrum = np.fft.rfft(values, size)
    return np.asarray(np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[..., : lags + 1])
