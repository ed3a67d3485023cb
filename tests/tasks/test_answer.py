"""Quantiles become any level, the mean, tables and pictures."""

import statistics

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as some

from longshort.errors import RunError, SettingError
from longshort.tasks.forecast.answer import Quantiles, checked_levels, csv
from longshort.tasks.forecast.settings import LEVELS
from tasks.making import full_model, plain_model

NORMAL = statistics.NormalDist(3, 2)
EXACT = Quantiles(np.array([[NORMAL.inv_cdf(level) for level in LEVELS]]), "none")


@pytest.mark.parametrize("level", [0.001, 0.025, 0.3, 0.37, 0.5, 0.975, 0.9999])
def test_any_level_of_a_normal_distribution_is_exact(level):
    """Interpolation over the normal score, and its continuation, give back the normal distribution."""
    assert EXACT.at([level])[0, 0] == pytest.approx(NORMAL.inv_cdf(level), rel=1e-9)


def test_the_mean_is_the_integral():
    assert EXACT.mean[0] == pytest.approx(3, abs=1e-9)
    logarithm = Quantiles(np.array([[statistics.NormalDist(0, 0.5).inv_cdf(q) for q in LEVELS]]), "log")
    assert logarithm.mean[0] == pytest.approx(np.exp(0.125), rel=5e-3)
    assert logarithm.median[0] == pytest.approx(1)


@given(
    some.lists(some.floats(0, 1e3), min_size=len(LEVELS), max_size=len(LEVELS)),
    some.sampled_from(["none", "sqrt", "log"]),
)
def test_levels_rise_whatever_the_quantiles(gaps, transform):
    values = np.cumsum(gaps)[None] / 100 - 3
    found = Quantiles(values, transform).at(np.linspace(0.001, 0.999, 50))[0]
    assert (np.diff(found) >= 0).all()
    at_own = Quantiles(values, "none").at(LEVELS)[0]
    np.testing.assert_allclose(at_own, values[0], atol=1e-9)


def test_intervals_are_the_quantiles_they_name():
    low, high = EXACT.interval(80)
    assert (low[0], high[0]) == pytest.approx((NORMAL.inv_cdf(0.1), NORMAL.inv_cdf(0.9)))


@pytest.mark.parametrize(
    ("level", "share"),
    [(0, ""), (100, ""), (-3, ""), (float("nan"), ""), (0.001, ""), (0.8, " Write 80 for 80%.")],
)
def test_levels_outside_their_range(level, share):
    with pytest.raises(SettingError) as raised:
        checked_levels((80, level))
    assert str(raised.value) == (
        f"levels: a level is the percentage an interval covers, in [1, 100), got {level!r}.{share}"
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_written_table_is_the_table(tmp_path, suffix):
    forecast = full_model().predict()
    path = forecast.write(tmp_path / f"forecast{suffix}")
    read = polars.read_csv(path) if suffix == ".csv" else polars.read_parquet(path)
    table = forecast.to_polars()
    assert read.columns == table.columns
    for name in table.columns[2:]:
        np.testing.assert_allclose(read[name], table[name], rtol=1e-7)
    if suffix == ".csv":
        assert path.read_text() == csv(table)


def test_a_table_of_another_kind_is_refused_and_not_written(tmp_path):
    forecast, file = full_model().predict(), tmp_path / "forecast.xlsx"
    with pytest.raises(SettingError) as raised:
        forecast.write(file)
    assert str(raised.value) == (
        f"{file}: a table's name ends in .csv or .parquet, that of a forecast's picture in .png or .svg, and "
        "that of scores in .json. Give one of these endings."
    )
    assert not file.exists() and forecast.write(tmp_path / "F.CSV").read_text() == csv(forecast.to_polars())


def test_a_table_that_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(RunError, match="cannot be written: No such file or directory"):
        full_model().predict().write(tmp_path / "nowhere" / "forecast.csv")


def test_the_picture(tmp_path):
    from longshort.figures import save_figure

    figure = full_model().predict().figure()
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == ["s0", "s1"]
    save_figure(figure, tmp_path / "forecast.png", tmp_path / "forecast.svg")
    assert (tmp_path / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / "forecast.svg").read_bytes()[:1000]


def test_it_prints_itself():
    text = repr(plain_model().predict(levels=(50,)))
    assert text.startswith("Forecast of 1 series, 6 steps\n") and "lo-50" in text
