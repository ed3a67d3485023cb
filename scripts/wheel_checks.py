"""What must hold where the wheel, or the source, was installed without a compiler.   wheel_checks.py KIND"""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np

import longshort
from longshort import engine, runtime
from longshort.errors import MissingExtra


def base() -> None:
    """NumPy alone: the command line and the engine work, a forecast streams, the layer names its extra."""
    assert importlib.util.find_spec("torch") is None
    assert engine.available(), engine.why_not()
    try:
        longshort.LSTM  # noqa: B018
    except MissingExtra as error:
        assert "pip install 'longshort[torch]'" in str(error)
    else:
        raise AssertionError("the layer loaded without torch")
    assert run("--help").startswith("usage: longshort")
    rows = np.load("rows.npz")
    stream = runtime.load("run/model").stream(target=rows["target"], time=rows["time"])
    np.testing.assert_allclose(stream.output, rows["forecast"], rtol=1e-5)
    after = stream.step(target=rows["new"], time=rows["new_time"])
    np.testing.assert_allclose(after, rows["new_forecast"], rtol=1e-5)
    assert "torch" not in sys.modules
    files = [file for file in importlib.metadata.files("longshort") or [] if file.suffix != ".pyc"]
    size = sum(file.size or file.locate().stat().st_size for file in files)
    assert size <= 5e6, f"the package takes {size:,} bytes beyond NumPy, and 5 MB is its limit"


def tasks() -> None:
    """The main job runs from the wheel, end to end, and its model becomes a folder for `base` to stream."""
    assert engine.available(), engine.why_not()
    run("check")
    run("train", "forecast", "--max-steps", "5", "--out", "run")
    assert "mean" in run("predict", "run")
    run("export", "run", "--to", "runtime")
    np.savez("rows.npz", **rows_and_forecasts())


def rows_and_forecasts() -> dict[str, np.ndarray]:
    """What the exported forecast of `tasks` must say: after its context, and after one more row."""
    from longshort.data import embedded

    forecaster = longshort.Forecaster.load("run")
    plan, table = forecaster.plan, embedded()
    (series,) = table
    last = len(series) - 1

    def rows(first: int, end: int) -> object:
        names = ("time", "target", "past", "future")
        part = replace(series, **{name: getattr(series, name)[first:end] for name in names})
        return replace(table, series=(part,))

    time = table.step.grid(series.time[0], len(series) + plan.horizon)[None]
    forecaster.restart(rows(0, last))
    found = {"target": series.target[None, last - plan.memory : last]}
    found["time"] = time[:, last - plan.context : last + plan.horizon]
    found["forecast"] = forecaster.predict().quantiles.values
    forecaster.update(rows(last, last + 1))
    found |= {"new": series.target[last:], "new_time": time[:, last : last + 1 + plan.horizon]}
    return {**found, "new_forecast": forecaster.predict().quantiles.values}


def source() -> None:
    """A source install without a compiler has no engine, and says why."""
    assert not engine.available()
    assert "compiler" in str(engine.why_not())
    assert run("--help").startswith("usage: longshort")


def run(*words: str) -> str:
    """Run the installed command and return what it printed."""
    command = [sys.executable, "-m", "longshort.cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    found = [name for name in ("gcc", "g++", "clang", "cc", "c++") if shutil.which(name)]
    assert not found, f"this check is for a machine without a compiler, and it has {found}"
    {"base": base, "tasks": tasks, "source": source}[sys.argv[1]]()
    print(f"{sys.argv[1]}: works without a compiler")
