"""The kernels on a CUDA device: what the host's emulation cannot show. Without a device every test skips.

In the order of trust: one launch a step, which waits for nothing; persistent kernels of one block; those
whose blocks wait for each other, each in a process of its own, with a limit of time.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import longshort as ls
from gpu.conftest import EMULATED
from gpu.running import check, differentiate
from longshort.scan import Noise, lstm, masks, plan
from longshort.scan.cuda import copying, dropping, products, rounding, sources, streams
from longshort.scan.cuda import machine as machines
from oracle import assert_equations
from scan.cases import OPTIONS, PAIRS, SIZES, TOGETHER, Case, ids
from scan.test_persistent import APART, MUCH

needs_a_device = pytest.mark.skipif(EMULATED, reason="the emulation has no streams, graphs or sanitizer")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"]
)


@needs_a_device
def test_auto_runs_on_the_kernels(device):
    """`plan()` names them only after their check at first use on this device."""
    given = {k: v.to(device) for k, v in Case("ordinary").make(torch.float32).items()}
    found = plan(**given)
    assert found.name == "gpu", str(found)


@ids([*SIZES, *OPTIONS, *TOGETHER, *PAIRS[::7]])
def test_formula_a_launch_a_step(case, device):
    tensors = case.make()
    exact = case.differentiate(tensors, backend="definition", checkpoint_every=None)
    for what, got in differentiate(case, tensors, device, backend="gpu").items():
        assert_equations(got, exact[what], what=what)


@DTYPES
@ids([*SIZES, *OPTIONS, *TOGETHER])
def test_rounding_a_launch_a_step(case, dtype, device, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    check(case, dtype, device)


@DTYPES
@ids([*APART, MUCH])
def test_rounding_one_block_alone(case, dtype, device, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "alone")
    check(case, dtype, device)


@DTYPES
@pytest.mark.parametrize("N, H", [(64, 128), (300, 128), (1030, 64), (9, 96)])
def test_one_block_alone_at_size(N, H, dtype, device, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "alone")
    case = Case("sizes", N=N, T=20, C=8, H=H)
    once = check(case, dtype, device)
    for _ in range(10):
        for what, got in differentiate(case, case.make(dtype), device, backend="gpu").items():
            assert torch.equal(got, once[what]), what


@needs_a_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("lies", ["by step", "by sequence"])
@pytest.mark.parametrize("C, H", [(64, 128), (24, 128), (17, 64), (1, 96)])
def test_many_sequences_of_a_block_multiply_x_there(C, H, lies, dtype, device, monkeypatch):
    """Sixteen columns a block on any device; what the padding of x holds is nobody's."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "alone")
    N = 9 * machines.cuda(torch.cuda.current_device()).properties.multiprocessors + 5
    case = Case("sizes", N=N, T=6, C=C, H=H, lengths=True, initial=True, reset=True)
    tensors = case.make(dtype)
    if lies == "by step":
        tensors["x"] = tensors["x"].transpose(0, 1).contiguous().transpose(0, 1)
    got = differentiate(case, tensors, device, backend="gpu")
    case.assert_as_accurate(got, tensors)
    padding = torch.arange(6) >= tensors["lengths"][:, None]
    tensors["x"] = tensors["x"].masked_fill(padding[..., None], torch.nan)
    for what, value in differentiate(case, tensors, device, backend="gpu").items():
        assert torch.equal(value, got[what]), what


