"""The equations against implementations that nobody here wrote: ONNX's own node cases, and Keras."""

import os
import warnings
from functools import cache

import numpy as np
import pytest
import torch

from longshort.scan import Variant, lstm

NAMES = ["defaults", "with_initial_bias", "with_peepholes", "batchwise", "reverse", "bidirectional"]


@cache
def node_cases():
    """ONNX's LSTM cases by name; making them makes those of every operator, some with overflows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = [c for c in collect_testcases(None) if c.model.graph.node[0].op_type == "LSTM"]
    return {case.name.removeprefix("test_lstm_"): case for case in found}


def blocks(array, order):
    """Stacked blocks in ONNX's order, i o f g or i o f -> ours, i f g o or i f o."""
    parts = dict(zip(order, np.split(array, len(order)), strict=True))
    return torch.from_numpy(np.concatenate([parts[k] for k in "ifgo" if k in parts]))


def direction(named, d, reverse, batch_first, backend):
    """One direction of an ONNX LSTM node: y (N, T, H), h and c (N, H)."""
    x = torch.from_numpy(named["X"])
    weights = {"w_ih": blocks(named["W"][d], "iofg"), "w_hh": blocks(named["R"][d], "iofg")}
    if "B" in named:
        both = np.split(named["B"][d], 2)
        weights["bias"] = blocks(both[0], "iofg") + blocks(both[1], "iofg")
    if "P" in named:
        weights["peephole"] = blocks(named["P"][d], "iof")
    if "sequence_lens" in named:
        weights["lengths"] = torch.from_numpy(named["sequence_lens"]).long()
    for name, key in (("initial_h", "h"), ("initial_c", "c")):
        if name in named:
            weights[key] = torch.from_numpy(named[name][d])
    return lstm(
        x if batch_first else x.transpose(0, 1),
        **weights,
        variant=Variant(peephole="P" in named),
        reverse=reverse,
        backend=backend,
    )


def test_onnx_offers_the_cases_named_here():
    assert sorted(node_cases()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["definition", "auto"])
def test_onnx_node_cases(name, backend):
    case = node_cases()[name]
    node, (inputs, outputs) = case.model.graph.node[0], case.data_sets[0]
    attributes = {a.name: a for a in node.attribute}
    way = attributes["direction"].s.decode() if "direction" in attributes else "forward"
    batch_first = "layout" in attributes and attributes["layout"].i == 1
    named = dict(zip([n for n in node.input if n], inputs, strict=True))
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[way]
    runs = [direction(named, d, reverse, batch_first, backend) for d, reverse in enumerate(ways)]
    axis = 1 if batch_first else 0
    ys = [y if batch_first else y.transpose(0, 1) for y, _ in runs]
    found = {
        "Y": torch.stack(ys, dim=1 + axis),
        "Y_h": torch.stack([state.h for _, state in runs], dim=axis),
        "Y_c": torch.stack([state.c for _, state in runs], dim=axis),
    }
    for output, want in zip([n for n in node.output if n], outputs, strict=True):
        np.testing.assert_allclose(found[output].numpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recurrent_activation", ["sigmoid", "hard"])
@pytest.mark.parametrize("backwards", [False, True])
def test_keras_on_its_torch_backend(recurrent_activation, backwards):
    assert os.environ["KERAS_BACKEND"] == "torch"
    import keras

    keras.utils.set_random_seed(3)
    hard = recurrent_activation == "hard"

    def old_hard_sigmoid(a):
        """Keras before 3."""
        return torch.clamp(0.2 * a + 0.5, 0, 1)

    layer = keras.layers.LSTM(
        5,
        return_sequences=True,
        return_state=True,
        go_backwards=backwards,
        recurrent_activation=old_hard_sigmoid if hard else "sigmoid",
    )
    x = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
    y, h, c = (t.detach().numpy() for t in layer(torch.from_numpy(x)))
    kernel, recurrent, bias = layer.get_weights()
    variant = Variant(gate_activation="hard_sigmoid" if hard else "sigmoid")
    got, state = lstm(
        torch.from_numpy(x),
        torch.from_numpy(kernel.T.copy()),
        torch.from_numpy(recurrent.T.copy()),
        torch.from_numpy(bias),
        variant=variant,
        reverse=backwards,
    )
    got = got.flip(1) if backwards else got
    for ours, want in ((got, y), (state.h, h), (state.c, c)):
        np.testing.assert_allclose(ours.numpy(), want, rtol=1e-5, atol=1e-6)
