"""`longshort.LSTM` where torch.nn.LSTM stood: same arguments, names, weights, numbers; then all it adds."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import longshort as ls
from longshort.scan import Jagged, Noise, State, Variant, lstm
from oracle import assert_as_accurate

ARGUMENTS = [
    {},
    {"num_layers": 3},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"proj_size": 3},
    {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True},
]
each_argument = pytest.mark.parametrize(
    "kw", ARGUMENTS, ids=lambda kw: "-".join(f"{k}={v}" for k, v in kw.items()) or "default"
)


def both(dtype=torch.float64, seed=0, **kw):
    torch.manual_seed(seed)
    theirs = torch.nn.LSTM(4, 6, dtype=dtype, **kw)
    torch.manual_seed(seed)
    return ls.LSTM(4, 6, dtype=dtype, **kw), theirs


def data(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def first_state(layer, N):
    L = layer.num_layers * (1 + layer.bidirectional)
    return data(L, N, layer.proj_size or layer.hidden_size, seed=2), data(L, N, layer.hidden_size, seed=3)


def same(got, want):
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@each_argument
def test_same_names_and_initial_weights(kw):
    ours, theirs = both(**kw)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(got, want)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())


@each_argument
@pytest.mark.parametrize("state", [False, True])
def test_same_outputs_and_gradients(kw, state):
    ours, theirs = both(**kw)
    x = data(3, 5, 4)
    hx = first_state(theirs, 3 if kw.get("batch_first") else 5) if state else None
    for layer in (ours, theirs):
        y, (h, c) = layer(x, hx)
        ((y * data(*y.shape)).sum() + (h * data(*h.shape)).sum() + (c * data(*c.shape)).sum()).backward()
        layer.found = (y, h, c)
    for got, want in zip(ours.found, theirs.found, strict=True):
        same(got, want)
    for (name, got), want in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            got.grad, want.grad, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@each_argument
def test_rounding_is_no_worse_than_torch_s(kw):
    ours, theirs = both(torch.float32, **kw)
    exact = copy.deepcopy(theirs).double()
    x = data(9, 9, 4, dtype=torch.float32)
    for got, want, truth in zip(ours(x)[1], theirs(x)[1], exact(x.double())[1], strict=True):
        assert_as_accurate(got, truth, want)


@each_argument
def test_one_sequence_without_a_batch(kw):
    ours, theirs = both(**kw)
    x = data(5, 4)
    hx = tuple(s[:, 0] for s in first_state(theirs, 1))
    for state in (None, hx):
        (y, (h, c)), (want, (h_n, c_n)) = ours(x, state), theirs(x, state)
        same(y, want)
        same(h, h_n)
        same(c, c_n)


@each_argument
@pytest.mark.parametrize("sorted_already", [False, True])
def test_packed_sequences(kw, sorted_already):
    ours, theirs = both(**kw)
    sequences = [data(n, 4, seed=n) for n in ((7, 5, 3, 1) if sorted_already else (3, 7, 1, 5))]
    packed = pack_sequence(sequences, enforce_sorted=sorted_already)
    for hx in (None, first_state(theirs, 4)):
        (y, (h, c)), (want, (h_n, c_n)) = ours(packed, hx), theirs(packed, hx)
        same(y.data, want.data)
        assert torch.equal(y.batch_sizes, want.batch_sizes)
        if not sorted_already:
            assert torch.equal(y.sorted_indices, want.sorted_indices)
            assert torch.equal(y.unsorted_indices, want.unsorted_indices)
        same(h, h_n)
        same(c, c_n)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_jagged_and_nested_sequences_equal_packed_ones():
    ours, theirs = both(bidirectional=True, num_layers=2)
    sequences = [data(n, 4, seed=n) for n in (3, 7, 1, 5)]
    want, (h_n, _) = theirs(pack_sequence(sequences, enforce_sorted=False))
    rows, lengths = torch.nn.utils.rnn.pad_packed_sequence(want, batch_first=True)
    flat = torch.cat([row[:n] for row, n in zip(rows, lengths, strict=True)])
    y, (h, _) = ours(Jagged.of(sequences))
    same(y.values, flat)
    same(h, h_n)
    nested = torch.nested.nested_tensor(sequences, layout=torch.jagged)
    y, (h, _) = ours(nested)
    same(y.values(), flat)
    same(h, h_n)


def of_rows(values, offsets, lengths):
    return torch.nested.nested_tensor_from_jagged(values, torch.tensor(offsets), torch.tensor(lengths))


HOLES = {
    "behind each": lambda x: of_rows(x.flatten(0, 1), [0, 5, 10, 15], [2, 4, 1]),
    "in front, and between": lambda x: of_rows(x.flatten(0, 1), [2, 5, 9, 13], [3, 1, 4]),
    "one of no length": lambda x: of_rows(x.flatten(0, 1), [0, 5, 10, 15], [5, 0, 3]),
    "all of no length": lambda x: of_rows(x.flatten(0, 1), [0, 5, 10, 15], [0, 0, 0]),
    "narrowed": lambda x: torch.nested.narrow(
        x, 1, torch.tensor([1, 0, 3]), torch.tensor([2, 3, 2]), layout=torch.jagged
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("holes", HOLES.values(), ids=HOLES)
def test_nested_sequences_with_holes_are_read_by_their_lengths(holes):
    layer, x = ls.LSTM(4, 6, bidirectional=True, dtype=torch.float64), data(3, 5, 4).requires_grad_()
    hx, nested = first_state(layer, 3), holes(x)
    y, (h, c) = layer(nested, hx)
    ((y.values() * data(15, 12)).sum() + h.sum() + c.sum()).backward()
    got, x.grad = x.grad, None
    starts, lengths = nested.offsets()[:-1].tolist(), nested.lengths().tolist()
    want, loss = torch.zeros(15, 12, dtype=torch.float64), 0
    for n, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        own = x.flatten(0, 1)[start : start + length]
        y_n, (h_n, c_n) = layer(own[:, None], tuple(s[:, n : n + 1] for s in hx))
        same(h[:, n], h_n[:, 0])
        want[start : start + length] = y_n[:, 0].detach()
        loss += (y_n[:, 0] * data(15, 12)[start : start + length]).sum() + h_n.sum() + c_n.sum()
    loss.backward()
    same(y.values(), want)
    same(got, x.grad)
    assert y.shape[:2] == nested.shape[:2] and y.offsets() is nested.offsets()
    assert y.lengths() is nested.lengths()


def packed(x, lengths, **options):
    return pack_padded_sequence(x, torch.tensor(lengths, device="cpu"), batch_first=True, **options)


def with_key(layer, x):
    return lstm(x, layer.weight_ih_l0, layer.weight_hh_l0, noise=layer.noise, training=True, seed=3)[0]


def trained_with_noise(layer, x):
    torch.manual_seed(0)
    return layer.train()(x)


ELSEWHERE = {
    "packed": lambda layer, x: layer(packed(x, [3, 5], enforce_sorted=False))[0].data,
    "packed and sorted": lambda layer, x: layer(packed(x, [5, 3]))[0].data,
    "jagged": lambda layer, x: layer(Jagged.of([x[0, :3], x[1]]))[0].values,
    "nested": lambda layer, x: layer(torch.nested.as_nested_tensor([x[0], x[1]], layout=torch.jagged))[
        0
    ].values(),
    "holes": lambda layer, x: layer(
        torch.nested.nested_tensor_from_jagged(
            x.flatten(0, 1), torch.tensor([0, 5, 10], device="cpu"), torch.tensor([2, 4], device="cpu")
        )
    )[0].values(),
    "lists": lambda layer, x: layer(x, lengths=[3, 5], reset=[[False, True, False, False, True]] * 2)[0],
    "no sequences": lambda layer, x: layer(x[:0], lengths=[])[0],
    "dropout": lambda layer, x: trained_with_noise(layer, x)[0],
    "steps": lambda layer, x: layer.step(x[:, 0])[0],
    "a key in a graph": lambda layer, x: make_fx(lambda x: with_key(layer, x))(x)(x),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("call", ELSEWHERE.values(), ids=ELSEWHERE)
def test_torch_s_default_device_is_of_no_importance(call):
    layer = ls.LSTM(4, 6, 2, batch_first=True, dropout=0.3, noise=Noise(zoneout_c=0.2), dtype=torch.float64)
    layer, x = layer.eval(), data(2, 5, 4).requires_grad_()
    want = call(layer, x)
    torch.set_default_device("meta")
    try:
        got = call(layer, x)
        (gradient,) = torch.autograd.grad(got.sum(), x)
    finally:
        torch.set_default_device(None)
    same(got, want)
    same(gradient, torch.autograd.grad(want.sum(), x)[0])


def test_jagged_sequences_of_no_length():
    layer = ls.LSTM(4, 6, dtype=torch.float64)
    sequences = [data(3, 4), data(0, 4), data(2, 4)]
    hx = first_state(layer, 3)
    y, (h, _) = layer(Jagged.of(sequences), hx)
    assert y.values.shape == (5, 6)
    assert torch.equal(h[:, 1], hx[0][:, 1])
    same(h[:, 2], layer(sequences[2][:, None], tuple(s[:, 2:] for s in hx))[1].h[:, 0])
    empty, (h, _) = layer(Jagged.of([data(0, 4)]))
    assert empty.values.shape == (0, 6)
    assert (h == 0).all()


def test_a_state_unpacks_like_torch_s_and_goes_back_in():
    layer = ls.LSTM(4, 6, num_layers=2, dtype=torch.float64)
    x = data(8, 3, 4)
    whole, last = layer(x)
    first, state = layer(x[:5])
    assert isinstance(state, State)
    rest, (h, c) = layer(x[5:], state)
    same(torch.cat((first, rest)), whole)
    same(h, last.h)
    same(c, last.c)


def test_copies_and_pickles():
    ours, _ = both(torch.float32, num_layers=2)
    ours.variant  # noqa: B018
    x = data(3, 5, 4, dtype=torch.float32)
    want = ours(x)[0]
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied(x)[0], want)
        assert all(a is not b for a, b in zip(ours.parameters(), copied.parameters(), strict=True))
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x)[0], want)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    fresh = ls.LSTM(4, 6, num_layers=2)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x)[0], want)


def test_copies_of_a_variant_after_a_step():
    layer = ls.LSTM(4, 6, variant=Variant(norm="ba2016", peephole=True), noise=Noise(zoneout_h=0.1)).eval()
    with torch.no_grad():
        _, state = layer.step(torch.zeros(1, 4), layer.initial_state(1))
        _, state = layer.step(torch.zeros(1, 4), state)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.variant == layer.variant
        assert copied.noise == layer.noise
        assert torch.equal(copied(torch.ones(2, 1, 4))[0], layer(torch.ones(2, 1, 4))[0])


def test_to_another_dtype():
    ours, theirs = both(torch.float32)
    x = data(3, 5, 4)
    same(ours.to(torch.float64)(x)[0], theirs.to(torch.float64)(x)[0])
    assert ours.half()(x.half())[0].dtype == torch.float16
    assert ours.bfloat16()(x.bfloat16())[1].c.dtype == torch.float32


def test_the_meta_device():
    layer = ls.LSTM(4, 6, num_layers=2, device="meta")
    assert all(weight.is_meta for weight in layer.parameters())
    assert layer.plan(torch.empty(5, 3, 4, device="meta")).kept_bytes == 2 * 6 * 3 * 5 * 6 * 4
    loaded = layer.to_empty(device="cpu")
    loaded.load_state_dict(ls.LSTM(4, 6, num_layers=2).state_dict())
    assert loaded(torch.zeros(2, 3, 4))[0].isfinite().all()


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "batch_first": True}])
def test_what_has_no_numbers_is_planned_for_the_device_of_the_layer(options):
    layer = ls.LSTM(4, 6, **options)
    N, T = (5, 3) if layer.batch_first else (3, 5)
    L = layer.num_layers * (2 if layer.bidirectional else 1)
    x, h, c = torch.zeros(5, 3, 4), torch.zeros(L, N, 6), torch.zeros(L, N, 6)
    call = {"hx": (h, c), "reset": torch.zeros(N, T, dtype=torch.bool), "lengths": torch.full((N,), T)}
    empty = {"hx": (h.to("meta"), c.to("meta")), **{n: call[n].to("meta") for n in ("reset", "lengths")}}
    assert str(layer.plan(x.to("meta"))) == str(layer.plan(x))
    assert str(layer.plan(x.to("meta"), **empty)) == str(layer.plan(x, **call))


def test_nothing_warns_and_flatten_parameters_does_no_harm():
    layer = ls.LSTM(4, 6, num_layers=2, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.flatten_parameters()
        layer(torch.zeros(2, 3, 4))
        copy.deepcopy(layer).flatten_parameters()


def test_all_weights_are_listed_as_torch_lists_them():
    ours, theirs = both(num_layers=2, bidirectional=True, proj_size=2)
    for got, want in zip(ours.all_weights, theirs.all_weights, strict=True):
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "variant", [Variant(), Variant(gate_recurrence=True, peephole=True), Variant(norm="per_gate")]
)
@pytest.mark.parametrize("kw", [{}, {"num_layers": 2, "batch_first": True}, {"proj_size": 2}])
@pytest.mark.parametrize("gradients", [False, True])
def test_steps_equal_the_sequence(variant, kw, gradients):
    noise = Noise(zoneout_h=0.2, zoneout_c=0.1)
    layer = ls.LSTM(4, 6, dtype=torch.float64, variant=variant, noise=noise, learn_initial=True, **kw).eval()
    x = data(3, 7, 4)
    time = 1 if kw.get("batch_first") else 0
    with torch.set_grad_enabled(gradients):
        whole, last = layer(x)
        state = layer.initial_state(x.shape[1 - time])
        for t in range(x.shape[time]):
            y, state = layer.step(x.select(time, t), state)
            same(y, whole.select(time, t))
        same(state.h, last.h)
        same(state.c, last.c)
        same(layer.step(x.select(time, 0))[0], whole.select(time, 0))
        same(layer.step(x.select(time, 0)[0])[0], whole.select(time, 0)[0])


def test_a_step_sees_every_change_of_the_weights():
    layer = ls.LSTM(4, 6, dtype=torch.float64).eval()
    x, state = data(2, 4), layer.initial_state(2)

    def agrees():
        with torch.no_grad():
            same(layer.step(x, state)[0], layer(x[None], state)[0][0])

    agrees()
    agrees()
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    agrees()
    for weight in layer.parameters():  # how many a target network is moved; leaves no version behind
        weight.data.mul_(0.5)
    agrees()
    layer.weight_ih_l0 = torch.nn.Parameter(layer.weight_ih_l0 + 1)
    agrees()
    layer.load_state_dict(ls.LSTM(4, 6, dtype=torch.float64).state_dict())
    agrees()


def test_keep_returns_every_cell_and_gate_of_every_layer():
    layer = ls.LSTM(4, 6, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = data(5, 3, 4)
    y, state, kept = layer(x, keep="all")
    assert kept.cells.shape == (4, 3, 5, 6)
    assert kept.gates.shape == (4, 3, 5, 24)
    same(kept.cells[2, :, -1], state.c[2])
    same(kept.cells[3, :, 0], state.c[3])
    o = kept.gates[2].chunk(4, dim=-1)[3]
    same((o * kept.cells[2].tanh()).transpose(0, 1), y[..., :6])
    assert layer(x[:, 0], keep="cells")[2].cells.shape == (4, 5, 6)
    assert layer(x, keep="cells")[2].gates is None


def test_both_directions_see_the_same_episodes():
    layer = ls.LSTM(4, 6, bidirectional=True, batch_first=True, dtype=torch.float64)
    x = data(2, 9, 4)
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 4] = True
    y, (h, _) = layer(x, reset=reset)
    one, two = layer(x[:1, :4]), layer(x[:1, 4:])
    same(y[:1], torch.cat((one[0], two[0]), dim=1))
    same(h[0, :1], two[1].h[0])
    same(h[1, :1], one[1].h[1])
    same(y[1:], layer(x[1:])[0])


def test_a_reset_at_the_end_of_a_shorter_sequence_does_not_reach_its_reversed_start():
    layer = ls.LSTM(4, 6, bidirectional=True, batch_first=True, dtype=torch.float64)
    x, hx = data(2, 5, 4), first_state(layer, 2)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[0, 3] = True
    same(layer(x, hx, reset=reset, lengths=[3, 5])[0], layer(x, hx, lengths=[3, 5])[0])


@pytest.mark.parametrize("learned", [False, True])
def test_a_reset_returns_to_the_initial_state(learned):
    layer = ls.LSTM(4, 6, num_layers=2, learn_initial=learned, dtype=torch.float64)
    if learned:
        with torch.no_grad():
            for name, weight in layer.named_parameters():
                if name.startswith("initial"):
                    weight.normal_()
    x = data(6, 1, 4)
    reset = torch.zeros(1, 6, dtype=torch.bool)
    reset[0, 2] = True
    y, state = layer(x, first_state(layer, 1), reset=reset)
    want, last = layer(x[2:])
    same(y[2:], want)
    same(state.h, last.h)
    y[2:].square().sum().backward()
    grads = {n: p.grad for n, p in layer.named_parameters() if n.startswith("initial")}
    assert all(g is not None and g.abs().max() > 0 for g in grads.values())
    assert len(grads) == (4 if learned else 0)


def test_a_reset_returns_to_a_given_state():
    layer = ls.LSTM(4, 6, dtype=torch.float64)
    x, given = data(6, 2, 4), first_state(layer, 2)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[1, 3] = True
    y, _ = layer(x, reset=reset, initial=given)
    same(y[3:, 1:], layer(x[3:, 1:], tuple(s[:, 1:] for s in given))[0])


def test_lengths_on_any_device_type_and_order():
    layer = ls.LSTM(4, 6, batch_first=True, bidirectional=True, dtype=torch.float64)
    x = data(3, 7, 4)
    want = layer(x, lengths=torch.tensor([4, 0, 7]))
    for lengths in ([4, 0, 7], torch.tensor([4, 0, 7], dtype=torch.int32)):
        same(layer(x, lengths=lengths)[0], want[0])
    same(want[0][0, :4], layer(x[:1, :4])[0][0])
    assert (want[0][1] == 0).all()


def test_the_ordinary_dropout_between_layers():
    layer = ls.LSTM(4, 64, num_layers=2, dropout=0.25, dtype=torch.float64)
    x = data(50, 8, 4)
    below = layer.to_torch()
    torch.manual_seed(5)
    one = layer(x)[0]
    torch.manual_seed(5)
    assert torch.equal(layer(x)[0], one)
    assert not torch.equal(layer(x)[0], one)
    same(layer.eval()(x)[0], below.eval()(x)[0])


def test_plan_names_backends_and_bytes():
    layer = ls.LSTM(4, 6, num_layers=2, bidirectional=True, backend="plain")
    text = str(layer.plan(torch.zeros(5, 3, 4)))
    each = 6 * 3 * 5 * 6 * 4
    assert text == (
        f"layer 0: plain; training keeps {each:,} bytes\n"
        f"layer 0 reversed: plain; training keeps {each:,} bytes\n"
        f"layer 1: plain; training keeps {each:,} bytes\n"
        f"layer 1 reversed: plain; training keeps {each:,} bytes\n"
        f"in all {4 * each:,} bytes"
    )


@pytest.mark.parametrize("reentrant", [False, True])
def test_torch_s_own_checkpoint_around_the_layer(reentrant):
    layer, x = ls.LSTM(4, 6, dtype=torch.float64), data(5, 3, 4).requires_grad_()
    (want,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    y = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=reentrant)
    y.square().sum().backward()
    same(x.grad, want)


def test_autocast_casts_once_and_keeps_the_cell_wide():
    layer = ls.LSTM(4, 6, num_layers=2, bias=False)
    x = data(5, 3, 4, dtype=torch.float32)
    narrow = copy.deepcopy(layer).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, (h, c) = layer(x)
    assert y.dtype == h.dtype == torch.bfloat16
    assert c.dtype == torch.float32
    assert torch.equal(y, narrow(x.bfloat16())[0])
    y.float().sum().backward()
    assert layer.weight_hh_l0.grad.dtype == torch.float32
