"""What a comparison says: one table and one picture a problem, made from results.json alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..figures import MemoryLine, memory_figure, save_figure
from ..runs import Run
from .comparison import Row
from .problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("lag", "cell", "units", "weights", "rate", "solved", "score", "least to most", "steps", "seconds")
WITHOUT = "without memory"
NOTE = """\
solved: seeds whose score on the test part is at most {bound:g}; steps and seconds: the median of those.
All cells have as many weights as the LSTM, and each is tuned over the same learning rates at each lag, on a
seed of its own."""


def results(problem: Problem, rows: Iterable[Row]) -> dict[str, Any]:
    """What results.json keeps of one problem.

    Args:
        problem: the problem.
        rows: of `compare`.
    """
    return {
        "name": problem.name,
        "about": problem.about,
        "source": problem.source,
        "lag": problem.lag,
        "measure": problem.answers.measure,
        "bound": problem.bound,
        "rows": [row.to_json() for row in rows],
    }


def table(found: dict[str, Any]) -> str:
    """One problem's rows as text.

    Args:
        found: what `results` returned, or results.json holds.
    """
    rows = found["rows"]
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEAD))]
    widths[1] = max(widths[1], len(WITHOUT))
    text = [_line(HEAD, widths)]
    for row, line in zip(rows, lines[1:], strict=True):
        if not text[-1].startswith(line[0].rjust(widths[0])):
            text.append(_line((line[0], WITHOUT, *[""] * 4, _number(row["trivial"]), *[""] * 3), widths))
        text.append(_line(line, widths))
    return (
        f"{found['name']}: {found['about']}\nscore: {found['measure']}; lag: {found['lag']}\n\n"
        + "\n".join(text)
    )


def figure(found: dict[str, Any]) -> Figure:
    """One problem's picture: score against lag, a line a cell, the seeds' band, the score without memory.

    Args:
        found: what `results` returned, or results.json holds.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    tried = [row for row in found["rows"] if row["tried"]]
    lines = []
    for cell in dict.fromkeys(row["cell"] for row in tried):
        mine = [row for row in tried if row["cell"] == cell]
        scores = [[row["score"][name] for row in mine] for name in ("median", "least", "most")]
        lines.append(MemoryLine(cell, [row["lag"] for row in mine], *scores))
    trivial = {row["lag"]: row["trivial"] for row in found["rows"]}
    return memory_figure(
        lines, (list(trivial), list(trivial.values())), bound=found["bound"], measure=found["measure"],
        logarithmic=0 < found["bound"] < 0.005,
        title=f"{found['name']}: {found['about']}", across=f"lag: {found['lag']}",
    )  # fmt: skip


def write(run: Run, several: list[dict[str, Any]]) -> str:
    """Write results.json, table.txt and the pictures of a comparison.

    Args:
        run: its folder.
        several: what `results` returned, for each problem.

    Returns:
        The text of the tables.
    """
    run.write_json("results.json", {"problems": several})
    text = "\n\n".join(f"{table(found)}\n\n{NOTE.format(bound=found['bound'])}" for found in several)
    run.write_bytes("table.txt", f"{text}\n".encode())
    for found in several:
        save_figure(figure(found), run.path(f"{found['name']}.png"), run.path(f"{found['name']}.svg"))
    return text


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if not row["tried"]:
        return (f"{row['lag']:,}", row["cell"], *[""] * 3, "not tried", *[""] * 4)
    score = row["score"]
    return (
        f"{row['lag']:,}",
        row["cell"],
        f"{row['units']}",
        f"{row['parameters']:,}",
        f"{row['rate']:g}",
        f"{row['solved']} of {row['seeds']}",
        _number(score["median"]),
        f"{_number(score['least'])} to {_number(score['most'])}",
        _whole(row["steps to solve"]),
        _whole(row["seconds to solve"]),
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Cells as a line: the second to the left, the others to the right."""
    parts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    parts[1] = cells[1].ljust(widths[1])
    return "  ".join(parts).rstrip()


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
