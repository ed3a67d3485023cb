"""How an LSTM's weights begin, by name. A bias meant once is filled once: the two act as their sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import SettingError

if TYPE_CHECKING:
    from .layer import LSTM

Initialiser = Callable[["LSTM"], None]
"""Fills the weights of a layer in place."""

_PLAIN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole", "weight_gates")


def by_name(init: str | Initialiser) -> Initialiser:
    """Return the initialiser of a name, or the one given.

    Args:
        init: "torch", "longshort", or what `chrono` or `uniform` returned.

    Raises:
        SettingError: the name is not known.
    """
    if callable(init):
        return init
    if init not in _NAMED:
        raise SettingError(
            f"LSTM: `init` must be one of {', '.join(map(repr, _NAMED))}, or chrono(longest) or "
            f"uniform(bound) of longshort.nn, got {init!r}."
        )
    return _NAMED[init]


def as_torch(layer: LSTM) -> None:
    """Every weight uniform in ±1/sqrt(H), in the order in which torch.nn.LSTM draws them."""
    uniform(1 / math.sqrt(layer.hidden_size))(layer)


def uniform(bound: float) -> Initialiser:
    """Return an initialiser that draws every weight uniformly in [-bound, bound].

    Args:
        bound: above 0; Zaremba et al. (2014) used 0.1 and 0.05, Graves (2013) others.

    Raises:
        SettingError: `bound` is not above 0.
    """
    if not bound > 0:
        raise SettingError(f"uniform: `bound` must be above 0, got {bound}.")

    return partial(_fill_uniform, bound)


def _fill_uniform(bound: float, layer: LSTM) -> None:
    _rest(layer)
    for name, weight in layer.named_parameters():
        if name.startswith(_PLAIN):
            nn.init.uniform_(weight, -bound, bound)


def longshort(layer: LSTM) -> None:
    """Orthogonal recurrence gate by gate, Xavier input weights, forget bias 1, all other biases 0.

    Sources: Saxe et al. (2014) for orthogonal weights; Gers et al. (2000) and Jozefowicz et al. (2015) for
    the forget bias.
    """
    _rest(layer)
    for name, weight in layer.named_parameters():
        if name.startswith("weight_hh"):
            for block in weight.detach().chunk(len(layer.variant.gates)):
                nn.init.orthogonal_(block)
        elif name.startswith("weight_ih"):
            for block in weight.detach().chunk(len(layer.variant.gates)):
                nn.init.xavier_uniform_(block)
        elif name.startswith("weight_hr"):
            nn.init.orthogonal_(weight)
        elif name.startswith(("bias", "weight_peephole", "weight_gates")):
            nn.init.zeros_(weight)
    for gates in gate_biases(layer):
        if "f" in gates:
            nn.init.ones_(gates["f"])


def chrono(longest: float) -> Initialiser:
    r"""Return an initialiser for memories of up to `longest` steps.

    $$b_f \sim \log U(1, longest - 1), \qquad b_i = -b_f$$

    Everything else is as in "longshort".

    Args:
        longest: the longest lag in steps, above 2.

    Raises:
        SettingError: `longest` is not above 2; or, when it is applied, the layer has no bias.

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018).
    """
    if not longest > 2:
        raise SettingError(f"chrono: `longest` must be above 2 steps, got {longest}.")

    return partial(_fill_chrono, longest)


def _fill_chrono(longest: float, layer: LSTM) -> None:
    if not layer.bias:
        raise SettingError("chrono: sets the biases, and the layer has bias=False. Give it a bias.")
    longshort(layer)
    for gates in gate_biases(layer):
        one = next(iter(gates.values()))
        lag = torch.empty_like(one).uniform_(1, longest - 1).log()
        if "f" in gates:
            gates["f"].copy_(lag)
        if "i" in gates:
            gates["i"].copy_(-lag)


def gate_biases(layer: LSTM) -> Iterable[dict[str, Tensor]]:
    """Yield, for each layer and direction, the blocks of the first bias by gate; the second stays 0."""
    for name, bias in layer.named_parameters():
        if name.startswith("bias_ih"):
            blocks = bias.detach().chunk(len(layer.variant.gates))
            yield dict(zip(layer.variant.gates, blocks, strict=True))


def _rest(layer: LSTM) -> None:
    """What no paper draws: gains 1, shifts and learned initial states 0."""
    for name, weight in layer.named_parameters():
        if name.startswith("gain"):
            nn.init.ones_(weight)
        elif name.startswith(("shift", "initial")):
            nn.init.zeros_(weight)


_NAMED: dict[str, Initialiser] = {"torch": as_torch, "longshort": longshort}
