"""What users of other layers asked for, each request a test named after its thread, with `longshort.LSTM`."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrizations

import longshort as ls
from longshort.scan import Noise
from scan.cases import OPTIONS

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: nothing here says that it works on one"
)
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
each_device = pytest.mark.parametrize("device", DEVICES)


def data(*shape, seed=1, dtype=torch.float32, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


# 1 · regularised cells


REGULARISED = [
    c for c in OPTIONS if c.noise or c.variant.get("norm") or c.why in ("peephole", "coupled", "cell clip")
]


@each_device
@pytest.mark.parametrize("case", REGULARISED, ids=lambda c: c.why.replace(" ", "-"))
def test_pytorch_6760_561_37731_haste_29_every_regulariser_against_a_loop(case, device):
    """Layer norm, zoneout on h and on c, variational and recurrent dropout: the same as step by step."""
    tensors = {k: v.to(device) for k, v in case.make(torch.float64).items()}
    fused = case.differentiate(tensors)
    loop = case.differentiate(tensors, backend="definition")
    for what, got in fused.items():
        torch.testing.assert_close(got, loop[what], rtol=1e-9, atol=1e-9)


def test_haste_29_zoneout_has_separate_rates_for_h_and_c():
    x = data(20, 6, 8)
    layer = ls.LSTM(8, 32, noise=Noise(zoneout_h=0.9, zoneout_c=0.1))
    y, _, kept = layer(x, keep="cells")
    cells = kept.cells[0].transpose(0, 1)
    same_h = (y[1:] == y[:-1]).float().mean()
    same_c = (cells[1:] == cells[:-1]).float().mean()
    assert 0.85 < same_h < 0.95
    assert 0.05 < same_c < 0.15


def test_better_lstm_7_dropped_weights_are_never_written_into_the_parameter():
    layer = ls.LSTM(8, 16, noise=Noise(weight_drop=0.5))
    before = copy.deepcopy(layer.state_dict())
    layer(data(5, 3, 8))[0].sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    assert (layer.weight_hh_l0.grad == 0).float().mean() > 0.3
    plain = ls.LSTM(8, 16)
    plain.load_state_dict(before)
    torch.testing.assert_close(layer.eval()(data(5, 3, 8))[0], plain(data(5, 3, 8))[0])


# 2 and 3 · graphs


class Tagger(nn.Module):
    """A model with other layers around the LSTM, as in the threads."""

    def __init__(self, **options):
        super().__init__()
        self.below = nn.Linear(6, 8)
        self.lstm = ls.LSTM(8, 16, num_layers=2, batch_first=True, **options)
        self.above = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x):
        return self.above(self.lstm(self.below(x).relu())[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_pytorch_158007_171853_141184_compile_fullgraph_with_dynamic_sizes(bidirectional):
    """One graph, no recompilation for N, T >= 2, the LSTM as one node a layer and direction."""
    torch._dynamo.reset()
    graphs = []

    def spy(graph, example):
        graphs.append(graph)
        return graph.forward

    model = Tagger(bidirectional=bidirectional)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=spy)
    for N, T in ((3, 5), (2, 9), (7, 2), (4, 40)):
        x = data(N, T, 6)
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 1
    nodes = [n for n in graphs[0].graph.nodes if "longshort" in str(n.target)]
    assert len(nodes) == (4 if bidirectional else 2)
    compiled(data(1, 5, 6))
    compiled(data(3, 1, 6))
    assert len(graphs) <= 3


def test_pytorch_158007_inductor_compiles_one_node():
    torch._dynamo.reset()
    model = Tagger()
    x = data(3, 5, 6)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


def test_pytorch_158007_a_layer_alone_compiles_with_every_size_dynamic():
    """x reaches the layer with its features symbolic too; forward and backward as in eager mode."""
    torch._dynamo.reset()
    layer, x = ls.LSTM(6, 5, num_layers=2), data(3, 5, 6).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    found = [torch.autograd.grad(run(x)[0].sum(), [x, *layer.parameters()]) for run in (compiled, layer)]
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_pytorch_115092_executorch_5176_191855_export_with_dynamic_batch_and_time(bidirectional):
    from torch.export import Dim, export

    model = Tagger(bidirectional=bidirectional).eval()
    sizes = {0: Dim("N", min=2, max=64), 1: Dim("T", min=2, max=4096)}
    program = export(model, (data(3, 5, 6),), dynamic_shapes=(sizes,))
    nodes = [n for n in program.graph.nodes if str(n.target) == "longshort.lstm.default"]
    assert len(nodes) == (4 if bidirectional else 2)
    for N, T in ((2, 9), (7, 2)):
        torch.testing.assert_close(program.module()(data(N, T, 6)), model(data(N, T, 6)))


# 5 · resets


@each_device
def test_purejaxrl_23_sb3_169_ray_21392_resets_equal_the_loop_over_time(device):
    """Timing and final state: a step that begins an episode starts from zero, and so does what follows."""
    layer = ls.LSTM(4, 8, batch_first=True).to(device)
    x, dones = (
        data(5, 12, 4, device=device),
        torch.rand(5, 12, generator=torch.Generator().manual_seed(3)) < 0.3,
    )
    before = torch.tensor([True, False, False, True, False])
    reset = ls.dones_to_resets(dones, before).to(device)
    first = (data(1, 5, 8, seed=4, device=device), data(1, 5, 8, seed=5, device=device))
    y, state = layer(x, first, reset=reset)
    h, c = (s.clone() for s in first)
    ended, steps = before.clone(), []
    for t in range(12):
        h[:, ended], c[:, ended] = 0, 0
        out, (h, c) = layer(x[:, t : t + 1], (h, c))
        h, c = h.clone(), c.clone()
        steps.append(out)
        ended = dones[:, t]
    torch.testing.assert_close(y, torch.cat(steps, dim=1))
    torch.testing.assert_close(state.h, h)
    torch.testing.assert_close(state.c, c)


# 6 · lengths


@each_device
def test_pytorch_43227_50192_4582_jax_17966_lengths_with_zero_forward_and_backward(device):
    layer = ls.LSTM(4, 8, num_layers=2, bidirectional=True, batch_first=True).to(device)
    x = data(4, 6, 4, device=device).requires_grad_()
    lengths = torch.tensor([6, 0, 3, 1], device=device)
    y, (h, _) = layer(x, lengths=lengths)
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    for n, length in enumerate(lengths.tolist()):
        assert (x.grad[n, length:] == 0).all()
        if length:
            alone, (h_n, _) = layer(x[n : n + 1, :length])
            torch.testing.assert_close(y[n : n + 1, :length], alone)
            torch.testing.assert_close(h[:, n : n + 1], h_n)
    assert (h[:, 1] == 0).all()


@needs_gpu
def test_pytorch_43227_lengths_on_the_gpu_wait_for_nothing():
    layer = ls.LSTM(4, 8, batch_first=True).cuda()
    x, lengths = data(4, 6, 4, device="cuda"), torch.tensor([6, 0, 3, 1], device="cuda")
    layer(x, lengths=lengths)
    with torch.cuda.sync.set_sync_debug_mode("error"):
        layer(x, lengths=lengths)


# 7 · double backward, and backward in eval


@each_device
def test_pytorch_5261_gradient_penalty(device):
    """WGAN-GP: the gradient of the critic's input is itself penalised."""
    critic = nn.ModuleList([ls.LSTM(4, 8, batch_first=True), nn.Linear(8, 1)]).to(device)
    x = data(3, 5, 4, device=device).requires_grad_()
    score = critic[1](critic[0](x)[0][:, -1]).sum()
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    ((gradient.flatten(1).norm(dim=1) - 1) ** 2).sum().backward()
    assert critic[0].weight_hh_l0.grad.abs().max() > 0


