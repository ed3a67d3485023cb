"""The LSTM's derivative by hand, in plain torch: what the fused kernels implement, line for line.

Between `definition.py`, whose derivative autograd knows, and a kernel, which nobody can read, stands this
file: the same maths as the kernel and the same tensors saved, checked against autograd in float64. A bar
marks the gradient of the loss; numbers up to (8) are the definition's. h̄, c̄, s̄ arrive from step t+1, ȳ,
and c̄_kept, ḡ_kept where cells or gates were kept, from the outputs. φ = tanh(c̃), or what stands in (6).

    h̄ ← h̄ + ȳ_t                        c̄ ← c̄ + c̄_kept                                            (9)
    h̄' = keep_h ⊙ h̄                    h̄_{t-1} = (1 - keep_h) ⊙ h̄             zoneout, else h̄' = h̄ (10)
    m̄ = W_hr' (h̄' where not clipped)   without projection m̄ = h̄'                                  (11)
    ō = m̄ ⊙ φ + s̄[o] + ḡ_kept[o]       ā_o = ō ⊙ σ'(o)                                            (12)
    c̃̄ = keep_c ⊙ c̄ + m̄ ⊙ o ⊙ φ' + p_o ⊙ ā_o,    norm "ba2016": N'(m̄ ⊙ o ⊙ φ')                    (13)
    c̄_{t-1} = (1 - keep_c) ⊙ c̄         norm "per_gate": c̃̄ ← N'(c̃̄);  clip: c̃̄ ← 0 where clipped     (14)
    ī = c̃̄ ⊙ m_g ⊙ g + …    f̄ = c̃̄ ⊙ c_{t-1} + …    ḡ = c̃̄ ⊙ m_g ⊙ i + …    … = s̄ and ḡ_kept         (15)
    ā_i = ī ⊙ σ'(i)    ā_f = f̄ ⊙ σ'(f)    ā_g = ḡ ⊙ (1 - g²)        coupled: ī ← ī - f̄            (16)
    c̄_{t-1} += c̃̄ ⊙ f + p_i ⊙ ā_i + p_f ⊙ ā_f                 s̄_{t-1} = W_gates' ā[i, f, o]        (17)
    h̄_{t-1} += m_h ⊙ W_hh' r̄_t          r̄ = ā, or N'(γ_hh ⊙ ā) with a norm                         (18)
    where reset_t:  h̄_{t-1}, c̄_{t-1}, s̄_{t-1} belong to the initial state, and are 0 for step t-1     (19)
    where t ≥ length:  h̄_{t-1}, c̄_{t-1}, s̄_{t-1} = h̄, c̄, s̄  and ā_t = 0                             (20)

N' is the derivative of N: N'(d) = (d - mean d - N ⊙ mean(d ⊙ N)) / sqrt(var + eps). σ'(y) = y (1 - y), or
0.2 strictly between 0 and 1 for the hard sigmoid. The weights' gradients are sums over n and t of products
with ā_t; they wait until the loop is over and become one matrix product each (`weights.py`).

Saved: the gates (N, T, 4H) and the cell (N, T, H) of every step, and with a norm each N and its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import definition
from .call import Call, Grads, Inputs, Outputs
from .definition import Masks, State3
from .tape import Step, Tape, normed_derivative, slope, standard
from .variant import Variant
from .weights import Record, gradients


def saves(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `forward` saves: gates and cell, then N and 1 / scale of each norm."""
    N, T, H, G = call.N, call.T, call.H, len(call.variant.gates)
    shapes: list[tuple[int, ...]] = []
    if not call.options.keep_gates:
        shapes.append((N, T, 4 * H))
    if not call.options.keep_cells:
        shapes.append((N, T, H))
    if call.variant.norm == "per_gate":
        shapes += [(N, T, G * H), (N, T, G)]
    elif call.variant.norm != "none":
        shapes += 2 * [(N, T, G * H), (N, T, 1)]
    return [(shape, call.wide) for shape in shapes]


