"""Figures: what is drawn, in which order, and the same bytes each time."""

import re
import subprocess
import sys

import numpy as np
import pytest

from longshort.errors import SettingError, ShapeError
from longshort.figures import (
    MemoryLine,
    Panel,
    figure_bytes,
    forecast_figure,
    memory_figure,
    metrics_figure,
    save_figure,
    scores_figure,
)

NAN = float("nan")


def panel(title="load", T=60, h=12, **change):
    time = np.datetime64("2020-01-01", "us") + np.arange(T + h) * np.timedelta64(1, "D").astype(
        "timedelta64[us]"
    )
    y = np.sin(np.arange(T + h) / 3)
    parts = {
        "time": time[:T], "history": y[:T], "ahead": time[T:], "point": y[T:] + 0.1,
        "intervals": {80: (y[T:] - 0.4, y[T:] + 0.4), 95: (y[T:] - 0.8, y[T:] + 0.8)},
    }  # fmt: skip
    return Panel(title, **(parts | change))


FIGURES = {
    "one": lambda: forecast_figure(panel(), unit="MW", title="Load"),
    "everything": lambda: forecast_figure(panel(truth=np.zeros(12), baseline=np.ones(12))),
    "gaps": lambda: forecast_figure(
        panel(history=np.where(np.arange(60) % 7, 1.0, NAN), truth=np.full(12, NAN))
    ),
    "several": lambda: forecast_figure([panel("a"), panel("b"), panel("c")]),
    "many": lambda: forecast_figure([panel(str(k)) for k in range(5)], title="five"),
    "no times": lambda: forecast_figure(panel(time=np.arange(60), ahead=np.arange(60, 72))),
    "long horizon": lambda: forecast_figure(panel(T=20, h=50), shown=10),
    "constant": lambda: forecast_figure(
        panel(history=np.full(60, 4.0), point=np.full(12, 4.0), intervals={})
    ),
    "huge": lambda: forecast_figure(panel(history=np.full(60, 4e12), point=np.full(12, 5e12), intervals={})),
    "odd names": lambda: forecast_figure(panel("$x_{$ 100 % <&> _hidden"), unit="$/m^2", title="a $b"),
    "metrics": lambda: metrics_figure({"training loss": ([1, 2, 3], [3, 2, 1.5])}, title="run", best=2),
    "metrics over decades": lambda: metrics_figure({"a": ([1, 2], [1e-5, 10]), "b": ([1], [NAN])}),
    "scores": lambda: scores_figure(
        {"MASE": {"ours": 0.7, "naive": 1.2}, "OWA": {"ours": 123.4, "naive": NAN}}, ours="ours", title="$"
    ),
}
each_figure = pytest.mark.parametrize("make", FIGURES.values(), ids=[n.replace(" ", "-") for n in FIGURES])


