"""torch's view of a call: autograd, its second derivative, vmap and forward mode; `graph.py` adds compile.

In eager mode a call is one `autograd.Function`, which costs the host least and serves every transform of
torch.func. Under torch.compile and torch.export it is one registered operator, because Dynamo refuses a
Function to which one tensor is passed twice (h0 = c0), and the registered operator alone refuses torch.func.

    Scan       inputs -> outputs and what was saved                 a backend runs it
    Gradient   inputs, outputs, saved, gradients -> gradients       the same backend runs it
    derivatives of Gradient                                         autograd through `derivative.py`
    a call in forward mode                                          the definition runs it
    both under vmap                                                 plain torch runs them, mapped
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import checks, masks, plain
from .batched import one_by_one
from .call import DIFFERENTIABLE, Backend, Call, Grads, Inputs, Outputs, scattered
from .masks import Noise
from .modes import casting, transformed, watched, written

WIDTH = len(Inputs._fields)
Maybe = Tensor | None


def run(backend: Backend, call: Call, given: Inputs) -> Outputs:
    """Run a call in eager mode.

    Args:
        backend: one that does not refuse the call.
        call:    its options and sizes.
        given:   its tensors, checked.

    Returns:
        The outputs; every transform of torch may be put around this.
    """
    if transformed():
        if forward_ad._current_level >= 0 or written():  # these pass through the equations, in any nesting
            with exact(call):
                return plain.DEFINITION.forward(call, given)[0]
        return unpacked(call, Scan.apply(call, backend, *given))  # type: ignore[no-untyped-call]
    if given.lengths is not None:
        checks.values("lstm", given.lengths, call.T)
    if not call.save:
        return ran(backend, call, given)[0]
    there = [given[k] for k in call.places]
    return unpacked(call, Recorded.apply(call, backend, *there))  # type: ignore[no-untyped-call]


@lru_cache(maxsize=256)
def inside(noise: Noise) -> Noise:
    """The noise that a backend sees: what `outside` leaves."""
    return Noise(**{**noise.to_json(), "variational_x": 0.0, "weight_drop": 0.0})


def unpacked(call: Call, flat: Sequence[Tensor]) -> Outputs:
    """Return the outputs from the flat list that an operator returns; what it saved comes after them."""
    cells, gates = call.options.keep_cells, call.options.keep_gates
    return Outputs(flat[0], flat[1], flat[2], flat[3] if cells else None, flat[3 + cells] if gates else None)


def ran(backend: Backend, call: Call, given: Inputs) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Run a backend on real tensors, and return what it returns."""
    with exact(call):
        return backend.forward(*outside(backend, call, given))


def forward(backend: Backend, call: Call, given: Inputs) -> tuple[Tensor, ...]:
    """Run a backend on real tensors: present outputs first, then what it saved."""
    outputs, saved = ran(backend, call, given)
    return (*present(outputs), *saved)


def present(outputs: Outputs) -> tuple[Tensor, ...]:
    """Return the outputs that are there."""
    return tuple(o for o in outputs if o is not None)


def backward(
    backend: Backend,
    call: Call,
    given: Inputs,
    outputs: Outputs,
    saved: tuple[Tensor, ...],
    grads: Grads,
    needs: Sequence[bool],
) -> tuple[Maybe, ...]:
    """Run a backend's derivative on real tensors: one gradient or None for each differentiable input."""
    with exact(call):
        inner_call, inner = outside(backend, call, given)
        if not saved and backend.saves(call):
            outputs, saved = backend.forward(inner_call._replace(save=True), inner)
        found: list[Any] = list(backend.backward(inner_call, inner, outputs, saved, grads, needs))
        noise = call.options.noise
        if call.options.training and given.seed is not None:
            if noise.variational_x and found[0] is not None:
                found[0] = masked(
                    backend, found[0], "variational_x", noise.variational_x, given.seed, call.wide
                )
            if noise.weight_drop and found[2] is not None:
                found[2] = masked(backend, found[2], "weight_drop", noise.weight_drop, given.seed, call.wide)
    for k, (value, tensor) in enumerate(zip(found, given, strict=False)):
        if value is not None and tensor is not None and value.dtype != tensor.dtype:
            found[k] = value.to(tensor.dtype)
    return tuple(found)


