"""The examples run, and say what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def said_by(name):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}
    command = [sys.executable, EXAMPLES / f"{name}.py"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text, before):
    return [float(number) for number in re.findall(before + r" ([0-9.e+-]+)", text)]


def test_from_scratch_learns_to_the_end_with_the_right_gradient():
    said = said_by("from_scratch")
    assert numbers(said, "finite difference")[0] < 1e-8
    assert numbers(said, "right up to n =")[0] >= 12
    assert said.splitlines()[-1].endswith("next: E")


@pytest.mark.parametrize(("name", "layers"), [("with_torch", 2), ("with_keras", 1)])
def test_the_same_weights_give_the_same_numbers_and_gradients(name, layers):
    said = said_by(name)
    differences = numbers(said, "gradients differ by")
    assert len(differences) == layers
    assert max(differences) < 1e-12
    assert name == "with_torch" or "the weights are the same, bit for bit" in said


def test_from_scratch_is_numpy_alone():
    lines = (EXAMPLES / "from_scratch.py").read_text("utf8").splitlines()
    assert [line for line in lines if re.match(r"(import|from) ", line)] == ["import numpy as np"]
