"""A fitted language model as a graph: tokens in, scores of the next one out, whole and token by token."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from ..nn.decoder import Decoder
from ..scan import State
from ..tasks import LanguageModel
from ..tasks.language.model import LanguageNetwork
from .onnx_writing import Graph
from .program_writing import Stream


class Text(nn.Module):
    """Tokens (N, T) -> scores (N, T, V) of the next one, and what is kept: h and c (1, N, H) of each layer.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Read texts from what was kept, h and c of each layer; tokens alone are read from the beginning."""
        parts, tokens = given[:-1], given[-1]
        before = tuple(State(h, c) for h, c in zip(parts[::2], parts[1::2], strict=True)) or None
        read = self.network(tokens, before)
        return (self.network.decoder(read.h), *(part for state in read.state for part in state))


class NextToken(nn.Module):
    """(What is kept, tokens (N,)) -> scores (N, V), and what is kept.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.text = Text(network)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Read one more token of each text."""
        scores, *kept = self.text(*given[:-1], given[-1][:, None])
        return (scores[:, 0], *kept)


def language_graph(model: LanguageModel) -> tuple[Graph, Stream]:
    """Return a fitted language model as the graph of texts from their beginning, and of one more token.

    Raises:
        SettingError: the model has not been fitted.
    """
    network = copy.deepcopy(model.network).cpu().eval().requires_grad_(False)
    if isinstance(network.decoder, Decoder):
        network.decoder.short = False  # short products are a matter of speed, and of the machine that trains
    V, layers = network.embedding.num_embeddings, range(len(network.layers))

    def tokens(N: int, T: int) -> tuple[Tensor, ...]:
        return ((torch.arange(N * T) * 7 % V).view(N, T),)

    def token(N: int, T: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (*Text(network)(*tokens(N, T))[1:], torch.arange(N) % V)

    outputs = ("scores", *(f"{part}_n_l{k}" for k in layers for part in "hc"))
    whole = Graph(
        module=Text(network),
        inputs=("tokens",),
        outputs=outputs,
        dynamic={"tokens": {0: "N", 1: "T"}},
        example=tokens,
        about={"task": "language", "vocabulary": model.vocabulary.to_json()},
    )
    kept = tuple(f"{part}0_l{k}" for k in layers for part in "hc")
    step = dataclasses.replace(
        whole,
        module=NextToken(network),
        inputs=(*kept, "tokens"),
        dynamic={**{name: {1: "N"} for name in kept}, "tokens": {0: "N"}},
        example=token,
    )
    return whole, Stream(step, len(kept))


def continued(whole: Graph, step: Graph) -> Graph:
    """The graph of whole texts with what is kept as inputs too: any part of a text goes on from another."""

    def example(N: int, T: int) -> tuple[Tensor, ...]:
        return (*step.example(N, T)[:-1], *whole.example(N, T))

    dynamic = {**step.dynamic, **whole.dynamic}
    return dataclasses.replace(whole, inputs=step.inputs, dynamic=dynamic, example=example)
