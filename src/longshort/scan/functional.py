"""`lstm()` and `plan()`: from keyword arguments to a call that an operator runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from . import beside, checks, graph, masks, modes, operator, placed
from .call import Backend, Bound, BoundAll, Call, Inputs, Options, Placing, Record, Site, Works
from .masks import SILENT, Noise
from .plan import Plan, choose, planned
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
    variant: Variant = DEFAULT,
    noise: Noise = SILENT,
    training: bool = True,
    keep: str | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    backend: str = "auto",
    **optional: Any,
) -> Any:
    r"""Run one LSTM layer over whole sequences, in one direction.

    $$c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh c_t$$

    Every option and its place in the equations: `longshort.scan.definition`. Gates that the variant lacks
    have no rows in the weights: G = len(variant.gates), S = len(variant.sigmoids).

    Args:
        x:        (N, T, C) inputs; any strides. float32, float64, bfloat16 or float16.
        w_ih:     (G H, C) input weights, gates stacked i, f, g, o.
        w_hh:     (G H, P) recurrent weights, same order; P = H without a projection.
        bias:     (G H,) the sum of torch.nn.LSTM's two biases.
        h:        (N, P) state before the first step; the initial state if None.
        c:        (N, H) cell before the first step, in x's dtype or float32; the initial state's if None.
        variant:  which LSTM.
        noise:    rates of dropout and zoneout; off unless `training`, but for zoneout, which then mixes.
        training: whether noise is drawn.
        keep:     "cells", "gates" or "all": return them for every step too.
        reverse:  run from the last step of each sequence to the first; y stays in order of time.
        checkpoint_every: keep only the state at every k-th step, and compute the rest again.
        backend:  who runs it; `plan` says whom "auto" picks, and why.
        **optional: `w_hr` (P, H); `peephole` (S H,); `w_gates` (S H, S H); `gain_ih`, `gain_hh` (G H,),
            `gain_c`, `shift_c` (H,) of the norms; `initial`, a State of (N, P) and (N, H), what a reset
            returns to, zero if None; `reset` (N, T) bool, true where a sequence starts step t from its
            initial state; `lengths` (N,) int64 in [0, T]; `seed`, an int or an int64 tensor (), the key of
            the noise, drawn from torch's CPU generator if None.

    Returns:
        y (N, T, P), the state after every step, zero in the padding, and State(h, c) after the last step of
        each sequence. Feeding the state back in continues the sequence: two halves give the same y as the
        whole. With `keep`, a `Kept` as well.

    Raises:
        ShapeError:   shapes, dtypes or devices disagree, or a length is out of [0, T].
        SettingError: an option is out of range, or a weight is missing or of no use in this variant.
        BackendError: a backend was named that cannot run this call.

    Memory: what `plan` says; for the backends of this package 6 N T H numbers besides x: four gates, h and c.

    >>> N, T, C, H = 2, 5, 3, 4
    >>> y, state = lstm(torch.randn(N, T, C), torch.randn(4 * H, C), torch.randn(4 * H, H))
    >>> y.shape, bool((y[:, -1] == state.h).all())
    (torch.Size([2, 5, 4]), True)

    Source: Hochreiter & Schmidhuber (1997); Gers, Schmidhuber & Cummins (2000); each option's own paper in
    `variant.py` and `masks.py`.
    """
    cells, gates = checks.keep("lstm", keep)
    checks.tensor("lstm", "x", x)
    if not training and not noise.silent:
        noise = noise.evaluated
    options = Options(variant, noise, training, reverse, cells, gates, checkpoint_every, backend)
    out = run(options, gathered(options, x, w_ih, w_hh, bias, h, c, **optional))
    state = State(out.h, out.c)
    return (out.y, state, Kept(out.cells, out.gates)) if cells or gates else (out.y, state)


def run(options: Options, given: Inputs) -> Any:
    """Check a call and run it, in eager mode or as a node of a graph."""
    if modes.functionalized() or (modes.written() and not modes.transformed()):
        save = _saves(given)
        if torch.onnx.is_in_onnx_export():
            if not torch.compiler.is_exporting():
                raise BackendError(
                    "lstm: an export to ONNX by torch.jit.trace knows no such operator. Call "
                    "longshort.export, or torch.onnx.export with dynamo=True."
                )
            from . import symbolic  # loads torch's exporter

            return symbolic.run(options, given)
        kept = not torch.compiler.is_exporting() and torch._C._get_tracing_state() is None
        return graph.run(options, given, save and kept)
    return operator.run(*_chosen(options, given))


def run_all(calls: Sequence[tuple[Options, Inputs]]) -> list[Any]:
    """Run calls that do not depend on each other, such as both directions of a layer, each as `run` does."""
    if len(calls) == 1 or modes.written() or modes.functionalized():
        return [run(*one) for one in calls]
    return list(beside.run_all([_chosen(*one) for one in calls]))


def _saves(given: Inputs) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)


def _chosen(options: Options, given: Inputs) -> beside.Chosen:
    call = checks.agree("lstm", options, given, _saves(given))
    return beside.Chosen(choose(call)[0], call, given)


def gathered(
    options: Options,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    *,
    initial: State | None = None,
    seed: int | Tensor | None = None,
    **more: Any,
) -> Inputs:
    """Return every tensor of a call: the first state filled in, all in autocast's dtype if it is on."""
    initial_h, initial_c = initial if initial is not None else (None, None)
    variant = options.variant
    if modes.casting(x.device.type) and x.dtype != torch.float64:
        narrow = torch.get_autocast_dtype(x.device.type)
        x, w_ih, w_hh = x.to(narrow), w_ih.to(narrow), w_hh.to(narrow)
        bias, h, initial_h = (None if t is None else t.to(narrow) for t in (bias, h, initial_h))
        more = {k: t.to(narrow) if t is not None and t.is_floating_point() else t for k, t in more.items()}
    if h is None:
        h = x.new_zeros(x.shape[0], w_hh.shape[1]) if initial_h is None else initial_h
    if c is None:
        c = initial_c
    if c is None:
        H = w_ih.shape[0] // len(variant.gates)
        wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        c = x.new_zeros(x.shape[0], H * (1 + len(variant.sigmoids) * variant.gate_recurrence), dtype=wide)
    if not options.training or options.noise.silent:
        seed = None
    else:
        seed = masks.seeds((), x.device) if seed is None else masks.key(seed, x.device)
    return Inputs(x, w_ih, w_hh, bias, h, c, initial_h=initial_h, initial_c=initial_c, seed=seed, **more)


