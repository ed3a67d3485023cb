"""The LSTM as equations. Every other file in this folder must agree with this one.

One step, for one sequence. A line marked with an option is there only with that option; without any,
this is torch.nn.LSTM. N(z) = (z - mean z) / sqrt(var z + eps).

    where reset_t:  h_{t-1}, c_{t-1}, s_{t-1} ← the initial state                                  (0)
    z_t = W_ih (m_x ⊙ x_t)        r_t = (m_w ⊙ W_hh) (m_h ⊙ h_{t-1})                               (1)
    a_t = z_t + r_t + b                                                                            (2)
        norm "ba2016", "products":  a_t = γ_ih ⊙ N(z_t) + γ_hh ⊙ N(r_t) + b
        norm "per_gate":            a_t = γ_hh ⊙ N(z_t + r_t) + b,  N over each gate by itself
        gate_recurrence:            a_t[i, f, o] += W_gates s_{t-1}
        peephole:                   a_t[i] += p_i ⊙ c_{t-1},  a_t[f] += p_f ⊙ c_{t-1}
    i_t = σ(a_t[i])    f_t = σ(a_t[f])    g_t = tanh(a_t[g])                                       (3)
        coupled:                    f_t = 1 - i_t
        no input or forget gate:    i_t = 1,  f_t = 1;  no input activation:  g_t = a_t[g]
    c̃_t = f_t ⊙ c_{t-1} + i_t ⊙ (m_g ⊙ g_t)                                                        (4)
        cell_clip:                  c̃_t ← clip(c̃_t, -cell_clip, cell_clip)
        norm "per_gate":            c̃_t ← γ_c ⊙ N(c̃_t) + β_c
    o_t = σ(a_t[o])                                                                                (5)
        peephole:                   o_t = σ(a_t[o] + p_o ⊙ c̃_t);  no output gate:  o_t = 1
    h̃_t = o_t ⊙ tanh(c̃_t)                                                                          (6)
        norm "ba2016":              h̃_t = o_t ⊙ tanh(γ_c ⊙ N(c̃_t) + β_c)
        no output activation:       the tanh is left out
        projection:                 h̃_t ← W_hr h̃_t
        projection_clip:            h̃_t ← clip(h̃_t, -projection_clip, projection_clip)
    h_t = h̃_t    c_t = c̃_t    s_t = [i_t, f_t, o_t]                                                (7)
        zoneout in training:        a unit of h or c that is zoned out keeps its value of t-1
        zoneout in evaluation:      c_t = ρ_c c_{t-1} + (1 - ρ_c) c̃_t,  and h_t with ρ_h
    where t ≥ length:  h_t, c_t, s_t ← h_{t-1}, c_{t-1}, s_{t-1};  the output is zero                (8)

σ is the sigmoid, or clip(0.2 a + 0.5, 0, 1) with gate_activation "hard_sigmoid"; m_x, m_h, m_w, m_g are the
dropout masks of `masks.py`. The reversed direction runs from t = T - 1 to 0, so it starts at the true end.
A reset and a kept state pass no gradient to what they replace. For 16-bit x, the weights and h are of
16 bits, and everything else is float32.

Slow on purpose: one line per equation, autograd for the derivative, any dtype, any device.

Sources: Hochreiter & Schmidhuber (1997), the cell; Gers, Schmidhuber & Cummins (2000), the forget gate; the
options name theirs in `variant.py` and `masks.py`. The order i, f, g, o is torch.nn.LSTM's; b is its
b_ih + b_hh, which only ever appear as a sum. In (6) zoneout leaves h̃ the new cell, as in Krueger et al.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import masks
from .call import Call, Inputs, Outputs
from .variant import Variant


class Masks(NamedTuple):
    """The noise of a call; None where there is none of its kind."""

    h: Tensor | None = None
    "(N, P) factor of h on its way back"
    g: Tensor | None = None
    "(N, T, H) factor of the candidate"
    keep_h: Tensor | float | None = None
    "(N, T, P) bool: renewed; in evaluation the renewed share"
    keep_c: Tensor | float | None = None
    "(N, T, H) bool, or the share"

    def at(self, t: int) -> Masks:
        """The noise of step t."""
        g = None if self.g is None else self.g[:, t]
        keep_h, keep_c = (m[:, t] if isinstance(m, Tensor) else m for m in (self.keep_h, self.keep_c))
        return Masks(self.h, g, keep_h, keep_c)


State3 = tuple[Tensor, Tensor, Tensor]
"""h (N, P), c (N, H) and s (N, S H) of one moment, or their gradients."""


def lstm(call: Call, given: Inputs, dtype: torch.dtype | None = None) -> Outputs:
    """Run a call by the equations.

    Args:
        call:  its options and sizes.
        given: its tensors; those of 16 bits may be of float32, with the same values.
        dtype: of y and h, which have the same values in another; the call's if None.

    Returns:
        The outputs; differentiable by autograd, any number of times.
    """
    w, active = widened(call, given), active_steps(call, given)
    x = w.x if active is None else torch.where(active[..., None], w.x, 0)  # 0 times NaN is not 0
    noise, start = noise_of(call, w), initial_state(call, w)
    h, (c, s) = w.h, parted(call, w.c)
    records: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in steps(call):
        old = h, c, s
        if w.reset is not None:
            again = w.reset[:, t, None]
            old = chosen(again, start, old)  # (0)
        h, c, s, gates = cell(call.variant, w, x[:, t], *old, noise.at(t))
        h = rounded(h, call.dtype)
        y, cells = h, c
        if active is not None:
            on = active[:, t, None]
            y, cells, gates = (torch.where(on, v, 0) for v in (h, c, gates))
            h, c, s = chosen(on, (h, c, s), old)  # (8)
        records.append((y, cells, gates))
    if call.options.reverse:
        records.reverse()
    return collected(call, records, h, torch.cat((c, s), dim=1), dtype or call.dtype)


def cell(
    v: Variant, w: Inputs, x: Tensor, h: Tensor, c: Tensor, s: Tensor, m: Masks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step: x (N, C), h (N, P), c (N, H), s (N, S H) -> new h, c, s and the gates (N, 4H)."""
    a = preactivations(v, w, x @ w.w_ih.T, (h if m.h is None else h * m.h) @ w.w_hh.T)  # (1), (2)
    blocks = dict(zip(v.gates, a.chunk(len(v.gates), dim=-1), strict=True))
    if w.w_gates is not None:
        more = (s @ w.w_gates.T).chunk(len(v.sigmoids), dim=-1)
        blocks |= {k: blocks[k] + part for k, part in zip(v.sigmoids, more, strict=True)}
    look = peepholes(v, w)
    one = torch.ones_like(c)
    gate = {
        k: squash(v, blocks[k] + look[k] * c if look else blocks[k]) if k in blocks else one for k in "if"
    }  # (3)
    i, f = gate["i"], 1 - gate["i"] if v.coupled else gate["f"]
    g = blocks["g"].tanh() if v.input_activation else blocks["g"]
    new_c = f * c + i * (g if m.g is None else g * m.g)  # (4)
    if v.cell_clip is not None:
        new_c = new_c.clamp(-v.cell_clip, v.cell_clip)
    if v.norm == "per_gate":
        new_c = normed(new_c, v.norm_eps) * w.gain_c + w.shift_c
    o = one
    if v.output_gate:
        o = squash(v, blocks["o"] + look["o"] * new_c if look else blocks["o"])  # (5)
    out = normed(new_c, v.norm_eps) * w.gain_c + w.shift_c if v.norm == "ba2016" else new_c
    new_h = o * (out.tanh() if v.output_activation else out)  # (6)
    if w.w_hr is not None:
        new_h = new_h @ w.w_hr.T
    if v.projection_clip is not None:
        new_h = new_h.clamp(-v.projection_clip, v.projection_clip)
    h, c = zoned(h, new_h, m.keep_h), zoned(c, new_c, m.keep_c)  # (7)
    s = torch.cat([{"i": i, "f": f, "o": o}[k] for k in v.sigmoids], dim=-1) if w.w_gates is not None else s
    return h, c, s, torch.cat((i, f, g, o), dim=-1)


