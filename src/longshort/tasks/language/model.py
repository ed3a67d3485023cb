"""The network: an LSTM reads tokens, and scores what may come next.

e_t  = E[token_t]                                  numbers that stand for the token        (1)
h_t  = LSTM_k(drop(h below), h_{t-1})              layer after layer                       (2)
s_t  = W drop(h_t) + b                             W = E if tied                           (3)
p(token_{t+1} = v) = softmax(s_t)_v                                                        (4)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn import LSTM
from ...nn.decoder import LARGE, AdaptiveDecoder, Decoder
from ...nn.initialise import uniform
from ...scan import State
from .dropout import dropout
from .settings import LanguageSettings

States = tuple[State, ...]
"""The state of each layer, (1, N, H)."""


class Read(NamedTuple):
    """What reading a window gives."""

    h: Tensor
    "(N, T, width) the last layer's output"
    dropped: Tensor
    "the same, some of it silenced in training: what the scores are made from"
    state: States
    "after the last step"
    losses: Tensor | None = None
    "(N, T) -log p of the targets, if there were any"


class LanguageNetwork(nn.Module):
    """Tokens in, scores of the next token out.

    Args:
        V: tokens of the vocabulary.
        settings: sizes and regularisers.
    """

    def __init__(self, V: int, settings: LanguageSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.widths()
        self.embedding = nn.Embedding(V, settings.embedding)
        start = uniform(settings.spread) if settings.spread else "longshort"
        self.layers = nn.ModuleList(
            LSTM(below, hidden, batch_first=True, noise=settings.noise(k), init=start)
            for k, (below, hidden) in enumerate(widths)
        )
        adaptive = settings.decoder == "adaptive" or (settings.decoder == "auto" and V >= LARGE)
        if adaptive and not settings.tied and V > 2:
            self.decoder: Decoder | AdaptiveDecoder = AdaptiveDecoder(widths[-1][1], V)
        else:
            tied = self.embedding if settings.tied else None
            self.decoder = Decoder(widths[-1][1], V, tied, settings.short_decoder)
        self._start()

    def _start(self) -> None:
        spread = self.settings.spread or 0.1
        nn.init.uniform_(self.embedding.weight, -spread, spread)
        if isinstance(self.decoder, Decoder):
            if not self.settings.tied:
                nn.init.uniform_(self.decoder.weight, -spread, spread)
            if self.settings.spread:
                nn.init.uniform_(self.decoder.bias, -spread, spread)

    def initial(self, N: int) -> States:
        """The state before the first token of N texts."""
        return tuple(layer.initial_state(N) for layer in self._lstms())

    def forward(self, tokens: Tensor, state: States | None = None, targets: Tensor | None = None) -> Read:
        """Read tokens from a state on; windows one after the other give what the whole gives.

        Args:
            tokens: (N, T) int64.
            state: before the first of them; the initial state if None.
            targets: (N, T) what follows each; their losses are returned.
        """
        s, x, after = self.settings, self._embedded(tokens), []
        state = self.initial(tokens.shape[0]) if state is None else state
        for k, layer in enumerate(self._lstms()):
            if not s.locked:  # a locked mask is the layer's own noise
                x = dropout(x, s.dropout if k else s.dropout_input, self.training)
            x, new = layer(x, state[k])
            after.append(new)
        rate = s.dropout if s.dropout_output is None else s.dropout_output
        dropped, losses = dropout(x, rate, self.training, locked=s.locked), None
        if targets is not None:
            losses = self.decoder.losses(dropped.flatten(0, 1), targets.flatten()).view(targets.shape)
        return Read(x, dropped, tuple(after), losses)

    def _lstms(self) -> list[LSTM]:
        return [layer for layer in self.layers if isinstance(layer, LSTM)]

    def _embedded(self, tokens: Tensor) -> Tensor:
        weight, rate = self.embedding.weight, self.settings.dropout_words
        if self.training and rate:
            keep = torch.rand(len(weight), 1, device=weight.device) >= rate
            return functional.embedding(tokens, weight * keep / (1 - rate))
        return functional.embedding(tokens, weight)