def forward(call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Run (0) to (8) with one product for all inputs, and save what `backward` needs."""
    w, active, v = definition.widened(call, given), definition.active_steps(call, given), call.variant
    noise, start = definition.noise_of(call, w), definition.initial_state(call, w)
    x = w.x if active is None else torch.where(active[..., None], w.x, 0)
    z, z_saved = _input_part(v, w, x)
    z_steps = z.unbind(1)
    h, (c, s) = w.h, definition.parted(call, w.c)
    records: list[tuple[Tensor, ...]] = []
    for t in definition.steps(call):
        if w.reset is not None:
            again = w.reset[:, t, None]
            h, c, s = definition.chosen(again, start, (h, c, s))
        old, m = (h, c, s), noise.at(t)
        a, r_saved = _recurrent_part(v, w, z_steps[t], h if m.h is None else h * m.h)
        h, c, s, gates = _cell(v, w, a, old, m)
        h = definition.rounded(h, call.dtype)
        y, cell = h, c
        if active is not None:
            on = active[:, t, None]
            y, cell, gates = torch.where(on, h, 0), torch.where(on, c, 0), torch.where(on, gates, 0)
            h, c, s = definition.chosen(on, (h, c, s), old)
        records.append((y, cell, gates, *r_saved))
    if call.options.reverse:
        records.reverse()
    return _packed(call, w, records, z_saved, (h, c, s))


def prepared_step(call: Call, given: Inputs) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (x, h, c) -> (h, c): one step in evaluation, as `forward` would take it."""
    v, noise, H = call.variant, definition.noise_of(call, given), call.H

    def advance(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        w = given if call.dtype == call.wide else definition.widened(call, given)
        h, c, x = h.to(call.wide), c.to(call.wide), x.to(call.wide)
        old = (h, c[:, :H], c[:, H:])
        z, _ = _input_part(v, w, x)
        a, _ = _recurrent_part(v, w, z, h)
        new_h, new_c, s, _ = _cell(v, w, a, old, noise)
        return new_h.to(call.dtype), torch.cat((new_c, s), dim=1) if v.gate_recurrence else new_c

    return advance


def _packed(
    call: Call, w: Inputs, records: list[tuple[Tensor, ...]], z_saved: tuple[Tensor, ...], last: State3
) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Stack the records over time, and sort them into what is returned and what is saved."""
    o = call.options
    widths = [call.P, call.H, 4 * call.H, *(s[0][2] for s in saves(call)[-2:] if call.variant.norm != "none")]
    columns = [torch.stack(column, dim=1) for column in zip(*records, strict=True)] or [
        w.h.new_zeros(call.N, 0, width) for width in widths
    ]
    y, cells, gates, *r_saved = columns
    h, c, s = last if records else (value.clone() for value in last)  # no steps: the given state's own memory
    outputs = Outputs(
        y.to(call.dtype),
        h.to(call.dtype),
        torch.cat((c, s), dim=1) if s.shape[1] else c,
        cells if o.keep_cells else None,
        gates if o.keep_gates else None,
    )
    if not call.save:
        return outputs, ()
    kept = ([] if o.keep_gates else [gates]) + ([] if o.keep_cells else [cells])
    return outputs, (*kept, *z_saved, *r_saved)


def _input_part(v: Variant, w: Inputs, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The part of (2) that does not wait for h: one product for all T. (N, T, G H), and what to save."""
    z = x @ w.w_ih.T
    saved: tuple[Tensor, ...] = ()
    if v.norm in ("ba2016", "products"):
        hat, scale = standard(z, v.norm_eps)
        z, saved = hat * w.gain_ih, (hat, scale)
    return (z if w.bias is None or v.norm == "per_gate" else z + w.bias), saved


def _recurrent_part(v: Variant, w: Inputs, z: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(2) for one step: z (N, G H) from above and h (N, P) -> a (N, G H), and what to save."""
    if v.norm == "none":
        return torch.addmm(z, h, w.w_hh.T), ()
    if v.norm == "per_gate":
        hat, scale = standard((z + h @ w.w_hh.T).unflatten(-1, (len(v.gates), -1)), v.norm_eps)
        hat = hat.flatten(-2)
        a = hat * w.gain_hh
        return (a if w.bias is None else a + w.bias), (hat, scale.squeeze(-1))
    hat, scale = standard(h @ w.w_hh.T, v.norm_eps)
    return z + hat * w.gain_hh, (hat, scale)


def _cell(v: Variant, w: Inputs, a: Tensor, old: State3, m: Masks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(2) from the peepholes on, to (7), for one step: new h, c, s and the gates (N, 4H)."""
    h, c, s = old
    part = dict(zip(v.gates, a.chunk(len(v.gates), dim=-1), strict=True))
    if w.w_gates is not None:
        more = (s @ w.w_gates.T).chunk(len(v.sigmoids), dim=-1)
        part |= {k: part[k] + extra for k, extra in zip(v.sigmoids, more, strict=True)}
    look = definition.peepholes(v, w)
    one = torch.ones_like(c) if len(v.gates) < 4 else c
    i = (
        definition.squash(v, torch.addcmul(part["i"], look["i"], c) if look else part["i"])
        if "i" in part
        else one
    )
    if "f" in part:
        f = definition.squash(v, torch.addcmul(part["f"], look["f"], c) if look else part["f"])
    else:
        f = 1 - i if v.coupled else one
    g = part["g"].tanh() if v.input_activation else part["g"]
    cell = torch.addcmul(f * c, i, g if m.g is None else g * m.g)
    if v.cell_clip is not None:
        cell = cell.clamp(-v.cell_clip, v.cell_clip)
    if v.norm == "per_gate":
        cell = standard(cell, v.norm_eps)[0] * w.gain_c + w.shift_c
    o = one
    if "o" in part:
        o = definition.squash(v, torch.addcmul(part["o"], look["o"], cell) if "o" in look else part["o"])
    out = standard(cell, v.norm_eps)[0] * w.gain_c + w.shift_c if v.norm == "ba2016" else cell
    new = o * (out.tanh() if v.output_activation else out)
    new = new if w.w_hr is None else new @ w.w_hr.T
    if v.projection_clip is not None:
        new = new.clamp(-v.projection_clip, v.projection_clip)
    if w.w_gates is not None:
        s = torch.cat([{"i": i, "f": f, "o": o}[k] for k in v.sigmoids], dim=-1)
    return (
        definition.zoned(h, new, m.keep_h),
        definition.zoned(c, cell, m.keep_c),
        s,
        torch.cat((i, f, g, o), dim=-1),
    )


def backward(
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradient of every input that `needs` names, from those of the outputs (None is zero)."""
    tape = Tape.of(call, given, outputs, saved)
    state = tape.last(grads)
    nothing = (torch.zeros_like(state[0]), torch.zeros_like(state[1]), torch.zeros_like(state[2]))
    initial: State3 | None = None
    records: list[Record] = []
    cut = tape.steps()
    y, cells, gates = (None if d is None else d.unbind(1) for d in (grads.y, grads.cells, grads.gates))
    for t in reversed(definition.steps(call)):
        arriving = Grads(
            y=None if y is None else y[t],
            h=None,
            c=None,
            cells=None if cells is None else cells[t],
            gates=None if gates is None else gates[t],
        )
        state, record = _step(tape, t, cut[t], state, arriving)
        if tape.w.reset is not None:
            again = tape.w.reset[:, t, None]
            to_initial = definition.chosen(again, state, nothing)  # (19)
            initial = to_initial if initial is None else _sum(initial, to_initial)
            state = definition.chosen(again, nothing, state)
        records.append(record)
    if not call.options.reverse:
        records.reverse()
    return gradients(tape, records, state, initial, needs)


def _sum(a: State3, b: State3) -> State3:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _step(tape: Tape, t: int, cut: Step, after: State3, grads: Grads) -> tuple[State3, Record]:
    """(9) to (18), and (20): gradients of the state after step t -> before it, and what the weights need.

    `grads` are those of the step's own y, cells and gates.
    """
    v, w, k, m = tape.call.variant, tape.w, cut.k, tape.noise.at(t)
    dh, dc, ds = after
    dh = dh if grads.y is None else dh + grads.y  # (9)
    dc = dc if grads.cells is None else dc + grads.cells
    new_h, old_h = _shared(dh, m.keep_h)  # (10)
    if tape.unclipped_h is not None:
        new_h = torch.where(tape.unclipped_h[:, t], new_h, 0)
    out = new_h if w.w_hr is None else new_h @ w.w_hr  # (11)
    extra = _extra(tape, ds, grads)
    a: dict[str, Tensor] = {}
    if "o" in v.gates:
        a["o"] = out * k["o"]  # (12)
        if extra:
            a["o"] = a["o"] + extra["o"] * slope(v, cut.gates["o"])
    look = definition.peepholes(v, w)
    d_out = d = out * k["c"]  # (13)
    if v.norm == "ba2016" and cut.norm_c is not None:
        d = normed_derivative(*cut.norm_c, d * w.gain_c)
    new_c, old_c = _shared(dc, m.keep_c)
    d = d + new_c
    if "o" in look:
        d = torch.addcmul(d, look["o"], a["o"])
    if v.norm == "per_gate" and cut.norm_c is not None:  # (14)
        d_out, d = d, normed_derivative(*cut.norm_c, d * w.gain_c)
    if tape.unclipped is not None:
        d = torch.where(tape.unclipped[:, t], d, 0)
    for gate in v.gates:  # (15), (16)
        if gate != "o":
            a[gate] = d * k[gate]
            if gate in extra:
                a[gate] = a[gate] + extra[gate] * _slope(v, gate, cut.gates[gate])
    f = cut.gates["f"]
    old_c = d * f if old_c is None else torch.addcmul(old_c, d, f)  # (17)
    for gate in look.keys() - {"o"}:
        old_c = torch.addcmul(old_c, look[gate], a[gate])
    old_s = ds if w.w_gates is None else torch.cat([a[g] for g in v.sigmoids], dim=-1) @ w.w_gates
    da = torch.cat([a[gate] for gate in v.gates], dim=-1)
    dr = da if cut.norm_r is None else normed_derivative(*cut.norm_r, da * w.gain_hh)
    back = dr @ w.w_hh  # (18)
    back = back if m.h is None else back * m.h
    old_h = back if old_h is None else old_h + back
    record = Record(da, None if w.w_hr is None else new_h, None if tape.norm_c is None else d_out)
    if tape.active is None:
        return (old_h, old_c, old_s), record
    on = tape.active[:, t, None]  # (20)
    before = definition.chosen(on, (old_h, old_c, old_s), after)
    parts = (None if r is None else torch.where(on, r, 0) for r in (record.h, record.c))
    return before, Record(torch.where(on, da, 0), *parts)


def _shared(d: Tensor, keep: Tensor | float | None) -> tuple[Tensor, Tensor | None]:
    """Share a gradient between the new value and the one that zoneout kept."""
    if keep is None:
        return d, None
    if isinstance(keep, Tensor):
        return torch.where(keep, d, 0), torch.where(keep, 0, d)
    return keep * d, (1 - keep) * d


def _extra(tape: Tape, ds: Tensor, grads: Grads) -> dict[str, Tensor]:
    """s̄ and ḡ_kept of (12) and (15): what reaches the gates' values from outside the cell."""
    v = tape.call.variant
    if grads.gates is None and tape.w.w_gates is None:
        return {}
    extra = {gate: torch.zeros_like(tape.cell[:, 0]) for gate in "ifgo"}
    if grads.gates is not None:
        extra = dict(zip("ifgo", grads.gates.chunk(4, dim=-1), strict=True))
    if tape.w.w_gates is not None:
        parts = zip(v.sigmoids, ds.chunk(len(v.sigmoids), dim=-1), strict=True)
        extra |= {gate: extra[gate] + part for gate, part in parts}
    if v.coupled:
        extra["i"] = extra["i"] - extra["f"]
    return extra


def _slope(v: Variant, gate: str, y: Tensor) -> Tensor:
    if gate == "g":
        return 1 - y * y if v.input_activation else torch.ones_like(y)
    return slope(v, y)
