"""Keras files in and out, held against Keras itself on its torch backend."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl

import longshort as ls
from longshort import exchange
from longshort.errors import DataError, MissingExtra, SettingError
from longshort.scan import Noise, Variant

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning", "ignore:.*HDF5:UserWarning")


def model(*layers, channels=3):
    """A Sequential with weights that are not zero, biases too."""
    built = keras.Sequential([kl.Input((None, channels)), *layers])
    random = np.random.default_rng(0)
    built.set_weights([random.normal(0, 0.7, w.shape) for w in built.get_weights()])
    return built


def lstm(units=4, **options):
    return kl.LSTM(units, return_sequences=True, **options)


IN = {
    "plain": lambda: [lstm()],
    "no bias": lambda: [lstm(use_bias=False)],
    "both ways": lambda: [kl.Bidirectional(lstm())],
    "both ways, each its own": lambda: [kl.Bidirectional(lstm(), backward_layer=lstm(go_backwards=True))],
    "stacked": lambda: [lstm(), kl.Dropout(0.2), lstm()],
    "stacked both ways": lambda: [kl.Bidirectional(lstm()), kl.Bidirectional(lstm())],
    "hard sigmoid": lambda: [lstm(recurrent_activation="hard_sigmoid")],
    "linear": lambda: [lstm(activation="linear")],
    "dropout": lambda: [lstm(dropout=0.1, recurrent_dropout=0.2)],
    "float64": lambda: [lstm(dtype="float64")],
}
OUT = {
    "plain": {},
    "stacked both ways": {"num_layers": 2, "bidirectional": True, "dropout": 0.2},
    "no bias": {"bias": False},
    "hard sigmoid": {"variant": Variant(gate_activation="hard_sigmoid")},
    "linear": {"variant": Variant(input_activation=False, output_activation=False), "num_layers": 3},
    "dropout": {"noise": Noise(variational_x=0.1, variational_h=0.2)},
    "float64": {"dtype": torch.float64},
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=[name.replace(" ", "-") for name in table])


@pytest.mark.parametrize("ending", ["keras", "h5"])
@cases(IN)
def test_a_keras_model_comes_in(case, ending, tmp_path):
    theirs = model(*case())
    theirs.save(tmp_path / f"m.{ending}")
    ours = exchange.load_keras(tmp_path / f"m.{ending}")
    x = 2 * np.random.randn(2, 7, 3).astype(theirs.dtype)
    x = x.astype(theirs.layers[0].compute_dtype)
    want = theirs(x, training=False).detach().numpy()
    tolerance = 1e-12 if x.dtype == np.float64 else 2e-6
    np.testing.assert_allclose(ours(torch.tensor(x))[0].detach().numpy(), want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("ending", ["keras", "h5"])
@cases(OUT)
def test_a_layer_goes_out_and_comes_back(case, ending, tmp_path):
    ours = ls.LSTM(3, 4, batch_first=True, **case).eval()
    path = tmp_path / f"m.{ending}"
    ls.export(ours, path)
    theirs = keras.saving.load_model(path)
    x = 2 * torch.randn(2, 7, 3, dtype=case.get("dtype"))
    want = ours(x)[0].detach().numpy()
    np.testing.assert_allclose(theirs(x.numpy(), training=False).detach().numpy(), want, rtol=0, atol=2e-6)
    again = exchange.load_keras(path)
    assert (again.variant, again.noise, again.dropout) == (ours.variant, ours.noise, ours.dropout)
    np.testing.assert_allclose(again(x)[0].detach().numpy(), want, rtol=0, atol=1e-6)


def test_dropout_of_keras_becomes_noise(tmp_path):
    model(lstm(dropout=0.1, recurrent_dropout=0.2)).save(tmp_path / "m.keras")
    assert exchange.load_keras(tmp_path / "m.keras").noise == Noise(variational_x=0.1, variational_h=0.2)


def test_layers_by_name_and_inside_models(tmp_path):
    inner = model(lstm(name="inner"), channels=4)
    whole = model(lstm(name="outer"), kl.Dense(4), inner)
    whole.save(tmp_path / "m.keras")
    assert exchange.keras_names(tmp_path / "m.keras") == ["outer", "inner"]
    for name, layer in (("outer", whole.layers[0]), ("inner", inner.layers[0])):
        ours = exchange.to_keras_weights(exchange.load_keras(tmp_path / "m.keras", name))[0]
        for got, want in zip(ours, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(got, want)
    with pytest.raises(DataError, match=r"holds 2 LSTMs, outer, inner\. Say which with `name`\."):
        exchange.load_keras(tmp_path / "m.keras")


def side_by_side(x):
    return kl.Add()([lstm(name="a")(x), lstm(name="b")(x)])


def past_one(x):
    return lstm(name="b")(kl.Add()([x, lstm(name="a")(x)]))


def after_each_other(x):
    return lstm(name="b")(kl.Dropout(0.1)(lstm(name="a")(x)))


def with_the_state(x):
    y, h, c = lstm(name="a", return_state=True)(x)
    return lstm(name="b")(y, initial_state=[h, c])


def functional(build):
    x = kl.Input((None, 4))
    return keras.Model(x, build(x))


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("build", [side_by_side, past_one, with_the_state])
def test_layers_that_are_no_stack(build, ending, tmp_path):
    path = tmp_path / f"m.{ending}"
    model(functional(build), channels=4).save(path)
    with pytest.raises(DataError) as raised:
        exchange.load_keras(path)
    assert str(raised.value) == f"{path}: holds 2 LSTMs, a, b. Say which with `name`."
    with pytest.raises(DataError) as raised:
        exchange.load_keras(path, ["a", "b"])
    assert str(raised.value) == (
        f"{path}: the layers that `name` gives must form one stack, each reading the one before, and "
        f"`b` is not known to read `a` alone. Read them one by one."
    )
    assert exchange.load_keras(path, "b").num_layers == 1


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_layers_of_a_functional_model_by_their_names(ending, tmp_path):
    theirs = functional(after_each_other)
    theirs.save(tmp_path / f"m.{ending}")
    ours = exchange.load_keras(tmp_path / f"m.{ending}", ["a", "b"])
    x = np.random.randn(2, 5, 4).astype(np.float32)
    want = theirs(x, training=False).detach().numpy()
    np.testing.assert_allclose(ours(torch.tensor(x))[0].detach().numpy(), want, rtol=0, atol=2e-6)
    with pytest.raises(DataError, match="`a` is not known to read `b` alone"):
        exchange.load_keras(tmp_path / f"m.{ending}", ["b", "a"])


def test_two_layers_of_one_name(tmp_path):
    inner = [keras.Sequential([kl.Input((None, 4)), lstm(name="a")], name=name) for name in ("one", "two")]
    model(*inner, channels=4).save(tmp_path / "m.keras")
    with pytest.raises(DataError) as raised:
        exchange.load_keras(tmp_path / "m.keras")
    assert str(raised.value) == (
        f"{tmp_path / 'm.keras'}: holds several LSTMs named 'a', in models inside the model. Give each a "
        f"name of its own in Keras, and save it again."
    )


def old_file(path, version, entry, arrays):
    """An .h5 as Keras 1 and 2 wrote it."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        config = {"class_name": "Sequential", "config": [entry] if version < "2.2" else {"layers": [entry]}}
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights/lstm_1")
        names = [f"lstm_1/w{k}:0" for k in range(len(arrays))]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, value in zip(names, arrays, strict=True):
            group[name] = value
    return path


