"""The cells that are compared, by name: which recurrence, and how its weights begin.

A cell has as many units as bring its number of parameters closest to that of an LSTM with H units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import SettingError
from ..nn import LSTM, chrono
from ..scan import Variant

Start = Callable[[nn.Module, int], None]
"""Fills the weights of a layer in place; the second argument is the longest dependency in steps."""


@dataclass(frozen=True)
class Cell:
    """One row of a comparison.

    Args:
        name: what the command line calls it.
        about: the recurrence and its start, in one line.
        blocks: rows of weights in units of H: 1 for a plain RNN, 3 for a GRU, 4 for an LSTM.
        build: (C, H, longest) -> a layer that takes (N, T, C) to (N, T, H).
        vectors: further weights in units of H.
    """

    name: str
    about: str
    blocks: int
    build: Callable[[int, int, int], nn.Module]
    vectors: int = 0

    def parameters(self, C: int, H: int) -> int:
        """Weights and the two biases of a layer with C inputs and H units."""
        return self.blocks * H * (C + H + 2) + self.vectors * H

    def units(self, C: int, H: int) -> int:
        """The units that match the parameters of an LSTM with C inputs and H units."""
        wanted = 4 * H * (C + H + 2)
        return min(range(1, 4 * H + 1), key=lambda units: abs(self.parameters(C, units) - wanted))


def _torch(
    kind: type[nn.RNN] | type[nn.GRU], start: Start | None = None, **options: str
) -> Callable[..., nn.Module]:
    """A layer of torch's own, with its start or another."""

    def build(C: int, H: int, longest: int) -> nn.Module:
        layer = kind(C, H, batch_first=True, **options)
        if start is not None:
            with torch.no_grad():
                start(layer, longest)
        return layer

    return build


def _orthogonal(layer: nn.Module, longest: int) -> None:
    """Orthogonal recurrence gate by gate, Xavier input weights, biases 0."""
    for name, weight in layer.named_parameters():
        for block in weight.split(_units(layer)):
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(block)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(block)
            else:
                nn.init.zeros_(block)


def _identity(layer: nn.Module, longest: int) -> None:
    """The identity as recurrence, small input weights, biases 0 (Le et al. 2015)."""
    for name, weight in layer.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.eye_(weight)
        elif name.startswith("weight_ih"):
            nn.init.normal_(weight, 0.0, 1 / math.sqrt(weight.shape[1]))
        else:
            nn.init.zeros_(weight)


def _gru_chrono(layer: nn.Module, longest: int) -> None:
    """As `_orthogonal`, and the bias of the gate that keeps, z, as log U(1, longest - 1)."""
    _orthogonal(layer, longest)
    for name, bias in layer.named_parameters():
        if name.startswith("bias_ih"):
            bias.chunk(3)[1].uniform_(1, max(longest, 3) - 1).log_()


def _units(layer: nn.Module) -> int:
    """H, from the recurrent weights."""
    return next(weight.shape[1] for name, weight in layer.named_parameters() if name.startswith("weight_hh"))


def _ours(start: str, **options: Any) -> Callable[[int, int, int], nn.Module]:
    def build(C: int, H: int, longest: int) -> nn.Module:
        init = chrono(max(longest, 3)) if start == "chrono" else start
        return LSTM(C, H, batch_first=True, variant=Variant(**options), init=init)

    return build


CELLS = {
    cell.name: cell
    for cell in (
        Cell("rnn", "plain RNN (tanh), torch's start", 1, _torch(nn.RNN)),
        Cell("rnn-orthogonal", "plain RNN (tanh), orthogonal recurrence", 1, _torch(nn.RNN, _orthogonal)),
        Cell(
            "rnn-identity",
            "plain RNN (relu), identity recurrence (Le et al. 2015)",
            1,
            _torch(nn.RNN, _identity, nonlinearity="relu"),
        ),
        Cell("gru", "GRU, torch's start", 3, _torch(nn.GRU)),
        Cell(
            "gru-chrono",
            "GRU, orthogonal recurrence, chrono bias of its update gate",
            3,
            _torch(nn.GRU, _gru_chrono),
        ),
        Cell("lstm", "LSTM, torch's start", 4, _ours("torch")),
        Cell("lstm-bias1", "LSTM, orthogonal recurrence, forget bias 1", 4, _ours("longshort")),
        Cell("lstm-chrono", "LSTM, as bias1, chrono biases (Tallec & Ollivier 2018)", 4, _ours("chrono")),
        Cell(
            "lstm-peephole",
            "LSTM whose gates see the cell (Gers & Schmidhuber 2000), as bias1",
            4,
            _ours("longshort", peephole=True),
            3,
        ),
        Cell(
            "lstm-1997",
            "LSTM without a forget gate (Hochreiter & Schmidhuber 1997), as bias1",
            3,
            _ours("longshort", forget_gate=False),
        ),
        Cell(
            "lstm-counter",
            "LSTM with peepholes and h = o c, no tanh on the way out (Gers & Schmidhuber 2001), as bias1",
            4,
            _ours("longshort", peephole=True, output_activation=False),
            3,
        ),
        Cell(
            "lstm-coupled",
            "LSTM with f = 1 - i (Greff et al. 2017), as bias1",
            3,
            _ours("longshort", coupled=True),
        ),
        Cell(
            "lstm-coupled-chrono",
            "LSTM with f = 1 - i, as bias1, chrono biases (Tallec & Ollivier 2018)",
            3,
            _ours("chrono", coupled=True),
        ),
    )
}
"""Every cell by its name."""


def cell_named(name: str) -> Cell:
    """Return the cell of a name.

    Raises:
        SettingError: there is none; the known names are listed.
    """
    if name not in CELLS:
        raise SettingError(f"`cells` must be of {', '.join(CELLS)}, got {name!r}.")
    return CELLS[name]
