"""A language model exported: the same scores from the runtime and onnxruntime, whole and by token."""

import numpy as np
import onnxruntime
import pytest
import torch

import longshort as ls
from longshort import cli, engine, runtime
from longshort.errors import SettingError

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 60
needs_engine = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")


@pytest.fixture(scope="module")
def model():
    """Two layers, fitted for a few steps."""
    return ls.LanguageModel(hidden=24, layers=2, max_steps=3, seed=0).fit(TEXT, device="cpu", quiet=True)


@pytest.fixture(scope="module")
def scores(model):
    """Tokens (2, 9), and the scores of the next ones."""
    tokens = torch.arange(18).view(2, 9) % len(model.vocabulary)
    with torch.no_grad():
        return tokens.numpy(), model.network.eval().decoder(model.network(tokens).h).numpy()


@needs_engine
@pytest.mark.parametrize(("weights", "error"), [("float32", 2e-6), ("bfloat16", 2e-2), ("int8", 5e-2)])
def test_in_the_runtime(weights, error, model, scores, tmp_path):
    tokens, want = scores
    ls.export(model, tmp_path / "m", weights=weights)
    copy = runtime.load(tmp_path / "m")
    np.testing.assert_allclose(copy(tokens), want, rtol=0, atol=error)
    stream = copy.stream(tokens[:, :4])
    np.testing.assert_allclose(stream.output[:, -1], want[:, 3], rtol=0, atol=error)
    for t in range(4, 9):
        np.testing.assert_allclose(stream.step(tokens=tokens[:, t]), want[:, t], rtol=0, atol=error)


def test_in_onnxruntime(model, scores, tmp_path):
    tokens, want = scores
    ls.export(model, tmp_path / "whole.onnx")
    ls.export(model, tmp_path / "step.onnx", streaming=True)
    whole, step = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("whole", "step"))
    got, *state = whole.run(None, {"tokens": tokens[:, :4]})
    np.testing.assert_allclose(got, want[:, :4], rtol=0, atol=2e-6)
    kept = [port.name for port in step.get_inputs()][:-1]
    for t in range(4, 9):
        got, *state = step.run(None, {**dict(zip(kept, state, strict=True)), "tokens": tokens[:, t]})
        np.testing.assert_allclose(got, want[:, t], rtol=0, atol=2e-6)


@needs_engine
def test_a_run_from_the_command_line(model, tmp_path, capsys):
    model.save(tmp_path / "book")
    assert cli.main(["export", str(tmp_path / "book"), "--to", "runtime"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "book" / "model")
    tokens = np.zeros((1, 3), np.int64)
    assert runtime.load(tmp_path / "book" / "model")(tokens).shape == (1, 3, len(model.vocabulary))


def test_a_format_that_holds_one_layer(model, tmp_path):
    with pytest.raises(SettingError) as raised:
        ls.export(model, tmp_path / "m.keras")
    assert str(raised.value) == (
        "export: a longshort.LanguageModel goes whole, to ONNX or to a folder for the runtime. For the other "
        "formats export a layer of its `network`."
    )
