"""The recurrence once more, step by step, with everything kept: what the fused layers hide.

    lstm  z_t = W_ih x_t,  r_t = W_hh h_{t-1},  a_t = z_t + r_t + b
          i, f, o = σ(a[i], a[f], a[o])     g = tanh(a[g])
          c_t = f c_{t-1} + i g             h_t = o tanh(c_t)
    gru   r, z = σ(...)                     n = tanh(W_in x + b_in + r (W_hn h_{t-1} + b_hn))
          h_t = (1 - z) n + z h_{t-1}
    rnn   h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu

The variants of `longshort.LSTM` go through the lines of `longshort.scan.definition`. A replay says how far it
is from the model's own output, and nothing is shown of one that is too far away.

Source: torch.nn.LSTM, GRU and RNN; `longshort.scan.definition` for the variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..scan import definition
from ..scan.call import Inputs
from ..scan.variant import Variant
from .layers import Call

Edit = Callable[[str, str, int, Tensor], Tensor]
"""(layer such as "lstm.l0", quantity, step, value (N, H)) -> the value to go on with."""

QUANTITIES = {"lstm": ("i", "f", "g", "o", "c", "h"), "gru": ("r", "z", "n", "h"), "rnn": ("h",)}
"""What a replay keeps of each kind, and what an `Edit` may change."""
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
NAMES = {"peephole": "weight_peephole", "w_gates": "weight_gates"}
"""What `longshort.LSTM` calls the weights that `scan` calls by the keys."""
GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "rnn": ("h",)}
"""The blocks of rows of the weights, in order."""


@dataclass
class Layer:
    """One layer in one direction, replayed: tensors (N, T, units), zero in the padding."""

    name: str
    kind: str
    reverse: bool
    variant: Variant
    weights: dict[str, Tensor]
    x: Tensor
    mask: Tensor
    "(N, T) bool"
    start: tuple[Tensor, ...]
    "h, or h and c, before the first step"
    initial: tuple[Tensor, ...]
    "what a reset returns to"
    reset: Tensor | None
    "(N, T) bool, in the layer's own direction"
    values: dict[str, Tensor]
    """i, f, g, o, c, h (or r, z, n, h), and for a cell `log_keep` and `write`: c_t = exp(log_keep) c_{t-1}
    + write"""
    final: tuple[Tensor, ...] = ()
    nodes: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)
    "with `graph`: per step in order of time, the tensors that gradients are asked for"

    @property
    def units(self) -> int:
        """H: cells, or hidden units where there are no cells."""
        return int(self.values["c" if self.kind == "lstm" else "h"].shape[-1])

    @property
    def gates(self) -> tuple[str, ...]:
        """The blocks of rows of its weights, in order."""
        return self.variant.gates if self.kind == "lstm" else GATES[self.kind]

    def before(self, quantity: str) -> Tensor:
        """(N, T, units) of h or c one step earlier in the layer's own direction; the start before the first.

        At a reset it is the initial state: what the step began from.
        """
        now = self.values[quantity]
        first = self.start[0 if quantity == "h" else 1][:, None, : now.shape[-1]].to(now)
        if self.reverse:
            lengths = self.mask.sum(1)
            shifted = torch.cat((now[:, 1:], torch.zeros_like(now[:, :1])), 1)
            last = torch.arange(now.shape[1], device=now.device)[None] == lengths[:, None] - 1
            shifted = torch.where(last[..., None], first, shifted)
        else:
            shifted = torch.cat((first, now[:, :-1]), 1)
        if self.reset is None:
            return shifted
        initial = self.initial[0 if quantity == "h" else 1][:, None, : now.shape[-1]].to(now)
        return torch.where(self.reset[..., None], initial, shifted)


def replay(
    call: Call, *, edit: Edit | None = None, graph: int = 0
) -> tuple[Tensor, tuple[Tensor, ...], list[Layer]]:
    """Replay one call of a recurrent layer, all its layers and directions.

    Args:
        call: as `layers.recording` noted it.
        edit: what to change on the way; None for nothing.
        graph: so many last steps keep their tensors, for gradients; no gradient goes through those before.

    Returns:
        y (N, T, size), the state as the module gives it, and the layers with all their values.
    """
    module, x = call.module, _wide(call.x)
    directions = ("", "_reverse") if module.bidirectional else ("",)
    done: list[Layer] = []
    for k in range(module.num_layers):
        outputs = []
        for d, suffix in enumerate(directions):
            place = k * len(directions) + d
            layer = _start(call, x, f"{call.name}.l{k}{suffix}", f"_l{k}{suffix}", place, bool(d))
            run = _lstm if call.kind == "lstm" else _gru if call.kind == "gru" else _rnn
            outputs.append(run(layer, call, edit, graph))
            done.append(layer)
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    state = tuple(torch.stack([layer.final[s] for layer in done]) for s in range(len(done[0].final)))
    return x.to(call.x.dtype), state, done


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _start(call: Call, x: Tensor, name: str, suffix: str, place: int, reverse: bool) -> Layer:
    module = call.module
    variant = getattr(module, "variant", Variant())
    names = {n: NAMES.get(n, n) for n in (*WEIGHTS, *variant.weights, "initial_h", "initial_c")}
    found = {n: getattr(module, own + suffix, None) for n, own in names.items()}
    weights = {n: _wide(w).to(x.dtype) for n, w in found.items() if w is not None}
    if not torch.is_grad_enabled():
        weights = {n: w.detach() for n, w in weights.items()}
    initial = _origin(call, x, weights, place)
    start = initial if call.hx is None else tuple(_wide(s[place]).to(x.dtype) for s in call.hx)
    reset = call.reset
    if reset is not None and reverse:  # a reset before step t parts t - 1 from t in both directions
        inside = reset & call.mask
        reset = torch.cat((inside[:, 1:], torch.zeros_like(inside[:, :1])), 1)
    return Layer(name, call.kind, reverse, variant, weights, x, call.mask, start, initial, reset, {})


def _origin(call: Call, x: Tensor, weights: dict[str, Tensor], place: int) -> tuple[Tensor, ...]:
    """The state before a first step without another, and after a reset: given, learned, or zeros."""
    N, P, H = x.shape[0], weights["weight_hh"].shape[1], call.module.hidden_size
    learned = tuple(weights.pop(n).expand(N, -1) for n in ("initial_h", "initial_c") if n in weights)
    if call.initial is not None:
        return tuple(_wide(s[place]).to(x.dtype) for s in call.initial)
    if learned:
        return learned
    extra = weights["w_gates"].shape[0] if "w_gates" in weights else 0
    zeros = x.new_zeros(N, P)
    return (zeros, x.new_zeros(N, H + extra)) if call.kind == "lstm" else (zeros,)


def _steps(layer: Layer, graph: int) -> Iterator[int]:
    """The steps in the layer's order; with `graph`, gradients are on for so many of the last only."""
    T, wanted = layer.x.shape[1], torch.is_grad_enabled()
    order = range(T - 1, -1, -1) if layer.reverse else range(T)
    for place, t in enumerate(order):
        if graph:
            torch.set_grad_enabled(wanted and place >= T - graph)
        yield t
    torch.set_grad_enabled(wanted)


