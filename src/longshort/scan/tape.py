"""What the backward loop reads at every step, made for all steps at once before it starts.

Only gates, cells and norms were saved; masks, the state before each step and the factors of (12) to (16)
are made again here, as a kernel makes them again in registers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import definition
from .call import Call, Grads, Inputs, Outputs
from .definition import Masks
from .variant import Variant


class Norm(NamedTuple):
    """A saved N and its 1 / sqrt(var + eps): (N, T, K) and (N, T, K / size of a group)."""

    hat: Tensor
    scale: Tensor

    def derivative(self, d: Tensor) -> Tensor:
        """N'(d) for all steps, (N, T, K)."""
        return normed_derivative(self.hat, self.scale, d)

    def steps(self) -> list[Norm]:
        """The norm of each step: (N, K) and (N, K / size of a group)."""
        return [Norm(*pair) for pair in zip(self.hat.unbind(1), self.scale.unbind(1), strict=True)]


def normed_derivative(hat: Tensor, scale: Tensor, d: Tensor) -> Tensor:
    """N'(d); hat, d (..., K) and scale (..., groups), each group normed by itself."""
    groups = scale.shape[-1]
    hat, d = hat.unflatten(-1, (groups, -1)), d.unflatten(-1, (groups, -1))
    centred = d - d.mean(-1, keepdim=True) - hat * (d * hat).mean(-1, keepdim=True)
    return (centred * scale[..., None]).flatten(-2)


def slope(v: Variant, y: Tensor) -> Tensor:
    """σ' from the value y of σ."""
    return y * (1 - y) if v.gate_activation == "sigmoid" else 0.2 * ((y > 0) & (y < 1)).to(y.dtype)


class Step(NamedTuple):
    """What the loop reads at one step; cut from the tape at once, as a slice for each costs autograd T^2."""

    k: dict[str, Tensor]
    gates: dict[str, Tensor]
    norm_r: Norm | None
    norm_c: Norm | None


class Tape(NamedTuple):
    """The tensors of all steps. H is the number of cells, S that of the sigmoids."""

    call: Call
    given: Inputs
    w: Inputs
    "in the dtype of the sums, dropout on x and w_hh applied"
    active: Tensor | None
    noise: Masks
    gates: dict[str, Tensor]
    "i, f, g, o, each (N, T, H)"
    before: tuple[Tensor, Tensor, Tensor]
    "h (N, T, P), c (N, T, H), s (N, T, S H) that each step started from"
    cell: Tensor
    "(N, T, H) c̃ of (4), clipped and normed"
    unclipped: Tensor | None
    "(N, T, H) where the cell clip passes a gradient"
    unprojected: Tensor
    "(N, T, H) h̃ of (6) before the projection"
    unclipped_h: Tensor | None
    "(N, T, P) where the projection clip passes a gradient"
    norm_z: Norm | None
    norm_r: Norm | None
    norm_c: Norm | None
    k: dict[str, Tensor]
    "(N, T, H) factors: ā_i = k_i c̃̄, ā_f = k_f c̃̄, ā_g = k_g c̃̄, ā_o = k_o m̄, and k_c of m̄ in (13)"

    @staticmethod
    def of(call: Call, given: Inputs, outputs: Outputs, saved: tuple[Tensor, ...]) -> Tape:
        """Make the tape from what `derivative.forward` returned and saved."""
        v, left = call.variant, list(saved)
        gates = outputs.gates if outputs.gates is not None else left.pop(0)
        cells = outputs.cells if outputs.cells is not None else left.pop(0)
        norms = [Norm(*left[k : k + 2]) for k in range(0, len(left), 2)]
        norm_z, norm_r = (norms[0], norms[1]) if len(norms) == 2 else (None, norms[0] if norms else None)
        w, active = definition.widened(call, given), definition.active_steps(call, given)
        noise = definition.noise_of(call, w)
        if active is not None:
            w = w._replace(x=torch.where(active[..., None], w.x, 0))
        gate = dict(zip("ifgo", gates.chunk(4, dim=-1), strict=True))
        before = _before(call, w, active, outputs.y.to(call.wide), cells, gate)
        made = _cells(v, w, gate, before[1], noise)
        cell, unclipped, norm_c, phi, dphi = (
            made
            if noise.keep_c is not None or made[1] is not None or (v.norm in ("ba2016", "per_gate"))
            else (cells, *made[1:])
        )
        unprojected = gate["o"] * phi
        unclipped_h = None
        if v.projection_clip is not None and w.w_hr is not None:
            unclipped_h = (unprojected @ w.w_hr.T).abs() <= v.projection_clip
        return Tape(
            call, given, w, active, noise, gate, before, cell, unclipped, unprojected, unclipped_h,
            norm_z, norm_r, norm_c, _factors(v, gate, before[1], noise, phi, dphi),
        )  # fmt: skip

    def steps(self) -> list[Step]:
        """What each step of the loop reads, in order of time."""
        T = self.call.T
        names, values = [*self.k, *self.gates], [*self.k.values(), *self.gates.values()]
        cut = [value.unbind(1) for value in values]
        norms = [[None] * T if n is None else n.steps() for n in (self.norm_r, self.norm_c)]
        found = []
        for t in range(T):
            parts = [column[t] for column in cut]
            k = dict(zip(names[: len(self.k)], parts, strict=False))
            gates = dict(zip(names[len(self.k) :], parts[len(self.k) :], strict=True))
            found.append(Step(k, gates, norms[0][t], norms[1][t]))
        return found

    def last(self, grads: Grads) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of h (N, P), c (N, H), s (N, S H) after the last step."""
        w = self.w
        dh = torch.zeros_like(w.h) if grads.h is None else grads.h.to(self.call.wide)
        dc = torch.zeros_like(w.c) if grads.c is None else grads.c.to(self.call.wide)
        return dh, *definition.parted(self.call, dc)


def _before(
    call: Call, w: Inputs, active: Tensor | None, y: Tensor, cells: Tensor, gate: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The state each step started from: that after its neighbour, the first one, or a reset's."""
    c0, s0 = definition.parted(call, w.c)
    s = torch.cat([gate[k] for k in call.variant.sigmoids], dim=-1) if w.w_gates is not None else y[..., :0]
    found = []
    for first, after, start in zip(
        (w.h, c0, s0), (y, cells, s), definition.initial_state(call, w), strict=True
    ):
        if call.options.reverse:
            before = torch.cat((after[:, 1:], first[:, None]), dim=1)[:, : call.T]
            if active is not None:
                follows = torch.cat((active[:, 1:], torch.zeros_like(active[:, :1])), dim=1)[:, : call.T]
                before = torch.where(follows[..., None], before, first[:, None])
        else:
            before = torch.cat((first[:, None], after[:, :-1]), dim=1)[:, : call.T]
        if w.reset is not None:
            before = torch.where(w.reset[..., None], start[:, None], before)
        found.append(before)
    return found[0], found[1], found[2]