def outside(backend: Backend, call: Call, given: Inputs) -> tuple[Call, Inputs]:
    """Do what need not stand inside the recurrence: dropout on x and w_hh, and the cell's dtype."""
    if given.c.dtype != call.wide:
        given = given._replace(c=given.c.to(call.wide))
    if given.initial_c is not None and given.initial_c.dtype != call.wide:
        given = given._replace(initial_c=given.initial_c.to(call.wide))
    seed, noise = given.seed, call.options.noise
    if seed is None or not call.options.training or not (noise.variational_x or noise.weight_drop):
        return call, given
    if noise.variational_x:
        x = masked(backend, given.x, "variational_x", noise.variational_x, seed, call.wide)
        given = given._replace(x=x)
    if noise.weight_drop:
        w_hh = masked(backend, given.w_hh, "weight_drop", noise.weight_drop, seed, call.wide)
        given = given._replace(w_hh=w_hh)
    return within(call), given


def masked(
    backend: Backend, x: Tensor, kind: str, rate: float, seed: Tensor, factor: torch.dtype | None = None
) -> Tensor:
    """Return `masks.dropped` of x (N, T, K) or (N, K), made by a backend where it has a way."""
    if x.dim() == 2:
        return masked(backend, x[:, None], kind, rate, seed, factor)[:, 0]
    return (backend.dropped or masks.dropped)(x, kind, rate, seed, factor)


class Masked(torch.autograd.Function):
    """The same with a gradient, which the same mask lets through: (backend, x, kind, rate, seed) -> x.

    For a call that no transform of torch looks into.
    """

    @staticmethod
    def forward(ctx: Any, backend: Backend, x: Tensor, kind: str, rate: float, seed: Tensor) -> Tensor:
        """Run the backend."""
        ctx.backend, ctx.kind, ctx.rate = backend, kind, rate
        ctx.save_for_backward(seed)
        return masked(backend, x, kind, rate, seed)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Mask the gradient; a second derivative comes this way again."""
        (seed,) = ctx.saved_tensors
        if watched():
            return None, masks.dropped(grads[0], ctx.kind, ctx.rate, seed), None, None, None
        found = Masked.apply(ctx.backend, grads[0], ctx.kind, ctx.rate, seed)  # type: ignore[no-untyped-call]
        return None, found, None, None, None


@lru_cache(maxsize=4096)
def within(call: Call) -> Call:
    """Return the call that a backend sees: without the noise that `outside` has made."""
    return call._replace(options=call.options._replace(noise=inside(call.options.noise)))


_AS_IT_IS: Final = nullcontext()


def exact(call: Call) -> AbstractContextManager[object]:
    """Keep autocast out of a backend: what it narrows was narrowed before, and the sums stay wide."""
    if casting(call.device):
        return torch.autocast(call.device, enabled=False)
    return _AS_IT_IS


class Scan(torch.autograd.Function):
    """A call: (call, backend, *Inputs) -> (*present outputs, *saved)."""

    @staticmethod
    def forward(call: Call, backend: Backend, *given: Maybe) -> tuple[Tensor, ...]:
        """Run the backend."""
        return forward(backend, call, Inputs(*given))  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs, outputs and what was saved; none of the last may be differentiated."""
        ctx.call, ctx.backend, *given = inputs
        ctx.count = 3 + ctx.call.options.keep_cells + ctx.call.options.keep_gates
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[ctx.count :])
        ctx.save_for_backward(*given, *output)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *grads: Maybe) -> tuple[Any, ...]:
        """Run the backend's derivative, as a function that can itself be differentiated."""
        tensors = ctx.saved_tensors  # once: torch.utils.checkpoint allows no second look
        given = Inputs(*tensors[:WIDTH])
        rest, needs = tensors[WIDTH:], ctx.needs_input_grad[2:]
        return (None, None, *differentiated(ctx.call, ctx.backend, ctx.count, given, rest, grads, needs))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: Call, backend: Backend, *given: Maybe
    ) -> tuple[Any, Any]:
        """Map plain torch."""
        del backend

        def one(*tensors: Maybe) -> tuple[Tensor, ...]:
            return forward(plain.PLAIN, call, Inputs(*tensors))  # type: ignore[arg-type]

        mapped = torch.vmap(one, in_dims=in_dims[2:])(*given)
        return mapped, (0,) * len(mapped)


