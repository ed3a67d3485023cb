"""The kernels on the host under gcc's sanitizers: nothing past a tensor, a block's memory, a local array."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator
import sanitized

WHY_NOT = emulator.sanitizer()[1]
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    pytest.mark.skipif(
        "LONGSHORT_SANITIZE_KERNELS" not in os.environ, reason="some minutes long: scripts/check --sanitize"
    ),
]


def run(*words, symbols=True):
    command = [sys.executable, sanitized.__file__, *words]
    environment = sanitized.environment(symbols)
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, env=environment
    )


@pytest.mark.parametrize("part", sanitized.PARTS)
def test_nothing_is_found(part):
    found = run(part)
    assert found.returncode == 0, found.stdout[-20000:]
    assert f"\n{part}: " in f"\n{found.stdout}"


def test_every_wrong_kernel_is_found():
    found = run("--wrong", symbols=False)
    parts = found.stdout.split("wrong: ")[1:]
    assert [part.split("\n")[0] for part in parts] == list(sanitized.WRONG), found.stdout[-20000:]
    for part, (*_, said) in zip(parts, sanitized.WRONG.values(), strict=True):
        assert "a kernel is broken\n" in part and said in part and "ended: 0" not in part, part