def alone(*words, **environment):
    command = [sys.executable, str(Path(__file__).with_name("apart.py")), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=150, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("what", ["plain", "much", "nan"])
@pytest.mark.parametrize(
    "N, T, H, dtype",
    [
        (25, 7, 150, "bfloat16"),
        (64, 20, 256, "bfloat16"),
        (64, 20, 512, "bfloat16"),
        (64, 9, 1024, "bfloat16"),
        (20, 35, 650, "bfloat16"),
        (1, 40, 512, "bfloat16"),
        (64, 20, 512, "float16"),
        (64, 9, 512, "float32"),
        (64, 20, 128, "float32"),
        (256, 9, 1024, "bfloat16"),  # by teams from here on
        (80, 9, 1150, "bfloat16"),
        (300, 9, 512, "float16"),
        (512, 5, 1024, "float16"),
    ],
)
def test_blocks_that_exchange(N, T, H, dtype, what):
    if EMULATED and (N, H) != (25, 150):
        pytest.skip("too large for the emulation")
    found = alone(N, T, H, dtype, what, 1 if EMULATED else 40 if what == "plain" else 3)
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.parametrize("what", ["ba2016", "per_gate", "products", "projected", "both"])
@pytest.mark.parametrize(
    "N, T, H, dtype",
    [
        (25, 7, 150, "bfloat16"),
        (300, 9, 128, "bfloat16"),
        (64, 20, 512, "bfloat16"),
        (64, 9, 1024, "bfloat16"),
        (256, 9, 512, "bfloat16"),
        (20, 35, 650, "float32"),
        (64, 20, 512, "float16"),
    ],
)
def test_norms_and_projections_of_blocks_that_exchange(N, T, H, dtype, what):
    if EMULATED and (N, H) != (25, 150):
        pytest.skip("too large for the emulation")
    found = alone(N, T, H, dtype, what, 1 if EMULATED else 20)
    assert found.returncode == 0, found.stderr[-2000:]


@needs_a_device
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
@pytest.mark.parametrize("spans", [False, True], ids=["plain", "norm and projection"])
@pytest.mark.parametrize(
    "N, H, plan",
    [
        (9, 64, "alone"),
        (1500, 40, "alone"),
        (25, 150, "persistent"),
        (9, 128, "step"),
        (9, 1088, "persistent"),
    ],
)
def test_the_sanitizer_finds_nothing(tool, spans, N, H, plan):
    if spans and (H > 1024 or N > 1024):
        pytest.skip("teams have neither, nor what multiplies x")
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer is not installed")
    script = (
        "import torch, longshort as ls\n"
        f"variant = ls.Variant(norm={'ba2016' if spans else 'none'!r})\n"
        f"layer = ls.LSTM(8, {H}, proj_size={40 * spans}, variant=variant).to('cuda', torch.bfloat16)\n"
        f"x = torch.randn(5, {N}, 8, device='cuda', dtype=torch.bfloat16)\n"
        f"done = torch.rand({N}, 5, device='cuda') < 0.3\n"
        "layer(x, reset=done)[0].float().sum().backward()\n"
        "torch.cuda.synchronize()\n"
    )
    environment = {**os.environ, "LONGSHORT_CUDA_PLAN": plan, "LONGSHORT_CUDA_PATIENCE": "1000"}
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert found.returncode == 0, found.stdout[-2000:]


@pytest.fixture
def layer(device):
    torch.manual_seed(0)
    return ls.LSTM(16, 64).to(device), torch.randn(12, 5, 16, device=device)


@needs_a_device
@pytest.mark.parametrize("plan", ["step", "alone"])
def test_a_cuda_graph_replays_the_same_bits(plan, layer, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    lstm, x = layer
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            lstm(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = lstm(x)[0]
        for _ in range(5):
            x.normal_()
            graph.replay()
            assert torch.equal(y, lstm(x)[0])


@needs_a_device
@pytest.mark.parametrize("graded", [False, True])
def test_a_graph_outlives_what_the_layer_remembers(graded, layer):
    """Another shape and another mode let go of what calls were bound to, and their memory becomes others'."""
    lstm, x = layer

    def run():
        with torch.set_grad_enabled(graded):
            y = lstm(x)[0]
            grads = torch.autograd.grad(y.square().sum(), list(lstm.parameters())) if graded else ()
            return [y, *grads]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            want = [made.clone() for made in run()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = run()
    lstm.eval()
    with torch.no_grad():
        for N in (2, 2, 7, 7):
            lstm(x.new_ones(3, N, x.shape[2]))
    lstm.train()
    litter = [torch.full((n,), 7.0, device=x.device) for n in (64, 320, 640, 1024) for _ in range(200)]
    for _ in range(2):
        graph.replay()
        assert all(map(torch.equal, made, want))
    assert all(bool((one == 7).all()) for one in litter)


@needs_a_device
def test_a_graph_of_one_step_writes_only_what_is_its_own(layer):
    lstm, x = layer
    lstm.eval()
    with torch.no_grad():
        state = lstm(x)[1]
        for _ in range(2):
            want = [made.clone() for made in (lstm.step(x[0], state)[0], *lstm.step(x[0], state)[1])]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, after = lstm.step(x[0], state)
        lstm.train()
        litter = [torch.full((256,), 7.0, device=x.device) for _ in range(200)]
        graph.replay()
    assert all(map(torch.equal, (y, *after), want))
    assert all(bool((one == 7).all()) for one in litter)


@needs_a_device
def test_zeros_made_on_one_stream_serve_another(layer):
    """A busy stream binds the call; another must find its zeros made, and keep them from others."""
    lstm, x = layer
    with torch.no_grad():
        want, other = lstm(x)[0], torch.cuda.Stream()
        other.wait_stream(torch.cuda.current_stream())
        lstm.eval()
        torch.cuda._sleep(100_000_000)
        for _ in range(2):
            lstm(x)
        with torch.cuda.stream(other):
            y = lstm(x)[0]
    torch.cuda.synchronize()
    assert torch.equal(y, want)


ALL_NOISE = Noise(
    variational_x=0.2,
    variational_h=0.2,
    recurrent_dropout=0.2,
    zoneout_h=0.2,
    zoneout_c=0.2,
    weight_drop=0.2,
)


@needs_a_device
@pytest.mark.parametrize("dtype", list(sources.TYPES), ids=str)
@pytest.mark.parametrize("N, T, K", [(3, 5, 7), (4600, 1, 1150), (64, 35, 1152), (1, 1, 1)])
def test_a_tensor_under_its_mask_has_the_cpu_s_bits(N, T, K, dtype, device):
    """By the kernel, and by plain torch on the device."""
    found, seed = machines.cuda(torch.cuda.current_device()), torch.tensor(-(2**61) - 5)
    x = torch.randn(N, T, K, generator=torch.Generator().manual_seed(0)).to(dtype)
    for kind in ("variational_x", "weight_drop", "dropout"):
        for factor in (None, torch.promote_types(dtype, torch.float32)):
            want = masks.dropped(x, kind, 0.3, seed, factor)
            given = x.to(device), kind, 0.3, seed.to(device), factor
            assert torch.equal(dropping.dropped(found, *given).cpu(), want)
            assert torch.equal(masks.dropped(*given).cpu(), want)
            by_step = x.transpose(0, 1).contiguous().to(device).transpose(0, 1)
            assert torch.equal(dropping.dropped(found, by_step, *given[1:]).cpu(), want)


def copied(machine, what, tensor, *more):
    """One copy alone, and behind it what is not there yet."""
    copies = copying.Copies(machine, tensor.dtype)
    found, room = getattr(copies, what)(tensor, *more), tensor.new_zeros(5, 32)
    if tensor.dtype != torch.float64:
        copies.blank(room)
    copies.run()
    assert tensor.dtype == torch.float64 or bool((room.view(torch.uint8) == 255).all())
    return found


@needs_a_device
@pytest.mark.parametrize("dtype", list(sources.TYPES), ids=str)
@pytest.mark.parametrize("H, columns", [(1, 32), (31, 32), (128, 128), (650, 672), (1024, 1024)])
def test_copies_of_weights_have_the_bits_of_plain_torch_s(H, columns, dtype, device):
    """At aligned addresses, and one element behind them."""
    found, more = machines.cuda(torch.cuda.current_device()), (0, columns - H)
    for G in (3, 4):
        room = torch.randn(G * H * H + 1, device=device).to(dtype)
        for w_hh in (room[:-1].view(-1, H), room[1:].view(-1, H)):
            want = torch.nn.functional.pad(w_hh.view(G, H, H).permute(2, 0, 1), more)
            room = torch.zeros(40, H, dtype=dtype, device=device)
            assert torch.equal(copying.transposed(found, w_hh, G, columns, room), want)
            assert bool((room.view(torch.uint8) == 255).all())
            assert torch.equal(copied(found, "resident", w_hh, columns), torch.nn.functional.pad(w_hh, more))
            want = torch.nn.functional.pad(w_hh.view(G, H, H), (0, columns - H, 0, 7)).flatten(0, 1)
            assert torch.equal(copied(found, "padded", w_hh, columns, G, H + 7), want)


@needs_a_device
@pytest.mark.parametrize("dtype", list(sources.TYPES), ids=str)
@pytest.mark.parametrize("N, T, C, columns", [(1024, 9, 128, 128), (33, 70, 17, 24), (3, 1, 6, 6)])
def test_sequences_laid_step_by_step_have_the_bits_of_plain_torch_s(N, T, C, columns, dtype, device):
    found, lengths = machines.cuda(torch.cuda.current_device()), torch.arange(N, device=device) % (T + 1)
    off = (torch.arange(T, device=device)[:, None] >= lengths)[..., None]
    for elements in (0, 1):
        x = torch.randn(N * T * C + 1, device=device).to(dtype)[elements:][: N * T * C].view(N, T, C)
        whole = torch.nn.functional.pad(x.transpose(0, 1), (0, columns - C))
        for given, want in ((None, whole), (lengths, whole.masked_fill(off, 0))):
            assert torch.equal(copied(found, "by_step", x, columns, given), want.flatten(0, 1))


@needs_a_device
@DTYPES
def test_small_gradients_are_summed_and_rounded_in_one_launch(dtype, device):
    """Twice with the same bits, beside float64; numbers that are only rounded, as plain torch rounds them."""
    found, rng = machines.cuda(torch.cuda.current_device()), torch.Generator(device).manual_seed(0)
    shapes = ((1, 1 << 20), (132, 2600), (1, 4097), (512, 70), (7, 1), (4 * 672, 650))
    values = [torch.randn(shape, generator=rng, device=device) for shape in shapes]

    def run():
        work = rounding.Rounding(found, dtype)
        made = [work.add(v) for v in values[:-1]] + [work.within(values[-1], 4, 650, 649, 1.25)]
        work.run()
        return made

    for once, again, value in zip(run(), run(), values, strict=True):
        whole = value.unflatten(0, (4, 672))[:, :650, :649].flatten(0, 1) * 1.25 if once.dim() == 2 else None
        want = value.double().sum(0) if whole is None else whole.double()
        assert torch.equal(once, again)
        if len(value) == 1 or whole is not None:
            assert torch.equal(once, want.to(dtype))
        else:
            torch.testing.assert_close(once.double(), want, rtol=torch.finfo(dtype).eps, atol=1e-4)


@needs_a_device
@pytest.mark.parametrize("noise", [ALL_NOISE, Noise(zoneout_h=0.1, zoneout_c=0.1)], ids=str)
def test_a_seed_gives_the_same_numbers_on_the_cpu_and_on_the_device(noise, device):
    torch.manual_seed(0)
    layer, x = ls.LSTM(5, 12, 2, dropout=0.3, noise=noise).double(), torch.randn(7, 3, 5).double()
    found = []
    for where in ("cpu", device):
        layer.to(where).zero_grad()
        torch.manual_seed(7)
        y = layer(x.to(where))[0]
        y.square().sum().backward()
        found.append([t.detach().cpu() for t in (y, *(p.grad for p in layer.parameters()))])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


@needs_a_device
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("noise", [ALL_NOISE, Noise(zoneout_h=0.1, zoneout_c=0.1)], ids=str)
@pytest.mark.parametrize("plan", ["step", "alone"])
def test_a_training_step_with_noise_waits_for_nothing(plan, noise, device, monkeypatch):
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", plan)
    layer, x = ls.LSTM(16, 64, 2, dropout=0.3, noise=noise).to(device), torch.randn(12, 5, 16, device=device)

    def step():
        layer(x)[0].square().sum().backward()
        lstm(x, *layer.all_weights[0][:2], noise=noise, seed=3)[0].square().sum().backward()

    for _ in range(2):  # kernels are compiled, memory is found, a product's first result has been looked at
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_a_device
@pytest.mark.parametrize("noise", [ALL_NOISE, Noise(zoneout_h=0.1)], ids=str)
def test_a_cuda_graph_draws_new_masks_at_every_replay(noise, device):
    layer, x = ls.LSTM(16, 64, 2, dropout=0.3, noise=noise).to(device), torch.randn(12, 5, 16, device=device)
    with torch.no_grad():
        with torch.cuda.stream(torch.cuda.Stream()):
            layer(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)[0]
        seen = []
        for seed in (None, None, 3, 3):
            if seed is not None:
                torch.cuda.manual_seed(seed)
            graph.replay()
            seen.append(y.clone())
    assert torch.equal(seen[2], seen[3])
    assert not any(torch.equal(seen[a], seen[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@needs_a_device
@pytest.mark.parametrize("by_columns", [True, False], ids=["forward", "backward"])
@DTYPES
@pytest.mark.parametrize(
    "m, k, n", [(64, 512, 2048), (256, 1024, 4096), (5, 24, 96), (1, 1100, 4400), (80, 1152, 1152)]
)
@pytest.mark.parametrize("parts", [1, 4])
def test_the_product_of_a_step_is_torch_s_and_is_prepared(m, k, n, dtype, by_columns, parts, device):
    """By cuBLASLt, to what float32 rounds, and with the same bits each time."""
    found = machines.cuda(torch.cuda.current_device())
    rng = torch.Generator(device).manual_seed(0)
    a = torch.randn(3, m, k, generator=rng, device=device).to(dtype)
    b = torch.randn(k, n, generator=rng, device=device).to(dtype)
    if by_columns:
        b = b.T.contiguous().T
    out = torch.empty(parts, m, n, device=device)

    def otherwise(s):
        raise AssertionError("cuBLASLt was not used")

    with found.current():
        multiply = products.repeated(a, b, out, False, otherwise)
        for s in (2, 0, 1):
            multiply(s)
            once = out.clone()
            exact = a[s].double() @ b.double()
            assert (once.sum(0) - exact).abs().max() <= 1e-5 * (a[s].double().abs() @ b.double().abs()).max()
            for _ in range(10):
                multiply(s)
                assert torch.equal(out, once)


@needs_a_device
@pytest.mark.parametrize("N, H", [(64, 1024), (5, 1100), (7, 130), (33, 264)])
@DTYPES
def test_a_launch_a_step_at_size(N, H, dtype, device, monkeypatch):
    """A kernel that starts before the product before it has ended finds what it wrote, every time."""
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "step")
    case = Case("sizes", N=N, T=20, C=8, H=H)
    once = check(case, dtype, device)
    for _ in range(20):
        for what, got in differentiate(case, case.make(dtype), device, backend="gpu").items():
            assert torch.equal(got, once[what]), what


@needs_a_device
def test_streams_and_threads_do_not_disturb_each_other(layer):
    lstm, x = layer
    lstm.requires_grad_(False)  # threads that add to one gradient do disturb each other
    inputs = [torch.randn_like(x) for _ in range(4)]

    def gradients(one):
        leaf = one.clone().requires_grad_()
        lstm(leaf)[0].square().sum().backward()
        return leaf.grad

    want = [gradients(one) for one in inputs]
    torch.cuda.synchronize()
    got = [None] * 4

    def work(k):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(20):
                got[k] = gradients(inputs[k])
        stream.synchronize()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(got, want, strict=True):
        assert torch.equal(mine, theirs)


def test_the_layer_agrees_with_torch_s(device):
    theirs = torch.nn.LSTM(16, 64, num_layers=2, bidirectional=True).to(device)
    ours = ls.LSTM(16, 64, num_layers=2, bidirectional=True).to(device)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(30, 5, 16, device=device)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)


@needs_a_device
@pytest.mark.parametrize("more", [False, True], ids=["plain call", "lengths"])
@pytest.mark.parametrize("N, H", [(9, 64), (25, 150), (64, 512)])
def test_both_directions_side_by_side_give_the_bits_of_one_after_the_other(N, H, more, device, monkeypatch):
    """Memory is given out again and again meanwhile: what one stream still reads must not be."""
    layer = ls.LSTM(32, H, num_layers=2, bidirectional=True).to(device, torch.bfloat16)
    x = torch.randn(20, N, 32, device=device, dtype=torch.bfloat16, requires_grad=True)
    lengths = {"lengths": torch.randint(1, 21, (N,), device=device)} if more else {}

    def passed():
        y, (h, c) = layer(x, **lengths)
        loss = (y * y).sum() + h.sum() + c.sum()
        return [y.detach(), *torch.autograd.grad(loss, [x, *layer.parameters()])]

    with (
        monkeypatch.context() as patch
    ):  # one after the other, each cut for its part of the device all the same
        patch.setattr(streams, "_parted", lambda index, works: [work() for work in works])
        want = passed()
    for _ in range(20):
        torch.empty(1 << 20, device=device).fill_(torch.nan)
        assert all(torch.equal(a, b) for a, b in zip(passed(), want, strict=True))


@needs_a_device
def test_launching_takes_little_of_the_host_s_time(layer):
    """Not a timing test: it prints. The bound only catches what is broken by a factor."""
    import time

    lstm, x = layer
    with torch.inference_mode():
        lstm(x)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(200):
            lstm(x)
        took = (time.perf_counter() - start) / 200
        torch.cuda.synchronize()
    print(f"host: {1e6 * took:.0f} us a call of the layer")
    assert took < 0.01


@needs_a_device
def test_memory_stays_where_it_was(layer):
    lstm, x = layer
    for _ in range(3):
        lstm(x)[0].sum().backward()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        lstm(x)[0].sum().backward()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


@needs_a_device
def test_out_of_memory_is_torch_s_error_and_leaks_nothing(device):
    before = torch.cuda.memory_allocated()
    free, _ = torch.cuda.mem_get_info()
    H = 512
    x = torch.empty(free // (8 * 64 * H), 64, H, device=device, dtype=torch.bfloat16).zero_()
    weights = torch.zeros(4 * H, H, device=device, dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        lstm(x, weights, weights, backend="gpu")
    del x, weights
    assert torch.cuda.memory_allocated() == before
