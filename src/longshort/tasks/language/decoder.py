"""Scores of the next token, and their loss.

In float32 the product and torch's cross entropy already run at the speed of the product alone: to compute the
scores again piece by piece saves memory, no time (`scripts/bench language-decoder`). In bfloat16, summed in
float32, the product takes half the time where the processor has instructions for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGE = 50_000
"""Units from which on "auto" takes the adaptive softmax."""


class Decoder(nn.Module):
    """The softmax over all V tokens.

    Args:
        width: numbers it scores from.
        V: tokens.
        tied: the embedding (V, width), if its numbers are the decoder's too.
        short: multiply in bfloat16, with sums in float32.
    """

    def __init__(self, width: int, V: int, tied: nn.Embedding | None = None, short: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(V, width)) if tied is None else tied.weight
        self.bias = nn.Parameter(torch.zeros(V))
        self.short = short

    def forward(self, h: Tensor) -> Tensor:
        """Log-probabilities, less a constant for each row, (..., V) of h (..., width)."""
        if not self.short:
            return functional.linear(h, self.weight, self.bias)
        narrow = torch.bfloat16
        scores = functional.linear(h.to(narrow), self.weight.to(narrow))
        return scores.to(h.dtype) + self.bias

    def losses(self, h: Tensor, targets: Tensor) -> Tensor:
        """-log p of each target (M,) from h (M, width), in nats."""
        return functional.cross_entropy(self(h).float(), targets, reduction="none")


class AdaptiveDecoder(nn.Module):
    """The softmax in clusters: frequent tokens at once, rare ones through a cluster of narrower rows.

    Tokens must be numbered by frequency, most frequent first.

    Args:
        width: numbers it scores from.
        V: tokens, at least 3.

    Source: Grave et al., "Efficient softmax approximation for GPUs" (2017).
    """

    def __init__(self, width: int, V: int) -> None:
        super().__init__()
        cuts = sorted({max(1, V // 25), max(2, V // 5)})
        narrower = min(4.0, width ** (1 / len(cuts)))  # the rarest cluster still has a number to itself
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(width, V, cuts, div_value=narrower)

    def forward(self, h: Tensor) -> Tensor:
        """Log-probabilities (..., V) of h (..., width)."""
        flat: Tensor = self.softmax.log_prob(h.flatten(0, -2))
        return flat.reshape(*h.shape[:-1], -1)

    def losses(self, h: Tensor, targets: Tensor) -> Tensor:
        """-log p of each target (M,) from h (M, width), in nats."""
        return -torch.as_tensor(self.softmax(h, targets).output)