def by_hand(x, kernel, recurrent, bias, gate):
    """Keras' LSTM of one sequence, in NumPy: gates i, f, c, o."""
    h = c = np.zeros(recurrent.shape[0])
    for row in x:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    return h


def hard(a):
    return np.clip(0.2 * a + 0.5, 0, 1)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def drawn(*shapes):
    random = np.random.default_rng(1)
    return [random.normal(0, 0.8, shape) for shape in shapes]


def test_keras_2_keeps_its_hard_sigmoid(tmp_path):
    arrays = drawn((3, 16), (4, 16), (16,))
    entry = {
        "class_name": "LSTM",
        "config": {"name": "lstm_1", "units": 4, "recurrent_activation": "hard_sigmoid"},
    }
    ours = exchange.load_keras(old_file(tmp_path / "old.h5", "2.2.4", entry, arrays))
    x = np.random.randn(6, 3)
    got = ours(torch.tensor(x)[None])[1].h[0, 0].detach().numpy()
    np.testing.assert_allclose(got, by_hand(x, *arrays, hard), atol=1e-12)
    assert np.abs(got - by_hand(x, *arrays, lambda a: np.clip(a / 6 + 0.5, 0, 1))).max() > 1e-3


def test_keras_1_with_an_array_for_each_gate(tmp_path):
    kernel, recurrent, bias = drawn((3, 16), (4, 16), (16,))
    parts = [dict(zip("ifco", np.split(a, 4, axis=-1), strict=True)) for a in (kernel, recurrent, bias)]
    arrays = [part[gate] for gate in "icfo" for part in parts]
    config = {"name": "lstm_1", "output_dim": 4, "inner_activation": "hard_sigmoid", "activation": "tanh"}
    ours = exchange.load_keras(
        old_file(tmp_path / "old.h5", "1.2.2", {"class_name": "LSTM", "config": config}, arrays)
    )
    x = np.random.randn(6, 3)
    got = ours(torch.tensor(x)[None])[1].h[0, 0].detach().numpy()
    np.testing.assert_allclose(got, by_hand(x, kernel, recurrent, bias, hard), atol=1e-12)


