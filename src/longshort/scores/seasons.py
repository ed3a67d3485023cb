"""Whether a series has a season, and how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .points import Array


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
        The candidate at which the values resemble themselves most, if that is significant; else 1.
    """
    raise NotImplementedError


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
    history = np.asarray(history, float)
    length = (~np.isnan(history)).sum(axis=-1)
    if season < 2 or history.shape[-1] < 3 * season:
        return np.zeros(history.shape[:-1], bool)
    r = autocorrelation(history, season)
    chance = np.sqrt((1 + 2 * (r[..., 1:season] ** 2).sum(axis=-1)) / np.maximum(length, 1))
    return np.asarray((length >= 3 * season) & (np.abs(r[..., season]) > 1.645 * chance))


def autocorrelation(values: Array, lags: int) -> Array:
    r"""How much a series resembles itself k steps earlier, for k = 0 to `lags`.

    $$r_k = \frac{\sum_t (y_t - \bar y)(y_{t+k} - \bar y)}{\sum_t (y_t - \bar y)^2}$$

    Args:
        values: (..., T); a missing value (NaN) takes part in no product.
        lags: the largest k, below T.

    Returns:
        (..., lags + 1) in [-1, 1], 1 at k = 0; NaN for a constant series.
    """
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    centred = np.where(known, values - np.nansum(values, axis=-1, keepdims=True) / count, 0.0)
    size = 1 << int(values.shape[-1] + lags - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[..., : lags + 1]
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0, where=known)
    flat = (centred**2).sum(axis=-1, keepdims=True) <= count * (1e-12 * largest) ** 2
    return np.asarray(products / np.where(flat, np.nan, products[..., :1]))
