"""Weights whose memory comes and goes: torch's FSDP frees them after a layer, and gathers them before it."""

import subprocess
import sys

import pytest
import torch

import longshort
from longshort.scan import packings

TRAINED = """
import sys, torch, longshort
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = longshort.LSTM(8, 16, num_layers=2), nn.Linear(16, 3)
    def forward(self, x):
        return self.out(self.lstm(x)[0])

def trained(shard):
    torch.manual_seed(0)
    model, x, losses = Model(), torch.randn(6, 4, 8), []
    if shard:
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(model.lstm, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with torch.no_grad():
        return losses + [model(x).square().mean().item() for _ in range(3)]

distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
want, got = trained(False), trained(True)
assert want[0] > want[-1] and got == want, (got, want)
distributed.destroy_process_group()
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform != "linux", reason="torch has no gloo here"
)
def test_a_sharded_model_trains_to_the_same_numbers(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", TRAINED, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def moved(layer):
    """Give every weight other memory with the same numbers, and fill the old, which autograd does not see."""
    kept = []
    for weight in layer.parameters():
        numbers, storage = weight.detach().clone(), weight.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        kept.append(torch.full_like(numbers, float("nan")))
        storage.resize_(size)
        with torch.autograd._unsafe_preserve_version_counter(weight):
            weight.detach().copy_(numbers)
    return kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_weights_may_move_between_the_way_there_and_the_way_back(dtype):
    torch.manual_seed(0)
    layer, x = longshort.LSTM(16, 64, dtype=dtype), torch.randn(5, 3, 16, dtype=dtype)
    want = torch.autograd.grad(layer(x)[0].float().square().sum(), list(layer.parameters()))
    loss = layer(x)[0].float().square().sum()
    filled = moved(layer)
    packings._PACKED.clear()  # so that they are read again
    got = torch.autograd.grad(loss, list(layer.parameters()))
    assert all(map(torch.equal, got, want)) and filled


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
def test_what_a_layer_has_read_may_be_resized(dtype):
    layer, x = longshort.LSTM(3, 4, dtype=dtype), torch.randn(5, 2, 3, dtype=dtype)
    reset, lengths = torch.zeros(2, 5, dtype=torch.bool), torch.tensor([5, 3])
    state = layer.initial_state(2)
    layer(x, state)[0].float().sum().backward()
    layer(x, state, reset=reset, lengths=lengths)
    with torch.no_grad():
        for _ in range(3):
            layer(x, state)
            layer.step(x[0], state)
    for tensor in (x, *state, reset, lengths, *layer.parameters()):
        tensor.untyped_storage().resize_(0)
