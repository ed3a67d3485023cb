"""What a person sees while a fit runs: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import need
from .checkpoint import Place

if TYPE_CHECKING:
    from .fit import Objective


Item = TypeVar("Item")


class Progress(Protocol):
    """Told of each step and each validation."""

    def step(self, place: Place) -> None:
        """One optimiser step was made."""

    def validation(self, place: Place, scores: dict[str, float]) -> None:
        """The model was scored."""


@contextmanager
def watch(
    objective: Objective, total: int, place: Place, *, quiet: bool, over: bool = False
) -> Iterator[Progress]:
    """Show the steps made, the task's metric, the throughput and the time left, on standard error.

    Args:
        objective: names the metric and what a batch consists of.
        total: steps at most.
        place: where the fit starts.
        quiet: show nothing.
        over: there is nothing left to do.
    """
    if quiet:
        yield Silence()
        return
    if place.step and not over:
        print(f"going on from step {place.step}", file=sys.stderr, flush=True)
    need("rich", extra="tasks", to="show progress")
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Lines(objective, total, place)
        yield lines
        lines.end(place)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichBar

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with RichBar(*columns, console=console, transient=False) as bar:
        yield Bar(bar, objective, total, place)


def followed(items: Sequence[Item], what: str, *, quiet: bool = False) -> Iterator[Item]:
    """Pass items on and show on standard error how many are done: a bar, or a line every ten seconds.

    Args:
        items: what takes long, one after the other.
        what: is done with them, in a word.
        quiet: show nothing.

    >>> list(followed([1, 2], "reading", quiet=True))
    [1, 2]
    """
    if quiet:
        yield from items
        return
    need("rich", extra="tasks", to="show progress")
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, console=console, transient=True)
        return
    shown = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - shown >= Lines.seconds:
            print(f"{what}: {done / len(items):.0%}", file=sys.stderr, flush=True)
            shown = time.monotonic()
        yield item


class Silence:
    """Shows nothing."""

    def step(self, place: Place) -> None:
        """Show nothing."""

    def validation(self, place: Place, scores: dict[str, float]) -> None:
        """Show nothing."""


class Bar:
    """A bar of rich's."""

    def __init__(self, bar: Any, objective: Objective, total: int, place: Place) -> None:
        self.bar, self.objective, self.meter = bar, objective, Meter(objective, place)
        self.task = bar.add_task("", total=total, completed=place.step, note="", rate="")

    def step(self, place: Place) -> None:
        """Move the bar."""
        shown = {} if place.scores else {"note": loss(place)}
        self.bar.update(self.task, completed=place.step, rate=self.meter.text(place), **shown)

    def validation(self, place: Place, scores: dict[str, float]) -> None:
        """Show the score, and the best one."""
        self.bar.update(self.task, note=note(self.objective, place, scores))


class Lines:
    """One line at most every ten seconds, for logs and pipes, and one at the end."""

    seconds = 10.0

    def __init__(self, objective: Objective, total: int, place: Place) -> None:
        self.objective, self.total, self.meter = objective, total, Meter(objective, place)
        self.note, self.shown, self.first = "", time.monotonic(), place.step

    def step(self, place: Place) -> None:
        """Print a line when the last one is old."""
        if time.monotonic() - self.shown >= self.seconds and place.step < self.total:
            self._print(place)

    def validation(self, place: Place, scores: dict[str, float]) -> None:
        """Remember the score for the next line."""
        self.note = note(self.objective, place, scores)

    def end(self, place: Place) -> None:
        """Print where it ended, after the last validation; nothing where no step was made."""
        if place.step > self.first:
            self._print(place)

    def _print(self, place: Place) -> None:
        left = self.meter.left(place, self.total)
        parts = [
            f"step {place.step}/{self.total}",
            self.note or loss(place),
            self.meter.text(place),
            f"{left:.0f} s left",
        ]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)
        self.shown = time.monotonic()


class Meter:
    """Batches a second since the fit started, in the task's unit."""

    def __init__(self, objective: Objective, place: Place) -> None:
        self.objective, self.first, self.started = objective, place.step, time.monotonic()

    def pace(self, place: Place) -> float:
        """Steps a second."""
        return (place.step - self.first) / max(time.monotonic() - self.started, 1e-9)

    def text(self, place: Place) -> str:
        """The throughput in the task's unit."""
        return f"{self.pace(place) * self.objective.size:,.0f} {self.objective.unit}/s"

    def left(self, place: Place, total: int) -> float:
        """Seconds left if no early end comes."""
        return (total - place.step) / max(self.pace(place), 1e-9)


def loss(place: Place) -> str:
    """The mean loss of the steps since the last validation as text."""
    return f"loss {place.total / place.count:.4f}" if place.count else ""


def note(objective: Objective, place: Place, scores: dict[str, float]) -> str:
    """The score and the best one as text."""
    name = objective.metric
    return f"{name} {scores[name]:.4f} (best {place.best_scores.get(name, place.best):.4f})"
