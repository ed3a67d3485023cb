"""Values of 16 bits in the compiled core: h rounded at each step, and bfloat16 multiplied in pairs."""

import dataclasses

import numpy as np
import pytest

from engine.test_engine import CASES, ISAS, Case, truth
from longshort import engine
from longshort.errors import BackendError, ShapeError

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")
needs_pairs = pytest.mark.skipif(
    "avx512bf16" not in ISAS, reason="THIS PROCESSOR HAS NO PRODUCTS OF BFLOAT16: the pairs did not run"
)

EVEN = [dataclasses.replace(case, C=case.C // 2 * 2, H=max(2, case.H // 2 * 2)) for case in CASES]
each_case = pytest.mark.parametrize("case", EVEN, ids=lambda c: c.why.replace(" ", "-"))
HELD = ("x", "w_ih", "w_hh", "h", "dy")
"""What has 16 bits in a call of bfloat16: all else is float32."""


def bits(value):
    """To nearest, ties to even."""
    words = np.ascontiguousarray(value, np.float32).view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(made):
    return {name: values(bits(value)) if name in HELD else value for name, value in made.items()}


def run(made, more, threads, paired):
    as_held = {name: bits(value) if paired and name in HELD else value for name, value in made.items()}
    weights = as_held["w_ih"], as_held["w_hh"], as_held["bias"]
    packed = engine.pack(*weights, rounding="none" if paired else "bfloat16", back=True, threads=threads)
    state = as_held["h"], as_held["c"]
    out = engine.forward(packed, as_held["x"], *state, **more, tape=True, threads=threads)
    grads = {name: as_held[name] for name in ("dy", "dh", "dc")}
    found = engine.backward(packed, out.tape, as_held["x"], out.y, *state, **more, **grads, threads=threads)
    made = {"y": out.y, "h_n": out.h, "c_n": out.c} | {f"d{name}": value for name, value in found.items()}
    assert {name for name, value in made.items() if value.dtype == np.uint16} == (
        {"y", "h_n", "dx"} if paired else set()
    )
    return {name: values(value) if value.dtype == np.uint16 else value for name, value in made.items()}


def near(found, want, case):
    for name, got in found.items():
        scale = np.abs(want[name]).max(initial=1e-3)
        np.testing.assert_allclose(got, want[name], rtol=0, atol=0.02 * scale, err_msg=f"{case}: {name}")


@each_case
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "avx512vnni"])
def test_rounded_h(case, isa, monkeypatch):
    """Each set gives h values of bfloat16, whether it has products of pairs or not."""
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    made, more = case.make(np.float32)
    made = rounded(made)
    found = run(made, more, 2, paired=False)
    assert np.array_equal(found["y"], values(bits(found["y"])))
    near(found, truth(made, more), case)


@needs_pairs
@each_case
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pairs(case, threads, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "avx512bf16")
    made, more = case.make(np.float32)
    made = rounded(made)
    found, again = (run(made, more, threads, paired=True) for _ in range(2))
    near(found, truth(made, more), case)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_a_set_says_whether_it_has_pairs(monkeypatch):
    for isa in ISAS:
        monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
        assert engine.pairs() == (isa == "avx512bf16")
        if engine.pairs():
            assert engine.peak(paired=True) > 1e8
            continue
        with pytest.raises(BackendError, match=f"the set {isa} has no products of bfloat16"):
            engine.peak(paired=True)


def zeros(*shape, dtype=np.uint16):
    return np.zeros(shape, dtype)


W_IH, W_HH, ODD = zeros(32, 4), zeros(32, 8), zeros(32, 5)
IN_PAIRS = (
    "is read in pairs: its last axis, its strides and its address must be even. Copy it, or give float32."
)
SHORT = {
    "odd inputs": (lambda: engine.pack(ODD, W_HH), f"engine: `w_ih` {IN_PAIRS}"),
    "odd units": (lambda: engine.pack(zeros(12, 4), zeros(12, 3)), f"engine: `w_hh` {IN_PAIRS}"),
    "odd address": (lambda: engine.pack(zeros(129)[1:].reshape(32, 4), W_HH), f"engine: `w_ih` {IN_PAIRS}"),
    "odd rows": (lambda: engine.pack(ODD[:, :4], W_HH), f"engine: `w_ih` {IN_PAIRS}"),
    "a projection": (
        lambda: engine.pack(W_IH, zeros(32, 4), w_hr=zeros(4, 8, dtype=np.float32)),
        "engine: weights in bfloat16 serve neither a projection, nor gate recurrence, nor a norm. "
        "Give float32, and `rounding`.",
    ),
    "float32 beside them": (
        lambda: engine.pack(W_IH, W_HH.astype(np.float32)),
        "engine: `w_hh` must be uint16 (the bits of bfloat16), got float32. Convert it.",
    ),
    "float32 x": (
        lambda: engine.forward(engine.pack(W_IH, W_HH), zeros(1, 2, 4, dtype=np.float32)),
        "engine: `x` must be uint16 (the bits of bfloat16), got float32. Convert it.",
    ),
    "x of odd rows": (
        lambda: engine.forward(engine.pack(W_IH, W_HH), zeros(2, 3, 5)[..., :4]),
        f"engine: `x` {IN_PAIRS}",
    ),
    "masked h": (
        lambda: engine.forward(engine.pack(W_IH, W_HH), zeros(1, 2, 4), noise=_variational()),
        "engine: weights in bfloat16 do not serve `variational_h`. Give float32, and `rounding`.",
    ),
    "a step": (
        lambda: engine.step(engine.pack(W_IH, W_HH)),
        "engine: Step serves float32 and float64. Call forward with one step for 16-bit weights.",
    ),
    "another rounding": (
        lambda: engine.pack(W_IH.astype(np.float32), W_HH.astype(np.float32), rounding="int8"),
        "engine: `rounding` must be 'none', 'bfloat16' or 'float16', got 'int8'.",
    ),
    "rounding of bfloat16 to float16": (
        lambda: engine.pack(W_IH, W_HH, rounding="float16"),
        "engine: `rounding` must be 'none' but for float32, got 'float16'.",
    ),
    "rounding of float64": (
        lambda: engine.pack(W_IH.astype(float), W_HH.astype(float), rounding="float16"),
        "engine: `rounding` must be 'none' but for float32, got 'float16'.",
    ),
}


def _variational():
    from longshort.scan import Noise

    return engine.noise(Noise(variational_h=0.5))


@needs_pairs
@pytest.mark.parametrize("call, message", SHORT.values(), ids=[name.replace(" ", "-") for name in SHORT])
def test_what_cannot_be_in_pairs_is_named(call, message, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "avx512bf16")
    with pytest.raises(ShapeError) as raised:
        call()
    assert str(raised.value) == message


def test_a_set_without_pairs_says_so(monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "portable")
    with pytest.raises(
        ShapeError, match=r"^engine: the set portable has no products of bfloat16\. Give float32, and"
    ):
        engine.pack(W_IH, W_HH)


@needs_pairs
def test_other_weights_in_bits_are_seen(monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "avx512bf16")
    made, _ = Case("ordinary", C=4).make(np.float32)
    w_ih, w_hh = bits(made["w_ih"]), bits(made["w_hh"])
    packed = engine.pack(w_ih, w_hh)
    assert packed.holds(w_ih, w_hh) and not packed.holds(made["w_ih"], made["w_hh"])
    w_hh[3, 3] ^= 1
    assert not packed.holds(w_ih, w_hh)
