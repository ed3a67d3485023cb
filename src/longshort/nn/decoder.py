"""Scores of the next token, and their loss.

With a vocabulary of thousands the scores of a window are the largest array of a training step. So their
gradient is made in their own place, row by row while each is in the cache, right after the product: no second
and third array of that size is written and read. To compute the scores themselves again in parts
would save more memory, and costs time (`scripts/bench language-speed`). The products are the engine's, since
one of those behind torch.mm reaches half of what some processors can. In bfloat16, summed in float32, they
take half the time where the processor has instructions for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .. import engine
from ..scan.arrays import lent

LARGE = 50_000
"""Units from which on "auto" takes the adaptive softmax."""
WIDE = 1_000
"""Units from which on it pays to make the gradient in the place of the scores."""
ROWS = 32
"""Rows of the scores that are taken to float32 and back, or passed over by torch, at a time: in the cache."""
SCORES = 1 << 24
"""Scores that exist at a time where no gradient is wanted."""
ENGINE = engine.available() and engine.isa() != "portable"
"""Whether the engine multiplies: without vectors of its own it would be slower than torch."""
if ENGINE:
    engine.join_openmp()


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
        targets = targets.long()
        if not torch.is_grad_enabled():
            rows = max(1, SCORES // len(self.bias))
            pairs = zip(h.split(rows), targets.split(rows), strict=True)
            return torch.cat([self._plainly(part, wanted) for part, wanted in pairs])
        cast = torch.is_autocast_enabled("cpu")
        short = cast and torch.get_autocast_dtype("cpu") == torch.bfloat16 and h.dtype != torch.float64
        whole = not cast and h.dtype == self.weight.dtype == torch.float32
        if h.device.type != "cpu" or not (short or whole) or len(self.bias) < WIDE:
            return self._plainly(h, targets)
        losses: Tensor = InPlace.apply(  # type: ignore[no-untyped-call]
            h, self.weight, self.bias, targets, short or self.short
        )
        return losses

    def _plainly(self, h: Tensor, targets: Tensor) -> Tensor:
        scores = self(h)
        exact = scores if scores.dtype == torch.float64 else scores.float()
        return functional.cross_entropy(exact, targets, reduction="none")


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a b' (M, K) of a (M, C) and b (K, C) on a CPU, plus a bias (K,); both may be views."""
    if a.dtype == torch.float32 and ENGINE:
        added, threads = None if bias is None else lent(bias), torch.get_num_threads()
        return torch.from_numpy(engine.multiply(lent(a), lent(b), added, threads=threads))
    found = torch.mm(a, b.t())
    return found if bias is None else found.add_(bias)


def cross_entropy_(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the losses (M,) of scores (M, V) on a CPU, and leave p - onehot(y) in the scores."""
    if scores.dtype == torch.float32 and ENGINE:
        threads, wanted = torch.get_num_threads(), lent(targets.contiguous())
        return torch.from_numpy(engine.cross_entropy(scores.detach().numpy(), wanted, threads=threads))
    losses = scores.new_empty(len(scores), 1)
    for part, y, out in zip(
        scores.split(ROWS), targets[:, None].split(ROWS), losses.split(ROWS), strict=True
    ):
        p = torch.log_softmax(part, 1)
        torch.gather(p, 1, y, out=out)
        part.copy_(p.exp_().scatter_add_(1, y, torch.full_like(out, -1.0)))
    return losses[:, 0].neg()


class InPlace(torch.autograd.Function):
    """Cross entropy of a product, whose gradient takes the place of the scores; differentiable once.

    With s = h w' + b, p = softmax(s) and the loss -log p_y of each row:  ds = p - onehot(y).
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, short: bool) -> Tensor:
        """Losses (M,) of h (M, width), weight (V, width), bias (V,) and targets (M,)."""
        if not short:
            scores = product(h, weight, bias)
            ctx.save_for_backward(h, weight, scores)
            return cross_entropy_(scores, targets)
        h, weight = h.bfloat16(), weight.bfloat16()
        scores, losses = product(h, weight), []
        for part, y in zip(scores.split(ROWS), targets.split(ROWS), strict=True):
            wide = part + bias.float()
            losses.append(cross_entropy_(wide, y))
            part.copy_(wide)
        ctx.save_for_backward(h, weight, scores)
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        """From d(losses) (M,): dh, dweight, dbias."""
        h, weight, ds = ctx.saved_tensors
        rows: Tensor = gradients[0]
        dh = product(ds, weight.t()).float().mul_(rows[:, None])
        dweight = product(ds.t(), (h * rows[:, None]).to(h.dtype).t()).float()
        dbias = torch.mm(rows[None].to(ds.dtype), ds)[0].float()
        return dh, dweight, dbias, None, None


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
