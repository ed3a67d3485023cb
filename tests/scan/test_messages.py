"""Each message says what must hold, what came, and what to do. Read as a user would see it."""

import pytest
import torch

from longshort.errors import BackendError, SettingError, ShapeError
from longshort.scan import Noise, State, Variant, dones_to_resets, lstm, plan
from scan.cases import Case

FROM_X = "was taken from `x` (N, T, C) = (3, 7, 4)."
FROM_W = "was taken from `w_ih` (4H, C) = (20, 4)."
HINT = "\n  Weights follow torch.nn.LSTM: gates i, f, g, o stacked along dim 0; bias is b_ih + b_hh."
N, T, C, H = 3, 7, 4, 5


def message(error, call):
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


def broken(**replace):
    tensors = Case("ordinary").make(torch.float32) | replace
    return lambda: lstm(**tensors)


def zeros(*shape, **kw):
    return torch.zeros(shape, **kw)


SHAPES = [
    ({"x": zeros(3, 7)}, "lstm: `x` must be (N, T, C), got (3, 7)." + HINT),
    (
        {"w_ih": zeros(23, 4)},
        "lstm: `w_ih` must be (4H, C) = (4H, 4), got (23, 4)." + HINT,
    ),
    (
        {"w_ih": zeros(20, 3)},
        "lstm: `w_ih` must be (4H, C) = (20, 4), got (20, 3).\n  C = 4 " + FROM_X + HINT,
    ),
    (
        {"w_hh": zeros(20, 6)},
        "lstm: `w_hh` must be (4H, H) = (20, 5), got (20, 6).\n  H = 5 " + FROM_W + HINT,
    ),
    (
        {"bias": zeros(5)},
        "lstm: `bias` must be (4H,) = (20,), got (5,).\n  H = 5 " + FROM_W + HINT,
    ),
    (
        {"h": zeros(2, 5)},
        "lstm: `h` must be (N, H) = (3, 5), got (2, 5).\n  N = 3 " + FROM_X + HINT,
    ),
    (
        {"c": zeros(3, 1, 5)},
        "lstm: `c` must be (N, H) = (3, 5), got (3, 1, 5)." + HINT,
    ),
    (
        {"reset": zeros(7, 3, dtype=torch.bool)},
        "lstm: `reset` must be (N, T) = (3, 7), got (7, 3).\n  N = 3 " + FROM_X + HINT,
    ),
    (
        {"lengths": zeros(4, dtype=torch.int64)},
        "lstm: `lengths` must be (N,) = (3,), got (4,).\n  N = 3 " + FROM_X + HINT,
    ),
    (
        {"reset": zeros(3, 7)},
        "lstm: `reset` must be of dtype torch.bool, got torch.float32. Use `reset != 0` if it holds 0 and 1.",
    ),
    (
        {"lengths": zeros(3, dtype=torch.int32)},
        "lstm: `lengths` must be of dtype torch.int64, got torch.int32. Use lengths.long().",
    ),
    (
        {"lengths": torch.tensor([1, 9, 2])},
        "lstm: `lengths` must be in [0, T] = [0, 7], got 9 for sequence 1. "
        "T is the number of steps of the input; lengths count steps from the first.",
    ),
    (
        {"lengths": torch.tensor([1, 2, -1])},
        "lstm: `lengths` must be in [0, T] = [0, 7], got -1 for sequence 2. "
        "T is the number of steps of the input; lengths count steps from the first.",
    ),
    (
        {"x": zeros(3, 7, 4, dtype=torch.int64)},
        "lstm: `x` must be float32, float64, bfloat16 or float16, got torch.int64. Use x.float().",
    ),
    (
        {"w_hh": zeros(20, 5, dtype=torch.float64)},
        "lstm: all tensors must have one dtype; `x` is torch.float32, `w_hh` torch.float64. "
        "Give all weights the dtype of the widest, and `x` the same.",
    ),
    (
        {"x": zeros(3, 7, 4, dtype=torch.float64)},
        "lstm: all tensors must have one dtype; `x` is torch.float64, `w_ih` torch.float32. "
        "Convert `x` with x.to(w_ih.dtype).",
    ),
    (
        {"h": zeros(3, 5, dtype=torch.float64)},
        "lstm: all tensors must have one dtype; `x` is torch.float32, `h` torch.float64. "
        "Convert it with h.to(x.dtype).",
    ),
    (
        {"w_ih": zeros(20, 4, device="meta")},
        "lstm: all tensors must be on one device; `x` is on cpu, `w_ih` on meta. "
        "Move `x` with x.to(w_ih.device).",
    ),
    ({"x": [[1.0]]}, "lstm: `x` must be a tensor, got list. Use torch.as_tensor(x)."),
    (
        {"x": zeros(3, 7, 4).to_sparse()},
        "lstm: `x` must be a dense tensor, got the layout torch.sparse_coo. Use x.to_dense().",
    ),
    (
        {"h": zeros(3, 5, device="meta")},
        "lstm: all tensors must be on one device; `x` is on cpu, `h` on meta. Move it with h.to(x.device).",
    ),
]


