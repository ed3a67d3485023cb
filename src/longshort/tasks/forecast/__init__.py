"""Forecasting: a global LSTM over one or many series.

settings.py    what a person may choose
plan.py        what is derived from the data: season, context, transform, channels
windows.py     series -> windows, scaled by their own past
model.py       windows -> quantiles
objective.py   the loss, the validation, the calibration
joining.py     rows that follow earlier rows
reading.py     a state that goes on
answer.py      quantiles -> any level, the mean, a table, a picture
scoring.py     the rolling origin, beside the baselines
forecaster.py  all of it, as one object
story.py       all of it, as a run folder
"""

from .answer import Forecast
from .forecaster import Forecaster
from .scoring import Backtest
from .settings import ForecastSettings

__all__ = ["Backtest", "Forecast", "ForecastSettings", "Forecaster"]
