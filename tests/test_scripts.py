"""The scripts say what they need, and continuous integration calls the ones a developer calls."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / "scripts" / name for name in ("install", "demo", "test", "check", "wheel")]


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_a_script_is_runnable_and_parses(path):
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_ci_calls_what_contributing_names():
    ci = (ROOT / ".ci" / "run").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for name in ("scripts/check", "scripts/test"):
        assert name in ci
        assert name in contributing


def test_an_old_python_is_refused(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.1; else exit 1; fi\n')
    old.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "install"
    script.write_bytes((ROOT / "scripts" / "install").read_bytes())
    result = subprocess.run(
        ["bash", script], env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"longshort needs Python 3.11 or newer, and Python 3.9.1 is what `{old}` is. "
        "Name another with PYTHON=...\n"
    )
