"""One matrix product at every step, by cuBLASLt: prepared once, then one call of the library each.

torch.mm finds shapes, layouts and an algorithm anew every time, for four times as much of the host's time as
the call itself takes. The library is the one that torch has loaded; where it is missing, or has no algorithm,
torch multiplies.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from .driver import stream_of

_TYPES: Final = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}  # cudaDataType
_FLOAT: Final = 68  # CUBLAS_COMPUTE_32F
_TF32: Final = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
_TRANSPOSES: Final = 3  # CUBLASLT_MATMUL_DESC_TRANSA
_WORKSPACE: Final = 1  # CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
_REDUCTIONS: Final = 3  # CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
_IN_FLOAT: Final = (
    2  # CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: parts of a sum meet in float32, in a fixed order
)
_BATCH: Final = 5  # CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT
_BATCH_STRIDE: Final = 6  # CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET
_SPLITS: Final = 2  # CUBLASLT_ALGO_CONFIG_SPLITK_NUM
_ALIGNMENTS: Final = (5, 6, 7, 8)  # CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, B, C, D
MOST_WORKSPACE: Final = 32 << 20
"""Bytes that an algorithm may ask for beside the result."""


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t, 96 bytes."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class Shape(NamedTuple):
    """All that an algorithm depends on."""

    device: int
    dtype: torch.dtype
    tf32: bool
    m: int
    n: int
    k: int
    by_columns: bool
    "whether b lies column by column"
    pitches: tuple[int, int, int]
    "elements from one row of a, of b (or column), of the result to the next"
    alignments: tuple[int, int, int]
    "bytes, of the addresses of a, b and the result"
    parts: int
    "equal parts of k, each with a result of its own"
    strides: tuple[int, int, int]
    "elements from one part to the next of a, of b, of the result"


@lru_cache(maxsize=1)
def library() -> Any:
    """Return the cuBLASLt that torch has loaded, or None. Calls keep the interpreter's lock."""
    if torch.version.cuda is None:
        return None
    try:
        found = ctypes.PyDLL(f"libcublasLt.so.{torch.version.cuda.partition('.')[0]}")
    except OSError:
        return None
    pointer, integer, size, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
    found.cublasLtCreate.argtypes = [pointer]
    found.cublasLtMatmulDescCreate.argtypes = [pointer, integer, integer]
    found.cublasLtMatmulDescSetAttribute.argtypes = [pointer, integer, pointer, size]
    found.cublasLtMatrixLayoutCreate.argtypes = [pointer, integer, ctypes.c_uint64, ctypes.c_uint64, long]
    found.cublasLtMatrixLayoutSetAttribute.argtypes = [pointer, integer, pointer, size]
    found.cublasLtMatmulAlgoConfigGetAttribute.argtypes = [pointer, integer, pointer, size, pointer]
    found.cublasLtMatmulPreferenceCreate.argtypes = [pointer]
    found.cublasLtMatmulPreferenceSetAttribute.argtypes = [pointer, integer, pointer, size]
    found.cublasLtMatmulAlgoGetHeuristic.argtypes = [pointer] * 7 + [integer, pointer, pointer]
    found.cublasLtMatmul.argtypes = [pointer] * 14 + [size, pointer]
    for name in ("MatmulDesc", "MatrixLayout", "MatmulPreference"):
        getattr(found, f"cublasLt{name}Destroy").argtypes = [pointer]
    return found


class _RefusedError(Exception):
    """The library said no."""


def _check(code: int) -> None:
    if code:
        raise _RefusedError(code)


@lru_cache(maxsize=64)
def _handle(device: int) -> int:
    """The library's context on the current device, which `device` is."""
    made = ctypes.c_void_p()
    _check(library().cublasLtCreate(ctypes.byref(made)))
    return made.value or 0


