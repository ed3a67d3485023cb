"""Sequences of different lengths without padding in the caller's hands: packed, jagged, nested.

Each is unfolded to x (N, T, C) with lengths, run, and folded back. What lies in the padding is never used
(equation (8)), so unfolding may leave anything there. A nested tensor with holes, one that has lengths of its
own, comes back with the same offsets and lengths, as from torch's functions, and with zeros in the holes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import shapes
from ..errors import ShapeError


class Jagged(NamedTuple):
    """Sequences one after the other: sequence n is values[offsets[n] : offsets[n + 1]].

    values:  (sum of the lengths, C).
    offsets: (N + 1,) int64, from 0 upwards, on the device of `values`.
    longest: the longest length, if it is known: then no device is waited for.

    >>> Jagged.of([torch.ones(2, 1), torch.ones(0, 1), torch.ones(3, 1)]).offsets
    tensor([0, 2, 2, 5])
    """

    values: Tensor
    offsets: Tensor
    longest: int | None = None

    @staticmethod
    def of(sequences: list[Tensor]) -> Jagged:
        """Join sequences (T_n, C), at least one; zero length is allowed."""
        lengths = [s.shape[0] for s in sequences]
        offsets = torch.tensor([0, *lengths], device="cpu").cumsum(0)
        return Jagged(torch.cat(sequences), offsets.to(sequences[0].device), max(lengths))

    def lengths(self) -> Tensor:
        """(N,) int64."""
        return self.offsets.diff()


Ragged = Jagged | PackedSequence
"""What `unfold` takes besides a nested tensor of layout torch.jagged."""


def is_ragged(input: object) -> bool:
    """Whether `unfold` is needed: packed, jagged or nested."""
    return isinstance(input, Jagged | PackedSequence) or (isinstance(input, Tensor) and input.is_nested)


def unfold(input: Ragged | Tensor) -> tuple[Tensor, Tensor]:
    """Return x (N, T, C) and lengths (N,) int64, in the caller's order of sequences.

    Args:
        input: a `Jagged`, a PackedSequence, or a nested tensor of layout torch.jagged.

    Raises:
        ShapeError: offsets or lengths do not fit the values, or a nested tensor has another layout or axes.
    """
    if isinstance(input, PackedSequence):
        x, lengths = pad_packed_sequence(input, batch_first=True)
        return x, lengths.to(x.device)
    values, offsets, own, longest = _parts(input)
    shapes.check("LSTM", "Offsets are those of torch.nested.", values=(values, "S C"), offsets=(offsets, "K"))
    if offsets.device.type == "cpu":
        _check(values.shape[0], offsets, own)
    lengths = offsets.diff() if own is None else own
    T = longest if longest is not None else int(lengths.max()) if lengths.numel() else 0
    if values.shape[0] == 0:
        return values.new_zeros(lengths.shape[0], T, values.shape[1]), lengths
    places = offsets[:-1, None] + torch.arange(T, device=offsets.device)
    return values[places.clamp(max=values.shape[0] - 1)], lengths


def _parts(input: Jagged | Tensor) -> tuple[Tensor, Tensor, Tensor | None, int | None]:
    """Values, offsets, the lengths where they are not those between the offsets, and the longest if known."""
    if isinstance(input, Jagged):
        return input.values, input.offsets, None, input.longest
    nested: Any = input
    if nested.layout != torch.jagged:
        raise ShapeError(
            "LSTM: a nested `input` must have the layout torch.jagged, got torch.strided. "
            "Make it with torch.nested.nested_tensor(..., layout=torch.jagged)."
        )
    if nested.dim() != 3 or nested._ragged_idx != 1:
        raise ShapeError(
            f"LSTM: a nested `input` must have 3 axes (N, T, C) and different lengths along axis 1, "
            f"got {nested.dim()} axes and different lengths along axis {nested._ragged_idx}. "
            f"Make it of sequences (T, C)."
        )
    return nested.values(), nested.offsets(), nested.lengths(), None


def _check(rows: int, offsets: Tensor, lengths: Tensor | None) -> None:
    """Check that the sequences lie one after the other in the rows; without lengths, that they fill them."""
    if lengths is None:
        rising = bool((offsets.diff() >= 0).all())
        if not (offsets.numel() > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == rows and rising):
            raise ShapeError(
                f"LSTM: `offsets` must rise from 0 to the {rows} rows of `values`, got {_few(offsets)}."
            )
        return
    starts = offsets[:-1]
    next_starts = torch.cat((starts[1:], starts.new_tensor([rows])))
    if bool(((starts < 0) | (lengths < 0) | (starts + lengths > next_starts)).any()):
        raise ShapeError(
            f"LSTM: the sequences of a nested `input` must lie one after the other in its {rows} rows, got "
            f"those that start at {_few(starts)} with the lengths {_few(lengths)}."
        )


def _few(numbers: Tensor) -> str:
    return f"{numbers.tolist()[:8]}{' ...' if numbers.numel() > 8 else ''}"


def fold(y: Tensor, like: Ragged | Tensor) -> Ragged | Tensor:
    """Return y (N, T, P) in the form of the input it came from.

    Args:
        y:    outputs of `unfold`'s x.
        like: what `unfold` was given.
    """
    if isinstance(like, PackedSequence):
        order, sizes = like.sorted_indices, like.batch_sizes
        lengths = (sizes > torch.arange(y.shape[0], device=sizes.device)[:, None]).sum(1)  # longest first
        packed = pack_padded_sequence(y if order is None else y[order], lengths, batch_first=True)
        return PackedSequence(packed.data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
    values, offsets, own, longest = _parts(like)
    S = values.shape[0]
    if own is None:
        row = torch.arange(S, device=offsets.device)
        n = torch.bucketize(row, offsets[1:], right=True)
        folded = y[n, row - offsets[n]]
    else:
        t = torch.arange(y.shape[1], device=offsets.device)
        places = torch.where(
            t < own[:, None], offsets[:-1, None] + t, S
        )  # the padding goes to a row after the last
        folded = y.new_zeros(S + 1, y.shape[2]).index_copy(0, places.flatten(), y.flatten(0, 1))[:S]
    if isinstance(like, Jagged):
        return Jagged(folded, offsets, longest)
    return torch.nested.nested_tensor_from_jagged(folded, offsets, own)
