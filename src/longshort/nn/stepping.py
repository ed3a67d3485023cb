"""One step at a time, with little work on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError
from ..scan import State

if TYPE_CHECKING:
    from .layer import LSTM

SCAN_NAME = {"weight_hr": "w_hr", "weight_peephole": "peephole", "weight_gates": "w_gates"}
"""Name of a parameter -> its name in `longshort.scan`, where they differ."""


def step(layer: LSTM, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, State]:
    """Run `LSTM.step`."""
    if layer.bidirectional:
        raise SettingError(
            "LSTM.step: a bidirectional layer needs the whole sequence. "
            "Call the layer itself, or use one direction."
        )
    if x.dim() not in (1, 2):
        raise ShapeError(f"LSTM.step: `x` must be (N, C), or (C,) for one sequence, got {tuple(x.shape)}.")
    time = -2
    y, new = layer(x.unsqueeze(time if x.dim() == 1 or layer.batch_first else 0), state)
    return y.squeeze(time if x.dim() == 1 or layer.batch_first else 0), new


def initial(layer: LSTM, N: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """H (L, N, P) and c (L, N, H) before the first step."""
    hs, cs = [], []
    variant = layer.variant
    width = layer.hidden_size * (1 + len(variant.sigmoids) * variant.gate_recurrence)
    wide = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    for k in range(len(layer.all_weights)):
        w: dict[str, Any] = layer._weights(k)
        if "initial_h" in w:
            hs.append(w["initial_h"].expand(N, -1))
            cs.append(w["initial_c"].to(wide).expand(N, -1))
        else:
            hs.append(like.new_zeros(N, layer.proj_size or layer.hidden_size))
            cs.append(like.new_zeros(N, width, dtype=wide))
    return torch.stack(hs), torch.stack(cs)
