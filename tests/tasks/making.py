"""Tables for the tests of forecasting, and one small fitted model that many of them share."""

import functools

import numpy as np

from longshort.data import Columns, Series, SeriesTable, Step
from longshort.tasks import Forecaster

SMALL = {"horizon": 6, "season": 8, "context": 16, "hidden": 8, "batch": 8, "max_steps": 30, "every": 10}
"""Settings of a model that fits in a second."""


def series(values, name="y", *, past=None, future=None, static=(), time=None):
    values = np.asarray(values, float)
    T = len(values)
    return Series(
        name,
        np.arange(T) if time is None else time,
        values,
        np.zeros((T, 0)) if past is None else np.asarray(past, float),
        np.zeros((T, 0)) if future is None else np.asarray(future, float),
        np.asarray(static, float),
    )


def table(*many, step=None, **roles):
    columns = Columns(target=("y",), id="unique_id", time="ds", **roles)
    return SeriesTable(tuple(many), step or Step(), columns)


def wave(T, seed=0, level=50.0):
    """A season of 8, a slow trend and noise."""
    random, t = np.random.default_rng(seed), np.arange(T)
    return level + 0.05 * t + 5 * np.sin(2 * np.pi * t / 8) + random.normal(size=T)


def covariates(T, F, seed=0):
    """past (T, 2), future (T + F, 2) with a category in 0..2 in the second column of each."""
    random = np.random.default_rng(100 + seed)
    past = np.column_stack([random.normal(size=T), random.integers(0, 3, T)])
    future = np.column_stack([random.normal(size=T + F), random.integers(0, 3, T + F)])
    return past, future


ROLES = {
    "past": ("wind", "kind"),
    "future": ("heat", "day"),
    "static": ("size", "place"),
    "categories": {"kind": ("a", "b", "c"), "day": ("x", "y", "z"), "place": ("here", "there")},
}


def full_table(T=90, F=6):
    """Two series with every kind of covariate, a gap in one of them."""
    many = []
    for number in range(2):
        past, future = covariates(T + 10 * number, F, number)
        values = wave(T + 10 * number, number, level=50.0 + 400 * number)
        values[40:43] = np.nan
        many.append(series(values, f"s{number}", past=past, future=future, static=(number, number)))
    return table(*many, **ROLES)


@functools.cache
def plain_model():
    return Forecaster(**SMALL, seed=1).fit(table(series(wave(120))), quiet=True)


@functools.cache
def full_model():
    return Forecaster(**SMALL, seed=1).fit(full_table(), quiet=True)
