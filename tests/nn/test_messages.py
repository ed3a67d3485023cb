"""What a layer says of wrong arguments, in full."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import longshort as ls
from longshort.errors import BackendError, SettingError, ShapeError
from longshort.nn import chrono, uniform
from longshort.scan import Jagged, Variant


def message(error, call):
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


CONSTRUCTION = [
    ({"hidden_size": 0}, "LSTM: `hidden_size` must be a whole number, at least 1, got 0."),
    ({"input_size": 2.5}, "LSTM: `input_size` must be a whole number, at least 1, got 2.5."),
    ({"num_layers": True}, "LSTM: `num_layers` must be a whole number, at least 1, got True."),
    (
        {"dropout": 1.5},
        "LSTM: `dropout` must be in [0, 1], got 1.5. It is the share silenced between layers.",
    ),
    ({"proj_size": 6}, "LSTM: `proj_size` must be in [0, hidden_size) = [0, 6), got 6. 0 is no projection."),
    (
        {"variant": Variant(projection_clip=0.5)},
        "LSTM: `projection_clip` = 0.5 clips the projection, and there is none. "
        "Give `proj_size`, or leave out `projection_clip`.",
    ),
    (
        {"variant": "peephole"},
        "LSTM: `variant` must be a longshort.Variant, got 'peephole'. "
        "Name its options: longshort.Variant(...).",
    ),
    (
        {"noise": 0.1},
        "LSTM: `noise` must be a longshort.Noise, got 0.1. Name its options: longshort.Noise(...).",
    ),
    ({"checkpoint_every": 0}, "LSTM: `checkpoint_every` must be a number of steps, at least 1, got 0."),
    ({"checkpoint_every": "x"}, "LSTM: `checkpoint_every` must be a number of steps, at least 1, got 'x'."),
    ({"batch_first": "yes"}, "LSTM: `batch_first` must be True or False, got 'yes'."),
    ({"bias": None}, "LSTM: `bias` must be True or False, got None."),
    ({"bidirectional": 1}, "LSTM: `bidirectional` must be True or False, got 1."),
    ({"learn_initial": "no"}, "LSTM: `learn_initial` must be True or False, got 'no'."),
    (
        {"dropout": True},
        "LSTM: `dropout` must be in [0, 1], got True. It is the share silenced between layers.",
    ),
    (
        {"dropout": "0.5"},
        "LSTM: `dropout` must be in [0, 1], got '0.5'. It is the share silenced between layers.",
    ),
    (
        {"proj_size": "3"},
        "LSTM: `proj_size` must be in [0, hidden_size) = [0, 6), got '3'. 0 is no projection.",
    ),
    (
        {"dtype": torch.int32},
        "LSTM: `dtype` must be torch.float32, float64, bfloat16 or float16, got torch.int32.",
    ),
    (
        {"init": "keras"},
        "LSTM: `init` must be one of 'torch', 'longshort', or chrono(longest) or uniform(bound) "
        "of longshort.nn, got 'keras'.",
    ),
    (
        {"init": chrono(10), "bias": False},
        "chrono: sets the biases, and the layer has bias=False. Give it a bias.",
    ),
]


@pytest.mark.parametrize(("wrong", "text"), CONSTRUCTION, ids=[next(iter(w)) for w, _ in CONSTRUCTION])
def test_construction(wrong, text):
    assert message(SettingError, lambda: ls.LSTM(**({"input_size": 4, "hidden_size": 6} | wrong))) == text


def test_other_constructions():
    assert message(SettingError, lambda: ls.LSTMCell(4, -1)) == (
        "LSTMCell: `hidden_size` must be a whole number, at least 1, got -1."
    )
    assert message(SettingError, lambda: ls.LSTMCell(4, 6, dtype=torch.int64)) == (
        "LSTMCell: `dtype` must be torch.float32, float64, bfloat16 or float16, got torch.int64."
    )
    assert message(SettingError, lambda: ls.LSTMCell(4, 6, bias="no")) == (
        "LSTMCell: `bias` must be True or False, got 'no'."
    )
    assert message(SettingError, lambda: ls.LSTM.from_torch(torch.nn.GRU(3, 4))) == (
        "LSTM.from_torch: `module` must be a torch.nn.LSTM, got GRU. "
        "longshort.convert replaces those inside a model."
    )
    assert message(SettingError, lambda: ls.convert("x")) == (
        "convert: `model` must be a torch.nn.Module, got str. Give the model that holds the LSTMs."
    )
    assert message(SettingError, lambda: chrono(2)) == "chrono: `longest` must be above 2 steps, got 2."
    assert message(SettingError, lambda: uniform(0)) == "uniform: `bound` must be above 0, got 0."


LAYER = ls.LSTM(4, 6, 2, bidirectional=True)
X = torch.zeros(5, 3, 4)
CALLS = [
    (
        lambda: LAYER(torch.zeros(5, 3, 7)),
        "LSTM: `input` must have input_size = 4 channels in its last axis, got 7 in (5, 3, 7).",
    ),
    (
        lambda: LAYER(torch.zeros(5)),
        "LSTM: `input` must be (T, N, C) for a batch or (T, C) for one sequence, got 1 axes: (5,).",
    ),
    (
        lambda: ls.LSTM(4, 6, batch_first=True)(torch.zeros(1, 2, 3, 4)),
        "LSTM: `input` must be (N, T, C) for a batch or (T, C) for one sequence, got 4 axes: (1, 2, 3, 4).",
    ),
    (lambda: LAYER([1, 2]), "LSTM: `input` must be a tensor, got list. Use torch.as_tensor(input)."),
    (
        lambda: LAYER(X.to_sparse()),
        "LSTM: `input` must be a dense tensor, got the layout torch.sparse_coo. Use input.to_dense().",
    ),
    (lambda: LAYER(X, (torch.zeros(4, 3, 6),)), "LSTM: `hx` must be a pair (h, c), got 1. Give both."),
    (lambda: LAYER(X, 0), "LSTM: `hx` must be a pair (h, c), got int. Give both."),
    (
        lambda: LAYER(X, (None, None)),
        "LSTM: `hx` must be a pair (h, c) of tensors, got (NoneType, NoneType). "
        "Leave `hx` out to begin with the initial state.",
    ),
    (
        lambda: LAYER(X, initial=(X, None)),
        "LSTM: `initial` must be a pair (h, c) of tensors, got (Tensor, NoneType). "
        "Leave `initial` out to begin with the initial state.",
    ),
    (
        lambda: LAYER(X, (torch.zeros(4, 3, 6).double(), torch.zeros(4, 3, 6))),
        "LSTM: `hx` must have the dtype of `input`: h is torch.float64, `input` torch.float32. "
        "Use h.to(input.dtype).",
    ),
    (
        lambda: LAYER(X, (torch.zeros(4, 3, 6), torch.zeros(4, 3, 6, device="meta"))),
        "LSTM: `hx` must be on the device of `input`: c is on meta, `input` on cpu. Use c.to(input.device).",
    ),
    (
        lambda: LAYER(X, reset=[[False] * 5] * 2),
        "LSTM: `reset` must be (N, T) = (3, 5) of dtype torch.bool whatever batch_first, "
        "got (2, 5) of torch.bool.",
    ),
    (
        lambda: LAYER(X, reset=[[False], []]),
        "LSTM: `reset` must be a bool tensor or lists of True and False of one length, got list.",
    ),
    (
        lambda: LAYER(X, reset=torch.zeros(3, 5, dtype=torch.bool, device="meta")),
        "LSTM: `reset` must be on the device of `input`: it is on meta, `input` on cpu. "
        "Use reset.to(input.device).",
    ),
    (
        lambda: LAYER(X, lengths=[1.5, 2.0, 3.0]),
        "LSTM: `lengths` must be (N,) = (3,) whole numbers, one for each sequence, "
        "got (3,) of torch.float32.",
    ),
    (
        lambda: LAYER(X, lengths=["a", "b", "c"]),
        "LSTM: `lengths` must be whole numbers, one for each sequence, got ['a', 'b', 'c'].",
    ),
    (
        lambda: LAYER(X, (torch.zeros(2, 3, 6), torch.zeros(4, 3, 6))),
        "LSTM: `hx` must hold h (layers x directions, N, P) = (4, 3, 6), got (2, 3, 6). "
        "The state is never batch first.",
    ),
    (
        lambda: LAYER(X, (torch.zeros(4, 3, 6), torch.zeros(4, 3, 5))),
        "LSTM: `hx` must hold c (layers x directions, N, H) = (4, 3, 6), got (4, 3, 5). "
        "The state is never batch first.",
    ),
    (
        lambda: LAYER(X, initial=(torch.zeros(4, 1, 6), torch.zeros(4, 1, 6))),
        "LSTM: `initial` must hold h (layers x directions, N, P) = (4, 3, 6), got (4, 1, 6). "
        "The state is never batch first.",
    ),
    (
        lambda: LAYER(X, reset=torch.zeros(5, 3, dtype=torch.bool)),
        "LSTM: `reset` must be (N, T) = (3, 5) of dtype torch.bool whatever batch_first, "
        "got (5, 3) of torch.bool.",
    ),
    (
        lambda: LAYER(X, reset=torch.zeros(3, 5)),
        "LSTM: `reset` must be (N, T) = (3, 5) of dtype torch.bool whatever batch_first, "
        "got (3, 5) of torch.float32.",
    ),
    (
        lambda: LAYER(X, lengths=[1, 2]),
        "LSTM: `lengths` must be (N,) = (3,) whole numbers, one for each sequence, got (2,) of torch.int64.",
    ),
    (
        lambda: LAYER(X, lengths=torch.ones(3)),
        "LSTM: `lengths` must be (N,) = (3,) whole numbers, one for each sequence, "
        "got (3,) of torch.float32.",
    ),
    (
        lambda: LAYER(X, lengths=[1, 2, 6]),
        "LSTM: `lengths` must be in [0, T] = [0, 5], got 6 for sequence 2. "
        "T is the number of steps of the input; lengths count steps from the first.",
    ),
    (
        lambda: LAYER(pack_sequence([X[:, 0]]), reset=torch.zeros(1, 5, dtype=torch.bool)),
        "LSTM: `reset` (N, T) does not fit a PackedSequence, which has no axis of time. "
        "Give a padded `input` (N, T, C) with `lengths` and `reset`; the padding costs nothing.",
    ),
    (
        lambda: LAYER(Jagged.of([X[:, 0]]), lengths=[5]),
        "LSTM: a jagged `input` has its own lengths. Leave out `lengths`.",
    ),
    (
        lambda: LAYER(Jagged(X[:, 0], torch.tensor([0, 4]))),
        "LSTM: `offsets` must rise from 0 to the 5 rows of `values`, got [0, 4].",
    ),
    (
        lambda: LAYER(X.double()),
        "LSTM: `input` must have the dtype of the layer's weights: `input` is torch.float64, `weight_ih_l0` "
        "torch.float32. Use input.to(torch.float32), or layer.to(input.dtype).",
    ),
    (
        lambda: LAYER(X.long()),
        "LSTM: `input` must be float32, float64, bfloat16 or float16, got torch.int64. Use input.float().",
    ),
    (
        lambda: LAYER(X.to("meta")),
        "LSTM: `input` must be on the device of the layer's weights: `input` is on meta, `weight_ih_l0` on "
        "cpu. Use input.to('cpu'), or layer.to(input.device).",
    ),
    (
        lambda: LAYER(Jagged(X, torch.tensor([0, 5]))),
        "LSTM: `values` must be (S, C), got (5, 3, 4).\n  Offsets are those of torch.nested.",
    ),
    (
        lambda: ls.LSTM(4, 6).step(torch.zeros(1, 2, 4)),
        "LSTM.step: `x` must be (N, C), or (C,) for one sequence, got (1, 2, 4).",
    ),
    (
        lambda: ls.LSTM(4, 6).step(torch.zeros(4, 5)),
        "LSTM.step: `x` must be (N, C), or (C,) for one sequence, with C = input_size = 4, got (4, 5).",
    ),
    (
        lambda: ls.LSTM(4, 6).step([0.0] * 4),
        "LSTM.step: `x` must be a tensor, got list. Use torch.as_tensor(x).",
    ),
    (
        lambda: ls.LSTM(4, 6).step(torch.zeros(2, 4).double()),
        "LSTM.step: `x` must have the dtype of the layer's weights: `x` is torch.float64, `weight_ih_l0` "
        "torch.float32. Use x.to(torch.float32), or layer.to(x.dtype).",
    ),
    (
        lambda: ls.LSTM(4, 6).step(torch.zeros(2, 4), (torch.zeros(1, 3, 6), torch.zeros(1, 3, 6))),
        "LSTM.step: `state` must hold h (layers x directions, N, P) = (1, 2, 6), got (1, 3, 6). "
        "The state is never batch first.",
    ),
    (
        lambda: ls.LSTM(4, 6).step(torch.zeros(2, 4), (None, None)),
        "LSTM.step: `state` must be a pair (h, c) of tensors, got (NoneType, NoneType). "
        "Leave `state` out to begin with the initial state.",
    ),
    (
        lambda: ls.LSTMCell(4, 6)(torch.zeros(2, 5)),
        "LSTMCell: `input` must be (N, C) or (C,) with C = input_size = 4, got (2, 5).",
    ),
    (
        lambda: ls.LSTMCell(4, 6)([0.0] * 4),
        "LSTMCell: `input` must be a tensor, got list. Use torch.as_tensor(input).",
    ),
    (
        lambda: ls.LSTMCell(4, 6)(torch.zeros(2, 4).double()),
        "LSTMCell: `input` must have the dtype of the cell's weights: `input` is torch.float64, `weight_ih` "
        "torch.float32. Use input.to(torch.float32), or cell.to(input.dtype).",
    ),
    (
        lambda: ls.LSTMCell(4, 6)(torch.zeros(2, 4), (None, None)),
        "LSTMCell: `hx` must be a pair (h, c) of tensors, got (NoneType, NoneType). "
        "Leave `hx` out to begin with the initial state.",
    ),
]


@pytest.mark.parametrize(("call", "text"), CALLS, ids=range(len(CALLS)))
def test_calls(call, text):
    assert message(ShapeError, call) == text
    with torch.no_grad():
        assert message(ShapeError, call) == text


def test_lists_are_flags_and_lengths():
    reset = torch.rand(3, 5) < 0.4
    want = LAYER(X, reset=reset, lengths=torch.tensor([1, 5, 0]))
    got = LAYER(X, reset=reset.tolist(), lengths=[1, 5, 0])
    assert torch.equal(got[0], want[0])


@pytest.mark.parametrize("arguments", [{"dropout": 0}, {"dropout": 1}])
def test_whole_numbers_that_torch_takes_for_shares(arguments):
    layer, torchs = ls.LSTM(4, 6, 2, **arguments), torch.nn.LSTM(4, 6, 2, **arguments)
    assert layer(X)[0].shape == torchs(X)[0].shape


def test_a_step_of_both_directions():
    assert message(SettingError, lambda: LAYER.step(torch.zeros(3, 4))) == (
        "LSTM.step: a bidirectional layer needs the whole sequence. "
        "Call the layer itself, or use one direction."
    )


def test_keep_and_backend_are_checked_by_the_layer_too():
    assert message(SettingError, lambda: LAYER(X, keep="all of it")) == (
        "LSTM: `keep` must be one of None, 'cells', 'gates', 'all', got 'all of it'. 'all' keeps both."
    )
    for kind in (ls.LSTM, ls.LSTMCell):
        text = message(BackendError, lambda kind=kind: kind(4, 6, backend="cuda"))
        assert text.startswith(f"{kind.__name__}: `backend` must be one of 'auto', ")
        assert text.endswith("'plain', 'definition', got 'cuda'.")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_a_strided_nested_tensor():
    nested = torch.nested.nested_tensor([X[:, 0]])
    assert message(ShapeError, lambda: LAYER(nested)) == (
        "LSTM: a nested `input` must have the layout torch.jagged, got torch.strided. "
        "Make it with torch.nested.nested_tensor(..., layout=torch.jagged)."
    )


def nested(*sizes, **more):
    return torch.nested.nested_tensor([torch.zeros(size) for size in sizes], layout=torch.jagged, **more)


NESTED = {
    "time is last": (
        lambda: nested((4, 4), (3, 4)).transpose(1, 2),
        "LSTM: a nested `input` must have 3 axes (N, T, C) and different lengths along axis 1, "
        "got 3 axes and different lengths along axis 2. Make it of sequences (T, C).",
    ),
    "no channels": (
        lambda: nested((4,), (3,)),
        "LSTM: a nested `input` must have 3 axes (N, T, C) and different lengths along axis 1, "
        "got 2 axes and different lengths along axis 1. Make it of sequences (T, C).",
    ),
    "sequences share a row": (
        lambda: torch.nested.nested_tensor_from_jagged(
            X[:, 0], torch.tensor([0, 2, 5]), torch.tensor([3, 3])
        ),
        "LSTM: the sequences of a nested `input` must lie one after the other in its 5 rows, "
        "got those that start at [0, 2] with the lengths [3, 3].",
    ),
    "a row that is not there": (
        lambda: torch.nested.nested_tensor_from_jagged(
            X[:, 0], torch.tensor([0, 2, 5]), torch.tensor([2, 4])
        ),
        "LSTM: the sequences of a nested `input` must lie one after the other in its 5 rows, "
        "got those that start at [0, 2] with the lengths [2, 4].",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize(("make", "text"), NESTED.values(), ids=NESTED)
def test_nested_tensors_that_are_no_sequences(make, text):
    assert message(ShapeError, lambda: LAYER(make())) == text
