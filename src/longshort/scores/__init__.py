"""Answers and truth in, numbers beside baselines out. NumPy only."""

from .baselines import drift, histories, naive, naive2, seasonal_naive
from .intervals import coverage, pinball, weighted_quantile_loss
from .ngram import ngram
from .points import mae, mase, mean, naive_scale, owa, rmse, rolling_scale, smape
from .seasons import autocorrelation, is_seasonal, season_of

__all__ = [
    "autocorrelation",
    "coverage",
    "drift",
    "histories",
    "is_seasonal",
    "mae",
    "mase",
    "mean",
    "naive",
    "naive2",
    "naive_scale",
    "ngram",
    "owa",
    "pinball",
    "rmse",
    "rolling_scale",
    "season_of",
    "seasonal_naive",
    "smape",
    "weighted_quantile_loss",
]