def peepholes(v: Variant, w: Inputs) -> dict[str, Tensor]:
    """The peephole weights (H,) by gate; none without the option."""
    if w.peephole is None:
        return {}
    return dict(zip(v.sigmoids, w.peephole.chunk(len(v.sigmoids)), strict=True))


def preactivations(v: Variant, w: Inputs, z: Tensor, r: Tensor) -> Tensor:
    """Equation (2) without gate recurrence and peepholes: z, r (..., G H) -> a (..., G H)."""
    if v.norm == "none":
        a = z + r
    elif v.norm == "per_gate":
        a = normed((z + r).unflatten(-1, (len(v.gates), -1)), v.norm_eps).flatten(-2) * w.gain_hh
    else:
        a = normed(z, v.norm_eps) * w.gain_ih + normed(r, v.norm_eps) * w.gain_hh
    return a if w.bias is None else a + w.bias


def normed(z: Tensor, eps: float) -> Tensor:
    """N(z) over the last axis: mean 0, variance 1."""
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def squash(v: Variant, a: Tensor) -> Tensor:
    """The gates' activation."""
    return a.sigmoid() if v.gate_activation == "sigmoid" else (0.2 * a + 0.5).clamp(0, 1)


def zoned(old: Tensor, new: Tensor, keep: Tensor | float | None) -> Tensor:
    """Zoneout: `keep` is bool (the unit is renewed) in training, the renewed share in evaluation."""
    if keep is None:
        return new
    return torch.where(keep, new, old) if isinstance(keep, Tensor) else (1 - keep) * old + keep * new


