"""What the nodes of a traced model compute, in NumPy: one line an operator, named as in torch's ATen.

Results are cast to the type that was traced, so NumPy's own rules of promotion do not matter.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .files import Array


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """X (..., C) times the transposed weight (K, C)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def softmax(x: Array, axis: int, dtype: Any = None) -> Array:
    """Exponentials that sum to one along an axis."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(x))."""
    return np.logaddexp(0, beta * x) / beta


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def layer_norm(
    x: Array,
    shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Array:
    """Mean 0 and variance 1 over the last axes."""
    axes = tuple(range(-len(shape), 0))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return np.asarray(y if bias is None else y + bias)


def cut(x: Array, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    """A slice along one axis."""
    place = [slice(None)] * x.ndim
    place[axis] = slice(start, end, step)
    return x[tuple(place)]


def laid(
    x: Array, part: Array, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """The array with a slice along one axis replaced."""
    y, place = x.copy(), [slice(None)] * x.ndim
    place[axis] = slice(start, end, step)
    y[tuple(place)] = part
    return y


def index(x: Array, places: Sequence[Array | None]) -> Array:
    """Elements at arrays of places; None leaves an axis whole."""
    given = [axis for axis, p in enumerate(places) if p is not None]
    if len(given) == 1 and (alone := places[given[0]]) is not None and alone.dtype.kind == "i":
        return x.take(alone, given[0])
    return np.asarray(x[tuple(slice(None) if p is None else p for p in places)])


def expand(x: Array, shape: Sequence[int], *_: Any, **__: Any) -> Array:
    """The array repeated to a shape; -1 keeps an axis."""
    own = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, [have if want == -1 else want for have, want in zip(own, shape, strict=True)])


def pad(x: Array, widths: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Constants around the last axes; widths are listed from the last axis on."""
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2)
    pairs += [(widths[k], widths[k + 1]) for k in range(len(widths) - 2, -1, -2)]
    if min(min(pair) for pair in pairs) < 0 or mode != "constant":
        raise ValueError("padding must add constants")
    wide = [before + size + after for size, (before, after) in zip(x.shape, pairs, strict=True)]
    padded = np.full(wide, value or 0, x.dtype)
    padded[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, pairs, strict=True))] = x
    return padded


def cummax(x: Array, axis: int) -> tuple[Array, Array]:
    """The running maximum, and the last place of it."""
    values = np.maximum.accumulate(x, axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    places = np.where(x == values, np.arange(x.shape[axis]).reshape(shape), 0)
    return values, np.maximum.accumulate(places, axis)


def clamp(x: Array, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Array:
    """Values held between two bounds."""
    low, high = (low if min is None else min), (high if max is None else max)
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def total(x: Array, axes: Any = None, keepdim: bool = False, **_: Any) -> Array:
    """The sum over axes."""
    return np.asarray(x.sum(tuple(axes) if axes else None, keepdims=keepdim))


def mean(x: Array, axes: Any = None, keepdim: bool = False, **_: Any) -> Array:
    """The mean over axes."""
    return np.asarray(x.mean(tuple(axes) if axes else None, keepdims=keepdim))


def arange(*ends: int, **_: Any) -> Array:
    """Whole numbers from 0, or from a start."""
    return np.arange(*ends[:2])


def add(x: Any, y: Any, *, alpha: float = 1) -> Any:
    """X + alpha y."""
    return x + (y if alpha == 1 else alpha * y)


def subtract(x: Any, y: Any, *, alpha: float = 1) -> Any:
    """X - alpha y."""
    return x - (y if alpha == 1 else alpha * y)


def squeezed(x: Array, axis: Any = None) -> Array:
    """Without an axis of length 1, where it is one."""
    axes = (axis,) if isinstance(axis, int) else tuple(range(x.ndim) if axis is None else axis)
    return x.squeeze(tuple(a for a in axes if x.shape[a] == 1))


def unsqueezed(x: Array, axis: int) -> Array:
    """With an axis of length 1."""
    return x[(slice(None),) * (axis if axis >= 0 else x.ndim + 1 + axis) + (None,)]


OPERATORS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": add,
    "alias": lambda x: x,
    "arange": arange,
    "bitwise_and": np.bitwise_and,
    "bitwise_not": np.bitwise_not,
    "cat": lambda parts, axis=0: np.concatenate(parts, axis),
    "clamp": clamp,
    "clamp_min": lambda x, low: np.maximum(x, low),
    "clone": lambda x, **_: x,
    "contiguous": lambda x, **_: x,
    "cummax": cummax,
    "copy": lambda x, y, *_: np.broadcast_to(y, x.shape),
    "cos": np.cos,
    "cumsum": lambda x, axis, **_: np.cumsum(x, axis),
    "div": lambda x, y: x / y,
    "dropout": lambda x, *_: x,
    "embedding": lambda weight, places, *_, **__: weight[places],
    "eq": operator.eq,
    "exp": np.exp,
    "expand": expand,
    "flatten": lambda x, first, last: x.reshape(
        *x.shape[: first % x.ndim], -1, *x.shape[last % x.ndim + 1 :]
    ),
    "flip": lambda x, axes: np.flip(x, tuple(axes)),
    "floor": np.floor,
    "floor_divide": np.floor_divide,
    "floordiv": operator.floordiv,
    "full": lambda shape, value, **_: np.full(shape, value),
    "gather": lambda x, axis, places, **_: np.take_along_axis(x, places, axis),
    "ge": operator.ge,
    "getitem": operator.getitem,
    "gt": operator.gt,
    "index": index,
    "index_select": lambda x, axis, places: x.take(places, axis),
    "isnan": np.isnan,
    "layer_norm": layer_norm,
    "le": operator.le,
    "linear": linear,
    "log": np.log,
    "log1p": np.log1p,
    "log_softmax": lambda x, axis, *_: np.log(softmax(x, axis)),
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "lt": operator.lt,
    "matmul": np.matmul,
    "mean": mean,
    "mul": operator.mul,
    "ne": operator.ne,
    "neg": operator.neg,
    "new_empty": lambda x, shape, **_: np.zeros(shape),
    "new_zeros": lambda x, shape, **_: np.zeros(shape),
    "ones_like": lambda x, **_: np.ones(x.shape),
    "pad": pad,
    "permute": lambda x, axes: x.transpose(axes),
    "pow": lambda x, y: x**y,
    "relu": lambda x: np.maximum(x, 0),
    "reshape": lambda x, shape: x.reshape(shape),
    "rsub": lambda x, y: y - x,
    "select": lambda x, axis, place: x.take(place, axis),
    "sigmoid": sigmoid,
    "sign": np.sign,
    "sin": np.sin,
    "slice": cut,
    "slice_scatter": laid,
    "softmax": softmax,
    "softplus": softplus,
    "sqrt": np.sqrt,
    "square": np.square,
    "squeeze": squeezed,
    "stack": lambda parts, axis=0: np.concatenate([unsqueezed(p, axis) for p in parts], axis),
    "sub": subtract,
    "sum": total,
    "sym_size": lambda x, axis: x.shape[axis],
    "tanh": np.tanh,
    "_to_copy": lambda x, **_: x,
    "to": lambda x, *_, **__: x,
    "transpose": lambda x, a, b: x.swapaxes(a, b),
    "__and__": operator.and_,
    "__or__": operator.or_,
    "unsqueeze": unsqueezed,
    "_unsafe_view": lambda x, shape: x.reshape(shape),
    "view": lambda x, shape: x.reshape(shape),
    "where": lambda condition, x, y: np.where(condition, x, y),
    "zeros": lambda shape, **_: np.zeros(shape),
    "zeros_like": lambda x, **_: np.zeros(x.shape),
}
"""Name -> function. Types and devices among the arguments are for torch alone."""
