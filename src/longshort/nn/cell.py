"""`LSTMCell`: one step, torch.nn.LSTMCell's arguments, weights and numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..scan import Noise, Options, State, Variant, checks
from ..scan.functional import gathered, run
from ..scan.plan import check_name
from . import stepping
from .parameters import Shape, check_dtype, parameters, switch, whole
from .reading import agree, pair

_VARIANT, _SILENT = Variant(), Noise()


class LSTMCell(nn.Module):
    """One step of one LSTM layer; a drop-in for torch.nn.LSTMCell.

    Args:
        input_size:  C, channels of the input.
        hidden_size: H, cells.
        bias:        whether there are biases (two, as in torch.nn.LSTMCell).
        device:      where the parameters go.
        dtype:       of the parameters.
        variant:     which LSTM; a projection is the layer's alone.
        backend:     who runs it.

    Raises:
        SettingError: an argument is of another type or out of its range.
        BackendError: there is no backend of that name.

    >>> h, c = LSTMCell(3, 4)(torch.zeros(2, 3))
    >>> h.shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        variant: Variant = _VARIANT,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        whole("LSTMCell", input_size=input_size, hidden_size=hidden_size)
        switch("LSTMCell", bias=bias)
        check_dtype("LSTMCell", dtype)
        check_name("LSTMCell", backend)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.variant, self.backend = variant, backend
        shape = Shape(input_size, hidden_size, hidden_size, 1, 1, projected=False)
        self._names = parameters(shape, 0, variant, bias, learn_initial=False)
        for name, size in self._names.items():
            self.register_parameter(name, nn.Parameter(torch.empty(size, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, in torch.nn.LSTMCell's order; gains 1 and shifts 0."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name, weight in self.named_parameters():
            if name.startswith("gain"):
                nn.init.ones_(weight)
            elif name.startswith("shift"):
                nn.init.zeros_(weight)
            else:
                nn.init.uniform_(weight, -bound, bound)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> State:
        """Take one step.

        Args:
            input: (N, C), or (C,) for one sequence.
            hx:    h and c, each (N, H) or (H,); zeros if None.

        Returns:
            State(h, c), which unpacks like torch's pair.

        Raises:
            ShapeError: shapes, dtypes or devices disagree.
        """
        checks.tensor("LSTMCell", "input", input)
        pair("LSTMCell", "hx", hx)
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"LSTMCell: `input` must be (N, C) or (C,) with C = input_size = {self.input_size}, "
                f"got {tuple(input.shape)}."
            )
        agree("LSTMCell", "input", input, "weight_ih", self._parameters.get("weight_ih"), "cell")
        batched = input.dim() == 2
        x = input if batched else input[None]
        h, c = (None, None) if hx is None else (s if s.dim() == 2 else s[None] for s in hx)
        w: dict[str, Any] = {stepping.SCAN_NAME.get(n, n): getattr(self, n) for n in self._names}
        bias = w.pop("bias_ih") + w.pop("bias_hh") if self.bias else None
        options = Options(self.variant, _SILENT, self.training, backend=self.backend)
        given = gathered(options, x[:, None], w.pop("weight_ih"), w.pop("weight_hh"), bias, h, c, **w)
        out = run(options, given)
        return State(out.h, out.c) if batched else State(out.h[0], out.c[0])

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults."""
        words = [f"{self.input_size}, {self.hidden_size}"] + ([] if self.bias else ["bias=False"])
        return ", ".join(words + ([str(self.variant)] if self.variant != _VARIANT else []))