def _kept(layer: Layer, rows: dict[str, list[Tensor]], nodes: dict[str, list[Tensor]]) -> None:
    """Stack what the steps left, in order of time, zero in the padding."""
    for records in (rows, nodes):
        if layer.reverse:
            for row in records.values():
                row.reverse()
    mask, whole = layer.mask[..., None], bool(layer.mask.all())
    for name in list(rows):
        stacked = torch.stack(rows.pop(name), 1)
        layer.values[name] = stacked if whole else torch.where(mask, stacked, 0)
    layer.nodes = nodes


def _lstm(layer: Layer, call: Call, edit: Edit | None, graph: int) -> Tensor:
    v, w = layer.variant, _inputs(layer)
    zx = _asked(layer.x @ w.w_ih.T, graph)
    inputs = zx.unbind(1)
    h, c = layer.start[0], layer.start[1][:, : w.w_hh.shape[0] // len(v.gates)]
    s = layer.start[1][:, c.shape[1] :]
    origin = (layer.initial[0], *layer.initial[1].split([c.shape[1], s.shape[1]], 1))
    rows: dict[str, list[Tensor]] = {n: [] for n in (*QUANTITIES["lstm"], "a_f")}
    nodes: dict[str, list[Tensor]] = {n: [] for n in ("c", "h", "zh")} if graph else {}
    shares = zoneout(call)
    for t in _steps(layer, graph):
        old = h, c, s
        if layer.reset is not None:
            again = layer.reset[:, t, None]
            h, c, s = (torch.where(again, at, value) for at, value in zip(origin, old, strict=True))
        zh = h @ w.w_hh.T
        change = (lambda q, value: value) if edit is None else partial(_changed, edit, layer.name, t)
        step = _lstm_step(v, w, _blocks(v, w, definition.preactivations(v, w, inputs[t], zh), s), c, change)
        i, f, g, o, new, out, a_f = step
        c_new = new if shares[1] == 1 else (1 - shares[1]) * c + shares[1] * new
        h_new = out if shares[0] == 1 else (1 - shares[0]) * h + shares[0] * out
        h_new = definition.rounded(change("h", h_new), call.x.dtype)
        s_new = (
            torch.cat([{"i": i, "f": f, "o": o}[k] for k in v.sigmoids], -1) if w.w_gates is not None else s
        )
        for n, value in zip(rows, (i, f, g, o, c_new, h_new, a_f), strict=True):
            rows[n].append(value)
        for n, value in zip(nodes, (c_new, h_new, zh), strict=False):
            nodes[n].append(value)
        on = layer.mask[:, t, None]
        h, c, s = (torch.where(on, n, o) for n, o in zip((h_new, c_new, s_new), old, strict=True))
    layer.final = (h.to(call.x.dtype), torch.cat((c, s), 1))
    _kept(layer, rows, nodes | ({"zx": [zx]} if graph else {}))
    _account(layer, layer.values.pop("a_f"), shares[1])
    return layer.values["h"]


def _unchanged(name: str, quantity: str, t: int, value: Tensor) -> Tensor:
    return value


def _changed(edit: Edit, name: str, t: int, quantity: str, value: Tensor) -> Tensor:
    return edit(name, quantity, t, value)


def zoneout(call: Call) -> tuple[float, float]:
    """The renewed shares of h and c: zoneout in evaluation mixes."""
    noise = getattr(call.module, "noise", None)
    return 1 - getattr(noise, "zoneout_h", 0.0), 1 - getattr(noise, "zoneout_c", 0.0)


def _asked(z: Tensor, graph: int) -> Tensor:
    """z, with a gradient where one will be asked for and the weights have none of their own."""
    return z.requires_grad_() if graph and torch.is_grad_enabled() and not z.requires_grad else z


def _lstm_step(
    v: Variant, w: Inputs, blocks: dict[str, Tensor], c: Tensor, change: Callable[[str, Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Equations (3) to (6) of `scan.definition`: the gates, the new cell, what it shows, and f's
    pre-activation.
    """
    look = definition.peepholes(v, w)
    one = torch.ones_like(c)
    seen = {k: blocks[k] + look[k] * c if k in look else blocks[k] for k in "if" if k in blocks}
    i = change("i", definition.squash(v, seen["i"]) if "i" in seen else one)
    f = change("f", 1 - i if v.coupled else definition.squash(v, seen["f"]) if "f" in seen else one)
    g = change("g", blocks["g"].tanh() if v.input_activation else blocks["g"])
    new = f * c + i * g
    new = new if v.cell_clip is None else new.clamp(-v.cell_clip, v.cell_clip)
    new = definition.normed(new, v.norm_eps) * w.gain_c + w.shift_c if v.norm == "per_gate" else new
    new = change("c", new)
    a_o = blocks.get("o")
    o = one if a_o is None else definition.squash(v, a_o + look["o"] * new if "o" in look else a_o)
    o = change("o", o)
    shown = definition.normed(new, v.norm_eps) * w.gain_c + w.shift_c if v.norm == "ba2016" else new
    out = o * (shown.tanh() if v.output_activation else shown)
    out = out if w.w_hr is None else out @ w.w_hr.T
    out = out if v.projection_clip is None else out.clamp(-v.projection_clip, v.projection_clip)
    return i, f, g, o, new, out, seen.get("f", one)


def _account(layer: Layer, a_f: Tensor, keep_c: float) -> None:
    """c_t = exp(log_keep) c_{t-1} + write: the logarithm from the pre-activation, exact where f rounds to
    1.
    """
    v, own = layer.variant, layer.values
    plain = v.forget_gate and not v.coupled and v.gate_activation == "sigmoid"
    log = -torch.nn.functional.softplus(-a_f) if plain else own["f"].log()
    write = own["i"] * own["g"]
    if keep_c != 1:
        log, write = torch.log((1 - keep_c) + keep_c * own["f"]), keep_c * write
    if layer.reset is not None:
        again = layer.reset[..., None]
        write = torch.where(again, write + log.exp() * layer.initial[1][:, None, : log.shape[2]], write)
        log = torch.where(again, -torch.inf, log)
    own["log_keep"] = torch.where(layer.mask[..., None], log, 0)
    own["write"] = write


def _blocks(v: Variant, w: Inputs, a: Tensor, s: Tensor) -> dict[str, Tensor]:
    blocks = dict(zip(v.gates, a.chunk(len(v.gates), dim=-1), strict=True))
    if w.w_gates is not None:
        more = (s @ w.w_gates.T).chunk(len(v.sigmoids), dim=-1)
        blocks |= {k: blocks[k] + part for k, part in zip(v.sigmoids, more, strict=True)}
    return blocks


def _inputs(layer: Layer) -> Inputs:
    w = layer.weights
    bias = w["bias_ih"] + w["bias_hh"] if "bias_hh" in w else w.get("bias_ih")
    rest: dict[str, Any] = {
        n: w.get(n) for n in ("peephole", "w_gates", "gain_ih", "gain_hh", "gain_c", "shift_c")
    }
    return Inputs(
        layer.x,
        w["weight_ih"],
        w["weight_hh"],
        bias,
        layer.start[0],
        layer.start[1],
        w.get("weight_hr"),
        **rest,
    )


def _gru(layer: Layer, call: Call, edit: Edit | None, graph: int) -> Tensor:
    w, name, change = layer.weights, layer.name, edit or _unchanged
    zx = _asked(layer.x @ w["weight_ih"].T + w.get("bias_ih", torch.zeros_like(w["weight_ih"][:, 0])), graph)
    inputs, none = zx.unbind(1), torch.zeros_like(w["weight_hh"][:, 0])
    b_hh, h = w.get("bias_hh", none), layer.start[0]
    rows: dict[str, list[Tensor]] = {n: [] for n in (*QUANTITIES["gru"], "a_z")}
    nodes: dict[str, list[Tensor]] = {n: [] for n in ("h", "zh")} if graph else {}
    for t in _steps(layer, graph):
        zh = h @ w["weight_hh"].T
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (
            inputs[t].chunk(3, -1),
            (zh + b_hh).chunk(3, -1),
        )
        r = change(name, "r", t, (x_r + h_r).sigmoid())
        z = change(name, "z", t, (x_z + h_z).sigmoid())
        n = change(name, "n", t, (x_n + r * h_n).tanh())
        new = change(name, "h", t, (1 - z) * n + z * h)
        for q, value in zip(rows, (r, z, n, new, x_z + h_z), strict=True):
            rows[q].append(value)
        for q, value in zip(nodes, (new, zh), strict=False):
            nodes[q].append(value)
        h = torch.where(layer.mask[:, t, None], new, h)
    layer.final = (h,)
    _kept(layer, rows, nodes | ({"zx": [zx]} if graph else {}))
    a_z, own = layer.values.pop("a_z"), layer.values
    own["log_keep"] = torch.where(layer.mask[..., None], -torch.nn.functional.softplus(-a_z), 0)
    own["write"] = (1 - own["z"]) * own["n"]
    return own["h"]


def _rnn(layer: Layer, call: Call, edit: Edit | None, graph: int) -> Tensor:
    w, name, change = layer.weights, layer.name, edit or _unchanged
    bias = sum((w[n] for n in ("bias_ih", "bias_hh") if n in w), torch.zeros_like(w["weight_ih"][:, 0]))
    zx = _asked(layer.x @ w["weight_ih"].T, graph)
    inputs = zx.unbind(1)
    squash = torch.relu if call.module.nonlinearity == "relu" else torch.tanh
    h, rows = layer.start[0], {"h": list[Tensor]()}
    nodes: dict[str, list[Tensor]] = {"h": [], "zh": []} if graph else {}
    for t in _steps(layer, graph):
        zh = h @ w["weight_hh"].T
        new = change(name, "h", t, squash(inputs[t] + zh + bias))
        rows["h"].append(new)
        for q, value in zip(nodes, (new, zh), strict=False):
            nodes[q].append(value)
        h = torch.where(layer.mask[:, t, None], new, h)
    layer.final = (h,)
    _kept(layer, rows, nodes | ({"zx": [zx]} if graph else {}))
    return layer.values["h"]
