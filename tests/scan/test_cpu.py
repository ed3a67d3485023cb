"""The engine behind the scan: what the table of cases does not show."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import longshort as ls
from longshort import engine
from longshort.errors import BackendError
from longshort.scan import Variant, lstm, packings, plan
from longshort.scan.arrays import array
from scan.cases import Case

pytestmark = pytest.mark.skipif(not engine.available(), reason=f"no engine: {engine.why_not()}")


def tensors(dtype=torch.float32, H=6):
    rng = torch.Generator().manual_seed(0)
    shapes = {"x": (3, 7, 5), "w_ih": (4 * H, 5), "w_hh": (4 * H, H), "bias": (4 * H,)}
    return {name: torch.randn(shape, generator=rng, dtype=dtype) / 3 for name, shape in shapes.items()}


def test_auto_runs_on_the_engine():
    assert plan(**tensors()).name == "cpu"


def test_what_it_refuses_is_named():
    case = Case("both", variant={"gate_recurrence": True, "norm": "products"})
    with pytest.raises(
        BackendError, match="backend 'cpu' cannot run this call: gate_recurrence adds to a normed"
    ):
        case.run(case.make(), backend="cpu")


TENSORS = {
    "whole": torch.arange(6.0).view(2, 3),
    "strided": torch.arange(12.0).view(2, 6)[:, ::2],
    "repeated": torch.ones(1, 3).expand(2, 3),
    "negative by a bit": torch._neg_view(torch.ones(2, 3)),
    "zeros that lie nowhere": torch._efficientzerotensor(2, 3),
    "a parameter": torch.nn.Parameter(torch.ones(2, 3)),
    "no rows": torch.ones(0, 3),
    "no columns": torch.ones(2, 0),
    "flags": torch.tensor([[True, False]]),
    "bits": torch.ones(2, 3, dtype=torch.bfloat16).view(torch.uint16),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_an_array_holds_what_its_tensor_means_and_keeps_it(tensor):
    want = torch.zeros(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).tolist()
    whole = tensor.is_contiguous() and not (tensor.is_neg() or tensor._is_zerotensor())
    found = array(tensor.detach().clone() if whole else tensor)
    gc.collect()
    torch.full((6,), 7.0)  # would lie there, if the clone's memory were given back
    assert found.tolist() == want
    assert found.shape == tuple(tensor.shape) and found.itemsize == tensor.element_size()


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


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("sizes", [(32, 32), (1, 64), (2, 32), (33, 48)])
def test_a_step_sees_a_unit_that_was_pruned(sizes, name):
    """Or a gate, or an input that was: written through `.data`."""
    torch.manual_seed(0)
    layer, x = ls.LSTM(*sizes).eval(), torch.randn(2, sizes[0])
    rows, columns = getattr(layer, name).shape
    with torch.no_grad():
        state = layer.initial_state(2)
        layer.step(x, state)
        units = [(slice(u, rows, rows // 4), slice(None)) for u in (0, 5, rows // 4 - 1)]
        gates = [(slice(q * rows // 4, (q + 1) * rows // 4), slice(None)) for q in range(4)]
        for place in [*units, *gates, *((slice(None), c) for c in {0, 5 % columns, columns - 1})]:
            _, state = layer.step(x, state)
            getattr(layer, name).data[place] += 1
            got, _ = layer.step(x, state)
            torch.testing.assert_close(got, layer(x[None], state)[0][0])


def test_layers_that_share_weights_but_no_bias_run_side_by_side():
    torch.manual_seed(0)
    first, x = ls.LSTM(32, 128), torch.randn(60, 8, 32)
    second = ls.LSTM(32, 128)
    second.weight_ih_l0, second.weight_hh_l0 = first.weight_ih_l0, first.weight_hh_l0
    want = [layer(x)[0] for layer in (first, second)]

    def wrong(k):
        return sum(not torch.equal((first, second)[k](x)[0], want[k]) for _ in range(40))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(wrong, (0, 1))) == [0, 0]


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


def test_y_and_the_gradient_of_x_lie_as_torch_s_do():
    """Else torch would copy the gradient into x's layout, and whoever reads y would copy that."""
    x = torch.randn(7, 3, 5, requires_grad=True)
    y = ls.LSTM(5, 6)(x)[0]
    assert y.is_contiguous()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.is_contiguous()


def test_a_layer_that_learns_keeps_one_packing():
    layer = ls.LSTM(5, 6)
    gc.collect()
    before = len(packings._PACKED)
    for _ in range(5):
        layer(torch.randn(7, 3, 5))[0].sum().backward()
        with torch.no_grad():
            for weight in layer.parameters():
                weight.mul_(0.9)
    assert len(packings._PACKED) == before + 1
    del layer, weight
    gc.collect()
    assert len(packings._PACKED) == before


def test_dropped_weights_leave_no_packing_behind():
    layer = ls.LSTM(5, 6, noise=ls.Noise(weight_drop=0.5))
    gc.collect()
    before = len(packings._PACKED)
    for _ in range(5):
        layer(torch.randn(7, 3, 5))[0].sum().backward()
    gc.collect()
    assert len(packings._PACKED) <= before + 1


IN_A_PROCESS = """
import os, sys, torch
import longshort as ls
torch.manual_seed(0)
torch.set_num_threads(2)
layer, x = ls.LSTM(64, 256), torch.randn(40, 8, 64)
first = layer(x)[0]
torch.randn(1000, 1000).add_(1)  # a job of torch's own on the same threads
assert torch.equal(layer(x)[0], first)
torch.set_num_threads(3)  # another number of them
torch.testing.assert_close(layer(x)[0], first)
torch.set_num_threads(2)
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:  # where a large job of torch's own would hang
        os._exit(0 if (layer(x)[0].detach().numpy() == first.detach().numpy()).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("environment", [{}, {"OMP_THREAD_LIMIT": "1"}], ids=["free", "one thread allowed"])
def test_openmp_threads_are_shared_with_torch(environment):
    """The same bits beside torch's jobs, with more threads, where too few are allowed, and in a fork."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_PROCESS],
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
