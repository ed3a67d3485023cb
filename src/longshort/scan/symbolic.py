"""A call in the graph of an ONNX export: the standard LSTM operator where it can say it, else a Scan.

torch.onnx.export(..., dynamo=True) traces the model, and this is what it meets in place of a backend. The
Scan's body is the definition's own step, so nothing of the equations is written here twice. N and T stay
dynamic in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from . import definition
from .call import Call, Inputs, Options, Outputs, call_of
from .variant import Variant

SAID = (
    "peephole",
    "coupled",
    "input_gate",
    "forget_gate",
    "output_gate",
    "input_activation",
    "output_activation",
    "gate_activation",
    "norm_eps",
)
"""The options of a variant that ONNX' LSTM can say."""
OPEN = 30.0
"""A bias at which a gate is 1: sigmoid(30) differs from 1 by 1e-13."""


def run(options: Options, given: Inputs) -> Outputs:
    """Put a call into the graph of an ONNX export, as in evaluation: ONNX draws no noise.

    Args:
        options: the layer's.
        given:   the call's tensors.
    """
    options = options._replace(noise=options.noise.evaluated, training=False)
    still = Inputs(*(None if t is None else t.detach() for t in given))._replace(seed=None)  # type: ignore[arg-type]
    call = call_of(options, still, False)
    return scanned(call, still) if beyond_operator(call) else standard(call, still)


def beyond_operator(call: Call) -> str | None:
    """Say why ONNX' own LSTM operator cannot say a call, as a clause; None if it can."""
    default = type(call.variant)().to_json()
    odd = [k for k, value in call.variant.to_json().items() if k not in SAID and value != default[k]]
    if odd:
        return f"it has no `{odd[0]}`"
    if "reset" in call.given:
        return "it has no reset"
    if call.options.keep_cells or call.options.keep_gates:
        return "it keeps neither cells nor gates"
    if not call.options.noise.silent:
        return "it has no zoneout"
    return None if call.dtype == torch.float32 else f"runtimes have it in float32 alone, not in {call.dtype}"


def standard(call: Call, w: Inputs) -> Outputs:
    """One node: ONNX' LSTM. A sequence of length zero keeps its state, which the operator leaves open."""
    v, H = call.variant, call.H
    x, w_ih, w_hh, h = w.x, w.w_ih, w.w_hh, w.h
    if w.w_hr is not None:
        x, w_ih, w_hh = with_first_state(call, w), torch.cat((w_ih, w_hh), dim=1), w_hh @ w.w_hr
        h = torch.zeros_like(w.c)
    bias = w.bias
    if bias is None and len(v.gates) < 4:
        bias = 0 * w_ih[:, 0]
    shapes = ((x.shape[1], 1, x.shape[0], H), (1, x.shape[0], H), (1, x.shape[0], H))
    y, h, c = torch.onnx.ops.symbolic_multi_out(
        "::LSTM",
        (
            x.transpose(0, 1),
            four(v, w_ih)[None],
            four(v, w_hh)[None],
            None if bias is None else torch.cat((four(v, bias, OPEN), 0 * four(v, bias)))[None],
            None if w.lengths is None else w.lengths.to(torch.int32),
            h[None],
            w.c[None],
            None if w.peephole is None else three(v, w.peephole)[None],
        ),
        {"hidden_size": H, "direction": "reverse" if call.options.reverse else "forward", **activations(v)},
        dtypes=(x.dtype,) * 3,
        shapes=shapes,
        version=14,
    )
    y, h, c = y[:, 0].transpose(0, 1), h[0], c[0]
    if w.w_hr is not None:
        y, h = y @ w.w_hr.T, h @ w.w_hr.T
    if w.lengths is not None:
        some = (w.lengths > 0)[:, None]
        h, c = torch.where(some, h, w.h), torch.where(some, c, w.c)
    return Outputs(y, h, c)


