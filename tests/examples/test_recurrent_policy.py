"""The recurrent policy runs, and its own check of each window against the loop over time can fail."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "recurrent_policy.py"


def test_it_runs_and_reports():
    result = subprocess.run([sys.executable, str(EXAMPLE), "--tiny"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("update    6  right turns ")


def test_a_forgotten_reset_is_noticed(monkeypatch):
    """The check of the window against the loop can fail: without the reset it does."""
    import importlib.util

    import pytest
    import torch

    spec = importlib.util.spec_from_file_location("recurrent_policy", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    policy, world = example.Policy(8), example.Corridors(8, longest=5, seed=0)
    state, ended = policy.lstm.initial_state(8).detach(), torch.zeros(8, dtype=torch.bool)
    window = example.collect(policy, world, state, ended, 12)
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.1)
    with pytest.raises(AssertionError, match="not close"):
        example.learn(policy, optimiser, window | {"reset": torch.zeros_like(window["reset"])})
    example.learn(policy, optimiser, window)
