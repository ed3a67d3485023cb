"""torch.nn.LSTM and back: the same weights, the same numbers, and what torch cannot say."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import longshort as ls
from longshort import exchange
from longshort.errors import DataError, SettingError
from longshort.scan import Noise, Variant

CASES = {
    "plain": {},
    "stacked both ways": {"num_layers": 2, "bidirectional": True, "dropout": 0.2},
    "no bias": {"bias": False},
    "projected": {"proj_size": 2, "num_layers": 2},
    "float64": {"dtype": torch.float64},
}
each_case = pytest.mark.parametrize("arguments", CASES.values(), ids=[n.replace(" ", "-") for n in CASES])


def outputs(layer, x):
    y, (h, c) = layer.eval()(x)
    return y, h, c


@each_case
def test_a_model_goes_to_torch_and_back(arguments):
    model = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(3, 3)), "lstm": ls.LSTM(3, 4, **arguments)})
    theirs = exchange.to_torch(model)
    assert type(theirs["lstm"]) is nn.LSTM
    assert isinstance(model["lstm"], ls.LSTM)
    x = torch.randn(5, 2, 3, dtype=arguments.get("dtype"))
    again = ls.convert(theirs)["lstm"]
    for layer in (theirs["lstm"], again):
        for got, want in zip(outputs(layer, x), outputs(model["lstm"], x), strict=True):
            torch.testing.assert_close(got, want)


@each_case
def test_weights_through_a_file(arguments, tmp_path):
    layer = ls.LSTM(3, 4, **arguments)
    exchange.save_torch(layer, tmp_path / "w.safetensors")
    again = exchange.load_torch(tmp_path / "w.safetensors")
    assert {k: tuple(v.shape) for k, v in again.state_dict().items()} == {
        k: tuple(v.shape) for k, v in layer.state_dict().items()
    }
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters(), strict=True))


def test_one_of_several_by_its_name(tmp_path):
    from safetensors.torch import save_file

    model = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": nn.LSTM(4, 5), "head": nn.Linear(5, 1)})
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert torch.equal(
        exchange.load_torch(tmp_path / "w.safetensors", "b").weight_hh_l0, model["b"].weight_hh_l0
    )
    with pytest.raises(DataError) as raised:
        exchange.load_torch(tmp_path / "w.safetensors")
    assert str(raised.value) == f"{tmp_path / 'w.safetensors'}: holds 2 LSTMs, a, b. Say which with `name`."
    with pytest.raises(DataError, match=r"holds no LSTM named 'c'\. Those it holds: a, b\.$"):
        exchange.load_torch(tmp_path / "w.safetensors", "c")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": Variant(peephole=True)}, "peephole"),
        ({"noise": Noise(zoneout_c=0.1)}, "zoneout_c"),
        ({"learn_initial": True}, "learn_initial"),
    ],
)
def test_what_torch_cannot_say_is_named(options, named):
    model = nn.Sequential(nn.Linear(3, 3), ls.LSTM(3, 4, **options))
    with pytest.raises(SettingError, match=rf"to_torch: the layer `1`.*{named}"):
        exchange.to_torch(model)


def broken(content, how):
    return {"cut": content[: len(content) // 2], "no file": None, "empty": b"", "text": b"hello" * 40}[how]


@pytest.mark.parametrize("how", ["cut", "no file", "empty", "text"])
def test_a_file_that_is_none(how, tmp_path):
    path = tmp_path / "w.safetensors"
    exchange.save_torch(ls.LSTM(3, 4), path)
    content = broken(path.read_bytes(), how)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors: (cannot be read|is damaged)"):
        exchange.load_torch(path)


def test_one_bias_of_two(tmp_path):
    from safetensors.torch import save_file

    state = nn.LSTM(3, 4).state_dict()
    del state["bias_ih_l0"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError) as raised:
        exchange.load_torch(tmp_path / "w.safetensors")
    assert str(raised.value) == (
        f"{tmp_path / 'w.safetensors'}, layer 0: must have bias_hh, bias_ih, weight_hh, weight_ih, got "
        "bias_hh, "
        f"weight_hh, weight_ih. The file is damaged."
    )


def test_a_weight_of_another_shape(tmp_path):
    from safetensors.torch import save_file

    state = nn.LSTM(3, 4).state_dict()
    state["weight_hh_l0"] = torch.zeros(16, 5)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"layer 0: `weight_hh` must be \(4H, H\) = \(16, 4\), got \(16, 5\)"):
        exchange.load_torch(tmp_path / "w.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_changed_bytes_give_an_error_or_an_lstm_of_that_file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "w.safetensors"
    exchange.save_torch(ls.LSTM(1, 1), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.sampled_from([1, 4, 40]))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        layer = exchange.load_torch(path)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert (layer.input_size, layer.hidden_size, layer.num_layers) == (1, 1, 1)
        assert all(torch.isfinite(p).all() for p in layer.parameters())
