"""How good quantiles and intervals are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import SettingError, ShapeError
from .points import Array, _mean, _over_known


def pinball(truth: Array, forecast: Array, quantile: float) -> Array:
    r"""Pinball (quantile) loss of one quantile, in the units of the series; least at the true quantile.

    $$\rho_q = \frac1T \sum_t \max\bigl(q (y_t - \hat y_t),\ (q - 1)(y_t - \hat y_t)\bigr)$$

    Args:
        truth: (..., T), NaN where missing.
        forecast: (..., T) the forecast of this quantile.
        quantile: q in (0, 1); at 0.5 the loss is half the absolute error.

    Returns:
        (...) at least 0; NaN where no truth is known.

    Raises:
        ShapeError: the shapes differ.
        SettingError: `quantile` lies outside (0, 1).

    >>> pinball(np.array([10.0]), np.array([8.0]), 0.9)
    array(1.8)
    """
    return _over_known(_pinball("pinball", truth, forecast, quantile), truth)


def weighted_quantile_loss(truth: Array, forecast: Array, quantiles: Sequence[float]) -> float:
    r"""Weighted quantile loss over all windows and steps together, without a unit.

    $$\mathrm{wQL} = \frac{1}{Q} \sum_q
    \frac{2 \sum_{i,t} \rho_q(y_{it}, \hat y_{it}^{(q)})}{\sum_{i,t} |y_{it}|}$$

    Args:
        truth: (..., T), NaN where missing.
        forecast: (..., T, Q), the last axis in the order of `quantiles`.
        quantiles: Q numbers in (0, 1).

    Returns:
        At least 0, small is good; NaN where no truth is known or all of it is zero, or where a forecast is
        missing for a known truth.

    Raises:
        ShapeError: `forecast` does not have one more axis, of length Q.
        SettingError: a quantile lies outside (0, 1).

    Source: Salinas et al. (2020), DeepAR, section 4; the mean over quantiles as in GluonTS.
    """
    truth, forecast = np.asarray(truth, float), np.asarray(forecast, float)
    if forecast.shape != (*truth.shape, len(quantiles)):
        raise ShapeError(
            f"weighted_quantile_loss: `forecast` must be (..., T, Q) = {(*truth.shape, len(quantiles))}, "
            f"got {forecast.shape}."
        )
    size, known = np.nansum(np.abs(truth)), ~np.isnan(truth)
    if size == 0:
        return float("nan")
    losses = [
        2 * _pinball("weighted_quantile_loss", truth, forecast[..., k], q)[known].sum() / size
        for k, q in enumerate(quantiles)
    ]
    return float(np.mean(losses))


def coverage(truth: Array, low: Array, high: Array) -> Array:
    """The share of steps whose truth lies within [low, high]; an 80 % interval should cover 0.8.

    Args:
        truth: (..., T), NaN where missing.
        low: (..., T) the lower end of the interval, included.
        high: (..., T) the upper end, included.

    Returns:
        (...) in [0, 1]; NaN where no truth is known.

    Raises:
        ShapeError: the shapes differ.
    """
    truth, low, high = (np.asarray(a, float) for a in (truth, low, high))
    for name, array in (("low", low), ("high", high)):
        if array.shape != truth.shape:
            raise ShapeError(
                f"coverage: `{name}` must be (..., T) = {truth.shape} like `truth`, got {array.shape}."
            )
    inside = (low <= truth) & (truth <= high)
    return _mean(np.where(np.isnan(truth), np.nan, inside))


def _pinball(caller: str, truth: Array, forecast: Array, quantile: float) -> Array:
    if not 0 < quantile < 1:
        raise SettingError(f"{caller}: a quantile must be in (0, 1), got {quantile!r}.")
    truth, forecast = np.asarray(truth, float), np.asarray(forecast, float)
    if truth.shape != forecast.shape or truth.ndim == 0:
        raise ShapeError(
            f"{caller}: `forecast` must have the shape (..., T) = {truth.shape} of `truth`, "
            f"got {forecast.shape}."
        )
    error = truth - forecast
    return np.maximum(quantile * error, (quantile - 1) * error)
