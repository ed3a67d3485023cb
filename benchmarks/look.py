"""What the microscope costs: numbers and page, the browser, a long sequence of a wide layer, the film.

    scripts/bench look [page browser large film]

page      all numbers and the page for H = 128, T = 200, five sequences
browser   that page in Chromium: until it is ready, and frames a second while the cursor moves
large     T = 5,000 and H = 1,024: time, the largest resident memory, and what the page says it left out
film      `longshort train --watch`: a frame beside a step of training, with the defaults of both tasks

Each part is measured in a process of its own. "processor seconds" are of all its threads: on a shared machine
the ones to compare. results/look.json keeps the parts that are not measured again.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import longshort
import record
from longshort.lens.filming import RunRecorder


class Reader(nn.Module):
    """An LSTM and a linear answer at the last step."""

    def __init__(self, C: int, H: int) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(C, H, batch_first=True), nn.Linear(H, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def made(N: int, T: int, H: int) -> tuple[float, Path]:
    """Look at a reader of noise; the seconds, and the page."""
    torch.manual_seed(0)
    model, x, y = Reader(4, H), torch.randn(N, T, 4), torch.randn(N)
    path = Path(tempfile.mkdtemp()) / "look.html"
    start = time.perf_counter()
    longshort.look(model, x, loss=lambda out: (out[:, 0] - y).square()).save(path)
    return time.perf_counter() - start, path


def page() -> dict[str, Any]:
    made(2, 10, 8)  # the first use loads modules
    runs = [made(5, 200, 128) for _ in range(3)]
    seconds = [run[0] for run in runs]
    return {
        "asked": "below 60 s", "seconds": round(statistics.median(seconds), 2),
        "slowest": round(max(seconds), 2), "met": max(seconds) < 60, "bytes": runs[0][1].stat().st_size,
    }  # fmt: skip


FRAMES = """async () => {
    const slider = document.getElementById('time');
    const times = [];
    for (let k = 0; k < 120; k++) {
        slider.value = k;
        slider.dispatchEvent(new Event('input'));
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        times.push(performance.now());
    }
    const gaps = times.slice(1).map((t, k) => (t - times[k]) / 2).sort((a, b) => a - b);
    return { median: gaps[59], late: gaps[113] };
}"""


def browser() -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    path = made(5, 200, 128)[1]
    opened = []
    with sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for _ in range(7):
            tab = chromium.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
            start = time.perf_counter()
            tab.goto(path.as_uri())
            tab.wait_for_selector("html.ready")
            opened.append(time.perf_counter() - start)
        gaps = tab.evaluate(FRAMES)
        version = chromium.version
        chromium.close()
    return {
        "asked": "open in less than 1 s, and more than 30 frames a second while the cursor moves",
        "seconds to open": round(statistics.median(opened), 3), "slowest": round(max(opened), 3),
        "frames a second": round(1000 / gaps["median"], 1),
        "frames a second, slowest 5 %": round(1000 / gaps["late"], 1),
        "met": statistics.median(opened) < 1 and 1000 / gaps["median"] > 30, "chromium": version,
    }  # fmt: skip


def large() -> dict[str, Any]:
    seconds, path = made(1, 5000, 1024)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    data = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf8"), re.S
    )
    return {
        "asked": "within 2 GB of resident memory, the sub-sampling said on the page",
        "seconds": round(seconds, 1), "resident GB": round(resident / 1e9, 2), "met": resident < 2e9,
        "bytes": path.stat().st_size, "said on the page": json.loads(data[1])["notes"] if data else None,
    }  # fmt: skip


class Clock:
    """A recorder that notes how long its frames take."""

    def __init__(self, folder: Path, every: int) -> None:
        self.recorder, self.frames, self.begun = RunRecorder(folder, every), list[float](), 0.0

    def __call__(self, step: int, module: nn.Module, objective: Any) -> None:
        self.begun = self.begun or time.perf_counter()
        start = time.perf_counter()
        self.recorder(step, module, objective)
        if step % self.recorder.every == 0:
            self.frames.append(time.perf_counter() - start)


def film() -> dict[str, Any]:
    from longshort.cli.train import WATCH
    from longshort.data import embedded
    from longshort.tasks.language.text import topics

    found: dict[str, Any] = {"asked": "its cost stated", "steps between frames": WATCH}
    for name, model, source, steps in (
        ("forecast", longshort.Forecaster(horizon=12, max_steps=120), embedded(), 120),
        ("language", longshort.LanguageModel(max_steps=60), topics(), 60),
    ):
        folder = Path(tempfile.mkdtemp()) / "run"
        clock = Clock(folder, 10)
        model.fit(source, run=longshort.runs.Run.create(folder, name, {}), quiet=True, recorder=clock)
        frame = statistics.median(clock.frames)
        step = (model.fitted.seconds - sum(clock.frames)) / steps
        found[name] = {
            "seconds a frame": round(frame, 4), "seconds a step": round(step, 4),
            "share of the training": round(frame / (frame + WATCH * step), 4),
        }  # fmt: skip
    return found


PARTS = {"page": page, "browser": browser, "large": large, "film": film}


def measured(name: str) -> dict[str, Any]:
    """One part, in a process of its own."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {**json.loads(told.stdout), "processor seconds": round(busy, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(PARTS[args.one]()))
        return
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"PART must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    path = record.RESULTS / "look.json"
    parts = json.loads(path.read_text())["parts"] if path.is_file() else {}
    for name in args.parts or PARTS:
        parts[name] = measured(name)
        print(json.dumps({name: parts[name]}), flush=True)
        record.write("look", {"parts": {known: parts[known] for known in PARTS if known in parts}})


if __name__ == "__main__":
    main()