def differentiated(
    call: Call,
    backend: Backend,
    count: int,
    given: Inputs,
    rest: Sequence[Tensor],
    grads: Sequence[Maybe],
    needs: tuple[bool, ...],
) -> Sequence[Maybe]:
    """Return the gradient of every field of `Inputs`, from the rest: `count` outputs and what was saved."""
    outputs, saved = unpacked(call, rest), tuple(rest[count:])
    arriving = Grads(*unpacked(call, grads[:count]))  # type: ignore[arg-type]
    if not torch.is_grad_enabled() and not transformed():  # a first derivative, and no more
        found = backward(backend, call, given, outputs, saved, arriving, needs)
        return (*found, *(None,) * (WIDTH - DIFFERENTIABLE))
    found = Gradient.apply(  # type: ignore[no-untyped-call]
        call, backend, needs, *given, *arriving, *outputs, *saved
    )
    return spread(found, places(given, needs))


class Recorded(torch.autograd.Function):
    """The same where no transform is at work: (call, backend, *those Inputs that are there) -> outputs.

    torch then takes a third of the host's time, and less where arguments are fewer and what is saved is no
    output.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, backend: Backend, *there: Tensor) -> tuple[Tensor, ...]:
        """Run the backend, and keep what `Scan` keeps."""
        output, saved = kept(backend, call, there)
        ctx.call, ctx.backend = call, backend
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*there, *output, *saved)
        return output

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *grads: Maybe) -> tuple[Any, ...]:
        """Run the backend's derivative, as `Scan` does."""
        tensors, count = ctx.saved_tensors, len(ctx.call.places)
        needs = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            *led_back(ctx.backend, ctx.call, tensors[:count], tensors[count:], grads, needs),
        )


