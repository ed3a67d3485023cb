"""`lstm()`: the public function, from keyword arguments to a call that an operator runs."""

from __future__ import annotations

import torch
from torch import Tensor

from . import checks, definition
from .call import Inputs, Options, call_of
from .masks import SILENT, Noise
from .state import Kept, State
from .variant import Variant

DEFAULT = Variant()


def lstm(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    *,
    w_hr: Tensor | None = None,
    peephole: Tensor | None = None,
    w_gates: Tensor | None = None,
    gain_ih: Tensor | None = None,
    gain_hh: Tensor | None = None,
    gain_c: Tensor | None = None,
    shift_c: Tensor | None = None,
    initial: State | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    variant: Variant = DEFAULT,
    noise: Noise = SILENT,
    seed: int | Tensor | None = None,
    training: bool = True,
    keep: str | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State] | tuple[Tensor, State, Kept]:
    cells, gates = checks.keep("lstm", keep)
    options = Options(
        variant, noise if training else noise.evaluated(), training, reverse, cells, gates, checkpoint_every, backend
    )
    initial_h, initial_c = initial if initial is not None else (None, None)
    N, P = x.shape[0], w_hh.shape[1]
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    H = w_ih.shape[0] // len(variant.gates)
    if h is None:
        h = x.new_zeros(N, P) if initial_h is None else initial_h
    if c is None:
        width = H * (1 + len(variant.sigmoids)) if variant.gate_recurrence else H
        c = x.new_zeros(N, width, dtype=wide) if initial_c is None else initial_c
    if options.training and options.noise and not isinstance(seed, Tensor):
        seed = torch.randint(2**63 - 1, ()) if seed is None else torch.tensor(seed)
    given = Inputs(
        x, w_ih, w_hh, bias, h, c, w_hr, peephole, w_gates, gain_ih, gain_hh, gain_c, shift_c,
        initial_h, initial_c, reset, lengths, seed if isinstance(seed, Tensor) else None,
    )
    checks.agree("lstm", options, given)
    checks.values("lstm", lengths, x.shape[1])
    out = definition.lstm(call_of(options, given, True), given)
    state = State(out.h, out.c)
    return (out.y, state, Kept(out.cells, out.gates)) if cells or gates else (out.y, state)
