"""The compiled core against NumPy: one table of sizes, each instruction set, thread count and precision."""

import os
import subprocess
import sys
import threading
from array import array as Values
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from engine import definition
from longshort import engine
from longshort.errors import BackendError, ShapeError
from longshort.scan import Variant

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}


@dataclass(frozen=True)
class Case:
    why: str
    N: int = 3
    T: int = 7
    C: int = 5
    H: int = 6
    reset: bool = False
    lengths: bool = False

    def make(self, dtype, seed=0):
        rng = np.random.default_rng(seed)
        k = self.H**-0.5
        shapes = {
            "x": (self.N, self.T, self.C),
            "w_ih": (4 * self.H, self.C),
            "w_hh": (4 * self.H, self.H),
            "bias": (4 * self.H,),
            "h": (self.N, self.H),
            "c": (self.N, self.H),
            "dy": (self.N, self.T, self.H),
            "dh": (self.N, self.H),
            "dc": (self.N, self.H),
        }
        made = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        for name in ("w_ih", "w_hh", "bias"):
            made[name] *= k
        made = {name: value.astype(dtype) for name, value in made.items()}
        reset = rng.random((self.N, self.T)) < 0.3 if self.reset else None
        lengths = rng.integers(0, self.T + 1, self.N) if self.lengths else None
        return made, {"reset": reset, "lengths": lengths}


CASES = [
    Case("ordinary"),
    Case("one of everything", N=1, T=1, C=1, H=1),
    Case("one sequence", N=1, T=20, C=64, H=128),
    Case("two sequences share units", N=2, T=9, C=3, H=200),
    Case("sizes that divide no tile", N=7, T=9, C=17, H=33),
    Case("more inputs than a panel", N=5, T=3, C=130, H=40),
    Case("many chunks", N=40, T=50, C=3, H=129),
    Case("no sequence", N=0),
    Case("no step", T=0),
    Case("no input", C=0),
    Case("resets", N=9, T=30, reset=True),
    Case("lengths", N=9, T=30, lengths=True),
    Case("resets and lengths", N=9, T=30, reset=True, lengths=True),
    Case("one sequence with resets", N=1, T=40, C=3, H=130, reset=True),
    Case("lengths that leave one sequence", N=3, T=40, C=64, H=128, lengths=True),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.why.replace(" ", "-"))
ISAS = engine.isas() if engine.available() else []
each_isa = pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in ("avx512vnni", "avx512bf16")])
each_step_isa = pytest.mark.parametrize("isa", ISAS)  # those two are avx512 but for steps on short weights
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f64"])


def run(made, more, threads, time_major=False):
    """Outputs and gradients by name."""
    x = made["x"]
    if time_major:
        x = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    packed = engine.pack(made["w_ih"], made["w_hh"], made["bias"], back=True, threads=threads)
    state = made["h"], made["c"]
    out = engine.forward(packed, x, *state, **more, tape=True, threads=threads, time_major=time_major)
    grads = {name: made[name] for name in ("dy", "dh", "dc")}
    found = engine.backward(packed, out.tape, x, out.y, *state, **more, **grads, threads=threads)
    return {"y": out.y, "h_n": out.h, "c_n": out.c} | {f"d{name}": value for name, value in found.items()}


def truth(made, more):
    wide = {name: value.astype(np.float64) for name, value in made.items()}
    weights = wide["x"], wide["w_ih"], wide["w_hh"]
    y, h, c, steps = definition.forward(*weights, wide["bias"], wide["h"], wide["c"], **more)
    found = definition.backward(*weights, steps, wide["dy"], wide["dh"], wide["dc"])
    return {"y": y, "h_n": h, "c_n": c} | {f"d{name}": value for name, value in found.items()}