def kept(
    backend: Backend, call: Call, there: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run a backend on the inputs that are there: the outputs that are there, and what it saved."""
    outputs, saved = ran(backend, call, scattered(call, there))
    return present(outputs), saved


def led_back(
    backend: Backend,
    call: Call,
    there: Sequence[Tensor],
    rest: Sequence[Tensor],
    grads: Sequence[Maybe],
    needing: Sequence[bool],
) -> list[Maybe]:
    """Return the gradients of the inputs that are there, from what `kept` returned and what arrives."""
    where, needs = call.places, [False] * WIDTH
    for k, need in zip(where, needing, strict=True):
        needs[k] = need
    given = scattered(call, there)
    found = differentiated(call, backend, len(grads), given, rest, grads, tuple(needs))
    return [found[k] for k in where]


class Gradient(torch.autograd.Function):
    """(call, backend, needs, *Inputs, *gradients, *Outputs, *saved) -> the gradients that `needs` names."""

    @staticmethod
    def forward(call: Call, backend: Backend, needs: tuple[bool, ...], *tensors: Maybe) -> tuple[Tensor, ...]:
        """Run the backend's derivative."""
        given, grads = Inputs(*tensors[:WIDTH]), Grads(*tensors[WIDTH : WIDTH + 5])  # type: ignore[arg-type]
        outputs, saved = Outputs(*tensors[WIDTH + 5 : WIDTH + 10]), tensors[WIDTH + 10 :]  # type: ignore[arg-type]
        found = backward(backend, call, given, outputs, saved, grads, needs)  # type: ignore[arg-type]
        present = [g for g in (found[k] for k in places(given, needs)) if g is not None]
        return tuple(g.clone() if any(g is d for d in grads) else g for g in present)  # T = 0: passed on

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs and the arriving gradients: all else follows from them."""
        ctx.call, _, ctx.needs, *tensors = inputs
        ctx.total = len(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[: WIDTH + 5])

    @staticmethod
    def _as_function(
        ctx: Any, tensors: Sequence[Any], moving: Sequence[int]
    ) -> Callable[..., tuple[Tensor, ...]]:
        """The gradients as a differentiable function of the tensors at the places `moving`."""
        call, needs = ctx.call, ctx.needs
        kept = call._replace(save=True)

        def gradients(*values: Tensor) -> tuple[Tensor, ...]:
            now = replaced(tensors, moving, values)
            given, grads = Inputs(*now[:WIDTH]), Grads(*now[WIDTH:])
            flat = forward(plain.PLAIN, kept, given)
            outputs = unpacked(call, flat)
            saved = flat[sum(o is not None for o in outputs) :]
            found = backward(plain.PLAIN, kept, given, outputs, saved, grads, needs)
            return tuple(g for g in (found[k] for k in places(given, needs)) if g is not None)

        return gradients

    @staticmethod
    @one_by_one
    def backward(ctx: Any, *arriving: Maybe) -> tuple[Any, ...]:
        """The second derivative: autograd through the derivative by hand, which is plain torch."""
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        moving = [k for k in (*range(DIFFERENTIABLE), *range(WIDTH, WIDTH + 5)) if wanted[k]]
        moving = [k for k in moving if tensors[k] is not None]
        out, pull = plain.pulled(Gradient._as_function(ctx, tensors, moving), [tensors[k] for k in moving])
        found = pull(plain.filled(out, arriving))
        return (None, None, None, *spread(found, moving, ctx.total - 3))

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        call: Call,
        backend: Backend,
        needs: tuple[bool, ...],
        *tensors: Maybe,
    ) -> tuple[Any, Any]:
        """Map plain torch; what was saved unmapped is another backend's, and is made again."""
        dims = in_dims[3:]
        inputs, grads, outputs = tensors[:WIDTH], tensors[WIDTH : WIDTH + 5], tensors[WIDTH + 5 : WIDTH + 10]
        saved = tensors[WIDTH + 10 :]
        if all(dim is None for dim in dims[:WIDTH]):
            flat = forward(plain.PLAIN, call._replace(save=True), Inputs(*inputs))  # type: ignore[arg-type]
            saved = flat[len([o for o in outputs if o is not None]) :]
            dims = (*dims[: WIDTH + 10], *(None,) * len(saved))

        def one(*now: Maybe) -> tuple[Tensor, ...]:
            return Gradient.forward(call, plain.PLAIN, needs, *now)

        mapped = torch.vmap(one, in_dims=dims)(*inputs, *grads, *outputs, *saved)
        return mapped, (0,) * len(mapped)


def places(given: Sequence[Maybe], needs: Sequence[bool]) -> list[int]:
    """Which differentiable inputs are there and need a gradient."""
    return [k for k in range(DIFFERENTIABLE) if given[k] is not None and needs[k]]


def spread(values: Sequence[Tensor], where: Sequence[int], total: int = WIDTH) -> list[Maybe]:
    """A list of `total` with the values at their places, None elsewhere."""
    result: list[Maybe] = [None] * total
    for k, value in zip(where, values, strict=True):
        result[k] = value
    return result


def replaced(tensors: Sequence[Maybe], where: Sequence[int], values: Sequence[Tensor]) -> list[Any]:
    """The tensors with some of them replaced."""
    result = list(tensors)
    for k, value in zip(where, values, strict=True):
        result[k] = value
    return result
