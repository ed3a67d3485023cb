"""A run of a language model, exported by the command line: the same scores everywhere, whole and by token."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

import longshort as ls
from longshort import cli, engine, runtime
from longshort.errors import SettingError

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 60
FAST = [
    "--max-steps", "3", "--hidden", "24", "--embedding", "10", "--layers", "2", "--tied", "--window", "16",
    "--device", "cpu",
]  # fmt: skip
needs_engine = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two layers of different widths trained by the command line, its exports, and what it says."""
    place = tmp_path_factory.mktemp("runs")
    (place / "book.txt").write_text(TEXT)
    folder = str(place / "run")
    assert cli.main(["train", "language", str(place / "book.txt"), *FAST, "--out", folder]) == 0
    assert cli.main(["export", folder, "--to", "onnx"]) == 0
    assert cli.main(["export", folder, "--to", "onnx", "--streaming"]) == 0
    if engine.available():
        assert cli.main(["export", folder, "--to", "runtime"]) == 0
    model = ls.LanguageModel.load(folder)
    tokens = torch.from_numpy(np.stack([model.vocabulary.encode(text)[0] for text in (TEXT[:9], TEXT[7:16])]))
    with torch.no_grad():
        read = model.network(tokens)
        scores = model.network.decoder(read.h).numpy()
    state = [part.numpy() for layer in read.state for part in layer]
    return SimpleNamespace(
        folder=place / "run", model=model, tokens=tokens.numpy(), scores=scores, state=state
    )


def session(run, name):
    return onnxruntime.InferenceSession(run.folder / f"{name}.onnx")


def fed(graph, state, tokens):
    """The inputs of a graph by name; the state in its order, or zeros before the first token."""
    ports = graph.get_inputs()[:-1]
    if state is None:
        state = [np.zeros((1, len(tokens), port.shape[2]), np.float32) for port in ports]
    return {**{port.name: part for port, part in zip(ports, state, strict=True)}, "tokens": tokens}


def near(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_what_goes_in_and_comes_out(run):
    whole, step = session(run, "model"), session(run, "step")
    sizes = {"l0": 24, "l1": 10}
    before = [(f"{part}0_{layer}", [1, "N", H]) for layer, H in sizes.items() for part in "hc"]
    after = [(f"{part}_n_{layer}", [1, "N", H]) for layer, H in sizes.items() for part in "hc"]
    V = len(run.model.vocabulary)
    for graph, axes in ((whole, ["N", "T"]), (step, ["N"])):
        inputs = [(port.name, port.shape) for port in graph.get_inputs()]
        outputs = [(port.name, port.shape) for port in graph.get_outputs()]
        assert inputs == [*before, ("tokens", axes)]
        assert outputs == [("scores", [*axes, V]), *after]


def test_in_onnxruntime(run):
    """At once, in two parts, and token by token: the same scores and the same state at the end."""
    whole, step = session(run, "model"), session(run, "step")
    scores, *state = whole.run(None, fed(whole, None, run.tokens))
    near(scores, run.scores)
    for got, want in zip(state, run.state, strict=True):
        near(got, want)
    first, *state = whole.run(None, fed(whole, None, run.tokens[:, :4]))
    second, *after = whole.run(None, fed(whole, state, run.tokens[:, 4:]))
    near(np.concatenate([first, second], axis=1), run.scores)
    for t in range(4, 9):
        scores, *state = step.run(None, fed(step, state, run.tokens[:, t]))
        near(scores, run.scores[:, t])
    for got, part, want in zip(state, after, run.state, strict=True):
        near(got, want)
        near(part, want)
    forgotten = step.run(None, fed(step, None, run.tokens[:, -1]))[0]
    assert np.abs(forgotten - run.scores[:, -1]).max() > 1e-4


@needs_engine
@pytest.mark.parametrize(("weights", "error"), [("float32", 2e-6), ("bfloat16", 2e-2), ("int8", 5e-2)])
def test_in_the_runtime(weights, error, run):
    copy = runtime.load(run.folder / "model", weights=weights)
    np.testing.assert_allclose(copy(run.tokens), run.scores, rtol=0, atol=error)
    stream = copy.stream(run.tokens[:, :4])
    np.testing.assert_allclose(stream.output[:, -1], run.scores[:, 3], rtol=0, atol=error)
    for t in range(4, 9):
        got = stream.step(tokens=run.tokens[:, t])
        np.testing.assert_allclose(got, run.scores[:, t], rtol=0, atol=error)
    for got, want in zip(stream.state.values(), run.state, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=error)


@needs_engine
@pytest.mark.parametrize(
    "settings", [{"unit": "word", "decoder": "adaptive"}, {"unit": "byte", "short_decoder": True}]
)
def test_every_decoder_goes_out(settings, tmp_path):
    """Short products go out as full ones: they are a matter of the machine that trains."""
    text = (
        "\n".join(f"{a} {b}" for a in ["one", "two", "three", "four"] for b in ["five", "six", "seven"]) * 9
    )
    model = ls.LanguageModel(hidden=16, embedding=8, max_steps=2, window=8, batch=4, **settings)
    model.fit(text, device="cpu", quiet=True)
    ls.export(model, tmp_path / "m")
    tokens = torch.arange(14).view(2, 7) % len(model.vocabulary)
    with torch.no_grad():
        want = model.network.decoder(model.network(tokens).h)
    error = 2e-2 if "short_decoder" in settings else 2e-6
    copy = runtime.load(tmp_path / "m")
    np.testing.assert_allclose(copy(tokens.numpy()), want.numpy(), rtol=0, atol=error)
    assert copy.about["vocabulary"]["unit"] == settings["unit"]


@needs_engine
def test_a_token_that_there_is_not(run):
    copy, V = runtime.load(run.folder / "model"), len(run.model.vocabulary)
    stream = copy.stream(run.tokens)
    rest = "Encode it as for the fit: text by the model's own vocabulary."
    for call, message in (
        (lambda: copy([[0, V]]), f"model: `tokens` must be in [0, {V}), got {V} at [0, 1]. {rest}"),
        (
            lambda: stream.step(tokens=[3, -1]),
            f"stream.step: `tokens` must be in [0, {V}), got -1 at [1]. {rest}",
        ),
    ):
        with pytest.raises(SettingError) as raised:
            call()
        assert str(raised.value) == message


def test_a_format_that_holds_one_layer(run, tmp_path):
    with pytest.raises(SettingError) as raised:
        ls.export(run.model, tmp_path / "m.keras")
    assert str(raised.value) == (
        "export: a longshort.LanguageModel goes whole, to ONNX or to a folder for the runtime. For the other "
        "formats export a layer of its `network`."
    )
