"""Matrices copied by the kernels of `cuda/copied.cu`, beside plain torch: the same to the bit."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from longshort.scan.cuda import copying, packing, sources, weights
from scan.cases import Case

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))
DTYPES = pytest.mark.parametrize("dtype", list(sources.TYPES), ids=str)
WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture
def machine():
    return emulator.Emulator(seed=3)


def drawn(rows, columns, dtype):
    """Numbers of any bits, so some are NaN with a payload, and some subnormal."""
    whole, rng = WHOLE[dtype.itemsize], torch.Generator().manual_seed(rows + columns)
    words = torch.randint(-(2**62), 2**62, (rows, columns), generator=rng) * 3
    matrix = words.to(whole).view(dtype)
    matrix.view(whole)[0, 0] = -1
    return matrix


def behind(matrix, elements, pitch=0):
    """The same numbers so many elements behind an aligned address, in rows that are longer by `pitch`."""
    rows, columns = matrix.shape
    room = matrix.new_empty(rows * (columns + pitch) + elements)[elements:].view(rows, columns + pitch)
    room.view(WHOLE[matrix.element_size()])[:, :columns].copy_(matrix.view(WHOLE[matrix.element_size()]))
    return room[:, :columns]


LAYOUTS = {
    "dense": lambda matrix: matrix,
    "odd address": lambda matrix: behind(matrix, 1),
    "even address": lambda matrix: behind(matrix, 2),
    "longer rows": lambda matrix: behind(matrix, 0, 1),
    "by column": lambda matrix: matrix.t().contiguous().t(),
    "one row for all": lambda matrix: matrix[:1].expand_as(matrix),
}


def same(got, want):
    whole = WHOLE[want.element_size()]
    dense = got.is_contiguous() and got.data_ptr() % 16 == 0
    return dense and got.dtype == want.dtype and torch.equal(got.view(whole), want.view(whole))


def copied(machine, what, tensor, *more, **settings):
    """One copy of `Copies`, alone."""
    copies = copying.Copies(machine, tensor.dtype)
    found = getattr(copies, what)(tensor, *more, **settings)
    copies.run()
    return found


def turned(w_hh, gates, columns):
    """By plain torch, on whole numbers: a NaN's bits too."""
    whole = w_hh.view(WHOLE[w_hh.element_size()]).unflatten(0, (gates, -1)).permute(2, 0, 1)
    return pad(whole, (0, columns - whole.shape[2])).contiguous().view(w_hh.dtype)


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("H, padded", [(1, 32), (31, 32), (33, 48), (64, 64), (65, 96), (150, 160)])
def test_w_hh_is_transposed_to_the_bit(H, padded, layout, dtype, machine):
    for G in (3, 4):
        w_hh = LAYOUTS[layout](drawn(G * H, H, dtype))
        assert same(copying.transposed(machine, w_hh, G, padded), turned(w_hh, G, padded))
    assert machine.launches == 2


@pytest.mark.parametrize("G, H, P, padded", [(1, 5, 130, 5), (4, 130, 3, 130), (2, 1, 1, 1), (4, 64, 65, 65)])
def test_p_need_not_be_h(G, H, P, padded, machine):
    w_hh = drawn(G * H, P, torch.bfloat16)
    assert same(copying.transposed(machine, w_hh, G, padded), turned(w_hh, G, padded))


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns, padded", [(1, 32), (31, 32), (33, 48), (64, 64), (66, 96), (150, 152)])
def test_a_matrix_is_padded_to_the_bit(columns, padded, layout, dtype, machine):
    for rows in (1, 6, 33):
        matrix = LAYOUTS[layout](drawn(rows, columns, dtype))
        whole = matrix.view(WHOLE[dtype.itemsize])
        want = pad(whole, (0, padded - columns)).contiguous().view(dtype)
        assert same(copied(machine, "padded", matrix, padded), want)
    assert machine.launches == 3


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("P, columns", [(5, 8), (6, 8), (8, 8)])
def test_the_rows_of_each_gate_are_padded_too(P, columns, layout, dtype, machine):
    for G, H, units in ((4, 3, 5), (3, 33, 64), (4, 2, 2)):
        w_ih = LAYOUTS[layout](drawn(G * H, P, dtype))
        whole = w_ih.view(WHOLE[dtype.itemsize]).unflatten(0, (G, H))
        want = pad(whole, (0, columns - P, 0, units - H)).flatten(0, 1).contiguous().view(dtype)
        assert same(copied(machine, "padded", w_ih, columns, G, units), want)
    assert machine.launches == 3