def _cells(
    v: Variant, w: Inputs, gate: dict[str, Tensor], c_before: Tensor, noise: Masks
) -> tuple[Tensor, Tensor | None, Norm | None, Tensor, Tensor]:
    """(4) and the activation of (6) again: c̃, where the clip passes, the cell's norm, φ and φ'."""
    g = gate["g"] if noise.g is None else gate["g"] * noise.g
    cell = torch.addcmul(gate["f"] * c_before, gate["i"], g)
    unclipped = norm = None
    if v.cell_clip is not None:
        unclipped = cell.abs() <= v.cell_clip
        cell = cell.clamp(-v.cell_clip, v.cell_clip)
    out = cell
    if v.norm in ("ba2016", "per_gate"):
        norm = Norm(*standard(cell, v.norm_eps))
        out = norm.hat * w.gain_c + w.shift_c
        cell = out if v.norm == "per_gate" else cell
    phi = out.tanh() if v.output_activation else out
    return cell, unclipped, norm, phi, 1 - phi * phi if v.output_activation else torch.ones_like(phi)


def standard(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """N(z) and 1 / sqrt(var z + eps) over the last axis: (..., K) and (..., 1)."""
    centred = z - z.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    return centred * scale, scale


def _factors(
    v: Variant, gate: dict[str, Tensor], c_before: Tensor, noise: Masks, phi: Tensor, dphi: Tensor
) -> dict[str, Tensor]:
    """The factors of (12), (13), (15) and (16) that do not wait for a gradient."""
    i, f, g, o = (gate[k] for k in "ifgo")
    if noise.g is not None:
        i_masked, g_masked = i * noise.g, g * noise.g
    else:
        i_masked, g_masked = i, g
    k = {"g": i_masked * (1 - g * g) if v.input_activation else i_masked, "c": o * dphi}
    if v.input_gate:
        k["i"] = (g_masked - c_before if v.coupled else g_masked) * slope(v, i)
    if "f" in v.gates:
        k["f"] = c_before * slope(v, f)
    if v.output_gate:
        k["o"] = phi * slope(v, o)
    return k
