"""Run a call on the compiled engine: tensors in as its arrays, arrays out as tensors (`arrays.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .. import engine
from .arrays import Form, array, form_of, said_of
from .call import (
    DIFFERENTIABLE,
    Backend,
    Bound,
    Call,
    Grads,
    Inputs,
    Layered,
    Outputs,
    Site,
    time_major,
)
from .packings import Bias, Weights
from .variant import Variant

if engine.available():
    engine.join_openmp()


def refuses(call: Call) -> str | None:
    """Say why the engine cannot run a call, or None."""
    why = engine.why_not()
    if why is not None:
        return why
    if call.device != "cpu":
        return f"the tensors are on {call.device}, and the engine computes on the CPU"
    if call.variant.gate_recurrence and call.variant.norm != "none":
        return "gate_recurrence adds to a normed product, and the engine makes one product of both"
    return None


def forward(call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Run the engine forward; what it saves is its tape."""
    threads, options, weights, form = (
        torch.get_num_threads(),
        call.options,
        Weights(call, given),
        form_of(call),
    )
    y, h, c, cells, gates, tape = engine.forward(
        weights.packed(form, call.save, threads),
        form.values(given.x),
        form.values(given.h),
        array(given.c),
        bias=form.sums(given.bias),
        **_shared(call, given, form),
        keep_cells=options.keep_cells,
        keep_gates=options.keep_gates,
        tape=call.save,
        time_major=time_major(given.x),
        threads=threads,
    )
    outputs = Outputs(
        form.tensor(y, call.dtype),
        form.tensor(h, call.dtype),
        torch.from_numpy(c),
        None if cells is None else torch.from_numpy(cells),
        None if gates is None else torch.from_numpy(gates),
    )
    if tape is None:
        return outputs, ()
    return outputs, (_by_rows(call, tape),)