class Prepared:
    """A product of one shape: its description and the algorithm that the library's own rule takes.

    Raises:
        _RefusedError: the library has none.
    """

    right: bool | None = None
    "what a first product beside torch's said; None before it"

    def __init__(self, shape: Shape) -> None:
        self._made: list[tuple[Callable[[Any], int], ctypes.c_void_p]] = []
        lt, found, count = library(), _Found(), ctypes.c_int()
        self.handle = _handle(shape.device)
        # The library counts by columns, where a row-major matrix is its own transpose: out' = b' a'.
        self.operation = self._make("MatmulDesc", _TF32 if shape.tf32 else _FLOAT, _TYPES[torch.float32])
        transposes = ctypes.c_int(shape.by_columns)
        _check(lt.cublasLtMatmulDescSetAttribute(self.operation, _TRANSPOSES, ctypes.byref(transposes), 4))
        kind, (of_a, of_b, of_out), k = _TYPES[shape.dtype], shape.pitches, shape.k // shape.parts
        rows, columns = (k, shape.n) if shape.by_columns else (shape.n, k)
        to_a, to_b, to_out = shape.strides
        self.b = self._layout(shape.parts, to_b, kind, rows, columns, of_b)
        self.a = self._layout(shape.parts, to_a, kind, k, shape.m, of_a)
        self.out = self._layout(shape.parts, to_out, _TYPES[torch.float32], shape.n, shape.m, of_out)
        wishes = self._make("MatmulPreference")
        a, b, out = shape.alignments
        for name, value in (
            (_WORKSPACE, ctypes.c_uint64(MOST_WORKSPACE)),
            (_REDUCTIONS, ctypes.c_uint32(_IN_FLOAT)),
            *zip(_ALIGNMENTS, map(ctypes.c_uint32, (b, a, out, out)), strict=True),
        ):
            _check(
                lt.cublasLtMatmulPreferenceSetAttribute(
                    wishes, name, ctypes.byref(value), ctypes.sizeof(value)
                )
            )
        _check(
            lt.cublasLtMatmulAlgoGetHeuristic(
                self.handle, self.operation, self.b, self.a, self.out, self.out, wishes, 1,
                ctypes.byref(found), ctypes.byref(count),
            )
        )  # fmt: skip
        if count.value < 1 or found.state:
            raise _RefusedError(found.state)
        self.algorithm, self.workspace = found.algorithm, found.workspace
        splits, written = ctypes.c_int32(1), ctypes.c_size_t()
        _check(
            lt.cublasLtMatmulAlgoConfigGetAttribute(
                ctypes.byref(found), _SPLITS, ctypes.byref(splits), 4, ctypes.byref(written)
            )
        )
        self.splits = splits.value > 1

    def _layout(self, parts: int, stride: int, *words: int) -> int:
        made, lt = self._make("MatrixLayout", *words), library()
        count, offset = ctypes.c_int32(parts), ctypes.c_int64(stride)
        if parts > 1:
            _check(lt.cublasLtMatrixLayoutSetAttribute(made, _BATCH, ctypes.byref(count), 4))
            _check(lt.cublasLtMatrixLayoutSetAttribute(made, _BATCH_STRIDE, ctypes.byref(offset), 8))
        return made

    def _make(self, name: str, *words: int) -> int:
        made = ctypes.c_void_p()
        _check(getattr(library(), f"cublasLt{name}Create")(ctypes.byref(made), *words))
        self._made.append((getattr(library(), f"cublasLt{name}Destroy"), made))
        return made.value or 0

    def __del__(self) -> None:
        """Give back what the library made."""
        for destroy, made in self._made:
            destroy(made)


@lru_cache(maxsize=256)
def _prepared(shape: Shape) -> Prepared | None:
    try:
        return Prepared(shape)
    except _RefusedError:
        return None


def repeated(
    a: Tensor, b: Tensor, out: Tensor, tf32: bool, otherwise: Callable[[int], object]
) -> Callable[[int], object]:
    """Prepare a product that is made again and again on torch's current stream.

    Args:
        a:    (S, m, k), rows dense.
        b:    (k, n), rows or columns dense.
        out:  (parts, m, n), in float32: the sum over k is cut in equal parts, which are left to be added up.
        tf32: whether float32 operands may be rounded to tf32.
        otherwise: makes the product of a number in another way.

    Returns:
        By s in [0, S): write a[s] times b to `out`, part by part. The same inputs give the same bits.
    """
    found = _for(a, b, out, tf32)
    if found is None or not _right(found, a, b, out):
        return otherwise
    return _bound(found, a, b, out, otherwise)