SEQUENCES = {
    "by sequence": lambda x: x,
    "by step": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "by column": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "longer rows": lambda x: behind(x.flatten(0, 1), 0, 3).unflatten(0, x.shape[:2]),
    "odd address": lambda x: behind(x.flatten(0, 1), 1).unflatten(0, x.shape[:2]),
    "one step for all": lambda x: x[:, :1].expand_as(x),
}


@DTYPES
@pytest.mark.parametrize("layout", SEQUENCES)
@pytest.mark.parametrize("N, T, C, columns", [(3, 7, 5, 8), (1, 4, 8, 8), (33, 2, 6, 6), (4, 1, 40, 48)])
def test_sequences_are_laid_step_by_step_to_the_bit(N, T, C, columns, layout, dtype, machine):
    x = SEQUENCES[layout](drawn(N * T, C, dtype).unflatten(0, (N, T)))
    lengths = torch.arange(N) * 2 % (T + 1)
    whole = pad(x.transpose(0, 1).view(WHOLE[dtype.itemsize]), (0, columns - C))
    off = torch.arange(T)[:, None] >= lengths
    for given, want in ((None, whole), (lengths, whole.masked_fill(off[..., None], 0))):
        got = copied(machine, "by_step", x, columns, given).contiguous()
        assert torch.equal(got.view(WHOLE[dtype.itemsize]), want.flatten(0, 1))


def test_sequences_that_lie_so_are_not_copied(machine):
    x = drawn(6, 8, torch.bfloat16).view(3, 2, 8).transpose(0, 1)
    for lying in (x, x[:, :1], x[..., :5], x[:1, ::2]):
        assert copied(machine, "by_step", lying, lying.shape[2]).data_ptr() == x.data_ptr()
    assert machine.launches == 0
    assert copied(machine, "by_step", x[:, :0], 8).shape == (0, 8)
    assert machine.launches == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_not_there_yet_has_all_bits_set(dtype, machine):
    """With other copies in their launch; alone, and in doubles, by torch."""

    def bits(tensor):
        return tensor.view(torch.uint8)

    w_hh, room = drawn(12, 5, dtype), torch.zeros(4, 3, 36, dtype=dtype)
    copies = copying.Copies(machine, dtype)
    assert bool((bits(copies.blank(room.clone())) == 255).all()) and len(copies) == 0
    made = copies.padded(w_hh, 8)
    for inner in (room[1:3], room.view(-1)[5 : 5 + 33].view(1, 33)):
        room.zero_()
        copies.blank(inner)
        copies.padded(w_hh, 8)
        copies.run()
        assert bool((bits(inner.contiguous()) == 255).all())
        assert int((bits(room) == 255).sum()) == inner.numel() * inner.element_size()
    assert same(made, pad(w_hh.view(WHOLE[dtype.itemsize]), (0, 3)).view(dtype)) and machine.launches == 2
    doubles = copying.Copies(machine, torch.float64)
    doubles.padded(drawn(3, 3, torch.float64), 4)
    assert bool((bits(doubles.blank(torch.zeros(2, 8, dtype=torch.float32))) == 255).all())


@DTYPES
def test_and_so_while_w_hh_is_transposed(dtype, machine):
    for G, H, vectors in ((4, 33, 1), (3, 5, 5000), (1, 64, 1024)):
        w_hh, size = drawn(G * H, 7, dtype), 16 // dtype.itemsize
        room = torch.zeros((vectors + 1) * size, dtype=dtype)
        got = copying.transposed(machine, w_hh, G, 64, room[: vectors * size])
        assert same(got, turned(w_hh, G, 64))
        assert int((room.view(torch.uint8) == 255).sum()) == vectors * 16
    assert bool((copying.transposed(machine, w_hh[:0], 1, 0, room) == 0).sum() == 0)


def test_the_host_packs_what_the_kernel_reads():
    layout = sources.layout("copied.cu", "Part")
    assert tuple(layout.word) == ("from", "to", "lengths", *copying._NUMBERS, "end")
    assert layout.size == copying._FORM.size


