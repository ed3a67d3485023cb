"""A call as one node of a graph: the registered operator for torch.compile and torch.export.

    longshort::lstm(Tensor x, ..., Tensor? seed, str call) -> Tensor[]           outputs, then what is saved
    longshort::lstm_backward(Tensor? x, ..., Tensor[] saved, str call) -> Tensor[]

The word `call` carries the options. The fake implementation is the contract of shapes; it runs the same
checks as eager mode. The choice of a backend looks at neither N nor T, so both stay dynamic.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from . import checks, operator
from .call import Call, Grads, Inputs, Options, Outputs, call_of
from .masks import Noise
from .plan import choose
from .variant import Variant

_WIDTH = len(Inputs._fields)
_OPTIONAL = ("bias", *Inputs._fields[Inputs._fields.index("w_hr") :])
_TENSORS = ", ".join(f"Tensor{'?' if name in _OPTIONAL else ''} {name}" for name in Inputs._fields)
_GRADS = ", ".join(f"Tensor? d{name}" for name in Grads._fields)

LIBRARY = torch.library.Library("longshort", "DEF")
LIBRARY.define(f"lstm({_TENSORS}, str call) -> Tensor[]")
LIBRARY.define(f"lstm_backward({_TENSORS}, {_GRADS}, Tensor[] results, str call, str needs) -> Tensor[]")


def run(options: Options, given: Inputs, save: bool) -> Outputs:
    """Put a call into the graph that is being traced."""
    flat = torch.ops.longshort.lstm(*given, word(options, save))
    left = iter(flat)
    wanted = (True, True, True, options.keep_cells, options.keep_gates)
    found: list[Any] = [next(left) if want else None for want in wanted]
    return Outputs(*found)


def word(options: Options, save: bool) -> str:
    """Write the options as one word, in nothing but string formatting, which Dynamo folds."""
    o = options
    flags = f"{o.training:d}{o.reverse:d}{o.keep_cells:d}{o.keep_gates:d}{save:d}"
    return f"{o.variant.key}|{o.noise.key}|{flags}|{o.checkpoint_every or 0}|{o.backend}"


@lru_cache(maxsize=1024)
def read(text: str) -> tuple[Options, bool]:
    """Read what `word` wrote."""
    variant, noise, flags, every, backend = text.split("|")
    training, reverse, cells, gates, save = (flag == "1" for flag in flags)
    options = Options(
        Variant.from_key(variant),
        Noise.from_key(noise),
        training,
        reverse,
        cells,
        gates,
        int(every) or None,
        backend,
    )
    return options, save


def _described(given: Inputs, text: str) -> Call:
    options, save = read(text)
    return call_of(options, given, save)


def _forward(*args: Any) -> list[Tensor]:
    given = Inputs(*args[:_WIDTH])
    call = _described(given, args[_WIDTH])
    checks.values("lstm", given.lengths, call.T)
    return [out.contiguous() for out in operator.forward(choose(call)[0], call, given)]


def _forward_fake(*args: Any) -> list[Tensor]:
    given = Inputs(*args[:_WIDTH])
    call = _described(given, args[_WIDTH])
    checks.agree_once("lstm", call.options, given)
    shapes: list[tuple[Any, torch.dtype]] = [
        ((call.N, call.T, call.P), call.dtype),
        ((call.N, call.P), call.dtype),
        ((call.N, given.c.shape[1]), call.wide),
    ]
    if call.options.keep_cells:
        shapes.append(((call.N, call.T, call.H), call.wide))
    if call.options.keep_gates:
        shapes.append(((call.N, call.T, 4 * call.H), call.wide))
    if call.save:
        shapes += choose(call)[0].saves(call)
    return [given.x.new_empty(shape, dtype=dtype) for shape, dtype in shapes]


def _split(args: tuple[Any, ...]) -> tuple[Inputs, Grads, list[Tensor], str, tuple[bool, ...]]:
    count = len(Grads._fields)
    given, grads = Inputs(*args[:_WIDTH]), Grads(*args[_WIDTH : _WIDTH + count])
    results, text, needs = args[_WIDTH + count :]
    return given, grads, results, text, tuple(flag == "1" for flag in needs)


def _backward(*args: Any) -> list[Tensor]:
    given, grads, results, text, needs = _split(args)
    call = _described(given, text)
    outputs = operator.unpacked(call, results)
    count = sum(o is not None for o in outputs)
    found = operator.backward(choose(call)[0], call, given, outputs, tuple(results[count:]), grads, needs)
    return [g.contiguous() for g in (found[k] for k in operator.places(given, needs)) if g is not None]


def _backward_fake(*args: Any) -> list[Tensor]:
    given, _, _, _, needs = _split(args)
    like: list[Any] = [given[k] for k in operator.places(given, needs)]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in like]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    given, ctx.text = Inputs(*inputs[:_WIDTH]), inputs[_WIDTH]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*given, *output)


def _differentiate(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    given, results = Inputs(*tensors[:_WIDTH]), list(tensors[_WIDTH:])
    options, _ = read(ctx.text)
    wanted = (True, True, True, options.keep_cells, options.keep_gates)
    left = iter(grads)
    arriving = [next(left) if want else None for want in wanted]
    needs = "".join(str(int(need)) for need in ctx.needs_input_grad[:_WIDTH])
    flags = [flag == "1" for flag in needs]
    found = torch.ops.longshort.lstm_backward(*given, *arriving, results, ctx.text, needs)
    return (*operator.spread(found, operator.places(given, flags)), None)


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise BackendError(
        "lstm: the second derivative cannot be taken inside a compiled graph. Call the layer outside "
        "torch.compile, or keep it out of the graph with torch.compiler.disable."
    )


for _name, _run, _fake, _derivative, _context in (
    ("lstm", _forward, _forward_fake, _differentiate, _setup),
    ("lstm_backward", _backward, _backward_fake, _refuse, None),
):
    LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"longshort::{_name}", _fake, lib=LIBRARY)
    torch.library.register_autograd(f"longshort::{_name}", _derivative, setup_context=_context, lib=LIBRARY)