def test_cudnn_of_keras_2_has_two_biases_and_turned_kernels(tmp_path):
    kernel, recurrent, bias, second = drawn((3, 16), (4, 16), (16,), (16,))
    turned = [
        np.hstack([k.reshape(k.shape[::-1], order="F").T for k in np.hsplit(kernel, 4)]),
        np.hstack([k.T for k in np.hsplit(recurrent, 4)]),
        np.concatenate([bias, second]),
    ]
    entry = {"class_name": "CuDNNLSTM", "config": {"name": "lstm_1", "units": 4}}
    ours = exchange.load_keras(old_file(tmp_path / "old.h5", "2.2.4", entry, turned))
    x = np.random.randn(6, 3)
    got = ours(torch.tensor(x)[None])[1].h[0, 0].detach().numpy()
    np.testing.assert_allclose(got, by_hand(x, kernel, recurrent, bias + second, sigmoid), atol=1e-12)
    np.testing.assert_array_equal(ours.bias_hh_l0.detach().numpy(), second)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: lstm(go_backwards=True), "runs backwards by itself (`go_backwards`)"),
        (
            lambda: kl.Bidirectional(lstm(go_backwards=True), backward_layer=lstm()),
            "`go_backwards` must be False in its first direction and True in its second, got True and False",
        ),
        (lambda: kl.Bidirectional(lstm(), merge_mode="sum"), "its `merge_mode` must be 'concat', got 'sum'"),
        (lambda: lstm(activation="relu"), "for the cell, got 'sigmoid' and 'relu'"),
        (lambda: kl.GRU(4), "holds no LSTM"),
    ],
)
def test_what_this_layer_lacks_is_named(layer, message, tmp_path):
    model(layer()).save(tmp_path / "m.keras")
    with pytest.raises(DataError) as raised:
        exchange.load_keras(tmp_path / "m.keras")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": Variant(peephole=True)}, "`peephole`"),
        ({"proj_size": 2}, "`proj_size`"),
        ({"noise": Noise(zoneout_h=0.1)}, "`zoneout_h`"),
        ({"variant": Variant(output_activation=False)}, "`output_activation`"),
    ],
)
def test_what_keras_cannot_say_is_named(options, named, tmp_path):
    with pytest.raises(SettingError) as raised:
        exchange.save_keras(ls.LSTM(3, 4, **options), tmp_path / "m.keras")
    assert str(raised.value) == (
        f"to_keras: keras.layers.LSTM has no counterpart of {named}. "
        f"Export the layer to ONNX, or train it without."
    )
    assert list(tmp_path.iterdir()) == []