def with_first_state(call: Call, w: Inputs) -> Tensor:
    """The input with h of before the first step beside it at that step: (N, T, C + P).

    With a projection the operator's state is the unprojected h̃, and W_hh h = (W_hh W_hr) h̃ from the second
    step on. The first h is nobody's projection, so it comes in as input, through W_hh.
    """
    t = torch.arange(w.x.shape[1], device=w.x.device)
    first = torch.zeros_like(w.x[:, 0, 0], dtype=torch.int64)
    if call.options.reverse:
        first = first + w.x.shape[1] - 1 if w.lengths is None else w.lengths - 1
    here = (t == first[:, None])[..., None]
    return torch.cat((w.x, torch.where(here, w.h[:, None], torch.zeros_like(w.h[:, None]))), dim=2)


def four(v: Variant, rows: Tensor, absent: float = 0.0) -> Tensor:
    """Blocks of the gates that are computed -> all four in ONNX' order.

    1 - σ(a) = σ(-a), so the forget gate of a coupled one is its negative; a gate that is always open has no
    weights and a large bias.
    """
    blocks = parted(rows, v.gates)
    if v.coupled:
        blocks["f"] = -blocks["i"]
    return torch.cat([blocks[k] if k in blocks else 0 * blocks["g"] + absent for k in "iofg"])


def three(v: Variant, peephole: Tensor) -> Tensor:
    """The peepholes of the gates that are computed -> all three in ONNX' order."""
    blocks = parted(peephole, v.sigmoids)
    if v.coupled:
        blocks["f"] = -blocks["i"]
    nothing = 0 * next(iter(blocks.values()))
    return torch.cat([blocks.get(k, nothing) for k in "iof"])


def parted(rows: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The blocks by the gates' names; slices, which exporters fold into the weights, unlike a split."""
    size = rows.shape[0] // len(names)
    return {name: rows[k * size : (k + 1) * size] for k, name in enumerate(names)}


def activations(v: Variant) -> dict[str, Any]:
    """The operator's attributes for activations other than its defaults; Affine(1, 0) is none at all."""
    cell = ["Tanh" if on else "Affine" for on in (v.input_activation, v.output_activation)]
    hard = v.gate_activation == "hard_sigmoid"
    if not hard and "Affine" not in cell:
        return {}
    linear = cell.count("Affine")
    return {
        "activations": ["HardSigmoid" if hard else "Sigmoid", *cell],
        "activation_alpha": [0.2] * hard + [1.0] * linear,
        "activation_beta": [0.5] * hard + [0.0] * linear,
    }


def scanned(call: Call, given: Inputs) -> Outputs:
    """One Scan whose body is the definition's step."""
    w, active = definition.widened(call, given), definition.active_steps(call, given)
    noise, width = definition.noise_of(call, w), w.c.shape[1]
    start = torch.cat(definition.initial_state(call, w), dim=1)
    P, H, variant = call.P, call.H, call.variant

    # dynamo of torch 2.11 traces it: it fills no cached property (a call's variant), and lists become tuples
    def step(state: Tensor, now: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x = now[0]
        if w.reset is not None:
            state = torch.where(now[1][:, None], start, state)
        h, c, s = state.split([P, H, width - H], dim=1)
        h, c, s, gates = definition.cell(variant, w, x, h, c, s, noise)
        h = h.to(call.dtype).to(h.dtype)
        new, out = torch.cat((h, c, s), dim=1), [h, c, gates]
        if active is not None:
            on = now[-1][:, None]
            new, out = torch.where(on, new, state), [torch.where(on, v, torch.zeros_like(v)) for v in out]
        wanted = (True, call.options.keep_cells, call.options.keep_gates)
        return new, [v.clone() for v, want in zip(out, wanted, strict=True) if want]

    x = w.x if active is None else torch.where(active[..., None], w.x, torch.zeros_like(w.x))
    columns = [t.transpose(0, 1) for t in (x, w.reset, active) if t is not None]
    last, out = scan(step, torch.cat((w.h, w.c), dim=1), columns, dim=0, reverse=call.options.reverse)
    y, *kept = (column.transpose(0, 1) for column in out)
    cells = kept.pop(0) if call.options.keep_cells else None
    gates = kept.pop(0) if call.options.keep_gates else None
    h, c = last.split([P, width], dim=1)
    return Outputs(y.to(call.dtype), h.to(call.dtype), c, cells, gates)
