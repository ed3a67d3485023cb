"""The state of an LSTM as a value: it goes in and comes out, and nothing else remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import shapes
from ..errors import ShapeError
from . import checks


class State(NamedTuple):
    """What an LSTM carries from one step to the next; unpacks like torch's tuple.

    h: (N, P) in `longshort.scan`, (L, N, P) in `longshort.LSTM` with L layers times directions.
    c: (N, H) or (L, N, H); float32 where x is of 16 bits. With full gate recurrence the gates of the last
       step stand behind the cell: (N, H + S H) with S gates.

    >>> h, c = State(torch.zeros(2, 3), torch.ones(2, 4))
    >>> c.shape
    torch.Size([2, 4])
    """

    h: Tensor
    c: Tensor

    def detach(self) -> State:
        """Return the same numbers, cut off from the graph: the boundary of truncated backpropagation."""
        return State(self.h.detach(), self.c.detach())

    def clone(self) -> State:
        """Return a copy that shares no memory."""
        return State(self.h.clone(), self.c.clone())

    def to(self, *args: Any, **kwargs: Any) -> State:
        """Return the state elsewhere or in another dtype; arguments as in torch.Tensor.to."""
        return State(self.h.to(*args, **kwargs), self.c.to(*args, **kwargs))

    def split(self, sizes: int | Sequence[int]) -> list[State]:
        """Split over sequences.

        Args:
            sizes: how many sequences go into each part, or one number for all of them.

        Returns:
            The parts, in order; `State.stack` of them is this state.
        """
        pairs = zip(self._parts(self.h, sizes), self._parts(self.c, sizes), strict=True)
        return [State(h, c) for h, c in pairs]

    @staticmethod
    def _parts(tensor: Tensor, sizes: int | Sequence[int]) -> tuple[Tensor, ...]:
        return torch.split(tensor, sizes if isinstance(sizes, int) else list(sizes), dim=-2)

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """Return one state of all the sequences of several, in order.

        Args:
            states: at least one; equal in all axes but the sequences'.

        Raises:
            ShapeError: there is none, or they differ in layers or units.
        """
        if not states:
            raise ShapeError("State.stack: `states` must hold at least one state, got none.")
        for name in State._fields:
            first = getattr(states[0], name)
            for k, state in enumerate(states):
                other = getattr(state, name)
                if other.shape[:-2] + other.shape[-1:] != first.shape[:-2] + first.shape[-1:]:
                    raise ShapeError(
                        f"State.stack: all states must have the layers and units of the first, "
                        f"`{name}` {tuple(first.shape)}; state {k} has {tuple(other.shape)}."
                    )
        return State(torch.cat([s.h for s in states], dim=-2), torch.cat([s.c for s in states], dim=-2))

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, whole or not at all.

        Args:
            path: the file's name; `State.load` reads it back bit for bit.

        Raises:
            MissingExtra: safetensors is not installed.
            RunError: the file cannot be written.
        """
        from ..errors import need
        from ..runs import replacing

        safetensors = need("safetensors.torch", extra="tasks", to="save a state")
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in State._fields}
        with replacing(path) as file:
            file.write(safetensors.save(tensors))

    @staticmethod
    def load(path: str | Path, device: torch.device | str = "cpu") -> State:
        """Read a state that `save` wrote.

        Args:
            path: the file.
            device: where the tensors go.

        Raises:
            MissingExtra: safetensors is not installed.
            ShapeError: the file holds no h and c.
        """
        from ..errors import need

        safetensors = need("safetensors.torch", extra="tasks", to="load a state")
        tensors = safetensors.load(Path(path).read_bytes())
        if set(tensors) != set(State._fields):
            raise ShapeError(
                f"State.load: {path} must hold the tensors h and c, "
                f"got {', '.join(sorted(tensors)) or 'none'}. Write it with State.save."
            )
        return State(tensors["h"].to(device), tensors["c"].to(device))


class Kept(NamedTuple):
    """What `keep` asked for, from the same pass; differentiable.

    cells: (N, T, H) the cell after every step, zero in the padding.
    gates: (N, T, 4H) i, f, g, o of every step after their activation and before any noise, zero in the
           padding; a gate that the variant lacks holds what stands in for it: 1, or 1 - i for a coupled f.
    """

    cells: Tensor | None = None
    gates: Tensor | None = None


def dones_to_resets(
    dones: Tensor | Sequence[Sequence[bool]], before: Tensor | Sequence[bool] | None = None
) -> Tensor:
    r"""Turn reinforcement learning's "the episode ended with step t" into "step t begins an episode".

    $$reset_{n,0} = before_n, \qquad reset_{n,t} = done_{n,t-1}$$

    Args:
        dones:  (N, T) bool, a tensor or lists; true at the last step of an episode, terminated or truncated.
        before: (N,) bool; true where the step before this window ended an episode: the last column of the
            previous window's `dones`. False where the state handed in goes on; all false if None.

    Returns:
        (N, T) bool for the `reset` argument. What windows return one after the other equals what the
        whole returns at once.

    Raises:
        ShapeError: `dones` is not bool of two axes, or `before` is not its first axis.

    >>> dones_to_resets(torch.tensor([[False, True, False]]))
    tensor([[False, False,  True]])
    """
    dones = checks.flags("dones_to_resets", "dones", dones)
    shapes.check("dones_to_resets", dones=(dones, "N T"))
    if before is not None:
        before = checks.flags("dones_to_resets", "before", before, dones.device)
    else:
        before = torch.zeros_like(dones[:, 0]) if dones.shape[1] else dones.new_zeros(dones.shape[0])
    shapes.check("dones_to_resets", dones=(dones, "N T"), before=(before, "N"))
    for name, tensor in (("dones", dones), ("before", before)):
        if tensor.dtype != torch.bool:
            raise ShapeError(
                f"dones_to_resets: `{name}` must be of dtype torch.bool, got {tensor.dtype}. "
                f"Use `{name} != 0` if it holds 0 and 1."
            )
    return torch.cat((before[:, None], dones), dim=1)[:, : dones.shape[1]]
