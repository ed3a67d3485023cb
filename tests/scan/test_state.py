"""The state as a value, and resets from the dones of reinforcement learning."""

import torch

from longshort.scan import State, dones_to_resets


def state(L=2, N=5):
    rng = torch.Generator().manual_seed(0)
    return State(torch.randn(L, N, 3, generator=rng), torch.randn(L, N, 4, generator=rng))


def equal(a, b):
    return torch.equal(a.h, b.h) and torch.equal(a.c, b.c)


def test_stack_of_split_is_the_state():
    for sizes in (2, [1, 4], [5]):
        parts = state().split(sizes)
        assert equal(State.stack(parts), state())
    assert [p.h.shape[1] for p in state().split(2)] == [2, 2, 1]
    single = State(torch.zeros(5, 3), torch.zeros(5, 4))
    assert [p.c.shape for p in single.split([2, 3])] == [(2, 4), (3, 4)]


def test_saved_and_loaded_bit_for_bit(tmp_path):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        before = state().to(dtype)
        before.save(tmp_path / "state.safetensors")
        after = State.load(tmp_path / "state.safetensors")
        assert equal(before, after)
        assert after.c.dtype == dtype
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_detach_and_clone():
    h = torch.zeros(1, 2, 3, requires_grad=True)
    taken = State(h * 1, h * 2)
    assert not taken.detach().h.requires_grad
    assert taken.clone().c.data_ptr() != taken.c.data_ptr()
    assert taken.clone().c.requires_grad


def test_dones_of_windows_equal_dones_of_the_whole():
    dones = torch.rand(4, 12, generator=torch.Generator().manual_seed(2)) < 0.3
    before = torch.tensor([True, False, False, True])
    whole = dones_to_resets(dones, before)
    parts = [dones_to_resets(dones[:, :5], before), dones_to_resets(dones[:, 5:], dones[:, 4])]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(whole[:, 0], before)
    assert torch.equal(whole[:, 1:], dones[:, :-1])


def test_dones_of_no_steps():
    assert dones_to_resets(torch.zeros(3, 0, dtype=torch.bool)).shape == (3, 0)
