"""What a person may choose about a forecaster; whatever is None is derived from the data (`plan.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...settings import setting
from ...train import FitSettings

LEVELS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
"""The quantiles the model gives; any other is interpolated between them."""


@dataclass(frozen=True, kw_only=True)
class ForecastSettings(FitSettings):
    """What to forecast, from which columns, with how large a model."""

    called = "forecast"

    weight_decay: float = setting(0.1, "AdamW's decay of the weights, as a share of `lr` a step.", least=0)
    average: float = setting(
        0.98,
        "Decay of the running mean of the weights, which is what is validated and kept; 0 for no mean.",
        least=0,
        below=1,
    )
    caution: float = setting(
        0.25, "Standard errors by which a validation must beat the best one to count as better.", least=0
    )
    horizon: int = setting(24, "Steps to forecast.", least=1)
    season: int | None = setting(None, "Steps in one season; by default from time stamps or data.", least=1)
    context: int | None = setting(
        None, "Steps read before a forecast; by default the longest season.", least=2
    )
    transform: str = setting(
        "auto", "Scale on which to model the target.", choices=("auto", "none", "sqrt", "log")
    )
    hidden: int = setting(64, "Hidden units of each LSTM layer.", least=1)
    layers: int = setting(1, "LSTM layers.", least=1)
    dropout: float = setting(
        0.2, "Share of the units silenced between the layers and in the head.", least=0, below=1
    )
    batch: int = setting(32, "Windows in a batch.", least=1)
    validation: float = setting(
        0.2, "Share of each series, its last, that decides when to stop.", above=0, below=1
    )
    target: tuple[str, ...] = setting((), "Columns to forecast.")
    time: str | None = setting(None, "Column of times.")
    id: str | None = setting(None, "Column that names the series of a long table.")
    past: tuple[str, ...] = setting((), "Covariates known up to now.")
    future: tuple[str, ...] = setting((), "Covariates known in advance.")
    static: tuple[str, ...] = setting((), "Covariates constant in a series.")
    categorical: tuple[str, ...] = setting((), "Those covariates that hold categories.")
    step: str | None = setting(None, "Distance between rows, such as 'hour'; by default inferred.")
    time_format: str | None = setting(None, "How times are written (strptime), such as '%d.%m.%Y'.")
    decimal: str | None = setting(
        None, "What stands before the decimals of numbers; by default seen.", choices=(".", ",")
    )
    encoding: str | None = setting(
        None, "Of the characters of CSV files, such as 'cp1252'; by default UTF-8."
    )

    def roles(self) -> dict[str, Any]:
        """The columns' roles, as the arguments of `longshort.data.read`."""
        names = ("time", "id", "past", "future", "static", "categorical", "step", "time_format", "decimal")
        return {"target": self.target or None, "encoding": self.encoding or "utf-8"} | {
            name: getattr(self, name) for name in names
        }