@each_case
@each_isa
@each_dtype
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_outputs_and_gradients(case, isa, dtype, threads, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    made, more = case.make(dtype)
    want = truth(made, more)
    for name, got in run(made, more, threads).items():
        assert got.dtype == dtype
        scale = max(1.0, np.abs(want[name]).max(initial=0))
        np.testing.assert_allclose(got, want[name], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@each_case
def test_the_same_bits_again(case):
    made, more = case.make(np.float32)
    first, second = run(made, more, 2), run(made, more, 2)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_memory_order_of_time_does_not_matter():
    made, more = CASES[4].make(np.float32)
    first, second = run(made, more, 1), run(made, more, 1, time_major=True)
    assert second["y"].strides[0] < second["y"].strides[1]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_what_lies_in_the_padding_is_not_read():
    made, more = Case("padding", N=9, T=30, lengths=True).make(np.float32)
    first = run(made, more, 1)
    for n, length in enumerate(more["lengths"]):
        made["x"][n, length:] = np.nan
    second = run(made, more, 1)
    assert all(np.array_equal(first[name], second[name]) for name in first)


STEPS = [
    Case("ordinary", N=1, T=12, C=30, H=257),
    Case("one of everything", N=1, T=1, C=1, H=1),
    Case("sizes that divide no tile", N=7, T=9, C=17, H=33),
    Case("units shared by threads", N=2, T=9, C=64, H=128),
    Case("more sequences than fit the cache", N=130, T=3, C=3, H=17),
    Case("sequences shared by threads", N=200, T=2, C=64, H=128),
    Case("no sequence", N=0),
    Case("no step", T=0),
    Case("no input", C=0),
]
each_step = pytest.mark.parametrize("case", STEPS, ids=lambda c: c.why.replace(" ", "-"))
each_form = pytest.mark.parametrize("stored, error", [("full", 2e-6), ("bfloat16", 8e-3), ("int8", 4e-2)])


@each_step
@each_step_isa
@each_form
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_equals_the_sequence(case, isa, stored, error, threads, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    made, _ = case.make(np.float32)
    packed = engine.pack(made["w_ih"], made["w_hh"], made["bias"])
    whole = engine.forward(packed, made["x"], made["h"], made["c"])
    step = engine.step(packed, stored=stored, threads=threads)
    h, c = made["h"].copy(), made["c"].copy()
    for t in range(case.T):
        step.move(made["x"][:, t].copy(), h, c)
        np.testing.assert_allclose(h, whole.y[:, t], rtol=0, atol=error)
    y, c_n = step(made["x"], made["h"], made["c"])
    assert np.array_equal(y, whole.y) or stored != "full"
    assert case.T == 0 or np.array_equal(y[:, -1], h)
    assert np.array_equal(c_n, c)


def bfloat16(value):
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def eight_bits(rows):
    """Whole numbers in [-127, 127], and the scale of each row."""
    scale = np.abs(rows).max(1, initial=0, keepdims=True) / np.float32(127)
    return np.rint(np.divide(rows, scale, where=scale > 0, out=np.zeros_like(rows))), scale


def product(rows, weight, stored, isa):
    """What a step adds for rows (N, K) and a weight (4H, K), in float64."""
    if stored == "bfloat16":
        rows = bfloat16(rows) if isa == "avx512bf16" else rows
        return rows.astype(float) @ bfloat16(weight).astype(float).T
    (a, a_scale), (w, w_scale) = eight_bits(rows), eight_bits(weight)
    return (a.astype(float) @ w.T) * a_scale * w_scale.T


@each_step
@each_step_isa
@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_short_weights_are_rounded_as_documented(case, isa, stored, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    made, _ = case.make(np.float32)
    if not case.T:
        return
    x, h, c = made["x"][:, 0].copy(), made["h"].copy(), made["c"].copy()
    a = product(x, made["w_ih"], stored, isa) + product(h, made["w_hh"], stored, isa) + made["bias"]
    i, f, g, o = np.split(a, 4, axis=1)
    want_c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    want_h = np.tanh(want_c) / (1 + np.exp(-o))
    engine.step(engine.pack(made["w_ih"], made["w_hh"], made["bias"]), stored=stored).move(x, h, c)
    np.testing.assert_allclose(h, want_h, rtol=0, atol=3e-6)
    np.testing.assert_allclose(c, want_c, rtol=0, atol=3e-6)


@each_form
def test_only_some_sequences_step(stored, error):
    made, _ = Case("some", N=60, T=1, C=5, H=33).make(np.float32)
    packed = engine.pack(made["w_ih"], made["w_hh"], made["bias"])
    step = engine.step(packed, stored=stored, threads=2)
    x, only = made["x"][:, 0].copy(), np.random.default_rng(1).random(60) < 0.5
    h, c = made["h"].copy(), made["c"].copy()
    step.move(x, h, c)
    some_h, some_c = made["h"].copy(), made["c"].copy()
    step.move(x, some_h, some_c, only)
    assert np.array_equal(some_h, np.where(only[:, None], h, made["h"]))
    assert np.array_equal(some_c, np.where(only[:, None], c, made["c"]))
    step.move(x, some_h, some_c, np.zeros(60, bool))
    assert np.array_equal(some_h, np.where(only[:, None], h, made["h"]))


def test_a_step_that_holds_its_state():
    made, _ = Case("some", N=3, T=2, C=5, H=7).make(np.float32)
    step = engine.step(engine.pack(made["w_ih"], made["w_hh"], made["bias"]))
    h, c = made["h"].copy(), made["c"].copy()
    move = step.moving(h, c)
    for t, only in ((0, None), (1, np.array([True, False, True]))):
        move(made["x"][:, t].copy(), only)
        step.move(made["x"][:, t].copy(), made["h"], made["c"], only)
    assert np.array_equal(h, made["h"]) and np.array_equal(c, made["c"])
    with pytest.raises(ShapeError, match=r"^engine: `x` must have N C = 15 values, got 14\.$"):
        move(np.zeros(14, np.float32))
    with pytest.raises(ShapeError, match=r"^engine: `c` must be \(N, H\) = \(3, 7\), got \(3, 6\)\.$"):
        step.moving(h, np.zeros((3, 6), np.float32))
    with pytest.raises(ShapeError, match="writable"):
        step.moving(h, np.zeros((3, 7)))


def test_a_moving_state_takes_any_array_of_the_right_values():
    made, _ = Case("some", N=2, T=1, C=5, H=7).make(np.float32)
    step = engine.step(engine.pack(made["w_ih"], made["w_hh"], made["bias"]))
    h, c, want_h, want_c = (made[name].copy() for name in "hchc")
    move, x = step.moving(h, c), made["x"][:, 0].copy()
    flat = Values("f", x.ravel())
    locked = x.copy()
    locked.flags.writeable = False
    tensor = torch.from_numpy(x)
    for given, same in (
        (x, x),
        (x.reshape(-1), x),
        (memoryview(x), x),
        (tensor, x),
        (flat, flat),
        (locked, locked),
    ):
        for k in range(2):  # what is in it may change in between
            x[0, 0] = k
            move(given)
            step.move(np.asarray(same).reshape(2, 5), want_h, want_c)
    assert np.array_equal(h, want_h) and np.array_equal(c, want_c)
    del given, same, tensor
    x.resize((4, 5), refcheck=False)  # nothing of it is held
    flat.append(1)
    for wrong in (
        x[::2],
        x[:2].astype(">f4"),
        x[:2].astype(np.int32),
        x[:2].view(np.uint8),
        x[:2].tolist(),
        b"",
        None,
    ):
        with pytest.raises(ShapeError, match=r"^engine: a moving state takes x of N C values, "):
            move(wrong)
    for wrong in (x, flat):
        with pytest.raises(ShapeError, match="N C = 10 values, got"):
            move(wrong)


@each_step_isa
@each_form
def test_what_is_not_finite_spreads(isa, stored, error, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    made, _ = Case("step", N=2, T=1, C=20, H=40).make(np.float32)
    for place, value in (("x", np.nan), ("x", np.inf), ("w_hh", np.nan)):
        bad = {name: array.copy() for name, array in made.items()}
        bad[place][(0,) * bad[place].ndim] = value
        packed = engine.pack(bad["w_ih"], bad["w_hh"], bad["bias"])
        h, c = bad["h"].copy(), bad["c"].copy()
        engine.step(packed, stored=stored).move(bad["x"][:, 0].copy(), h, c)
        if place == "x":
            assert np.isfinite(h[1]).all() and (value == np.inf or np.isnan(h[0]).all())
        else:
            assert np.isnan(h[:, 0]).all() and np.isfinite(h[:, 1:]).all()


def test_what_the_machine_can_do_is_measured():
    assert engine.peak() > 1e8 and engine.reading(1 << 16) > 1e8
    assert 0 < engine.meeting() < 1


def test_steps_from_several_threads_take_turns():
    made, _ = Case("step", N=1, T=1, C=256, H=512).make(np.float32)
    step = engine.step(engine.pack(made["w_ih"], made["w_hh"], made["bias"]), stored="int8", threads=2)
    x = made["x"][:, 0].copy()

    def ten(found):
        h, c = made["h"].copy(), made["c"].copy()
        for _ in range(10):
            step.move(x, h, c)
        found.append(h)

    found = []
    workers = [threading.Thread(target=ten, args=(found,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ten(found)
    assert all(np.array_equal(h, found[0]) for h in found) and len(found) == 5


WRONG_STEPS = {
    "another form": (
        {"stored": "int4"},
        "engine: `stored` must be 'full', 'bfloat16' or 'int8', got 'int4'.",
    ),
    "float64": (
        {"stored": "int8", "dtype": np.float64},
        "engine: `stored` must be 'full' for float64 weights, got 'int8'. Pack them in float32.",
    ),
    "no thread": ({"threads": 0}, "engine: `threads` must be at least 1, got 0."),
    "many inputs": (
        {"stored": "int8", "C": 65537, "H": 1},
        "engine: `stored` = 'int8' serves up to 65536 inputs and units, got 65537.",
    ),
}


@pytest.mark.parametrize("change, message", WRONG_STEPS.values(), ids=list(WRONG_STEPS))
def test_a_step_that_cannot_be_is_named(change, message):
    C, H = change.pop("C", 3), change.pop("H", 2)
    dtype = change.pop("dtype", np.float32)
    packed = engine.pack(np.zeros((4 * H, C), dtype), np.zeros((4 * H, H), dtype))
    with pytest.raises(ShapeError) as raised:
        engine.step(packed, **change)
    assert str(raised.value) == message


@each_isa
@pytest.mark.parametrize(
    "name, most, exact",
    [
        ("exp", 1.3, np.exp),
        ("sigmoid", 2.6, lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", 3.2, np.tanh),
    ],
)
@each_dtype
def test_activations_in_units_of_the_last_place(isa, name, most, exact, dtype, monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    from longshort.engine import _core

    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-20, 20, 50000), rng.uniform(-80, 80, 20000), 1e-3 * rng.standard_normal(20000)]
    )
    x = x.astype(dtype)
    got = (_core.activate32 if dtype == np.float32 else _core.activate64)(name, x)
    want = exact(x.astype(np.longdouble))
    unit = np.spacing(np.abs(want).astype(dtype)).astype(np.longdouble)
    assert (np.abs(got.astype(np.longdouble) - want) / unit).max() <= most


def test_activations_at_the_ends():
    from longshort.engine import _core

    ends = np.array([np.nan, np.inf, -np.inf, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(_core.activate32("tanh", ends), np.array([np.nan, 1, -1, 0], np.float32))
    got = _core.activate32("sigmoid", ends)
    assert np.isnan(got[0]) and got[1] == 1 and got[2] < 2e-38 and got[3] == 0.5


BAD = {
    "float64 state": (
        {"h": np.zeros((3, 6))},
        r"engine: `h` must be float32 like the weights, got float64\. Convert it\.",
    ),
    "short lengths": (
        {"lengths": np.array([1, 2, 3], np.int32)},
        r"engine: `lengths` must be int64, got int32\. Convert it\.",
    ),
    "short state": (
        {"c": np.zeros((3, 5), np.float32)},
        r"engine: `c` must be \(N, H\) = \(3, 6\), got \(3, 5\)\.",
    ),
    "flat x": ({"x": np.zeros((3, 7), np.float32)}, r"engine: `x` must be \(N, T, C\), got 2 axes\."),
    "strided x": ({"x": np.zeros((3, 7, 10), np.float32)[..., ::2]}, "contiguous along its last axis"),
    "reset of the wrong type": (
        {"reset": np.zeros((3, 7), np.int8)},
        r"engine: `reset` must be bool, got int8\.",
    ),
    "long length": (
        {"lengths": np.array([1, 8, 2])},
        r"engine: `lengths` must be in \[0, T\] = \[0, 7\], got 8\.",
    ),
    "negative length": (
        {"lengths": np.array([1, -1, 2])},
        r"engine: `lengths` must be in \[0, T\] = \[0, 7\], got -1\.",
    ),
    "no thread": ({"threads": 0}, "engine: `threads` must be at least 1, got 0"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=[name.replace(" ", "-") for name in BAD])
def test_a_bad_argument_is_named(change, message):
    made, _ = CASES[0].make(np.float32)
    packed = engine.pack(made["w_ih"], made["w_hh"], made["bias"])
    with pytest.raises(ShapeError, match=message):
        engine.forward(packed, **({name: made[name] for name in ("x", "h", "c")} | change))


def test_a_state_that_is_read_only_is_not_written():
    made, _ = CASES[0].make(np.float32)
    step = engine.step(engine.pack(made["w_ih"], made["w_hh"], made["bias"]))
    made["h"].flags.writeable = False
    with pytest.raises(ShapeError, match="writable"):
        step.move(made["x"][:, 0].copy(), made["h"], made["c"])


@pytest.mark.parametrize("isa", engine.isas() if engine.available() else [])
@pytest.mark.parametrize(("H", "threads"), [(6, 1), (200, 2)])
def test_packed_weights_know_their_source(H, threads, isa, monkeypatch):
    """Large weights are looked at by all threads; a value that moves to the next place shows too."""
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", isa)
    rng = np.random.default_rng(0)
    w_ih, w_hh = (rng.standard_normal((4 * H, k)).astype(np.float32) for k in (5, H))
    packed = engine.pack(w_ih, w_hh, threads=threads)
    assert packed.holds(w_ih, w_hh, threads=threads)
    assert packed.holds(w_ih.copy(), w_hh.copy())
    for array, place in (
        (w_ih, (0, 0)),
        (w_ih, (4 * H - 1, 4)),
        (w_hh, (2 * H, H - 1)),
        (w_hh, (4 * H - 1, 0)),
    ):
        value = array[place]
        array[place] += 1
        assert not packed.holds(w_ih, w_hh, threads=threads)
        array[place] = value
    for k in (1, 4, 16, 64, 128):  # places of the same lane, in other vectors, too
        moved = w_hh.copy()
        moved[3, [0, k % H]] = moved[3, [k % H, 0]]
        assert not packed.holds(w_ih, moved, threads=threads)
        moved = w_hh.copy()
        moved[3, k % H] *= -1  # one bit, the highest
        assert not packed.holds(w_ih, moved, threads=threads)
    assert not packed.holds(w_ih, np.roll(w_hh, H // 2 // 16 * 16 or 1, axis=1), threads=threads)
    w_hh[3, [0, 1]] = w_hh[3, [1, 0]]
    assert not packed.holds(w_ih, w_hh, threads=threads)
    assert not packed.holds(w_ih[:, :4], w_hh)
    assert not packed.holds(w_ih.astype(np.float64), w_hh.astype(np.float64))


@pytest.mark.parametrize("norm", ["none", "per_gate", "products"])
def test_a_bias_of_a_call_leaves_the_packed_one_alone(norm):
    rng = np.random.default_rng(0)
    w_ih, w_hh, first, second = (rng.standard_normal((24, *k)) for k in ((5,), (6,), (), ()))
    named = {"none": (), "products": ("gain_ih", "gain_hh"), "per_gate": ("gain_hh", "gain_c", "shift_c")}[
        norm
    ]
    more = {name: rng.standard_normal(6 if name in ("gain_c", "shift_c") else 24) for name in named}
    x, pack = (
        rng.standard_normal((3, 4, 5)),
        partial(engine.pack, w_ih, w_hh, variant=Variant(norm=norm), **more),
    )
    packed = pack(first)
    want = [engine.forward(pack(bias), x).y for bias in (first, second)]
    np.testing.assert_array_equal(engine.forward(packed, x, bias=second).y, want[1])
    np.testing.assert_array_equal(engine.forward(packed, x).y, want[0])
    with pytest.raises(ShapeError, match=r"^engine: `bias` must be \(G H\)"):
        engine.forward(packed, x, bias=second[1:])


def test_weights_without_a_way_back_say_so():
    made, _ = CASES[0].make(np.float32)
    packed = engine.pack(made["w_ih"], made["w_hh"])
    out = engine.forward(packed, made["x"], tape=True)
    with pytest.raises(ShapeError, match=r"Pack them with back=True"):
        engine.backward(packed, out.tape, made["x"], out.y)


def test_what_a_step_cannot_move_is_refused_with_what_it_takes():
    made, _ = CASES[0].make(np.float32)
    step = engine.step(engine.pack(made["w_ih"], made["w_hh"]))
    x, h, c = np.ascontiguousarray(made["x"][:, 0]), made["h"].copy(), made["c"].copy()
    locked = h.copy()
    locked.flags.writeable = False
    for wrong in (
        (x.astype(np.float64), h, c),
        (x, h.astype(np.float64), c),
        (x, locked, c),
        (x, h, None),
        (x, h, c, [1]),
    ):
        with pytest.raises(ShapeError, match=r"`move` takes x \(N, C\), h and c \(N, H\), .*float32: got"):
            step.move(*wrong)
    with pytest.raises(ShapeError, match=r"`moving` takes h and c \(N, H\), both writable, .*float32: got"):
        step.moving(h.astype(np.float64), c)
    with pytest.raises(ShapeError, match=r"a moving state takes x of N C values, .*float32: got"):
        step.moving(h, c)(x.astype(np.float64))


def test_reading_of_nothing_is_refused():
    with pytest.raises(ShapeError, match=r"`size` must be at least 1 byte, got 0"):
        engine.reading(0)


def test_an_unknown_instruction_set_lists_the_known(monkeypatch):
    monkeypatch.setenv("LONGSHORT_ENGINE_ISA", "vax")
    with pytest.raises(BackendError, match=r"must name one of .*portable, .*got 'vax'"):
        engine.isa()


def test_calls_from_several_threads_take_turns():
    made, more = CASES[6].make(np.float32)
    want = run(made, more, 2)["dw_hh"]
    found = []
    workers = [threading.Thread(target=lambda: found.append(run(made, more, 2)["dw_hh"])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all(np.array_equal(got, want) for got in found)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_every_number_of_threads_is_served_by_the_workers_of_the_largest():
    code = (
        "import os, numpy as np\n"
        "from longshort import engine\n"
        "rng = np.random.default_rng(0)\n"
        "w = [rng.standard_normal((1024, 256)).astype(np.float32) / 16 for _ in range(2)]\n"
        "x = rng.standard_normal((16, 5, 256)).astype(np.float32)\n"
        "packed, counts = engine.pack(*w), []\n"
        "want = engine.forward(packed, x, threads=1).y\n"
        "for threads in (2, 3, 5, 8, 4, 6, 2):\n"
        "    assert np.allclose(engine.forward(packed, x, threads=threads).y, want, atol=1e-5)\n"
        "    counts.append(len(os.listdir('/proc/self/task')))\n"
        "print([count - counts[0] for count in counts])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[0, 1, 3, 6, 6, 6, 6]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes():
    code = (
        "import os, numpy as np\n"
        "from longshort import engine\n"
        "rng = np.random.default_rng(0)\n"
        "w = [rng.standard_normal(s).astype(np.float32) for s in ((80, 5), (80, 20))]\n"
        "x = rng.standard_normal((8, 9, 5)).astype(np.float32)\n"
        "want = engine.forward(engine.pack(*w), x, threads=2).y\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    same = np.array_equal(engine.forward(engine.pack(*w, threads=2), x, threads=2).y, want)\n"
        "    os._exit(0 if same else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_the_engine_loads_no_torch():
    code = "import sys, longshort.engine; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("stored", ["full", "bfloat16", "int8"])
@pytest.mark.parametrize("T", [1, 4])
def test_a_step_without_a_state_begins_at_zero(stored, T):
    rng = np.random.default_rng(0)
    packed = engine.pack(*(rng.standard_normal((64, k)).astype(np.float32) for k in (8, 16)))
    x, zeros = rng.standard_normal((2, T, 8)).astype(np.float32), np.zeros((2, 16), np.float32)
    step = engine.step(packed, stored=stored)
    want = step(x, zeros, zeros)
    for h, c in ((None, None), (zeros, None), (None, zeros)):
        assert all(map(np.array_equal, step(x, h, c), want))


def test_what_is_none_or_no_number_of_threads_is_refused():
    rng = np.random.default_rng(0)
    w_ih, w_hh = (rng.standard_normal((64, k)).astype(np.float32) for k in (8, 16))
    packed, x = engine.pack(w_ih, w_hh, back=True), np.zeros((1, 2, 8), np.float32)
    out = engine.forward(packed, x, tape=True)
    refused = {
        "`tape` must be an array, got None.": lambda: engine.backward(packed, None, x, out.y, dy=out.y),
        "`y` must be an array, got None.": lambda: engine.backward(packed, out.tape, x, None, dy=out.y),
        "`x` must be an array, got None.": lambda: engine.forward(packed, None),
        "`w_hh` must be an array, got None.": lambda: engine.pack(w_ih, None),
        "`b` must be an array, got None.": lambda: engine.multiply(w_ih, None),
        "`threads` must be at least 1, got 0.": lambda: engine.pack(w_ih, w_hh, threads=0),
        "`threads` must be at least 1, got -1.": lambda: engine.forward(packed, x, threads=-1),
        "`threads` must be at most 1024, got 100000.": lambda: engine.step(packed, threads=100_000),
    }
    for message, call in refused.items():
        with pytest.raises(ShapeError) as raised:
            call()
        assert str(raised.value) == f"engine: {message}"