def edited(path, change):
    """The .keras file with its settings changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(parts, config["config"]["layers"][1]["config"])
    parts.setdefault("config.json", b"")
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in (parts | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, content)
    path.write_bytes(memory.getvalue())


DAMAGES = {
    "another width": (lambda parts, c: c.update(units=5), "its settings say 5 units, and its weights have 4"),
    "units as text": (lambda parts, c: c.update(units="4"), "`units` must be of type int, got '4'"),
    "a rate of 2": (lambda parts, c: c.update(dropout=2.0), "`variational_x` must be in [0.0, 1), got 2.0"),
    "a bias too few": (lambda parts, c: c.update(use_bias=False), "disagree on `use_bias`"),
    "no weights": (lambda parts, c: parts.pop("model.weights.h5"), "is a zip file, but no Keras model"),
    "weights that are none": (
        lambda parts, c: parts.update({"model.weights.h5": b"x" * 99}),
        "is no HDF5 file",
    ),
    "another name": (
        lambda parts, c: parts.update({"metadata.json": b"[]"}),
        "must be a JSON object, got list",
    ),
    "no version": (lambda parts, c: parts.update({"metadata.json": b"{}"}), "version must be a number"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=[name.replace(" ", "-") for name in DAMAGES])
def test_a_damaged_file_says_what_is_wrong(damage, tmp_path):
    change, message = damage
    path = tmp_path / "m.keras"
    exchange.save_keras(ls.LSTM(3, 4), path)
    edited(path, change)
    with pytest.raises(DataError) as raised:
        exchange.load_keras(path)
    assert message.replace("[0.0", "[0") in str(raised.value).replace("[0.0", "[0")


def test_weights_of_a_bidirectional_by_hand():
    layer = kl.Bidirectional(lstm(recurrent_activation="hard_sigmoid"))
    layer.build((None, None, 3))
    ours = exchange.from_keras_weights(layer.get_weights(), hard_sigmoid=1 / 6)
    x = np.random.randn(2, 5, 3).astype(np.float32)
    want = layer(x).detach().numpy()
    np.testing.assert_allclose(ours(torch.tensor(x))[0].detach().numpy(), want, atol=1e-6)
    with pytest.raises(DataError, match="`arrays` must be the 2 or 3 arrays of an LSTM"):
        exchange.from_keras_weights([np.zeros((3, 16))])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small file of each kind, and its weights."""
    folder = tmp_path_factory.mktemp("keras")
    exchange.save_keras(ls.LSTM(1, 1), folder / "m.keras")
    entry = {"class_name": "LSTM", "config": {"name": "lstm_1", "units": 1}}
    old_file(folder / "m.h5", "2.2.4", entry, drawn((1, 4), (1, 4), (4,)))
    return {name: (folder / name).read_bytes() for name in ("m.keras", "m.h5")}


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_changed_bytes_give_an_error_or_an_lstm_of_that_file(name, data, files, tmp_path_factory):
    """The file may be read as what it now says; it may never crash the process, or give another layer."""
    content = bytearray(files[name])
    for _ in range(data.draw(st.sampled_from([1, 4, 40]))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / name
    path.write_bytes(content)
    try:
        layer = exchange.load_keras(path)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert (layer.input_size, layer.hidden_size, layer.num_layers) == (1, 1, 1)
        assert all(torch.isfinite(p).all() for p in layer.parameters())


def test_a_file_that_ends_the_reader_is_an_error(files, monkeypatch, tmp_path):
    """libhdf5 dies of some damaged files; that process is not this one."""
    dying = tmp_path / "dying.py"
    dying.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr("longshort.exchange.hdf5.CHILD", dying)
    (tmp_path / "m.h5").write_bytes(files["m.h5"])
    with pytest.raises(DataError) as raised:
        exchange.load_keras(tmp_path / "m.h5")
    path = tmp_path / "m.h5"
    assert str(raised.value) == f"{path}: is damaged or is no HDF5 file: reading it ended the process."


def test_the_reader_finds_h5py_where_this_process_does(files, monkeypatch, tmp_path):
    """By PYTHONPATH or in a user's own folder of packages, which an isolated Python leaves out."""
    (tmp_path / "h5py.py").write_text("raise ImportError('the h5py of PYTHONPATH')\n")
    (tmp_path / "m.h5").write_bytes(files["m.h5"])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra) as raised:
        exchange.load_keras(tmp_path / "m.h5")
    assert str(raised.value) == (
        f"{tmp_path / 'm.h5'}: the process that reads HDF5 files cannot import what it needs: the h5py of "
        f"PYTHONPATH. Install h5py and NumPy where this Python looks for packages, not in the current folder."
    )


def test_the_reader_takes_nothing_from_the_current_folder(files, monkeypatch, tmp_path):
    (tmp_path / "h5py.py").write_text("raise ImportError('the h5py of the current folder')\n")
    (tmp_path / "m.h5").write_bytes(files["m.h5"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert exchange.load_keras(tmp_path / "m.h5").hidden_size == 1
