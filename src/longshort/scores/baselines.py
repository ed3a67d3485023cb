"""The forecasts that a model has to beat: naive, seasonal naive, drift, and Naive2 of the M4 competition.

Each takes the history of any number of series or windows, (..., T), and gives (..., horizon). NaN marks
what is missing, and fills the front of a history that is shorter than the longest. A history without a
single value gives NaN.
"""

from __future__ import annotations

import numpy as np

from ..errors import SettingError
from .points import Array
from .seasons import autocorrelation, is_seasonal


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
    raise NotImplementedError


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
    raise NotImplementedError


def drift(history: Array, horizon: int) -> Array:
    r"""The straight line through the first and the last known value, continued.

    $$\hat y_{T+h} = y_T + h \, \frac{y_T - y_1}{T - 1}$$

    Arguments, result and errors as in `naive`; one known value gives `naive`.

    >>> drift(np.array([1.0, 2.0, 5.0]), 2)
    array([7., 9.])
    """
    raise NotImplementedError


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
    raise NotImplementedError
