"""Result files: what was measured, with the command, the machine, the versions and the spread."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def data(name: str) -> Path:
    """A file of LONGSHORT_DATA, by default `../shared/data` beside the project; exits if it is absent."""
    home = Path(__file__).parents[1]
    folder = Path(os.environ.get("LONGSHORT_DATA", home / ".." / "shared" / "data"))
    path = folder / name
    if not path.is_file():
        sys.exit(f"{path}: there is no such file. Set LONGSHORT_DATA to the folder that has {name}.")
    return path


def machine() -> str:
    """The processor's make, and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = " ".join(lines[0].split(":")[1].split()[:2]) if lines else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def write(name: str, content: dict[str, Any], result: str | None = None) -> Path:
    """Write `results/result.json`, by default `name.json`: the content, after command, machine, versions."""
    packages = ("torch", "numpy", "polars", "lightning-fabric")
    versions = {package: importlib.metadata.version(package) for package in packages}
    arguments = [shlex.quote(argument) for argument in sys.argv[1:]]
    head = {
        "command": " ".join(["scripts/bench", name, *arguments]),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **versions},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result or name}.json"
    path.write_text(json.dumps({**head, **content}, indent=2) + "\n")
    return path
