"""How far a point forecast lies from what happened.

Every function takes arrays of shape (..., T): any number of series or windows, T steps each, with NaN
wherever the truth is missing, and gives one number for each, shape (...). A step counts only where the
truth is known; where it never is, the score is NaN, and so it is where a forecast is missing for a known
truth. `mean` then averages over series as the M4 competition does.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import SettingError, ShapeError

Array = np.ndarray[Any, np.dtype[np.float64]]


def mae(truth: Array, forecast: Array) -> Array:
    r"""Mean absolute error, in the units of the series.

    $$\mathrm{MAE} = \frac1T \sum_t |y_t - \hat y_t|$$

    Args:
        truth: (..., T), NaN where missing.
        forecast: (..., T) of the same shape.

    Returns:
        (...) at least 0; NaN where no truth is known.

    Raises:
        ShapeError: the shapes differ.

    >>> mae(np.array([1.0, np.nan, 4.0]), np.array([2.0, 9.0, 4.0]))
    array(0.5)
    """
    return _over_known(np.abs(_error("mae", truth, forecast)), truth)


def rmse(truth: Array, forecast: Array) -> Array:
    r"""Root of the mean squared error, in the units of the series; arguments and result as in `mae`.

    $$\mathrm{RMSE} = \sqrt{\frac1T \sum_t (y_t - \hat y_t)^2}$$
    """
    return np.asarray(np.sqrt(_over_known(_error("rmse", truth, forecast) ** 2, truth)))


def smape(truth: Array, forecast: Array) -> Array:
    r"""Symmetric mean absolute percentage error as M4 defines it, in percent, between 0 and 200.

    $$\mathrm{sMAPE} = \frac{200}{T} \sum_t \frac{|y_t - \hat y_t|}{|y_t| + |\hat y_t|}$$

    A step where truth and forecast are both zero counts as zero. Arguments and result as in `mae`.

    Source: Makridakis, Spiliotis & Assimakopoulos (2020), The M4 Competition.
    """
    error = np.abs(_error("smape", truth, forecast))
    size = np.abs(truth) + np.abs(forecast)
    return _over_known(200 * error / np.where(size == 0, 1, size), truth)


def mase(truth: Array, forecast: Array, scale: Array | float) -> Array:
    r"""Mean absolute scaled error: 1 is what the seasonal naive forecast errs, one step ahead, in the past.

    $$\mathrm{MASE} = \frac{\frac1T \sum_t |y_t - \hat y_t|}{s}$$

    Args:
        truth: (..., T), NaN where missing.
        forecast: (..., T) of the same shape.
        scale: (...) the `naive_scale` of the history before each window.

    Returns:
        (...) at least 0; NaN where no truth is known, or where the scale is zero or NaN, because a series
        that never changed gives no unit to measure in.

    Raises:
        ShapeError: the shapes do not fit.

    Source: Hyndman & Koehler (2006), Another look at measures of forecast accuracy.
    """
    error = mae(truth, forecast)
    scale = np.asarray(scale, float)
    try:
        scale = np.broadcast_to(scale, error.shape)
    except ValueError:
        raise ShapeError(
            f"mase: `scale` must be {error.shape}, one number a window, got {scale.shape}."
        ) from None
    return np.asarray(error / np.where(scale > 0, scale, np.nan))


def naive_scale(history: Array, season: int) -> Array:
    r"""The unit of MASE: what the seasonal naive forecast errs within the history.

    $$s = \frac{1}{T - m} \sum_{t > m} |y_t - y_{t-m}|$$

    Args:
        history: (..., T); NaN where missing, and in front of series that are shorter than the longest.
        season: m >= 1, steps of one season; 1 for none.

    Returns:
        (...) at least 0, over the pairs that are both known; NaN where there is none.

    Raises:
        SettingError: `season` is below 1.

    >>> naive_scale(np.array([1.0, 2.0, 4.0, 7.0]), season=1)
    array(2.)
    """
    if season < 1:
        raise SettingError(f"naive_scale: `season` must be at least 1, got {season}.")
    history = np.asarray(history, float)
    return _mean(np.abs(history[..., season:] - history[..., :-season]))


def rolling_scale(values: Array, season: int, origins: Array) -> Array:
    """`naive_scale` of the history before each origin, for many origins of one series at the cost of one.

    Args:
        values: (T,) the whole series.
        season: steps of one season, at least 1.
        origins: (W,) integers; window w knows values[:origins[w]] and nothing later.

    Returns:
        (W,), equal to ``[naive_scale(values[:o], season) for o in origins]``.
    """
    values, origins = np.asarray(values, float), np.asarray(origins)
    change = np.full(len(values), np.nan)
    change[season:] = np.abs(values[season:] - values[:-season]) if season < len(values) else change[season:]
    known = ~np.isnan(change)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, change, 0))])
    count = np.concatenate([[0], np.cumsum(known)])
    return np.asarray(total[origins] / np.where(count[origins] > 0, count[origins], np.nan))


def owa(smape: float, mase: float, naive2_smape: float, naive2_mase: float) -> float:
    r"""Overall weighted average of M4: 1 is as good as Naive2, less is better.

    $$\mathrm{OWA} = \frac12 \left( \frac{\mathrm{sMAPE}}{\mathrm{sMAPE}_{\mathrm{Naive2}}}
    + \frac{\mathrm{MASE}}{\mathrm{MASE}_{\mathrm{Naive2}}} \right)$$

    Args:
        smape: of the method, averaged over all series first, as M4 does.
        mase: likewise.
        naive2_smape: of `naive2`, averaged over the same series.
        naive2_mase: likewise.

    Returns:
        At least 0; NaN where Naive2 errs nothing, so that there is nothing to compare with.

    >>> owa(10.0, 1.0, 20.0, 2.0)
    0.5
    """
    if not (naive2_smape > 0 and naive2_mase > 0):
        return float("nan")
    return 0.5 * (smape / naive2_smape + mase / naive2_mase)


def mean(scores: Array) -> float:
    """The mean over all series or windows that have a score; NaN if none has."""
    return float(_mean(np.asarray(scores, float).reshape(-1)))


def _error(caller: str, truth: Array, forecast: Array) -> Array:
    truth, forecast = np.asarray(truth, float), np.asarray(forecast, float)
    if truth.shape != forecast.shape or truth.ndim == 0:
        raise ShapeError(
            f"{caller}: `forecast` must have the shape (..., T) = {truth.shape} of `truth`, "
            f"got {forecast.shape}."
        )
    return truth - forecast


def _over_known(losses: Array, truth: Array) -> Array:
    """Mean over the steps whose truth is known: NaN where there is none, or where a forecast is missing."""
    known = ~np.isnan(np.asarray(truth, float))
    count = known.sum(-1)
    return np.asarray(np.where(known, losses, 0).sum(-1) / np.where(count > 0, count, np.nan))


def _mean(values: Array) -> Array:
    """Mean over the last axis of what is not NaN, NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=-1))
