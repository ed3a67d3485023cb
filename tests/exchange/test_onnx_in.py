"""ONNX LSTM nodes as layers, held against ONNX' own cases and against onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import longshort as ls
from longshort import exchange
from longshort.errors import DataError

PORTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def onnx_cases():
    return [case for case in collect_testcases(None) if case.name.startswith("test_lstm")]


@pytest.mark.filterwarnings("ignore")
def test_the_six_cases_of_onnx():
    cases = onnx_cases()
    assert len(cases) == 6
    for case in cases:
        (given_, wanted), node = case.data_sets[0], case.model.graph.node[0]
        values = {port.name: np.asarray(v) for port, v in zip(case.model.graph.input, given_, strict=True)}
        (ours,) = exchange.onnx_nodes(case.model.SerializeToString(), values)
        ports = {p: torch.tensor(values[n]) for p, n in zip(PORTS, node.input, strict=False) if n}
        got = ours(**{p: ports[p] for p in ("X", "sequence_lens", "initial_h", "initial_c") if p in ports})
        got = [y.detach().numpy() for y, name in zip(got, node.output, strict=False) if name]
        for mine, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6, err_msg=case.name)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_layer_comes_back_with_its_layout(batch_first, tmp_path):
    """The node itself is time first; what is batch first has a transposition before it."""
    torch.manual_seed(0)
    layer = ls.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=batch_first).eval()
    ls.export(layer, tmp_path / "layer.onnx")
    again = exchange.load_onnx(tmp_path / "layer.onnx")
    assert again.batch_first == batch_first
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(again(x)[0], layer(x)[0], rtol=0, atol=1e-6)


def node_model(*, C=3, H=4, D=1, opset=18, bias=True, peephole=False, weights=None, **attributes):
    """A model of one LSTM node with random weights, and X, lengths and state as inputs."""
    random = np.random.default_rng(0)
    arrays = {
        "W": random.normal(0, 0.6, (D, 4 * H, C)),
        "R": random.normal(0, 0.6, (D, 4 * H, H)),
        "B": random.normal(0, 0.6, (D, 8 * H)) if bias else None,
        "P": random.normal(0, 0.6, (D, 3 * H)) if peephole else None,
    } | (weights or {})
    inputs = ["X", "W", "R", "B" if bias else "", "lengths", "h", "c", "P" if peephole else ""]
    node = helper.make_node("LSTM", inputs, ["Y", "Y_h", "Y_c"], name="one", hidden_size=H, **attributes)
    F = TensorProto.FLOAT
    ports = [
        helper.make_tensor_value_info("X", F, ["a", "b", C]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["N"]),
        helper.make_tensor_value_info("h", F, None),
        helper.make_tensor_value_info("c", F, None),
    ]
    outs = [helper.make_tensor_value_info(name, F, None) for name in ("Y", "Y_h", "Y_c")]
    stored = [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items() if a is not None]
    graph = helper.make_graph([node], "g", ports, outs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


NODES = {
    "plain": {},
    "no bias": {"bias": False},
    "peephole": {"peephole": True},
    "reverse": {"direction": "reverse"},
    "both ways": {"direction": "bidirectional", "D": 2, "peephole": True},
    "coupled": {"input_forget": 1},
    "coupled with peephole": {"input_forget": 1, "peephole": True},
    "hard sigmoid": {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.2]},
    "linear": {
        "activations": ["Sigmoid", "Affine", "Affine"],
        "activation_alpha": [1.0, 1.0],
        "activation_beta": [0.0, 0.0],
    },
}


@pytest.mark.parametrize("attributes", NODES.values(), ids=[name.replace(" ", "-") for name in NODES])
def test_a_node_gives_onnxruntime_s_numbers(attributes):
    model = node_model(**attributes)
    D, N, T = attributes.get("D", 1), 3, 6
    fed = {
        "X": np.random.randn(T, N, 3).astype(np.float32),
        "lengths": np.array([6, 2, 4], np.int32),
        "h": np.random.randn(D, N, 4).astype(np.float32),
        "c": np.random.randn(D, N, 4).astype(np.float32),
    }
    content = model.SerializeToString()
    wanted = onnxruntime.InferenceSession(content).run(None, fed)
    (ours,) = exchange.onnx_nodes(content)
    got = ours(*(torch.tensor(fed[k]) for k in ("X", "lengths", "h", "c")))
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=0, atol=2e-6)


REFUSED = {
    "clip": ({"clip": 1.0}, "has `clip` = 1.0, which clips what goes into the gates"),
    "relu": ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "for the cell, got Sigmoid, Relu, Tanh"),
    "another slope": (
        {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3]},
        "HardSigmoid(0.2, 0.5) for the gates",
    ),
    "two few activations": ({"activations": ["Sigmoid"]}, "`activations` must name 3 functions a direction"),
    "another direction": ({"direction": "sideways"}, "`direction` 'sideways' with `layout` 0"),
    "a wrong shape": ({"weights": {"R": np.zeros((1, 16, 5))}}, "`R` must be (1, 16, 4)"),
    "NaN": ({"weights": {"W": np.full((1, 16, 3), np.nan)}}, "`weight_ih` must hold finite numbers"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=[name.replace(" ", "-") for name in REFUSED])
def test_what_this_layer_lacks_is_named(case):
    attributes, message = case
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(node_model(**attributes).SerializeToString())
    assert str(raised.value).startswith("the ONNX model, node `one`")
    assert message in str(raised.value)


def test_a_node_that_runs_backwards_alone():
    content = node_model(direction="reverse").SerializeToString()
    with pytest.raises(DataError, match=r"the node `one` runs backwards by itself.*onnx_nodes"):
        exchange.load_onnx(content)


def graph_model(nodes, **constants):
    """A model of nodes from `x` (T, N, 4) to `y`, and the weights of LSTM nodes a, b, c of 4 units."""
    random = np.random.default_rng(0)
    shapes = {"W": (1, 16, 4), "R": (1, 16, 4), "B": (1, 32)}
    wide = {"Wc": (1, 16, 8), "Rc": (1, 16, 4), "Bc": (1, 32)}
    drawn = {f"{port}{name}": shape for name in "ab" for port, shape in shapes.items()} | wide
    arrays = {name: random.normal(0, 0.8, shape).astype(np.float32) for name, shape in drawn.items()}
    arrays |= {"one": np.array([1])} | {name: np.array(value) for name, value in constants.items()}
    used = {name for node in nodes for name in node.input}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    stored = [numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def node(name, reads, *more, makes=None, **attributes):
    inputs = [reads, f"W{name}", f"R{name}", f"B{name}", *more]
    return helper.make_node("LSTM", inputs, [makes or f"Y{name}"], name=name, hidden_size=4, **attributes)


def op(kind, reads, makes, **attributes):
    return helper.make_node(kind, reads.split(), [makes], **attributes)


HARD = {"activations": ["HardSigmoid", "Tanh", "Tanh"]}
LINEAR = {
    "activations": ["Sigmoid", "Affine", "Affine"],
    "activation_alpha": [1.0, 1.0],
    "activation_beta": [0.0, 0.0],
}
BOTH = [node("a", "x"), node("b", "x", direction="reverse")]
STACKED = {
    "squeezed": [node("a", "x"), op("Squeeze", "Ya one", "p"), node("b", "p"), op("Squeeze", "Yb one", "y")],
    "one direction taken": [
        node("a", "x"), op("Gather", "Ya zero", "p", axis=1), op("Cast", "p", "q", to=TensorProto.DOUBLE),
        op("Cast", "q", "r", to=TensorProto.FLOAT), node("b", "r"), op("Squeeze", "Yb one", "y"),
    ],
    "turned there and back": [
        node("a", "x"), op("Squeeze", "Ya one", "p"), op("Transpose", "p", "q", perm=[1, 0, 2]),
        op("Transpose", "q", "r", perm=[1, 0, 2]), node("b", "r"), op("Squeeze", "Yb one", "y"),
    ],
    "directions laid side by side": [
        *BOTH, op("Concat", "Ya Yb", "p", axis=1), op("Transpose", "p", "q", perm=[0, 2, 1, 3]),
        op("Reshape", "q merged", "y"),
    ],
    "a shape that is computed": [
        node("a", "x"), op("Transpose", "Ya", "p", perm=[0, 2, 1, 3]), op("Shape", "p", "s", start=0),
        op("Slice", "s none one", "T"), op("Slice", "s one two", "N"), op("Concat", "T N minus", "u", axis=0),
        op("Reshape", "p u", "q"), node("b", "q"), op("Squeeze", "Yb one", "y"),
    ],
}  # fmt: skip
CONSTANTS = {"zero": 0, "merged": [0, 0, -1], "none": [0], "two": [2], "minus": [-1]}


@pytest.mark.parametrize("nodes", STACKED.values(), ids=[name.replace(" ", "-") for name in STACKED])
def test_nodes_that_feed_each_other_are_one_layer(nodes):
    content = graph_model(nodes, **CONSTANTS).SerializeToString()
    layer = exchange.load_onnx(content)
    x = np.random.randn(6, 3, 4).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(content).run(None, {"x": x})
    np.testing.assert_allclose(layer(torch.tensor(x))[0].detach().numpy(), wanted, rtol=0, atol=2e-6)


def between(*nodes, **attributes):
    """Two nodes with others in between, from p to q."""
    return [node("a", "x"), op("Squeeze", "Ya one", "p"), *nodes, node("b", "q", makes="y", **attributes)]


SAME = op("Identity", "p", "q")
APART = {
    "another gate activation": between(SAME, **HARD),
    "another cell activation": between(SAME, **LINEAR),
    "two directions of two kinds": [node("a", "x"), node("b", "x", direction="reverse", makes="y", **HARD)],
    "N and T swapped": between(op("Transpose", "p", "q", perm=[1, 0, 2])),
    "N and T reshaped": between(op("Reshape", "p swapped", "q")),
    "rounded": between(
        op("Cast", "p", "i", to=TensorProto.INT32), op("Cast", "i", "q", to=TensorProto.FLOAT)
    ),
    "the state of the layer before": [
        helper.make_node("LSTM", ["x", "Wa", "Ra", "Ba"], ["Ya", "h", "c"], name="a", hidden_size=4),
        op("Squeeze", "Ya one", "p"), node("b", "p", "", "h", "c", makes="y"),
    ],
    "two readers": [
        *between(SAME), helper.make_node("LSTM", ["q", "Wb", "Rb", "Bb"], ["z"], name="c", hidden_size=4),
    ],
    "directions side by side in time": [*BOTH, op("Concat", "Ya Yb", "p", axis=0), node("c", "p", makes="y")],
}  # fmt: skip


@pytest.mark.parametrize("nodes", APART.values(), ids=[name.replace(" ", "-") for name in APART])
def test_nodes_that_are_no_stack_are_read_one_by_one(nodes):
    model = graph_model(nodes, swapped=[3, 6, 4])
    names = [one.name for one in model.graph.node if one.op_type == "LSTM"]
    names = [name for name in names if nodes[:2] != BOTH or name != "b"]  # a and b are one layer
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(model.SerializeToString())
    assert str(raised.value) == (
        f"the ONNX model: holds {len(names)} LSTMs, {', '.join(names)}. Say which with `name`."
    )
    assert exchange.load_onnx(model.SerializeToString(), name="a").num_layers == 1


STATE = np.full((1, 3, 4), 0.5, np.float32)
FIXED = {
    "initial_h": ([node("a", "x", "", "state", makes="y")], {"state": STATE}),
    "initial_c": ([node("a", "x", "", "", "state", makes="y")], {"state": STATE}),
    "initial_h, widened": (
        [op("Expand", "state shape", "h"), node("a", "x", "", "h", makes="y")],
        {"state": STATE[:, :1], "shape": [1, 3, 4]},
    ),
    "sequence_lens": (
        [node("a", "x", "lengths", makes="y")],
        {"lengths": np.array([2, 6, 3], np.int32)},
    ),
}


@pytest.mark.parametrize("port", FIXED, ids=[name.replace(" ", "-") for name in FIXED])
def test_a_state_or_lengths_that_the_file_fixes(port):
    nodes, constants = FIXED[port]
    content = graph_model(nodes, **constants).SerializeToString()
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(content)
    assert str(raised.value) == (
        "the ONNX model: the node `a` has `sequence_lens` that the file fixes, and longshort.LSTM takes "
        "lengths with the call. onnx_nodes(...) reads the node as a module that takes them too."
        if port == "sequence_lens"
        else f"the ONNX model: the node `a` begins with an `{port.split(',')[0]}` that the file fixes and "
        "that is not zero, and longshort.LSTM takes its state with the call. onnx_nodes(...) reads the node "
        "as a module that takes it too."
    )
    assert len(exchange.onnx_nodes(content)) == 1


def test_a_state_of_zero_that_the_file_fixes_is_the_layer_s_own():
    nodes = [node("a", "x", "", "state", "state", makes="y")]
    model = graph_model(nodes, state=np.zeros((1, 3, 4), np.float32))
    assert exchange.load_onnx(model.SerializeToString()).num_layers == 1


def test_weights_from_outside_must_be_handed_over():
    model = node_model()
    weights = model.graph.initializer[0]
    value = numpy_helper.to_array(weights)
    model.graph.initializer.remove(weights)
    with pytest.raises(DataError, match=r"its weights `W` must be constants of the file.*`values`"):
        exchange.load_onnx(model.SerializeToString())
    layer = exchange.load_onnx(model.SerializeToString(), values={"W": value})
    np.testing.assert_array_equal(layer.weight_ih_l0.detach().numpy()[:4], value[0, :4])


def test_weights_behind_nodes_that_only_move_numbers():
    """What exporters leave in the graph: W cut into gates, put in another order, given an axis."""
    model = node_model()
    value = numpy_helper.to_array(model.graph.initializer[0])[0]
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(value[::-1].T.copy(), "turned"))
    ends = {"from": [12], "to": [-13], "axes": [0], "step": [-1], "new": [0]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in ends.items())
    moves = [
        helper.make_node("Transpose", ["turned"], ["rows"], perm=[1, 0]),
        helper.make_node("Split", ["rows"], ["last", "first"], axis=0, num_outputs=2),
        helper.make_node("Concat", ["last", "first"], ["all"], axis=0),
        helper.make_node("Slice", ["all", "back", "front", "axes", "step"], ["right"]),
        helper.make_node("Unsqueeze", ["right", "new"], ["W"]),
    ]
    ends = {"back": [15], "front": [-17]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in ends.items())
    nodes = [*moves, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    layer = exchange.load_onnx(model.SerializeToString())
    np.testing.assert_array_equal(layer.weight_ih_l0.detach().numpy()[:4], value[:4])


def test_a_newer_opset():
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(node_model(opset=newest + 1).SerializeToString())
    assert str(raised.value) == (
        f"the ONNX model: was written for opset {newest + 1}, and the onnx installed here reads up to "
        f"{newest}. "
        f"Install a newer onnx."
    )


def test_a_newer_format():
    model = node_model()
    model.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(model.SerializeToString())
    assert str(raised.value) == (
        f"the ONNX model: has version {onnx.IR_VERSION + 1} of the format, and the onnx installed here reads "
        f"up to {onnx.IR_VERSION}. Install a newer onnx."
    )


def test_a_file_without_an_lstm(tmp_path):
    graph = helper.make_graph([], "g", [], [])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(DataError) as raised:
        exchange.load_onnx(path)
    assert str(raised.value) == f"{path}: holds no LSTM. Its layers must be LSTMs for this to read them."


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_changed_bytes_give_an_error_or_an_lstm_of_that_file(data):
    content = bytearray(node_model(C=1, H=1).SerializeToString())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.sampled_from([1, 4, 40]))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        layer = exchange.load_onnx(bytes(content))
    except DataError as error:
        assert str(error).startswith("the ONNX model")
    else:
        assert (layer.input_size, layer.hidden_size, layer.num_layers) == (1, 1, 1)
        assert all(torch.isfinite(p).all() for p in layer.parameters())