@each_figure
@pytest.mark.parametrize("format, begin", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_same_bytes_each_time(make, format, begin):
    first, second = figure_bytes(make(), format), figure_bytes(make(), format)
    assert first == second
    assert first.startswith(begin)
    assert not re.search(rb"20\d\d-\d\d-\d\dT\d\d:\d\d|Matplotlib v|matplotlib version", first)


def test_global_state_is_left_alone():
    """No pyplot, no changed rcParams: a figure is an object like any other."""
    code = (
        "import sys, matplotlib\n"
        "def state(): return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = state()\n"
        "from longshort.figures import figure_bytes, metrics_figure\n"
        "figure_bytes(metrics_figure({'a': ([1, 2], [3, 4])}), 'svg')\n"
        "print('matplotlib.pyplot' in sys.modules, state() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_nothing_heavy_is_loaded_before_a_figure_is_drawn():
    code = "import sys, longshort.figures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def lines(axes):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in axes.get_lines()}


def test_every_value_is_drawn_at_its_time():
    one = panel(truth=np.arange(12.0), baseline=np.arange(12.0) + 5)
    (axes,) = forecast_figure(one, shown=20).axes
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["observed"], [*one.history[-20:], *one.truth])
    np.testing.assert_array_equal(drawn["forecast"], one.point)
    np.testing.assert_array_equal(drawn["seasonal naive"], one.baseline)
    (forecast,) = [line for line in axes.get_lines() if line.get_label() == "forecast"]
    np.testing.assert_array_equal(forecast.get_xdata(), one.ahead)
    assert [area.get_label() for area in axes.collections] == ["95 % interval", "80 % interval"]


def test_a_gap_in_the_history_is_a_gap_in_the_line():
    history = np.where(np.arange(60) % 7, 1.0, NAN)
    (axes,) = forecast_figure(panel(history=history), shown=60).axes
    np.testing.assert_array_equal(lines(axes)["observed"], history)


def test_the_wider_interval_is_lighter_and_lies_behind():
    (axes,) = forecast_figure(panel()).axes
    wide, narrow = (area.get_facecolor()[0][:3].sum() for area in axes.collections)
    assert wide > narrow


def test_names_stand_once_below_several_panels():
    figure = forecast_figure([panel("a"), panel("b", baseline=np.ones(12))])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["observed", "forecast", "95 % interval", "80 % interval", "seasonal naive"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]


def test_bars_are_the_scores():
    table = {"MASE": {"ours": 0.7124, "naive": 11.456}, "sMAPE": {"ours": 9.9, "naive": NAN}}
    mase, smape = scores_figure(table, ours="ours").axes
    assert [bar.get_width() for bar in mase.patches] == [0.7124, 11.456]
    assert [text.get_text() for text in mase.texts] == ["0.712", "11.46"]
    assert [text.get_text() for text in smape.texts] == ["9.900", "no score"]
    assert mase.patches[0].get_facecolor() != mase.patches[1].get_facecolor()


def test_files(tmp_path):
    figure = FIGURES["one"]()
    save_figure(figure, tmp_path / "a.png", tmp_path / "a.SVG")
    assert (tmp_path / "a.png").read_bytes() == figure_bytes(figure, "png")
    assert (tmp_path / "a.SVG").read_bytes() == figure_bytes(figure, "svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "a.png"]


def test_signs_that_no_font_has_are_boxes_and_no_warning(tmp_path):
    file = tmp_path / "a.png"
    save_figure(forecast_figure([panel(title="load \N{SHOPPING TROLLEY} \u6771\u4eac")]), file)
    assert file.stat().st_size > 10_000


def test_one_bad_name_and_no_file_is_written(tmp_path):
    with pytest.raises(SettingError) as raised:
        save_figure(FIGURES["one"](), tmp_path / "a.png", "a.pdf")
    assert str(raised.value) == "save_figure: a path must end in .png or .svg, got 'a.pdf'."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: forecast_figure([]), SettingError, "forecast_figure: `panels` must be 1 to 12, got 0."),
        (
            lambda: forecast_figure([panel()] * 13),
            SettingError,
            "forecast_figure: `panels` must be 1 to 12, got 13.",
        ),
        (
            lambda: panel(point=np.zeros(11)),
            ShapeError,
            "Panel 'load': `point` must be (12,), got (11,).",
        ),
        (
            lambda: panel(history=np.zeros(11)),
            ShapeError,
            "Panel 'load': `history` must be (60,), got (11,).",
        ),
        (
            lambda: panel(intervals={80: (np.zeros(12), np.zeros(3))}),
            ShapeError,
            "Panel 'load': `intervals[80]` must be (12,), got (3,).",
        ),
        (
            lambda: metrics_figure({}),
            SettingError,
            "metrics_figure: `curves` must hold at least one curve, got none.",
        ),
        (
            lambda: metrics_figure({str(k): ([1], [1]) for k in range(7)}),
            SettingError,
            "metrics_figure: `curves` must be at most 6, got 7.",
        ),
        (
            lambda: metrics_figure({"a": ([1, 2], [1])}),
            ShapeError,
            "metrics_figure: 'a' must have as many values as steps (2), got 1.",
        ),
        (
            lambda: scores_figure({}, ours="x"),
            SettingError,
            "scores_figure: `scores` must hold 1 to 4 metrics, got 0.",
        ),
        (
            lambda: scores_figure({"m": {"a": 1.0, "b": 2.0}}, ours="x"),
            SettingError,
            "scores_figure: `ours` must be one of a, b, got 'x'.",
        ),
        (
            lambda: figure_bytes(FIGURES["one"](), "pdf"),
            SettingError,
            "figure_bytes: `format` must be one of png, svg, got 'pdf'.",
        ),
    ],
)
def test_messages_in_full(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


def test_each_band_of_a_memory_figure_is_named_as_one_lag():
    """Cells stand side by side around a lag: an axis of numbers would put them at wrong ones."""
    cells = [MemoryLine(name, (10, 20), (0.1, 0.5), (0, 0.4), (0.2, 0.6)) for name in ("rnn", "lstm")]
    drawn = memory_figure(
        cells, ((10, 20), (0.9, 0.9)), bound=0.01, measure="wrong answers", across="lag: steps"
    )
    drawn.canvas.draw()
    (axes,) = drawn.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lag 10", "lag 20"]
    assert axes.get_xlabel() == "one band for each lag: steps"
    parting = [line.get_xdata()[0] for line in axes.lines if list(line.get_xdata()) == [0.5, 0.5]]
    assert parting == [0.5], "a rule parts the two bands"
    marks = [line for line in axes.lines if line.get_label() in ("rnn", "lstm")]
    assert [line.get_linestyle() for line in marks] == ["None", "None"]
    assert all(round(at) == k for line in marks for k, at in enumerate(line.get_xdata())), "within its band"
