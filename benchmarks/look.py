"""What the microscope costs: the numbers and the page, the browser, and a long sequence of a wide layer.

    python benchmarks/look.py [page browser large]

page      all numbers and the page for H = 128, T = 200, five sequences
browser   that page in Chromium: until it is ready, and frames a second while the cursor moves
large     T = 5,000 and H = 1,024: time, and the largest resident memory of the process
"""

import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import longshort


class Reader(nn.Module):
    """An LSTM and a linear answer at the last step."""

    def __init__(self, C: int, H: int) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(C, H, batch_first=True), nn.Linear(H, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def made(N: int, T: int, H: int) -> tuple[float, int, Path]:
    torch.manual_seed(0)
    model, x, y = Reader(4, H), torch.randn(N, T, 4), torch.randn(N)
    path = Path(tempfile.mkdtemp()) / "look.html"
    start = time.perf_counter()
    longshort.look(model, x, loss=lambda out: (out[:, 0] - y).square()).save(path)
    return time.perf_counter() - start, path.stat().st_size, path


def page() -> dict[str, float]:
    made(2, 10, 8)  # the first use loads modules
    runs = [made(5, 200, 128) for _ in range(3)]
    seconds = [run[0] for run in runs]
    return {"seconds": statistics.median(seconds), "slowest": max(seconds), "bytes": runs[0][1]}


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


def browser() -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    path = made(5, 200, 128)[2]
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
        chromium.close()
    return {
        "seconds to open": statistics.median(opened),
        "slowest": max(opened),
        "frames a second": 1000 / gaps["median"],
        "frames a second, slowest 5 %": 1000 / gaps["late"],
    }


def large() -> dict[str, float]:
    seconds, size, _ = made(1, 5000, 1024)
    return {
        "seconds": seconds,
        "bytes": size,
        "resident MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    names = sys.argv[1:] or ["large", "page", "browser"]
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor()}
    for name in names:
        print(json.dumps({"benchmark": f"look {name}", **globals()[name](), **about}), flush=True)


if __name__ == "__main__":
    main()
