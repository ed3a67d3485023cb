"""What a comparison and a trial are asked: declared without torch, so that the command line can show it."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import Settings, setting

USUAL = ("rnn", "rnn-orthogonal", "gru", "gru-chrono", "lstm", "lstm-bias1", "lstm-chrono", "lstm-peephole")
"""The cells of a comparison that names none."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(Settings):
    """Compare cells on problems of memory."""

    cells: tuple[str, ...] = setting(USUAL, "The cells, by name; `longshort problems` alone lists them.")
    lags: tuple[int, ...] | None = setting(None, "The lags; the problem's own by default.", least=1)
    seeds: int = setting(5, "Trials of each cell at each lag.", least=1)
    rates: tuple[float, ...] | None = setting(
        None, "Learning rates that each cell is tuned over; the problem's by default.", above=0, most=1
    )
    hidden: int | None = setting(
        None, "H of the LSTM whose parameters all cells match; the problem's by default.", least=1
    )
    max_steps: int | None = setting(
        None, "Optimiser steps after which a trial has failed; the problem's by default.", least=1
    )
    beyond: bool = setting(False, "Also try a cell at lags beyond one at which none of its seeds solved it.")
    data: str | None = setting(None, "Folder of the idx files of MNIST, for the problems that read them.")


@dataclass(frozen=True, kw_only=True)
class TrialSettings(Settings):
    """All that decides a trial."""

    problem: str = setting("recall", "The problem.")
    lag: int = setting(10, "Its lag.", least=1)
    cell: str = setting("lstm", "The cell.")
    hidden: int = setting(64, "H of the LSTM whose parameters the cell matches.", least=1)
    rate: float = setting(0.01, "Learning rate.", above=0, most=1)
    seed: int = setting(0, "Decides the first weights and the batches.", least=0)
    max_steps: int = setting(1000, "Optimiser steps after which the trial has failed.", least=1)
