"""What must hold where the wheel, or the source, was installed without a compiler.   wheel_checks.py KIND"""

import importlib.util
import shutil
import subprocess
import sys

import longshort
from longshort import engine
from longshort.errors import MissingExtra


def base() -> None:
    """NumPy alone: the command line and the engine work, and the layer names its extra."""
    assert importlib.util.find_spec("torch") is None
    assert engine.available(), engine.why_not()
    try:
        longshort.LSTM  # noqa: B018
    except MissingExtra as error:
        assert "pip install 'longshort[torch]'" in str(error)
    else:
        raise AssertionError("the layer loaded without torch")
    assert run("--help").startswith("usage: longshort")


def tasks() -> None:
    """The main job runs from the wheel, end to end."""
    assert engine.available(), engine.why_not()
    run("check")
    run("train", "forecast", "--max-steps", "5", "--out", "run")
    assert "mean" in run("predict", "run")


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