def numbered(rows):
    return [f"{next(iter(row[0]))}-{k}" for k, row in enumerate(rows)]


@pytest.mark.parametrize(("replace", "text"), SHAPES, ids=numbered(SHAPES))
def test_tensors_that_disagree(replace, text):
    assert message(ShapeError, broken(**replace)) == text
    assert message(ShapeError, broken(**replace)) == text  # what failed once is not remembered as right


def test_a_projection_has_its_own_letter():
    tensors = Case("p", projected=True).make(torch.float32)
    assert message(ShapeError, lambda: lstm(**(tensors | {"h": zeros(3, 5)}))).startswith(
        "lstm: `h` must be (N, P) = (3, 3), got (3, 5).\n  P = 3 was taken from `w_hh` (4H, P) = (20, 3)."
    )


SETTINGS = [
    (
        {"keep": "everything"},
        "lstm: `keep` must be one of None, 'cells', 'gates', 'all', got 'everything'. 'all' keeps both.",
    ),
    (
        {"checkpoint_every": 0},
        "lstm: `checkpoint_every` must be a number of steps, at least 1, got 0.",
    ),
    (
        {"variant": Variant(peephole=True)},
        "lstm: Variant(peephole=True) needs the weight `peephole` (3H,), got None.",
    ),
    (
        {"variant": Variant(gate_recurrence=True, coupled=True)},
        "lstm: Variant(coupled=True, gate_recurrence=True) needs the weight `w_gates` (2H, 2H), got None.",
    ),
    (
        {"peephole": zeros(15)},
        "lstm: the weight `peephole` has no use in Variant(). Leave it out.",
    ),
    (
        {"variant": Variant(projection_clip=0.5)},
        "lstm: `projection_clip` = 0.5 clips the projection, and there is none. "
        "Give `w_hr` (P, H), or leave out `projection_clip`.",
    ),
]


@pytest.mark.parametrize(("replace", "text"), SETTINGS, ids=numbered(SETTINGS))
def test_options_out_of_range(replace, text):
    assert message(SettingError, broken(**replace)) == text


CONTRADICTIONS = [
    (
        {"coupled": True, "forget_gate": False},
        "Variant: `coupled` makes the forget gate of the input gate, and `forget_gate` is False. "
        "Leave out `coupled`, or keep both gates.",
    ),
    (
        {"coupled": True, "input_gate": False},
        "Variant: `coupled` makes the forget gate of the input gate, and `input_gate` is False. "
        "Leave out `coupled`, or keep both gates.",
    ),
    (
        {"peephole": True, "input_gate": False, "forget_gate": False, "output_gate": False},
        "Variant: `peephole` leads to the gates i, f and o, and all three are switched off. "
        "Leave out `peephole`, or keep a gate.",
    ),
    (
        {"gate_recurrence": True, "input_gate": False, "forget_gate": False, "output_gate": False},
        "Variant: `gate_recurrence` leads to the gates i, f and o, and all three are switched off. "
        "Leave out `gate_recurrence`, or keep a gate.",
    ),
    (
        {"cell_clip": 0.0},
        "Variant: `cell_clip` must be in (0, inf), got 0.0.\n"
        "  The cell stays within plus and minus this (Sak 2014).",
    ),
]


