"""What `look` is given: each argument that cannot be, and what is said of it."""

import pytest
import torch
from models import Reader
from torch import nn

from longshort import look
from longshort.errors import SettingError, ShapeError

torch.manual_seed(0)
MODEL, X, Y = Reader(nn.LSTM, 2, 6, 1), torch.randn(12, 15, 2), torch.randn(12)
OTHERS = "look: `compare` must be models by name, each a torch module or a list of them, one a seed, got "
FRAMES = "look: `film` must be frames of a Recorder, each with step, length, lags, full, half and gates, got "
SEED = "look: `seed` must be a whole number from 0 to 2**64 - 1, got "
STEPS = "look: `required` must be a number of steps, 1 or more, got "
FORM = "(torch.as_tensor makes a tensor of an array or a list), and the model says: "


def squared(out):
    return (out[:, 0] - Y).square()


@pytest.mark.parametrize(("given", "message"), [
    ({"loss": "mse"}, "look: `loss` must be a function such as lambda out: ..., or None, got 'mse'."),
    ({"loss": lambda out: squared(out.detach())},
     "look: `loss` must pass gradients on to what Reader returns, got a loss without. Leave out detach(), "
     "no_grad() and argmax in it."),
    ({"loss": lambda out: out["y"]},
     "look: `loss` must take what the model returns, (12, 1), and says: TypeError: new(): invalid data type "
     "'str'"),
    ({"output": 3}, "look: `output` must be a function such as lambda out: ..., or None, got 3."),
    ({"output": lambda out: {}["y"]},
     "look: `output` must pick a tensor out of what the model returns, (12, 1), and says: KeyError: 'y'"),
    ({"output": torch.Tensor.detach},
     "look: what Reader returns must carry gradients, got a tensor without. Leave out no_grad() and detach() "
     "in its forward, and in `output`."),
    ({"required": "4"}, f"{STEPS}'4'."),
    ({"required": -1}, f"{STEPS}-1."),
    ({"required": 0}, f"{STEPS}0."),
    ({"required": 15},
     "look: `required` must be less than the 15 steps of the sequences, got 15. Give longer "
     "sequences: these cannot show what is kept for so long."),
    ({"seed": "a"}, f"{SEED}'a'."),
    ({"seed": -1}, f"{SEED}-1."),
    ({"compare": {"a": "b"}}, f"{OTHERS}'b'."),
    ({"compare": [MODEL]}, f"{OTHERS}list."),
    ({"compare": {"a": []}}, f"{OTHERS}{{'a': []}}."),
    ({"compare": {"a": nn.Linear(2, 1)}},
     "look: each model of `compare`, such as 'a', must contain an LSTM, GRU or RNN of torch.nn or "
     "longshort.LSTM; Linear holds no layers at all. Cells in a hand-written loop cannot be looked into: put "
     "one of these layers in their place."),
    ({"tokens": [["a"]]},
     "look: `tokens` must have a text for each step of each sequence, 12 lists of 15, got 1 of 1."),
    ({"tokens": [["a"] * 15, *[["a"] * 14] * 11]},
     "look: `tokens` must have a text for each step of each sequence, 12 lists of 15, got 12 of 14 to 15."),
    ({"names": ["a"]}, "look: `names` must name each of the 12 sequences, got 1."),
    ({"channels": "ab"}, "look: `channels` must be a list of texts, got 'ab'."),
    ({"film": [{"a": 1}]}, f"{FRAMES}[{{'a': 1}}]."),
    ({"title": 3}, "look: `title` must be a text, got 3."),
    ({"layer": 3}, "look: `layer` must be the name of a layer, or None, got 3."),
    ({"vocabulary": []}, "look: `vocabulary` must be one of classic, LTM/STM, torch, got []."),
])  # fmt: skip
def test_an_argument_that_cannot_be(given, message):
    with pytest.raises(SettingError) as raised:
        look(MODEL, X, **given)
    assert str(raised.value) == message


@pytest.mark.parametrize(("x", "message"), [
    (X.numpy(), f"ndarray {FORM}'numpy.ndarray' object has no attribute 'dim'"),
    (X.tolist(), f"list {FORM}'list' object has no attribute 'dim'"),
    ({"x": X}, "dict, and the model says: 'dict' object has no attribute 'dim'"),
], ids=["array", "list", "dict"])  # fmt: skip
def test_an_input_that_is_no_tensor(x, message):
    with pytest.raises(ShapeError) as raised:
        look(MODEL, x)
    assert str(raised.value) == f"look: `input` must be what Reader takes, got {message}"


def test_tokens_are_lists_or_letters_with_the_padding_or_without():
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(2, 4, 3), [4, 2], batch_first=True)
    for rows in (["abcd", "ef"], [list("abcd"), list("ef..")]):
        assert look(nn.LSTM(3, 2, batch_first=True), packed, tokens=rows).tokens[0] == list("abcd")


@pytest.fixture(scope="module")
def seen():
    return look(MODEL, X)


@pytest.mark.parametrize("name", ["k.png", "weights.safetensors", "page"])
def test_a_page_takes_the_name_of_a_page(seen, tmp_path, name):
    path = tmp_path / name
    path.write_text("kept")
    with pytest.raises(SettingError) as raised:
        seen.save(path)
    assert str(raised.value) == (
        f"look: `path` must end in .html or .htm, got {path}: what is written is a page, and would replace a "
        "file of that name."
    )
    assert path.read_text() == "kept"


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_is_more_than_nothing(seen, limit):
    with pytest.raises(SettingError) as raised:
        seen.html(limit)
    assert str(raised.value) == f"look: `limit` must be a number of bytes above 0, got {limit}."


@pytest.mark.parametrize(("required", "loss", "mark"), [
    (3, None, "✓"), (5, None, "!"), (14, None, "!"), (5, squared, "!"), (14, squared, "!"),
])  # fmt: skip
def test_a_need_that_is_not_met_is_not_ticked(required, loss, mark):
    """An untrained model, in which gradient reaches 7 steps and a probe reads 3."""
    torch.manual_seed(0)
    model = Reader(nn.LSTM, 2, 6, 1)
    made = look(model, torch.randn(12, 15, 2), loss=loss, required=required)
    (line,) = (line for line in str(made).split("\n") if "Three horizons" in line)
    assert line.startswith(mark) and f"; the task needs {required}. " in line
    assert (made.flow.horizon, made.stored.horizon) == (7, 3)
    if loss is None:
        told = {
            3: "What is needed is stored; whether it is used takes a loss to say.",
            5: "Gradient reaches 7 steps, and a linear probe reads 3 steps from the state: what is needed ",
            14: "Both are below the 14 that are needed: raise the bias of the forget gate ",
        }
        assert told[required] in line