@each_device
def test_pytorch_25315_gradgradcheck(device):
    layer = ls.LSTM(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64).to(device)
    x = data(3, 2, 2, dtype=torch.float64, device=device).requires_grad_()
    torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,), fast_mode=True)


@each_device
def test_pytorch_5878_captum_564_backward_in_eval(device):
    layer = ls.LSTM(4, 8, num_layers=2, dropout=0.5).to(device).eval()
    x = data(5, 3, 4, device=device).requires_grad_()
    layer(x)[0].sum().backward()
    assert x.grad.abs().max() > 0
    assert not layer.training
    assert torch.backends.cudnn.enabled


# 8 · vmap


@each_device
def test_pytorch_105982_134606_vmap_over_an_ensemble(device):
    members = [ls.LSTM(4, 8, batch_first=True).to(device) for _ in range(3)]
    weights, buffers = stack_module_state(members)
    x = data(2, 5, 4, device=device)
    y = vmap(lambda w, b: functional_call(members[0], (w, b), (x,))[0])(weights, buffers)
    for k, member in enumerate(members):
        torch.testing.assert_close(y[k], member(x)[0])


@each_device
def test_pytorch_111082_opacus_53_per_sample_gradients(device):
    layer = ls.LSTM(4, 8, batch_first=True).to(device)
    weights = {k: v.detach() for k, v in layer.named_parameters()}
    x = data(6, 5, 4, device=device)

    def loss(weights, x):
        return functional_call(layer, weights, (x[None],))[0].square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    whole = grad(lambda w: functional_call(layer, w, (x,))[0].square().sum())(weights)
    for name, gradient in each.items():
        assert gradient.shape == (6, *weights[name].shape)
        torch.testing.assert_close(gradient.sum(0), whole[name], rtol=1e-4, atol=1e-5)


