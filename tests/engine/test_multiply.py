"""The product of whole matrices: every instruction set, layout and thread count against NumPy in float64."""

import numpy as np
import pytest

from longshort import engine
from longshort.errors import ShapeError

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")

SIZES = [  # M, C, K
    (1, 1, 1),
    (7, 5, 3),
    (6, 64, 64),
    (70, 1300, 130),  # deeper than is multiplied at once
    (50, 33, 2_565),  # so wide that threads split the columns
    (101, 16, 17),
    (3, 0, 5),
    (0, 4, 5),
    (4, 3, 0),
]
ISAS = engine.isas() if engine.available() else []
each_isa = pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in ("avx512vnni", "avx512bf16")])
each_dtype = pytest.mark.parametrize(
    "dtype, error", [(np.float32, 1e-6), (np.float64, 1e-14)], ids=["f32", "f64"]
)


@pytest.mark.parametrize("size", SIZES, ids=str)
@each_isa
@each_dtype
def test_the_product_whatever_the_layout_and_the_threads(size, isa, dtype, error, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    M, C, K = size
    rng = np.random.default_rng(0)
    for biased in (False, True):
        bias = rng.standard_normal(K).astype(dtype) if biased else None
        a, b = rng.standard_normal((M, C)).astype(dtype), rng.standard_normal((K, C)).astype(dtype)
        want = a.astype(np.float64) @ b.astype(np.float64).T + (0 if bias is None else bias)
        first = engine.multiply(a, b, bias)
        np.testing.assert_allclose(first, want, rtol=0, atol=error * (1 + C))
        for one in (a, np.asfortranarray(a)):
            for other in (b, np.asfortranarray(b)):
                for threads in (1, 2, 3):
                    assert np.array_equal(engine.multiply(one, other, bias, threads=threads), first)


def test_a_part_of_a_larger_matrix_is_read_in_place():
    whole = np.arange(200.0).reshape(10, 20)
    a, b = whole[2:5, 3:9], whole[1:9, 11:17]
    assert np.array_equal(engine.multiply(a, b), a @ b.T)
    assert np.array_equal(engine.multiply(a.T, b[:3].T), a.T @ b[:3])


A, B = np.ones((2, 3)), np.ones((4, 3))
REFUSED = [
    (A, B[:, :2], None, "`b` must be (K, C) with C = 3 columns as `a` has, got 2."),
    (A[0], B, None, "`a` must be a matrix, got 1 axes."),
    (A, B.astype(np.float32), None, "`b` must be float64, as `a` is."),
    (A.astype(int), B, None, "`a` must be float32: both are, or both float64."),
    (np.ones((4, 6))[::2, ::2], B, None, "`a` must have one contiguous axis. Copy it."),
    (A, B, np.ones(3), "`bias` must be (K) = (4,), got (3,)."),
]


@pytest.mark.parametrize("a, b, bias, message", REFUSED)
def test_what_does_not_fit_is_refused(a, b, bias, message):
    with pytest.raises(ShapeError) as raised:
        engine.multiply(a, b, bias)
    assert str(raised.value) == f"engine: {message}"


def test_threads_below_one_are_refused():
    with pytest.raises(ShapeError, match="`threads` must be at least 1, got 0"):
        engine.multiply(np.ones((2, 3)), np.ones((4, 3)), threads=0)