def rounded(h: Tensor, dtype: torch.dtype) -> Tensor:
    """The value of h in `dtype`, in h's own dtype; the gradient passes as it is."""
    return h if h.dtype == dtype else h + (h.to(dtype).to(h.dtype) - h).detach()


def widened(call: Call, given: Inputs) -> Inputs:
    """Return the tensors in the dtype of the sums, with dropout on x and on w_hh applied.

    A reset in the padding is none: the state there is that of the last step before it.
    """
    tensors: list[Any] = [t.to(call.wide) if t is not None and t.is_floating_point() else t for t in given]
    wide = Inputs(*tensors)
    noise = call.options.noise
    if call.options.training and noise.variational_x and wide.seed is not None:
        x = masks.dropped_input(wide.x, noise.variational_x, wide.seed)
        wide = wide._replace(x=rounded(x, call.dtype))
    if call.options.training and noise.weight_drop and wide.seed is not None:
        w_hh = masks.dropped_weight(wide.w_hh, noise.weight_drop, wide.seed)
        wide = wide._replace(w_hh=rounded(w_hh, call.dtype))
    active = active_steps(call, given)
    if given.reset is not None and active is not None:
        wide = wide._replace(reset=given.reset & active)
    return wide


def noise_of(call: Call, w: Inputs) -> Masks:
    """Make the masks of (1), (4) and (7); dropout on x and on w_hh is `widened`'s."""
    noise, N, seed = call.options.noise, call.N, w.seed
    if not call.options.training:
        share_h, share_c = 1 - noise.zoneout_h, 1 - noise.zoneout_c
        return Masks(keep_h=share_h if noise.zoneout_h else None, keep_c=share_c if noise.zoneout_c else None)
    if seed is None:
        return Masks()
    t, always = torch.arange(call.first, call.first + call.T, device=seed.device), masks.always(seed)
    h = g = keep_h = keep_c = None
    if noise.variational_h:
        h = masks.scaled(seed, "variational_h", noise.variational_h, always, N, call.P, w.h)[:, 0]
    if noise.recurrent_dropout:
        g = masks.scaled(seed, "recurrent_dropout", noise.recurrent_dropout, t, N, call.H, w.c)
    if noise.zoneout_h:
        keep_h = masks.kept(seed, "zoneout_h", noise.zoneout_h, t, N, call.P)
    if noise.zoneout_c:
        keep_c = masks.kept(seed, "zoneout_c", noise.zoneout_c, t, N, call.H)
    return Masks(h, g, keep_h, keep_c)


def active_steps(call: Call, given: Inputs) -> Tensor | None:
    """(N, T) bool: the steps before each sequence's length; None if all are."""
    if given.lengths is None:
        return None
    return torch.arange(call.T, device=given.x.device) < given.lengths[:, None]


def initial_state(call: Call, w: Inputs) -> State3:
    """H (N, P), c (N, H) and s (N, S H) that a reset returns to."""
    h = torch.zeros_like(w.h) if w.initial_h is None else w.initial_h
    c = torch.zeros_like(w.c) if w.initial_c is None else w.initial_c
    return h, *parted(call, c)


def parted(call: Call, c: Tensor) -> tuple[Tensor, Tensor]:
    """The cell (N, H) and the gates (N, S H) that stand behind it with gate recurrence."""
    return c[:, : call.H], c[:, call.H :]


def chosen(on: Tensor, new: State3, old: State3) -> State3:
    """The new state where `on` (N, 1), the old one elsewhere."""
    return torch.where(on, new[0], old[0]), torch.where(on, new[1], old[1]), torch.where(on, new[2], old[2])


def steps(call: Call) -> range:
    """The order in which the steps are run."""
    return range(call.T - 1, -1, -1) if call.options.reverse else range(call.T)


def collected(
    call: Call, records: list[tuple[Tensor, Tensor, Tensor]], h: Tensor, c: Tensor, dtype: torch.dtype
) -> Outputs:
    """Stack what the steps left (y, cells, gates), in order of time, y and h in a dtype that holds them."""
    columns = list(zip(*records, strict=True)) or [(), (), ()]
    y, cells, gates = (
        torch.stack(column, dim=1) if column else h.new_zeros(call.N, 0, size)
        for column, size in zip(columns, (call.P, call.H, 4 * call.H), strict=True)
    )
    h = h.to(dtype)
    return Outputs(
        y.to(dtype),
        h if records else h.clone(),
        c.clone(),
        cells if call.options.keep_cells else None,
        gates if call.options.keep_gates else None,
    )