def backward(
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Run the engine backward over the tape."""
    threads, weights, form = torch.get_num_threads(), Weights(call, given), form_of(call)
    wanted = [(k, Inputs._fields[k]) for k in call.places if k < DIFFERENTIABLE and needs[k]]
    found = engine.backward(
        weights.packed(form, True, threads, looks=False),
        saved[0].numpy().reshape(-1),
        form.values(given.x),
        form.values(outputs.y),
        form.values(given.h),
        array(given.c),
        **_shared(call, given, form),
        dy=form.values(grads.y),
        dh=form.sums(grads.h),
        dc=array(grads.c),
        dcells=array(grads.cells),
        dgates=array(grads.gates),
        wanted=[name for _, name in wanted],
        time_major=time_major(given.x),
        threads=threads,
    )
    result: list[Tensor | None] = [None] * DIFFERENTIABLE
    for k, name in wanted:
        result[k] = form.gradient(found[name], name, call)
    return tuple(result)


def saves(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """List the tape: gates, cell and what the variant adds, padded to whole vectors."""
    return [((call.T, call.N, _tape_row(call)), call.wide)]


def _by_rows(call: Call, tape: Any) -> Tensor:
    row = tape.size // (call.T * call.N) if call.T * call.N else _tape_row(call)
    return torch.from_numpy(tape.reshape(call.T, call.N, row))


def _tape_row(call: Call) -> int:
    return engine.tape_row(
        call.H,
        call.P,
        double=call.dtype == torch.float64,
        projected="w_hr" in call.given,
        variant=call.variant,
        noise=_noise(call, 0),
    )


def _noise(call: Call, seed: int) -> Any:
    if call.options.noise.silent:
        return None
    return engine.noise(call.options.noise, seed=seed, first=call.first, training=call.options.training)


@lru_cache(maxsize=4096)
def _extras(call: Call) -> bool:
    """Whether there is anything for `_shared` to say."""
    more = {"reset", "lengths", "initial_h", "initial_c"} & call.given
    return bool(more) or call.options.reverse or not call.options.noise.silent


def _shared(call: Call, given: Inputs, form: Form) -> dict[str, Any]:
    """What forward and backward are told alike."""
    if not _extras(call):
        return {}
    seed = int(given.seed) if given.seed is not None and not call.options.noise.silent else 0
    return {
        "reset": array(given.reset),
        "lengths": array(given.lengths),
        "initial_h": form.values(given.initial_h),
        "initial_c": array(given.initial_c),
        "reverse": call.options.reverse,
        "noise": _noise(call, seed),
    }


def _without_resets(call: Call, given: Inputs) -> dict[str, Any]:
    """The same of a bound call, which has none: an initial state is not read."""
    return _shared(call, given._replace(initial_h=None, initial_c=None), form_of(call))


def bind(call: Call, given: Inputs, site: Site) -> Bound:
    """Bind the memory of the weights. They are looked at, and the biases read, at every call."""
    weights, bias = Weights(call, given), Bias(site.biases)
    k, time_first, shared = site.row, site.time_first, _without_resets(call, given)
    several = call.N > 1 and call.T > 1

    def run(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        threads, form = torch.get_num_threads(), form_of(call)
        packed = weights.packed(form, False, threads)
        rows = form.values(x)
        rows = rows.swapaxes(0, 1) if time_first else rows
        y, h_n, c_n, _, _, _ = engine.forward(
            packed,
            rows,
            form.values(h)[k],
            form.sums(c)[k],
            bias=bias.sum(form),
            **shared,
            time_major=several and time_major(x, int(time_first)),
            threads=threads,
        )
        y = y.swapaxes(0, 1) if time_first else y
        return form.tensor(y, x.dtype), form.tensor(h_n[None], x.dtype), torch.from_numpy(c_n[None])

    return run


class _Recording:
    """A `Record` with the memory of the weights."""

    def __init__(self, call: Call, given: Inputs, site: Site) -> None:
        self.call, self.backend, self.site = call, BACKEND, site
        self.weights, self.bias = Weights(call, given), Bias(site.biases)
        self.shared, self.several = _without_resets(call, given), call.N > 1 and call.T > 1
        others = [Inputs._fields[k] for k in call.places if k > Inputs._fields.index("c")]
        self.names = ["x", "h", "c", "w_ih", "w_hh", *["bias"] * len(site.biases), *others]

    def forward(self, tensors: Layered) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Run the engine forward."""
        call, threads, (x, h, c), form = self.call, torch.get_num_threads(), tensors[:3], form_of(self.call)
        y, h_n, c_n, _, _, tape = engine.forward(
            self.weights.packed(form, True, threads),
            self._rows(form, x),
            form.values(h),
            form.sums(c),
            bias=self.bias.sum(form),
            **self.shared,
            tape=True,
            time_major=self._time_major(x),
            threads=threads,
        )
        y = y.swapaxes(0, 1) if self.site.time_first else y
        outputs = form.tensor(y, call.dtype), form.tensor(h_n[None], call.dtype), torch.from_numpy(c_n[None])
        return outputs, (_by_rows(call, tape),)

    def backward(
        self,
        tensors: Layered,
        rest: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Run the engine backward over the tape."""
        threads, form = torch.get_num_threads(), form_of(self.call)
        (x, h, c), (y, _, _, tape), (dy, dh, dc) = tensors[:3], rest, grads
        wanted = list(dict.fromkeys(name for name, need in zip(self.names, needs, strict=True) if need))
        found = engine.backward(
            self.weights.packed(form, True, threads, looks=False),
            tape.numpy().reshape(-1),
            self._rows(form, x),
            self._rows(form, y),
            form.values(h),
            form.sums(c),
            **self.shared,
            dy=None if dy is None else self._rows(form, dy),
            dh=None if dh is None else form.sums(dh)[0],
            dc=None if dc is None else array(dc)[0],
            wanted=wanted,
            time_major=self._time_major(x),
            threads=threads,
        )
        if self.site.time_first and needs[0]:
            found["x"] = found["x"].swapaxes(0, 1)
        made = {name: form.gradient(found[name], name, self.call) for name in wanted}
        each = zip(self.names, tensors, needs, strict=True)
        return tuple(made[name].to(tensor.dtype) if need else None for name, tensor, need in each)

    def _rows(self, form: Form, x: Tensor) -> Any:
        rows = form.values(x)
        return rows.swapaxes(0, 1) if self.site.time_first else rows

    def _time_major(self, x: Tensor) -> bool:
        return self.several and time_major(x, int(self.site.time_first))


def step(call: Call, given: Inputs) -> Callable[[Tensor, Tensor, Tensor], Any]:
    """Prepare single steps, at every one of which the bias is read.

    Of the weights a value of each unit and of each column is looked at, for to read all of them would take as
    long as the step.
    """
    if not _is_plain(call) or form_of(call).name != "whole":
        weights, shared = Weights(call, given), _without_resets(call, given)

        def advance_by_sequence(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            threads, form = torch.get_num_threads(), form_of(call)
            packed, bias = weights.packed(form, False, threads), form.sums(given.bias)
            _, h_n, c_n, _, _, _ = engine.forward(
                packed,
                form.values(x[:, None]),
                form.values(h),
                form.sums(c),
                bias=bias,
                **shared,
                threads=threads,
            )
            return form.tensor(h_n, call.dtype), torch.from_numpy(c_n)

        return advance_by_sequence

    w_ih, w_hh, bias = (array(t) for t in (given.w_ih, given.w_hh, given.bias))
    looks = [(w.reshape(-1), _looked_at(call.H, w.shape[1])) for w in (w_ih, w_hh)]
    prepared: list[Any] = []

    def seen_now() -> bytes:
        (first, of_first), (second, of_second) = looks
        return bytes(first.take(of_first).tobytes() + second.take(of_second).tobytes())

    def prepare() -> Any:
        packed = engine.pack(w_ih, w_hh, bias, variant=call.variant)
        stepper = engine.step(packed, threads=torch.get_num_threads())
        prepared[:] = [packed.set_bias, stepper.at, seen_now()]
        return prepared

    prepare()
    kept = (given.w_ih, given.w_hh, given.bias)

    def advance(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        set_bias, run, seen = prepared
        if seen_now() != seen:
            set_bias, run, seen = prepare()
        if kept[2] is not None:
            set_bias(bias)
        if not (x.is_contiguous() and h.is_contiguous() and c.is_contiguous()):
            x, h, c = x.contiguous(), h.contiguous(), c.contiguous()
        h_n, c_n = torch.empty_like(h), torch.empty_like(c)
        run(x.data_ptr(), h.data_ptr(), c.data_ptr(), h_n.data_ptr(), c_n.data_ptr(), x.shape[0])
        return h_n, c_n

    return advance


@lru_cache(maxsize=256)
def _looked_at(H: int, K: int) -> Any:
    """The places in a matrix (4 H, K) at which a step looks: all columns and units, the gates in turn."""
    if 4 * H * K <= 1024:
        return np.arange(4 * H * K)
    k = np.arange(max(H, K))
    return ((k + k // H) % 4 * H + k % H) * K + k % K


def _is_plain(call: Call) -> bool:
    """Whether this is torch.nn.LSTM's cell: the engine's own step serves it, `forward` all others."""
    return call.variant == Variant() and "w_hr" not in call.given and call.options.noise.silent


BACKEND: Final = Backend("cpu", refuses, forward, backward, saves, step, bind, _Recording, said_of)
