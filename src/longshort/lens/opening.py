"""What `look` is given -> a specimen with its labels: a module and its input, a forecaster, or a run
folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, RunError, SettingError

if TYPE_CHECKING:
    from ..tasks import Forecaster

WINDOWS = 48
"""Windows of a forecaster's series that are looked at, evenly spread over them."""
READ = 32
"""Steps read after a window's context, as in training."""


@dataclass(frozen=True)
class Opened:
    """A network, its inputs and what to call them."""

    model: nn.Module
    inputs: tuple[Any, ...]
    output: Callable[[Any], Tensor] | None = None
    loss: Callable[[Tensor], Tensor] | None = None
    answer: int | None = None
    answer_name: str = ""
    title: str = ""
    channels: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tokens: list[list[str]] | None = None
    required: int | None = None
    name: str = ""
    "what the model is called beside those compared"
    compare: dict[str, list[nn.Module]] = field(default_factory=dict)
    "other models for the same inputs by name, one a seed; more seeds of this model under its own name"
    film: list[dict[str, Any]] = field(default_factory=list)
    last: Callable[[Any], Tensor] | None = None
    "as `output`, of each sequence's last step alone, where that is less work"
    own: bool = False
    "the first input may be what memory is asked about, where it has the sequences and steps of the layers"


def open_model(model: Any, input: Any) -> Opened:
    """Take a module with its input, a fitted `longshort.Forecaster` with its table, or a fitted
    `longshort.LanguageModel` with a prompt.

    Raises:
        SettingError: it is none of them, or a module without an input.
    """
    if isinstance(model, nn.Module):
        if input is None:
            raise SettingError(
                f"look: `input` must be what the forward of {type(model).__name__} takes, a tensor or a "
                "tuple of arguments, got None."
            )
        return Opened(
            model, input if type(input) is tuple else (input,), title=type(model).__name__, own=True
        )
    if type(model).__name__ == "Forecaster":
        return open_forecaster(model, input)
    if type(model).__name__ == "LanguageModel":
        from .opening_text import open_text

        return open_text(model, input, None if model._later is None else model._later.tokens)
    raise SettingError(
        f"look: `model` must be a torch module, or a fitted longshort.Forecaster or LanguageModel, got "
        f"{type(model).__name__}."
    )


def open_run(folder: str | Path, source: Any = None) -> Opened:
    """Take a run folder.

    Args:
        folder: a run of `longshort train`.
        source: what to look at: rows for a forecast, a prompt or a text for a language model, the name of a
            problem for a comparison; the run's own if None.

    Raises:
        RunError: it is no run, or one that holds no recurrent model.
    """
    from ..runs import Run

    if Path(folder).is_file():
        raise RunError(
            f"look: {folder} must be the folder of a run, and is a file. A model that torch saved is looked "
            'at from Python: load it, then longshort.look(model, input).save("look.html").'
        )
    run = Run.open(folder)
    title = Path(folder).resolve().name
    if run.task == "forecast":
        from ..tasks import Forecaster

        rows = "/dev/stdin" if source == "-" else source
        opened = open_forecaster(Forecaster.load(folder), rows)
    elif run.task == "language":
        from .opening_text import open_text_run

        opened = open_text_run(run, source)
    elif run.task in ("problem", "problems"):
        from .opening_problem import open_comparison, open_trial

        opened = open_trial(run) if run.task == "problem" else open_comparison(run, source)
        title = opened.title
    else:
        raise RunError(
            f"look: {folder} must be a run of forecast, language or problems, and is one of {run.task}. "
            f"From Python any model can be looked into: longshort.look(model, input)."
        )
    film = run.read_json("film.json") if run.exists("film.json") else []
    return replace(opened, title=title, film=film)


def open_forecaster(model: Forecaster, source: Any = None) -> Opened:
    """Windows of a forecaster's series, evenly spread, series taking turns, each with the steps that follow
    as its truth.

    The answer is the median of the next step, the loss the quantile loss over the horizon, on the scale of
    each window.

    Args:
        model: a fitted forecaster.
        source: a frame, path or `SeriesTable`; the history of the model if None.

    Raises:
        DataError: no series is long enough for one window.
    """
    from ..tasks.forecast.objective import pinball
    from ..tasks.forecast.settings import LEVELS
    from ..tasks.forecast.windows import Panel

    plan = model.plan
    table = model.history if source is None else model.table(source)
    network = model._fitted()[1]
    panel = Panel(table, plan, reach=plan.horizon + READ)
    several = min(len(table), WINDOWS)
    pairs = []
    for number in range(several):  # series take turns: windows of the same time share calendar and weather
        last = int(panel.length[number]) - plan.horizon - READ
        spots = np.linspace(min(plan.context, last), last, WINDOWS // several * several)
        counts = spots[number::several].round().astype(int)
        pairs += [(number, count) for count in np.unique(counts) if count >= min(plan.context, 2)]
    if not pairs:
        need = plan.horizon + READ + 2
        raise DataError(
            f"look: a series must have {need} rows or more to be looked at, got {panel.length.max()}."
        )
    which, count = np.array(pairs).T
    windows, scale = panel.cut(which, count, plan.context + READ)
    places = torch.tensor([plan.context + READ - 1])
    truth = panel.truth(which, count[:, None] + READ, panel.length[which], scale)

    def loss(out: Tensor) -> Tensor:
        return pinball(out.unflatten(1, (1, plan.horizon, len(LEVELS))), truth).mean((1, 2))

    names = [_name(table.series[n], int(c) + READ - 1) for n, c in pairs]
    return Opened(
        network, (windows, places), lambda out: out.flatten(1), loss, LEVELS.index(0.5),
        "The median of the next step", "Forecaster",
        _channels(plan, network), names,
    )  # fmt: skip


def _name(series: Any, row: int) -> str:
    """A window as "series, up to time"."""
    time = series.time[min(row, len(series.time) - 1)]
    text = str(time).split("T")[0] if np.issubdtype(series.time.dtype, np.datetime64) else str(time)
    return f"{series.name}, up to {text}"


def _channels(plan: Any, network: Any) -> list[str]:
    """Names of the network's input channels, as `ForecastModel` stacks them."""

    def numbers(role: str) -> list[str]:
        return [part for name, *_ in plan.numeric[role] for part in (name, f"{name} known")]

    def categories(role: str) -> list[str]:
        """One for each number that a category is turned into."""
        sizes = [table.embedding_dim for table in network.codes[role]]
        named = zip(plan.coded[role], sizes, strict=True)
        return [
            f"{name}, {k} of {size}" if size > 1 else name
            for (name, _), size in named
            for k in range(1, size + 1)
        ]

    names = ["value", "known"]
    for season in plan.seasons:
        names += [f"change in {season} steps", f"{season} steps before the next"]
    names += numbers("past") + categories("past")
    names += [f"{wave} of the {cycle}" for cycle in plan.calendar for wave in ("sine", "cosine")]
    return names + numbers("future") + categories("future") + numbers("static") + categories("static")
