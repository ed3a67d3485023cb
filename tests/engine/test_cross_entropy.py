"""Cross entropy in place of the scores: every instruction set, size and thread count against NumPy."""

import numpy as np
import pytest

from longshort import engine
from longshort.errors import ShapeError

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")

ISAS = engine.isas() if engine.available() else []
each_isa = pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in ("avx512vnni", "avx512bf16")])
each_dtype = pytest.mark.parametrize(
    "dtype, error", [(np.float32, 1e-6), (np.float64, 1e-14)], ids=["f32", "f64"]
)
each_size = pytest.mark.parametrize(
    "M, V", [(1, 1), (3, 2), (5, 16), (7, 33), (0, 4), (40, 5_001), (2, 70_000)], ids=str
)


def wanted(scores, targets):
    """Losses and gradients by the definition, in float64."""
    s = scores.astype(np.float64)
    p = np.exp(s - s.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(s))
    losses = -np.log(p[rows, targets])
    p[rows, targets] -= 1
    return losses, p


@each_size
@each_isa
@each_dtype
def test_losses_and_gradients_whatever_the_threads(M, V, isa, dtype, error, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    rng = np.random.default_rng(0)
    for scale, shift in ((1, 0), (30, 0), (1, 1000), (1, -1000)):
        scores = (rng.standard_normal((M, V)) * scale + shift).astype(dtype)
        targets = rng.integers(0, V, M)
        losses, gradients = wanted(scores, targets)
        room = np.full((M, V + 3), 7, dtype)
        made = []
        for threads in (1, 2, 3):
            room[:, :V] = scores
            made.append((engine.cross_entropy(room[:, :V], targets, threads=threads), room.copy()))
        got, left = made[0]
        np.testing.assert_allclose(got, losses, rtol=error, atol=error * 4)
        np.testing.assert_allclose(left[:, :V], gradients, rtol=0, atol=error)
        assert np.array_equal(left[:, V:], np.full((M, 3), 7)), "what stands beside a row is left alone"
        for other, beside in made[1:]:
            assert np.array_equal(other, got) and np.array_equal(beside, left)


@each_isa
@each_dtype
def test_what_is_not_finite(isa, dtype, error, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    for V in (5, 40):
        scores = np.zeros((4, V), dtype)
        scores[0, 1], scores[1, 2], scores[2, 3:] = np.nan, np.inf, -np.inf
        losses = engine.cross_entropy(scores, np.zeros(4, np.int64))
        assert np.isnan(losses[:2]).all() and np.isnan(scores[:2]).all()
        np.testing.assert_allclose(losses[2:], [np.log(3), np.log(V)], rtol=1e-6)
        assert np.array_equal(scores[2, 3:], np.zeros(V - 3)), "no chance, and no gradient"
        scores = np.zeros((2, V), dtype)
        scores[0], scores[1, 0] = -np.inf, -np.inf
        losses = engine.cross_entropy(scores, np.zeros(2, np.int64))
        assert np.isnan(losses[0]) and np.isnan(scores[0]).all(), "nothing has a chance"
        assert losses[1] == np.inf and scores[1, 0] == -1


S, Y = np.zeros((2, 3), np.float32), np.array([0, 2])
LOCKED = S.copy()
LOCKED.flags.writeable = False
REFUSED = [
    (S, np.array([0, 3]), "`targets` must be in [0, V) = [0, 3), got 3 at 1."),
    (S, np.array([-1, 0]), "`targets` must be in [0, V) = [0, 3), got -1 at 0."),
    (S, np.array([0, 1, 2]), "`targets` must be (M) = (2,), got (3,)."),
    (S, Y.astype(np.int32), "`targets` must be int64, got int32. Convert it."),
    (S, np.arange(4)[::2], "`targets` must be contiguous along its last axis. "),
    (S, None, "`targets` must be an array, got None."),
    (np.zeros((2, 6), np.float32)[:, ::2], Y, "`scores` must be contiguous along its last axis: "),
    (S.astype(np.float16), Y, "`scores` must be (M, V), float32 or float64 and writable, with "),
    (LOCKED, Y, "`scores` must be (M, V), float32 or float64 and writable, with "),
    (np.zeros(3, np.float32), Y, "`scores` must be (M, V), float32 or float64 and writable, with "),
]


@pytest.mark.parametrize("scores, targets, message", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(scores, targets, message):
    before = scores.copy()
    with pytest.raises(ShapeError) as raised:
        engine.cross_entropy(scores, targets)
    assert str(raised.value).startswith(f"engine: {message}")
    assert np.array_equal(scores, before)


def test_threads_below_one_are_refused():
    with pytest.raises(ShapeError, match="`threads` must be at least 1, got 0"):
        engine.cross_entropy(S.copy(), Y, threads=0)
