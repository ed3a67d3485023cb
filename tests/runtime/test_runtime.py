"""Exported folders on NumPy and the engine: the layer's numbers, whole and step by step, and bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import longshort as ls
from longshort import engine, exchange, runtime
from longshort.errors import BackendError, DataError, RunError, SettingError, ShapeError
from longshort.runtime.files import read_folder, write_folder
from longshort.scan import Noise, Variant

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")

CASES = {
    "plain": {},
    "stacked": {"num_layers": 3},
    "both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "projected with peephole": {
        "proj_size": 2,
        "variant": Variant(peephole=True, coupled=True),
        "num_layers": 2,
    },
    "norms": {"variant": Variant(norm="ba2016")},
    "zoneout": {"noise": Noise(zoneout_h=0.1, zoneout_c=0.3)},
    "gate recurrence": {"variant": Variant(gate_recurrence=True, cell_clip=0.5)},
    "learned initial state": {"learn_initial": True, "num_layers": 2},
}
each_case = pytest.mark.parametrize(
    "arguments", CASES.values(), ids=[name.replace(" ", "-") for name in CASES]
)


def exported(folder, **arguments):
    layer = ls.LSTM(3, 4, batch_first=True, **arguments).eval()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.6)
    assert ls.export(layer, folder / "model") == folder / "model"
    return layer, runtime.load(folder / "model")


@each_case
def test_whole_sequences(arguments, tmp_path):
    layer, model = exported(tmp_path, **arguments)
    x = np.random.randn(4, 7, 3).astype(np.float32)
    lengths, reset = np.array([7, 3, 0, 5]), np.random.rand(4, 7) < 0.3
    for options in ({}, {"lengths": lengths}, {"reset": reset}, {"lengths": lengths, "reset": reset}):
        with torch.no_grad():
            want, (h, c) = layer(torch.tensor(x), **{k: torch.tensor(v) for k, v in options.items()})
        y, state = model(x, **options)
        for got, truth in ((y, want), (state.h, h), (state.c, c)):
            np.testing.assert_allclose(got, truth.numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "arguments",
    [case for case in CASES.values() if "bidirectional" not in case],
    ids=lambda case: str(sorted(case)),
)
def test_a_stream_equals_the_whole_and_goes_on_from_a_state(arguments, tmp_path):
    _, model = exported(tmp_path, **arguments)
    x = np.random.randn(4, 7, 3).astype(np.float32)
    y, last = model(x)
    streams, one = model.streams(4), model.stream()
    for t in range(7):
        np.testing.assert_allclose(streams.step(x[:, t]), y[:, t], rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.step(x[1, t]), y[1, t], rtol=0, atol=1e-6)
        if t == 3:
            saved = streams.state
    np.testing.assert_allclose(streams.state.c, last.c, rtol=0, atol=1e-6)
    streams.state = saved
    np.testing.assert_allclose(streams.step(x[:, 4]), y[:, 4], rtol=0, atol=1e-6)
    half, state = model(x[:, :4])
    np.testing.assert_allclose(np.concatenate([half, model(x[:, 4:], state)[0]], 1), y, rtol=0, atol=1e-6)


def test_only_some_of_the_streams_step(tmp_path):
    _, model = exported(tmp_path, num_layers=2)
    streams, alone = model.streams(3), [model.stream() for _ in range(3)]
    before = np.zeros((3, 4), np.float32)
    for _ in range(6):
        x, mask = np.random.randn(3, 3).astype(np.float32), np.random.rand(3) < 0.5
        y = streams.step(x, mask)
        for n in range(3):
            want = alone[n].step(x[n]) if mask[n] else before[n]
            np.testing.assert_allclose(y[n], want, rtol=0, atol=1e-6)
        before = y


def test_a_stream_that_has_not_stepped_shows_the_h_it_began_from(tmp_path):
    _, model = exported(tmp_path, num_layers=2, learn_initial=True)
    streams, x, nobody = model.streams(2), np.ones((2, 3), np.float32), np.zeros(2, bool)
    first = model.initial_state(2).h[-1]
    assert np.abs(first).min() > 0
    np.testing.assert_array_equal(streams.step(x, nobody), first)
    streams.step(x)
    streams.reset(np.array([False, True]))
    np.testing.assert_array_equal(streams.step(x, nobody)[1], first[1])
    streams.state = given = model(np.ones((2, 4, 3), np.float32))[1]
    np.testing.assert_array_equal(streams.step(x, nobody), given.h[-1])


def test_a_reset_begins_anew(tmp_path):
    _, model = exported(tmp_path, learn_initial=True)
    streams, x = model.streams(2), np.random.randn(2, 3).astype(np.float32)
    first, second = streams.step(x), streams.step(x)
    streams.reset(np.array([True, False]))
    third = streams.step(x)
    np.testing.assert_array_equal(third[0], first[0])
    assert np.abs(third[1] - second[1]).max() > 1e-3
    streams.reset()
    np.testing.assert_array_equal(streams.step(x), first)


def test_no_torch_is_loaded(tmp_path):
    layer, _ = exported(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from longshort import runtime\n"
        f"stream = runtime.load({str(tmp_path / 'model')!r}).stream()\n"
        "print(stream.step(np.ones(3))[0]); print([m for m in sys.modules if m.split('.')[0] in ('onnx', "
        "'safetensors')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    value, loaded = done.stdout.splitlines()
    with torch.no_grad():
        want = layer(torch.ones(1, 1, 3))[0][0, 0, 0]
    assert float(value) == pytest.approx(float(want), abs=1e-6)
    assert loaded == "[]"


SHORT = pytest.mark.parametrize(("weights", "share"), [("bfloat16", 0.02), ("int8", 0.06)])
DIRECTIONS = pytest.mark.parametrize(
    "arguments", [{"num_layers": 2}, {"bidirectional": True}], ids=["stacked", "both-ways"]
)


@SHORT
@DIRECTIONS
def test_short_weights_are_near(weights, share, arguments, tmp_path):
    layer = ls.LSTM(3, 40, batch_first=True, **arguments).eval()
    ls.export(layer, tmp_path / "model", weights=weights)
    short = runtime.load(tmp_path / "model")
    full = runtime.load(tmp_path / "model", weights="float32")
    x = np.random.randn(4, 30, 3).astype(np.float32)
    lengths, reset = np.array([30, 3, 0, 5]), np.random.rand(4, 30) < 0.1
    for options in ({}, {"lengths": lengths}, {"reset": reset}, {"lengths": lengths, "reset": reset}):
        (y, state), (want, last) = short(x, **options), full(x, **options)
        for got, truth in ((y, want), (state.h, last.h), (state.c, last.c)):
            error, spread = (np.sqrt(np.mean(np.square(a))) for a in (got - truth, truth))
            assert 0 < error <= share * spread
        if "lengths" in options:
            assert not y[1, 3:].any() and not y[2].any()


@SHORT
def test_a_stream_on_short_weights_equals_the_whole(weights, share, tmp_path):
    ls.export(ls.LSTM(3, 40, num_layers=2, batch_first=True), tmp_path / "model")
    model = runtime.load(tmp_path / "model", weights=weights, threads=2)
    x = np.random.randn(4, 7, 3).astype(np.float32)
    y, last = model(x)
    streams = model.streams(4)
    for t in range(7):
        np.testing.assert_array_equal(streams.step(x[:, t]), y[:, t])
    np.testing.assert_array_equal(streams.state.c, last.c)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"variant": Variant(peephole=True, coupled=True)}, "coupled, peephole"),
        ({"proj_size": 2}, "projection"),
        ({"noise": Noise(zoneout_c=0.3)}, "zoneout_c"),
    ],
)
def test_what_short_weights_do_not_serve_is_named(arguments, named, tmp_path):
    exported(tmp_path, **arguments)
    with pytest.raises(DataError) as raised:
        runtime.load(tmp_path / "model", weights="int8")
    assert str(raised.value) == (
        f"{tmp_path / 'model'}: has {named}, and `weights` = 'int8' serves the LSTM of torch.nn. "
        f"Load it with weights='float32'."
    )


def test_weights_and_threads_that_there_are_not(tmp_path):
    exported(tmp_path)
    for options, message in (
        ({"weights": "int4"}, "load: `weights` must be 'float32', 'bfloat16' or 'int8', got 'int4'."),
        ({"threads": 0}, "load: `threads` must be a whole number of at least 1, got 0."),
        ({"threads": 1.5}, "load: `threads` must be a whole number of at least 1, got 1.5."),
    ):
        with pytest.raises(SettingError) as raised:
            runtime.load(tmp_path / "model", **options)
        assert str(raised.value) == message
    for path, weights, message in (
        ("m", "int4", "export: `weights` must be 'float32', 'bfloat16' or 'int8', got 'int4'."),
        (
            "m.onnx",
            "int8",
            "export: `weights` is for the runtime, a folder without an ending. Leave it out.",
        ),
    ):
        with pytest.raises(SettingError) as raised:
            ls.export(ls.LSTM(3, 4), tmp_path / path, weights=weights)
        assert str(raised.value) == message


def test_short_weights_that_err_too_much_are_not_kept(tmp_path):
    layer = ls.LSTM(3, 64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 3)
    with pytest.raises(
        BackendError, match=r"with int8 weights the outputs err by .*, 6% of them, is allowed"
    ):
        ls.export(layer, tmp_path / "model", weights="int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(np.zeros((2, 5, 4))), "model: `x` must be (N, T, C) = (N, T, 3), got (2, 5, 4)."),
        (
            lambda m: m(np.zeros((2, 5, 3)), lengths=[6, 1]),
            "model: `lengths` must be (N,) = (2,) whole numbers in [0, T] = [0, 5].",
        ),
        (
            lambda m: m(np.zeros((2, 5, 3)), reset=np.zeros((2, 5))),
            "model: `reset` must be (N, T) = (2, 5) of bool, got (2, 5) of float64.",
        ),
        (
            lambda m: m(np.zeros((2, 5, 3)), m.initial_state(3)),
            "model: `state.h` must be (layers x directions, N, units) = (1, 2, 4), got (1, 3, 4).",
        ),
        (
            lambda m: m.stream().step(np.zeros(4)),
            "stream.step: `x` must be (C,) = (3,), got (4,). The model was exported with 3 features.",
        ),
        (
            lambda m: m.streams(2).step(np.zeros((2, 3)), [1, 0]),
            "stream.step: `mask` must be (n,) = (2,) of bool, got (2,) of int64.",
        ),
        (
            lambda m: m(np.zeros((2, 5, 3)), lengths=[1.0, 2.0]),
            "model: `lengths` must be of int64, got float64.",
        ),
        (
            lambda m: m(np.zeros((2, 5, 3)), 0),
            "model: `state` must be a State(h, c), got int.",
        ),
        (
            lambda m: m([[1], [1, 2]]),
            "model: `x` must be an array of float32, got rows of different lengths.",
        ),
        (lambda m: m([["a"]]), "model: `x` must be of float32, got <U1."),
        (lambda m: m.stream().step("abc"), "stream.step: `x` must be of float32, got <U3."),
    ],
)
def test_wrong_shapes_are_named(call, message, tmp_path):
    _, model = exported(tmp_path)
    with pytest.raises(ShapeError) as raised:
        call(model)
    assert str(raised.value) == message


@pytest.mark.parametrize("n", [0, 1.5, "two", True])
def test_a_number_of_streams_that_is_none(n, tmp_path):
    with pytest.raises(SettingError) as raised:
        exported(tmp_path)[1].streams(n)
    assert str(raised.value) == f"stream: `n` must be a whole number of at least 1, got {n!r}."


def test_both_directions_cannot_stream(tmp_path):
    _, model = exported(tmp_path, bidirectional=True)
    with pytest.raises(ShapeError, match="must see the end before its first output"):
        model.stream()


def test_a_folder_that_is_there_stays(tmp_path):
    exported(tmp_path)
    before = (tmp_path / "model" / "model.json").read_bytes()
    with pytest.raises(RunError) as raised:
        ls.export(ls.LSTM(3, 5), tmp_path / "model")
    assert str(raised.value) == (
        f"{tmp_path / 'model'}: exists. Give another name, or overwrite it: `overwrite=True`, or --overwrite."
    )
    assert (tmp_path / "model" / "model.json").read_bytes() == before
    ls.export(ls.LSTM(3, 5), tmp_path / "model", overwrite=True)
    assert runtime.load(tmp_path / "model").stack.H == 5
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("held", ["thesis.txt", "model.json", "a file"])
def test_only_an_exported_model_is_overwritten(tmp_path, held, monkeypatch):
    """Whoever says overwrite=True means an earlier copy, and no folder of other work, nor a run."""
    folder = tmp_path / "thesis"
    if held == "a file":
        folder.write_text("work")
    else:
        exported(tmp_path)
        (tmp_path / "model").rename(folder)
        (folder / held).write_text("work")
        (folder / "weights.safetensors").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(folder if folder.is_dir() else tmp_path)
    for name in (folder, "."):
        with pytest.raises(RunError) as raised:
            ls.export(ls.LSTM(3, 5), name, overwrite=True)
        assert str(raised.value) == (
            f"{name}: is no exported model, which holds model.json and weights.safetensors and nothing else, "
            f"and only such a folder is replaced. Give another name."
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "model").mkdir()
    ls.export(ls.LSTM(3, 5), tmp_path / "model", overwrite=True)
    assert runtime.load(tmp_path / "model").stack.H == 5


def test_what_the_engine_lacks_is_named(tmp_path):
    layer = ls.LSTM(3, 4, variant=Variant(gate_recurrence=True, norm="products"))
    with pytest.raises(SettingError, match="the engine has no `gate_recurrence` with `norm` = 'products'"):
        ls.export(layer, tmp_path / "model")


def test_a_copy_that_disagrees_is_not_kept(tmp_path, monkeypatch):
    from longshort.exchange import runtime_writing

    def wrong(folder, settings, arrays):
        i, f, g, o = np.split(arrays["weight_hh_l0"], 4)
        write_folder(folder, settings, arrays | {"weight_hh_l0": np.concatenate([f, i, g, o])})

    monkeypatch.setattr(runtime_writing, "write_folder", wrong)
    with pytest.raises(BackendError, match=r"the engine errs by .* It was not kept\.$"):
        exchange.save_runtime(ls.LSTM(3, 4), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def edit(folder, **changes):
    about = json.loads((folder / "model.json").read_text("utf8"))
    (folder / "model.json").write_text(json.dumps(about | changes), "utf8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors cannot be read: No such file"),
        (lambda f: (f / "model.json").write_text("{"), "is damaged"),
        (lambda f: (f / "model.json").write_text("[]"), "was not written by longshort, or is damaged"),
        (lambda f: edit(f, longshort=2), "has format 2, and this longshort reads up to 1. Install a newer"),
        (lambda f: edit(f, settings={"kind": "lstm"}), "was changed since it was written"),
        (
            lambda f: write_folder(f, {"kind": "gru"}, {}),
            "holds a model of kind 'gru', and this longshort runs 'lstm' and 'program'.",
        ),
        (lambda f: write_folder(f, {"kind": "lstm"}, {}), "its settings lack 'C'. Export the model again."),
        (
            lambda f: write_folder(f, read_folder(f)[0], {}),
            "`weight_ih_l0` must be (16, 3), got none. Export the model again.",
        ),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(damage, message, tmp_path):
    exported(tmp_path)
    damage(tmp_path / "model")
    with pytest.raises(DataError) as raised:
        runtime.load(tmp_path / "model")
    assert str(tmp_path / "model") in str(raised.value)
    assert message in str(raised.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One exported model, and a folder to put changed copies in."""
    place = tmp_path_factory.mktemp("runtime")
    exported(place)
    return place / "model"


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data(), name=st.sampled_from(["model.json", "weights.safetensors"]))
def test_changed_bytes_are_always_found(data, name, folder, tmp_path_factory):
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(0, 255))
    if chr(content[at]).isspace() or new == content[at]:
        return
    content[at] = new
    copy = tmp_path_factory.mktemp("changed")
    for one in ("model.json", "weights.safetensors"):
        (copy / one).write_bytes(content if one == name else (folder / one).read_bytes())
    with pytest.raises(DataError):
        runtime.load(copy)