def test_more_copies_than_a_launch_has_parts(machine):
    copies, matrices = (
        copying.Copies(machine, torch.float32),
        [drawn(5, 3 + k, torch.float32) for k in range(12)],
    )
    found = [copies.padded(matrix, 16) for matrix in matrices]
    copies.run()
    copies.run()  # nothing is left
    assert machine.launches == -(-12 // copying.PARTS)
    for got, matrix in zip(found, matrices, strict=True):
        want = pad(matrix.view(torch.int32), (0, 16 - matrix.shape[1]))
        assert same(got, want.view(torch.float32))


def test_nothing_is_copied_where_nothing_need_be(machine):
    w_hh = drawn(24, 32, torch.bfloat16)
    assert copied(machine, "resident", w_hh, 32) is w_hh and machine.launches == 0
    odd = behind(w_hh, 1)
    assert copied(machine, "widened", odd, 32) is odd and machine.launches == 0  # a product takes any address
    for given, columns in ((w_hh, 48), (behind(w_hh, 1), 32), (w_hh.t(), 24), (behind(w_hh, 0, 8), 32)):
        want = pad(given.view(torch.int16), (0, columns - given.shape[1])).view(torch.bfloat16)
        assert same(copied(machine, "resident", given, columns), want.contiguous())
    assert machine.launches == 4


def test_a_matrix_of_nothing_is_no_launch(machine):
    assert copying.transposed(machine, torch.empty(0, 3), 4, 0).shape == (3, 4, 0)
    assert copying.transposed(machine, torch.empty(4, 0), 4, 8).shape == (0, 4, 8)
    assert copied(machine, "padded", torch.empty(0, 3), 8).shape == (0, 8)
    assert machine.launches == 0
    assert torch.equal(copied(machine, "padded", torch.empty(3, 0), 8), torch.zeros(3, 8))


def test_more_threads_than_32_bits_count_are_plain_torch_s():
    """Nothing so large is made: plain torch is asked."""
    with torch.device("meta"):
        matrix = torch.empty(1 << 31, 7, dtype=torch.bfloat16)
    assert copied(None, "padded", matrix, 9).shape == (1 << 31, 9)
    assert copied(None, "padded", matrix, 9, 4, (1 << 29) + 1).shape == ((1 << 31) + 4, 9)
    x, lengths = matrix.unflatten(0, (2, 1 << 30)), torch.empty(2, dtype=torch.int64, device="meta")
    assert copied(None, "by_step", x, 9, lengths).shape == (1 << 31, 9)


@pytest.mark.parametrize(
    "wrong", ["constant(from", "UNROLL for (int k = 0; k < Turns; ++k) tile", "block_barrier();"]
)
def test_a_wrong_copy_is_found(wrong, monkeypatch):
    """A test of the tests."""
    text = sources.Program.text
    other = {"constant(from": "constant(1 + from", "block_barrier();": ""}.get(
        wrong, wrong.replace("k = 0", "k = 1")
    )

    def broken(self, twin=None):
        found = text(self, twin)
        assert wrong in found
        head, at, tail = found.partition("DEVICE void transposed")
        return head + at + tail.replace(wrong, other, 1)

    monkeypatch.setattr(sources.Program, "text", broken)
    emulator.library.cache_clear()
    w_hh = drawn(4 * 33, 33, torch.float32)
    w_hh = behind(w_hh, 0, 1)
    try:
        assert not same(copying.transposed(emulator.Emulator(seed=3), w_hh, 4, 48), turned(w_hh, 4, 48))
    finally:
        emulator.library.cache_clear()


@pytest.mark.parametrize(
    "H, widened, copies",
    [
        (32, False, [1, "transposed", 1]),  # x
        (31, False, [2, "transposed", 2]),  # W_hh and x; W_ih and x
        (31, True, [3, "transposed", 3]),  # W_hh, x and W_ih; W_ih, x and the operand
    ],
    ids=["even", "odd", "odd and large"],
)
def test_a_call_s_copies_are_these_launches(H, widened, copies, monkeypatch):
    """So many together in a launch, and no pad of plain torch."""
    machine, seen = emulator.put(emulator.Emulator(), monkeypatch.setattr), []
    case = Case("ordinary", C=H, H=H)
    tensors = case.make(torch.bfloat16)
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "persistent")
    monkeypatch.setattr(packing, "WIDENED", 0 if widened else packing.WIDENED)
    kernel, run = machine.kernel, copying.Copies.run

    def noted(program, name, shared=0):
        seen.extend([name] * (name == "transposed"))
        return kernel(program, name, shared)

    def counted(self):
        seen.extend([len(self)] * (len(self) > 0))
        run(self)

    monkeypatch.setattr(machine, "kernel", noted)
    monkeypatch.setattr(copying.Copies, "run", counted)
    weights._results.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "pad", None)
        patch.setattr(copying, "pad", None)
        got = case.differentiate(tensors, backend="gpu")
    weights._results.cache_clear()
    case.assert_as_accurate(got, tensors)
    assert seen == copies
