"""Both directions of a layer side by side: the numbers of one after the other, on streams that meet."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import longshort as ls
from longshort.scan import Noise
from longshort.scan.cuda import persistent_plan, streams

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

needs_host = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))


@pytest.fixture
def machine(monkeypatch):
    return emulator.put(emulator.Emulator(), monkeypatch.setattr)


def layer(**settings):
    torch.manual_seed(0)
    return ls.LSTM(4, 6, num_layers=2, bidirectional=True, dtype=torch.float64, **settings)


def given(N=3, T=5):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(T, N, 4, generator=rng, dtype=torch.float64)


MORE = {
    "plain call": {},
    "lengths": {"lengths": torch.tensor([5, 2, 0])},
    "reset": {"reset": torch.tensor([[True, False, True, False, False]] * 3)},
    "kept": {"keep": "all"},
}


def outputs(found):
    y, state, *kept = found
    return [y, *state, *(value for k in kept for value in k)]


def passed(own, x, more):
    """Outputs, and the gradients of x and of every weight."""
    x = x.clone().requires_grad_()
    torch.manual_seed(7)  # the noise's
    found = outputs(own(x, **more))
    rng = torch.Generator().manual_seed(2)
    loss = sum((o * torch.randn(o.shape, generator=rng, dtype=o.dtype)).sum() for o in found)
    return [*found, *torch.autograd.grad(loss, [x, *own.parameters()])]


@needs_host
@pytest.mark.parametrize("every", [None, 2], ids=["at once", "in segments"])
def test_the_way_back_has_both_biases_where_it_runs_forward_again(every, machine):
    x = given()
    got = passed(layer(backend="gpu", checkpoint_every=every), x, {})
    want = passed(layer(backend="definition"), x, {})
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@needs_host
@pytest.mark.parametrize("noise", [Noise(), Noise(zoneout_h=0.1)], ids=["", "noise"])
def test_gradients_that_come_many_at_once(noise, machine):
    x, jacobian = given(N=1, T=2), torch.autograd.functional.jacobian
    own = layer(backend="gpu", noise=noise)

    def last(x):
        torch.manual_seed(7)
        return own(x)[1].h[3]

    torch.testing.assert_close(jacobian(last, x, vectorize=True), jacobian(last, x))


@needs_host
@pytest.mark.parametrize(
    "noise", [Noise(), Noise(variational_x=0.2, zoneout_h=0.1, weight_drop=0.2)], ids=["", "noise"]
)
@pytest.mark.parametrize("more", MORE)
def test_the_numbers_are_those_of_one_after_the_other(more, noise, machine):
    x, settings = given(), {"noise": noise}
    got = passed(layer(backend="gpu", **settings), x, MORE[more])
    assert machine.beside == 4  # two layers, there and back
    want = passed(layer(backend="plain", **settings), x, MORE[more])
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@needs_host
def test_without_gradients_too_and_bound(machine):
    own, x = layer(backend="gpu").eval(), given()
    with torch.no_grad():
        want = outputs(layer(backend="plain").eval()(x))
        for count in (2, 4, 6):  # the second call is bound, and the third runs that
            got = outputs(own(x))
            assert machine.beside == count
            for mine, theirs in zip(got, want, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@needs_host
def test_a_graph_may_be_kept_and_its_gradients_are_the_same_bits(machine):
    own, x = layer(backend="gpu"), given().requires_grad_()
    for more in ({}, {"lengths": torch.tensor([5, 2, 0])}):
        y = own(x, **more)[0]
        first, second = (torch.autograd.grad(y.sum(), own.parameters(), retain_graph=True) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_host
@pytest.mark.parametrize("more", ["plain call", "lengths"])
def test_a_second_derivative(more, machine):
    own, x = layer(backend="gpu"), given(2, 3)[:, :2].requires_grad_()
    more = {"lengths": torch.tensor([3, 2])} if more == "lengths" else {}
    assert torch.autograd.gradgradcheck(lambda x: own(x, **more)[0], (x,))


@needs_host
def test_a_direction_whose_weights_are_frozen_goes_alone(machine):
    own, x = layer(backend="gpu"), given()
    for name, weight in own.named_parameters():
        weight.requires_grad_("reverse" in name)
    y, _ = own(x, lengths=torch.tensor([5, 2, 0]))  # the first layer's x needs none: one direction saves
    y.sum().backward()
    assert machine.beside == 2  # of the second layer, in which x leads back
    want = layer(backend="plain")
    want(x, lengths=torch.tensor([5, 2, 0]))[0].sum().backward()
    for (name, mine), theirs in zip(own.named_parameters(), want.parameters(), strict=True):
        if "reverse" in name:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9)
        else:
            assert mine.grad is None


@needs_host
def test_transforms_run_one_after_the_other(machine):
    own, x = layer(backend="gpu"), given()
    moved = torch.func.grad(lambda x: own(x)[0].sum())(x)
    want = x.clone().requires_grad_()
    layer(backend="plain")(want)[0].sum().backward()
    torch.testing.assert_close(moved, want.grad, rtol=1e-9, atol=1e-9)
    assert machine.beside == 0


@needs_host
def test_each_direction_is_cut_for_its_part_of_the_device(monkeypatch):
    """Two kernels whose blocks exchange have room together; what fits no part is cut for the whole."""
    machine = emulator.put(emulator.Emulator(multiprocessors=16, tf32=True), monkeypatch.setattr)
    grids, launch = [], persistent_plan.kernel

    def noted(machine, call, tiling, *words):
        grids.append(tiling.grid)
        return launch(machine, call, tiling, *words)

    monkeypatch.setattr(persistent_plan, "kernel", noted)
    for H, most in ((130, 8), (384, 16)):
        grids.clear()
        torch.manual_seed(0)
        own = ls.LSTM(4, H, bidirectional=True, backend="gpu")
        x = given().float().requires_grad_()
        own(x)[0].sum().backward()
        assert len(grids) == 4 and max(grids) <= most and (most == 8 or max(grids) > 8)
        assert machine.beside == 2 * (1 + (H > 130)) and machine.sharing() == 1


def test_whoever_shares_the_device_is_told(monkeypatch):
    """In a CUDA graph too, where they follow each other: it replays the bits of an ordinary call."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert streams.side_by_side(0, [streams.sharing] * 2) == [2, 2]
    with pytest.raises(ZeroDivisionError):
        streams.side_by_side(0, [lambda: 1 / 0] * 2)
    assert streams.sharing() == 1


