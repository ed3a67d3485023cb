"""A fitted language model as a graph: tokens in, scores of the next one out, whole and token by token."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from ..scan import State
from ..tasks import LanguageModel
from ..tasks.language.model import LanguageNetwork
from .onnx_writing import Graph
from .program_writing import Stream


class Tokens(nn.Module):
    """Tokens (N, T) -> scores (N, T, V) of the next one, and what is kept: h and c (1, N, H) of each layer.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Read texts from their beginning."""
        read = self.network(tokens)
        return (self.network.decoder(read.h), *(part for state in read.state for part in state))


class NextToken(nn.Module):
    """(What is kept, tokens (N,)) -> scores (N, V), and what is kept.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Read one more token of each text."""
        parts, tokens = given[:-1], given[-1]
        before = tuple(State(h, c) for h, c in zip(parts[::2], parts[1::2], strict=True))
        read = self.network(tokens[:, None], before)
        return (self.network.decoder(read.h[:, 0]), *(part for state in read.state for part in state))


def language_graph(model: LanguageModel) -> tuple[Graph, Stream]:
    """Return a fitted language model as the graph of whole texts, and that of one more token.

    Raises:
        SettingError: the model has not been fitted.
    """
    network = copy.deepcopy(model.network).cpu().eval().requires_grad_(False)
    V, layers = network.embedding.num_embeddings, len(network.layers)
    kept = tuple(f"{part}{k}" for k in range(layers) for part in "hc")

    def tokens(N: int, T: int) -> tuple[Tensor, ...]:
        return ((torch.arange(N * T) * 7 % V).view(N, T),)

    def token(N: int, T: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (*Tokens(network)(*tokens(N, T))[1:], torch.arange(N) % V)

    after = tuple(f"{name}_n" for name in kept)
    whole = Graph(Tokens(network), ("tokens",), ("scores", *after), {"tokens": {0: "N", 1: "T"}}, tokens)
    step = dataclasses.replace(
        whole,
        module=NextToken(network),
        inputs=(*kept, "tokens"),
        dynamic={**{name: {1: "N"} for name in kept}, "tokens": {0: "N"}},
        example=token,
    )
    return whole, Stream(step, len(kept))