def dropped(x: Tensor, rate: float, seed: Tensor, backend: str = "auto") -> Tensor:
    """Return x under the ordinary dropout between layers: a new mask at every step.

    Args:
        x:       (N, T, K), any strides.
        rate:    share of the units that is silenced, in [0, 1).
        seed:    () int64 on x's device, the key of the noise.
        backend: whose kernel makes the mask, where it has one; plain torch otherwise, with the same numbers.

    Returns:
        x where the noise keeps a unit, times 1 / (1 - rate), and zero elsewhere.
    """
    if modes.watched():
        return masks.dropped(x, "dropout", rate, seed)
    K = x.shape[2]  # who runs a call of that size, runs this
    call = Call(
        Options(backend=backend), x.device.type, x.dtype, 0, 0, K, K, K, frozenset(), False, 0, x.device.index
    )
    found = choose(call)[0]
    return operator.Masked.apply(found, x, "dropout", rate, seed)  # type: ignore[no-any-return, no-untyped-call]


def plan(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    *,
    variant: Variant = DEFAULT,
    noise: Noise = SILENT,
    training: bool = True,
    keep: str | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    backend: str = "auto",
    **optional: Any,
) -> Plan:
    """Say which backend `lstm` would use for these arguments, why not a faster one, and the bytes kept.

    Args:
        x:        as in `lstm`, and so are all the others. Nothing is run; meta tensors will do.
        w_ih:     as in `lstm`.
        w_hh:     as in `lstm`.
        bias:     as in `lstm`.
        h:        as in `lstm`.
        c:        as in `lstm`.
        variant:  as in `lstm`.
        noise:    as in `lstm`.
        training: as in `lstm`.
        keep:     as in `lstm`.
        reverse:  as in `lstm`.
        checkpoint_every: as in `lstm`.
        backend:  as in `lstm`.
        **optional: as in `lstm`.

    Returns:
        A `Plan`; printing it gives one line.

    Raises:
        What `lstm` raises for the same arguments.
    """
    cells, gates = checks.keep("plan", keep)
    checks.tensor("plan", "x", x)
    options = Options(
        variant,
        noise if training else noise.evaluated,
        training,
        reverse,
        cells,
        gates,
        checkpoint_every,
        backend,
    )
    return planned_call(options, gathered(options, x, w_ih, w_hh, bias, h, c, **optional))