@dataclasses.dataclass
class Stream:
    """A stream that records what is asked of it."""

    said: list
    cuda_stream: int

    def wait_stream(self, other):
        self.said.append(f"{self.cuda_stream} waits for {other.cuda_stream}")


class Made(torch.Tensor):
    """A tensor that records for which stream its memory is kept."""

    said: list

    def record_stream(self, stream):
        self.said.append(f"kept for {stream.cuda_stream}")


@pytest.fixture
def device(monkeypatch):
    """torch's streams, with 1 as the current one."""
    said, numbers = [], iter(range(2, 9))
    current = Stream(said, 1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(said, next(numbers)))

    @contextlib.contextmanager
    def on(stream):
        said.append(f"on {stream.cuda_stream}")
        yield
        said.append(f"off {stream.cuda_stream}")

    monkeypatch.setattr(torch.cuda, "stream", on)
    streams._beside.cache_clear()
    yield said
    streams._beside.cache_clear()


def test_streams_part_and_meet(device):
    made = torch.zeros(1).as_subclass(Made)
    made.said = device

    def work(name, result):
        return lambda: device.append(name) or result

    found = streams.side_by_side(0, [work("one", (None, made)), work("two", ((made,), [None, made]))])
    assert found[0][1] is made and found[1][1][1] is made
    assert device == [
        "2 waits for 1", "one", "on 2", "two", "off 2", "1 waits for 2", "kept for 1", "kept for 1"
    ]  # fmt: skip
    device.clear()
    streams.side_by_side(0, [work("one", 1), work("two", 2)])
    assert device == ["2 waits for 1", "one", "on 2", "two", "off 2", "1 waits for 2"]  # the same one again


@pytest.mark.parametrize("which", [0, 1])
def test_streams_meet_after_an_error_too(which, device):
    works = [lambda: None, lambda: None]
    works[which] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        streams.side_by_side(0, works)
    assert device[-1] == "1 waits for 2"


def test_a_captured_graph_has_one_stream(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert streams.side_by_side(0, [lambda: 1, lambda: 2]) == [1, 2]
    assert device == []
