"""`LSTM`: torch.nn.LSTM's arguments, weights and numbers, with every option of `longshort.scan`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..scan import Kept, Noise, State, Variant, lstm


class LSTM(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        variant: Variant = Variant(),
        noise: Noise = Noise(),
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.variant, self.noise, self.backend = variant, noise, backend
        rows, out = len(variant.gates) * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else out * (1 + bidirectional)
            for suffix in self._directions():
                shapes = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    self.register_parameter(
                        f"{name}_l{layer}{suffix}",
                        nn.Parameter(torch.empty(shape, device=device, dtype=dtype)),
                    )
        bound = 1 / math.sqrt(hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
        keep: str | None = None,
    ) -> Any:
        batched = input.dim() == 3
        x = input if batched else input[None] if self.batch_first else input[:, None]
        x = x if self.batch_first else x.transpose(0, 1)
        if hx is not None and not batched:
            hx = hx[0][:, None], hx[1][:, None]
        hs, cs, cells, gates = [], [], [], []
        for layer in range(self.num_layers):
            outs = []
            for d, suffix in enumerate(self._directions()):
                w = {
                    n: getattr(self, f"{n}_l{layer}{suffix}", None)
                    for n in ("weight_ih", "weight_hh", "weight_hr")
                }
                b = getattr(self, f"bias_ih_l{layer}{suffix}", None)
                b = None if b is None else b + getattr(self, f"bias_hh_l{layer}{suffix}")
                k = layer * len(self._directions()) + d
                y, state, *kept = lstm(
                    x,
                    w["weight_ih"],
                    w["weight_hh"],
                    b,
                    None if hx is None else hx[0][k],
                    None if hx is None else hx[1][k],
                    w_hr=w["weight_hr"],
                    reset=reset,
                    lengths=lengths,
                    variant=self.variant,
                    noise=self.noise,
                    training=self.training,
                    keep=keep,
                    reverse=bool(d),
                    backend=self.backend,
                )
                outs.append(y)
                hs.append(state.h)
                cs.append(state.c)
                cells += [k.cells for k in kept]
                gates += [k.gates for k in kept]
            x = torch.cat(outs, dim=-1) if len(outs) > 1 else outs[0]
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = nn.functional.dropout(x, self.dropout)
        y, state = x if self.batch_first else x.transpose(0, 1), State(torch.stack(hs), torch.stack(cs))
        if not batched:
            y, state = y.squeeze(0 if self.batch_first else 1), State(state.h[:, 0], state.c[:, 0])
        if keep is None:
            return y, state
        stacked = [torch.stack(k) if k and k[0] is not None else None for k in (cells, gates)]
        return y, state, Kept(*stacked)