def planned_call(options: Options, given: Inputs) -> Plan:
    """Return the plan of a call that a layer has gathered."""
    return planned(checks.agree("plan", options, given, save=True))


def bound(calls: Sequence[Placing]) -> BoundAll:
    """Check the calls of a layer in evaluation, one for each direction, and bind them to their weights.

    Args:
        calls: each with no noise to draw, nothing to keep, no `reset` and no `lengths`; the weights, and
            examples of x, h and c.

    Returns:
        What runs further calls: of tensors with the shapes and dtypes of the examples, on their device. It is
        the backend's own, or leads to its forward pass without a check.
    """
    made = [_bound(*one) for one in calls]
    works, together = [run for _, run in made], _together([backend for backend, _ in made])

    def run(x: Tensor, h: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        if together is None:
            return [one(x, h, c) for one in works]
        return together(x.device, [partial(one, x, h, c) for one in works])

    return run


def _together(backends: Sequence[Backend]) -> Works | None:
    """How one backend runs several calls side by side, if it does."""
    alike = len(backends) == 2 and backends[0] is backends[1]
    return backends[0].beside if alike else None


def _bound(options: Options, given: Inputs, site: Site) -> tuple[Backend, Bound]:
    call = checks.agree("lstm", options, given, save=False)
    backend = choose(call)[0]
    if backend.bind is not None:
        return backend, backend.bind(*operator.outside(backend, call, given), site)
    run = placed.evaluated(given, site, lambda now: backend.forward(*operator.outside(backend, call, now))[0])
    return backend, run


def recorded(calls: Sequence[Placing]) -> BoundAll:
    """Check the calls of a layer that gradients will come back through, and bind them to their weights.

    Args:
        calls: as for `bound`, and without `initial`.

    Returns:
        What runs further calls: of tensors with the shapes and dtypes of the examples, on their device, which
        need gradients or not as those do.
    """
    records = [_record(*one) for one in calls]
    own = [_weights(one.call, given, site) for one, (_, given, site) in zip(records, calls, strict=True)]
    rows, together = [site.row for *_, site in calls], _together([one.backend for one in records])

    def run(x: Tensor, h: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        each = zip(records, rows, own, strict=True)
        return [placed.Placed.apply(one, x, h[k], c[k], *w) for one, k, w in each]  # type: ignore[no-untyped-call]

    if together is None:
        return run
    both = placed.Both(records[0], records[1], together)

    def run_both(x: Tensor, h: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        tensors = [t for k, w in zip(rows, own, strict=True) for t in (x, h[k], c[k], *w)]
        return list(placed.halves(placed.Placed.apply(both, *tensors)))  # type: ignore[no-untyped-call, arg-type]

    return run_both


def _record(options: Options, given: Inputs, site: Site) -> Record:
    call = checks.agree("lstm", options, given, save=True)
    backend = choose(call)[0]
    if backend.record is not None:
        return backend.record(*operator.outside(backend, call, given), site)
    return placed.ByParts(call, backend, site)


def _weights(call: Call, given: Inputs, site: Site) -> tuple[Tensor, ...]:
    """Of `Layered`, all behind x, h and c."""
    more = [given[k] for k in call.places if k >= placed.FIRST]
    return (given.w_ih, given.w_hh, *site.biases, *(tensor for tensor in more if tensor is not None))


def prepared_step(
    options: Options, given: Inputs
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (x, h, c) -> (h, c), a single step in evaluation with these weights.

    Args:
        options: with `training` false.
        given:   the weights, and x (N, 1, C), h, c as examples.

    Returns:
        The backend's own prepared step, or one call of its forward pass.
    """
    call = checks.agree("lstm", options, given, save=False)
    backend = choose(call)[0]
    call, given = operator.outside(backend, call, given)
    if backend.step is not None:
        return backend.step(call, given)

    def advance(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        out = backend.forward(call, given._replace(x=x[:, None], h=h, c=c.to(call.wide)))[0]
        return out.h, out.c

    return advance
