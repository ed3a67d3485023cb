"""The engine behind the scan: what the table of cases does not show."""

import pytest
import torch

import longshort as ls
from longshort import engine
from longshort.errors import BackendError
from longshort.scan import Variant, lstm, plan

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")


def tensors(dtype=torch.float32, H=6):
    rng = torch.Generator().manual_seed(0)
    shapes = {"x": (3, 7, 5), "w_ih": (4 * H, 5), "w_hh": (4 * H, H), "bias": (4 * H,)}
    return {name: torch.randn(shape, generator=rng, dtype=dtype) / 3 for name, shape in shapes.items()}


def test_auto_runs_on_the_engine():
    assert plan(**tensors()).name == "cpu"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(3, 7, 5, dtype=torch.bfloat16)}, "the engine computes in float32 and float64"),
    ],
)
def test_what_it_refuses_is_named(change, message):
    given = {name: value.to(change["x"].dtype) for name, value in tensors().items()} | change
    with pytest.raises(BackendError, match=f"backend 'cpu' cannot run this call: .*{message}"):
        lstm(**given, backend="cpu")


@pytest.mark.parametrize("write", ["in place", "through .data"])
@pytest.mark.parametrize("name", ["w_ih", "w_hh", "bias"])
def test_a_written_weight_is_seen(name, write):
    given = tensors()
    lstm(**given, backend="cpu")
    (given[name].data if write == "through .data" else given[name]).mul_(2)
    got = lstm(**given, backend="cpu")[0]
    assert torch.equal(got, lstm(**{k: v.clone() for k, v in given.items()}, backend="cpu")[0])
    torch.testing.assert_close(got, lstm(**given, backend="definition")[0])


@pytest.mark.parametrize("variant", [Variant(), Variant(peephole=True)], ids=["plain", "peephole"])
def test_a_step_sees_a_written_weight(variant):
    layer = ls.LSTM(5, 6, variant=variant).eval()
    x, state = torch.randn(2, 5), None
    with torch.no_grad():
        for _ in range(3):
            _, state = layer.step(x, state)
        for weight in layer.parameters():
            weight.data.mul_(1.5)
        got, _ = layer.step(x, state)
        want, _ = layer(x[None], state)
    torch.testing.assert_close(got, want[0])


def test_what_is_kept_is_what_the_plan_says():
    given = {name: value.requires_grad_() for name, value in tensors().items()}
    row = engine.tape_row(6, 6)
    kept = plan(**given).kept_bytes
    assert kept == 4 * 3 * 7 * (row + 6)


def test_time_first_input_is_not_copied_and_gives_the_same_bits():
    given = tensors()
    first = lstm(**given, backend="cpu")[0]
    given["x"] = given["x"].transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(lstm(**given, backend="cpu")[0], first)