def _right(found: Prepared, a: Tensor, b: Tensor, out: Tensor) -> bool:
    """Whether a first product of this shape, of random numbers, is torch's: asked once, outside graphs."""
    if found.right is None:
        if a.is_cuda and torch.cuda.is_current_stream_capturing():
            return False
        given, made = _alike(a[:1]), _alike(out)
        rng = torch.Generator("cpu").manual_seed(0)
        given.copy_(torch.randn(a.shape[1:], generator=rng, device="cpu"))
        failed: list[int] = []
        _bound(found, given, b, made, failed.append)(0)
        want = given[0].float() @ b.float()
        error, most = (made.sum(0) - want).abs().max().item(), want.abs().max().item()
        if math.isfinite(most):  # weights that are not say nothing, and it is asked again
            found.right = not failed and error <= 0.01 * most
    return found.right is True


def _alike(tensor: Tensor) -> Tensor:
    """A tensor that lies as another does, at an address that 256 divides."""
    size, most = tensor.element_size(), 256 // tensor.element_size()
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.new_empty(reach + most)
    return flat.as_strided(tensor.shape, tensor.stride(), -flat.data_ptr() % 256 // size)


def _bound(
    found: Prepared, a: Tensor, b: Tensor, out: Tensor, otherwise: Callable[[int], object]
) -> Callable[[int], object]:
    room = a.new_empty(found.workspace, dtype=torch.uint8)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    first, step = a.data_ptr(), a.stride(0) * a.element_size()
    multiply, handle, operation = library().cublasLtMatmul, found.handle, found.operation
    scale, add, algorithm = (ctypes.addressof(word) for word in (one, zero, found.algorithm))
    at_b, at_out, at_room, bytes_ = b.data_ptr(), out.data_ptr(), room.data_ptr(), found.workspace
    of_a, of_b, of_out, stream = found.a, found.b, found.out, stream_of(a.device.index)

    def run(s: int, kept: object = (found, room, one, zero, a, b, out)) -> None:
        code = multiply(
            handle, operation, scale, at_b, of_b, first + s * step, of_a, add, at_out, of_out, at_out, of_out,
            algorithm, at_room, bytes_, stream,
        )  # fmt: skip
        if code:
            otherwise(s)

    return run


def splits(a: Tensor, b: Tensor, out: Tensor, tf32: bool) -> bool:
    """Whether the library cuts the sums of such a product and adds the parts in a second kernel."""
    found = _for(a, b, out, tf32)
    return found is not None and found.splits


def _for(a: Tensor, b: Tensor, out: Tensor, tf32: bool) -> Prepared | None:
    shape = _shape(a, b, out, tf32)
    return None if shape is None or library() is None else _prepared(shape)


def _shape(a: Tensor, b: Tensor, out: Tensor, tf32: bool) -> Shape | None:
    """What the library must know, or None where it does not serve."""
    (steps, m, k), parts, n, size = a.shape, len(out), b.shape[1], a.element_size()
    by_columns = b.stride(0) == 1 and b.stride(1) >= k
    serves = a.dtype == b.dtype and a.dtype in _TYPES and out.dtype == torch.float32 and min(m, n, k) > 0
    if not serves or a.stride(2) != 1 or out.stride(2) != 1 or not (by_columns or b.stride(1) == 1):
        return None
    pitches = (max(a.stride(1), k) if m == 1 else a.stride(1), b.stride(int(by_columns)), out.stride(1))
    strides = (k // parts, k // parts * b.stride(0), out.stride(0)) if parts > 1 else (0, 0, 0)
    to_a = (a.stride(0) * size if steps > 1 else 0) | strides[0] * size
    aligned = (
        _alignment(a.data_ptr() | to_a),
        _alignment(b.data_ptr() | strides[1] * size),
        _alignment(out.data_ptr() | strides[2] * out.element_size()),
    )
    rounds = tf32 and a.dtype == torch.float32
    device = a.device.index or 0
    return Shape(device, a.dtype, rounds, m, n, k, by_columns, pitches, aligned, parts, strides)


def _alignment(address: int) -> int:
    """The power of two, up to 256, that divides an address."""
    return min(256, address & -address) or 256
