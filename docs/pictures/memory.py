"""Make the pictures of docs/memory.md from the measured results and from the generators.

python docs/pictures/memory.py
"""

import json
from pathlib import Path

import matplotlib
import numpy as np

from longshort.figures import save_figure
from longshort.problems.catalogue import PROBLEMS
from longshort.problems.report import figure

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results"


def scores(name: str, *parts: str) -> None:
    """Score against lag of one problem, from the results of several parts."""
    found = [json.loads((RESULTS / f"problems-{part}.json").read_text()) for part in parts]
    rows = sorted((row for part in found for row in part["rows"]), key=lambda row: row["lag"])
    save_figure(figure({**found[0], "rows": rows}), HERE / f"memory-{name}.png")


def wolf() -> None:
    """Four sequences of the wolf problem, the of ten pictures each."""
    problem = PROBLEMS["wolf"]
    batch = problem.draw(9, 200, np.random.default_rng(4))
    answers = batch.target[:, -1]
    rows = [*np.flatnonzero(answers == 1)[:2], *np.flatnonzero(answers == 0)[:2]]
    page, grid = plt.subplots(len(rows), 10, figsize=(8.3, 3.6))
    for axes, n in zip(grid, rows, strict=True):
        for place, picture in zip(axes, batch.x[n], strict=True):
            place.imshow(picture, cmap="gray", vmin=-0.2, vmax=1.1)
            place.axis("off")
        beside = {"xycoords": "axes fraction", "va": "center", "fontsize": 10}
        axes[-1].annotate("→ wolf" if answers[n] else "→ dog", (1.12, 0.5), annotation_clip=False, **beside)
    page.tight_layout(pad=0.4)
    page.savefig(HERE / "memory-wolf.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    scores("recall", "recall", "recall-bias1", "recall-stops", "recall-long")
    scores("loan", "loan", "loan-long")
    wolf()