# 9 · every cell and gate


@each_device
def test_pytorch_31423_8938_every_cell_and_gate_in_one_pass_and_differentiable(device):
    layer = ls.LSTM(4, 8, batch_first=True, dtype=torch.float64).to(device)
    x = data(2, 5, 4, dtype=torch.float64, device=device).requires_grad_()
    _, _, kept = layer(x, keep="all")
    h, c = torch.zeros(1, 2, 8, device=device).double(), torch.zeros(1, 2, 8, device=device).double()
    for t in range(5):
        _, (h, c) = layer(x[:, t : t + 1], (h, c))
        torch.testing.assert_close(kept.cells[0, :, t], c[0])
    (kept.cells.sum() + kept.gates.sum()).backward()
    assert x.grad.abs().min() > 0


# 10 · the same seed, the same bits


ALL_NOISE = Noise(
    variational_x=0.2, variational_h=0.2, recurrent_dropout=0.2, zoneout_h=0.2, zoneout_c=0.2, weight_drop=0.2
)


def noisy(device):
    torch.manual_seed(0)
    layer = ls.LSTM(4, 8, num_layers=2, dropout=0.3, noise=ALL_NOISE).to(device)
    x = data(5, 3, 4, device=device)
    torch.manual_seed(7)
    y = layer(x)[0]
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in layer.parameters())]


@each_device
def test_pytorch_90168_104697_same_seed_same_bits_with_dropout(device):
    for got, want in zip(noisy(device), noisy(device), strict=True):
        assert torch.equal(got, want)


@needs_gpu
def test_pytorch_90168_104697_the_same_masks_on_cpu_and_gpu():
    for got, want in zip(noisy("cuda"), noisy("cpu"), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-5)


# 11 · autocast, copies, parametrisations


@each_device
def test_pytorch_36428_autocast_and_a_scaled_loss(device):
    layer = ls.LSTM(4, 8, num_layers=2, dropout=0.1).to(device)
    x = data(5, 3, 4, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        y, state = layer(x)
        y, _ = layer(x, state)
    (1024 * y.float().mean()).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


@each_device
def test_pytorch_86457_40193_32346_weight_norm_parametrize_and_deepcopy(device, recwarn):
    layer = ls.LSTM(4, 8, dtype=torch.float64).to(device)
    want = layer(data(5, 3, 4, dtype=torch.float64, device=device))[0]
    parametrizations.weight_norm(layer, "weight_hh_l0")
    x = data(5, 3, 4, dtype=torch.float64, device=device)
    torch.testing.assert_close(layer(x)[0], want)
    twin = copy.deepcopy(layer)
    twin(x)[0].sum().backward()
    assert twin.parametrizations.weight_hh_l0.original1.grad.abs().max() > 0
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(2)
    assert not torch.allclose(layer(x)[0], want)
    with torch.no_grad():
        state = layer(x)[1]
        torch.testing.assert_close(layer.step(x[0], state)[0], layer(x[:1], state)[0][0])
        torch.testing.assert_close(layer.step(x[0], state)[0], layer(x[:1], state)[0][0])
    assert [str(w.message) for w in recwarn] == []


# 13 · sizes


@each_device
def test_tensorflow_39453_nam_450_batch_of_70_000(device):
    """More sequences than 65 535, which is as far as one axis of a GPU's grid goes."""
    layer = ls.LSTM(1, 2, batch_first=True, dtype=torch.float64).to(device)
    x = data(70_000, 2, 1, dtype=torch.float64, device=device).requires_grad_()
    y, _ = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y[-3:], layer(x[-3:])[0])
    assert x.grad[-1].abs().min() > 0


@needs_gpu
def test_torchrl_3818_more_than_2_to_the_31_numbers():
    layer = ls.LSTM(1, 512, batch_first=True, dtype=torch.bfloat16).cuda()
    x = data(4200, 1024, 1, dtype=torch.bfloat16, device="cuda")
    assert x.shape[0] * x.shape[1] * 512 > 2**31
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0][-1], layer(x[-1:])[0][0])


# 14 · dropout between layers reaches the gradient


@each_device
def test_pytorch_190056_finite_differences_of_multi_layer_dropout(device):
    layer = ls.LSTM(2, 3, num_layers=3, dropout=0.5, dtype=torch.float64).to(device)
    x = data(4, 2, 2, dtype=torch.float64, device=device).requires_grad_()

    def seeded(x):
        torch.manual_seed(11)
        return layer(x)[0]

    torch.autograd.gradcheck(seeded, (x,))
    assert not torch.equal(seeded(x), copy.deepcopy(layer).eval()(x)[0])


def test_pytorch_190057_dropout_of_one_is_zero_and_not_nan():
    layer = ls.LSTM(2, 3, num_layers=2, dropout=1.0)
    y, _ = layer(data(4, 2, 2))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