@pytest.mark.parametrize(("options", "text"), CONTRADICTIONS, ids=numbered(CONTRADICTIONS))
def test_variants_that_contradict_themselves(options, text):
    assert message(SettingError, lambda: Variant(**options)) == text


def test_a_variant_prints_what_it_changes():
    assert str(Variant(peephole=True, cell_clip=3.0)) == "Variant(peephole=True, cell_clip=3.0)"
    assert str(Variant()) == "Variant()"


def test_an_unknown_backend_lists_the_known():
    text = message(BackendError, broken(backend="cuda"))
    assert text.startswith("lstm: `backend` must be one of 'auto', ")
    assert text.endswith("'plain', 'definition', got 'cuda'.")


def test_a_named_backend_that_refuses_says_why(monkeypatch):
    import sys

    from longshort.scan import plain
    from longshort.scan import plan as _  # noqa: F401

    module = sys.modules["longshort.scan.plan"]
    shy = plain.PLAIN._replace(name="shy", refuses=lambda call: f"H = {call.H} is too much for it")
    monkeypatch.setattr(module, "backends", lambda: (shy, plain.PLAIN))
    tensors = Case("ordinary", H=6).make(torch.float32)
    assert message(BackendError, lambda: lstm(**tensors, backend="shy")) == (
        "lstm: backend 'shy' cannot run this call: H = 6 is too much for it. "
        "Use backend='auto' to let longshort pick one that can."
    )
    unseen = Case("ordinary", H=9, C=8).make(torch.float32)
    assert str(plan(**unseen)) == (
        f"plain; not shy: H = 9 is too much for it; training keeps {6 * 3 * 7 * 9 * 4:,} bytes"
    )


def test_the_plan_checks_what_the_call_would():
    assert message(
        ShapeError, lambda: plan(**(Case("ordinary").make() | {"h": zeros(2, 5).double()}))
    ).startswith("plan: `h` must be (N, H) = (3, 5), got (2, 5).")


def test_dones_to_resets_messages():
    assert message(ShapeError, lambda: dones_to_resets(zeros(2, 3))) == (
        "dones_to_resets: `dones` must be of dtype torch.bool, got torch.float32. "
        "Use `dones != 0` if it holds 0 and 1."
    )
    assert message(ShapeError, lambda: dones_to_resets([True, False])) == (
        "dones_to_resets: `dones` must be (N, T), got (2,)."
    )
    assert message(ShapeError, lambda: dones_to_resets([[True], []])) == (
        "dones_to_resets: `dones` must be a bool tensor or lists of True and False of one length, got list."
    )
    assert dones_to_resets([[True, False]], [False]).tolist() == [[False, True]]
    dones = zeros(2, 3, dtype=torch.bool)
    assert message(ShapeError, lambda: dones_to_resets(dones, zeros(3, dtype=torch.bool))) == (
        "dones_to_resets: `before` must be (N,) = (2,), got (3,).\n"
        "  N = 2 was taken from `dones` (N, T) = (2, 3)."
    )
    assert message(ShapeError, lambda: dones_to_resets(dones, zeros(2))) == (
        "dones_to_resets: `before` must be of dtype torch.bool, got torch.float32. "
        "Use `before != 0` if it holds 0 and 1."
    )


def test_state_messages(tmp_path):
    assert message(ShapeError, lambda: State.stack([])) == (
        "State.stack: `states` must hold at least one state, got none."
    )
    one, two = State(zeros(2, 3), zeros(2, 4)), State(zeros(2, 5), zeros(2, 4))
    assert message(ShapeError, lambda: State.stack([one, two])) == (
        "State.stack: all states must have the layers and units of the first, `h` (2, 3); state 1 has (2, 5)."
    )
    from safetensors.torch import save_file

    save_file({"other": zeros(1)}, tmp_path / "other.safetensors")
    assert message(ShapeError, lambda: State.load(tmp_path / "other.safetensors")) == (
        f"State.load: {tmp_path / 'other.safetensors'} must hold the tensors h and c, got other. "
        f"Write it with State.save."
    )


def test_noise_is_checked_as_settings_are():
    assert message(SettingError, lambda: Noise(weight_drop=-0.1)).startswith(
        "Noise: `weight_drop` must be in [0, 1), got -0.1."
    )
