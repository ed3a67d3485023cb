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
        assert same(copying.padded(machine, matrix, padded), want)
    assert machine.launches == 3


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("P, columns", [(5, 8), (6, 8), (8, 8)])
def test_the_rows_of_each_gate_are_padded_too(P, columns, layout, dtype, machine):
    for G, H, units in ((4, 3, 5), (3, 33, 64), (4, 2, 2)):
        w_ih = LAYOUTS[layout](drawn(G * H, P, dtype))
        whole = w_ih.view(WHOLE[dtype.itemsize]).unflatten(0, (G, H))
        want = pad(whole, (0, columns - P, 0, units - H)).flatten(0, 1).contiguous().view(dtype)
        assert same(copying.padded(machine, w_ih, columns, G, units), want)
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
        got = copying.by_step(machine, x, columns, given).contiguous()
        assert torch.equal(got.view(WHOLE[dtype.itemsize]), want.flatten(0, 1))


def test_sequences_that_lie_so_are_not_copied(machine):
    x = drawn(6, 8, torch.bfloat16).view(3, 2, 8).transpose(0, 1)
    for lying in (x, x[:, :1], x[..., :5], x[:1, ::2]):
        assert copying.by_step(machine, lying, lying.shape[2]).data_ptr() == x.data_ptr()
    assert machine.launches == 0
    assert copying.by_step(machine, x[:, :0], 8).shape == (0, 8)
    assert machine.launches == 0


def test_nothing_is_copied_where_nothing_need_be(machine):
    w_hh = drawn(24, 32, torch.bfloat16)
    assert copying.resident(machine, w_hh, 32) is w_hh and machine.launches == 0
    odd = behind(w_hh, 1)
    assert copying.widened(machine, odd, 32) is odd and machine.launches == 0  # a product takes any address
    for given, columns in ((w_hh, 48), (behind(w_hh, 1), 32), (w_hh.t(), 24), (behind(w_hh, 0, 8), 32)):
        want = pad(given.view(torch.int16), (0, columns - given.shape[1])).view(torch.bfloat16)
        assert same(copying.resident(machine, given, columns), want.contiguous())
    assert machine.launches == 4


def test_a_matrix_of_nothing_is_no_launch(machine):
    assert copying.transposed(machine, torch.empty(0, 3), 4, 0).shape == (3, 4, 0)
    assert copying.transposed(machine, torch.empty(4, 0), 4, 8).shape == (0, 4, 8)
    assert copying.padded(machine, torch.empty(0, 3), 8).shape == (0, 8)
    assert machine.launches == 0
    assert torch.equal(copying.padded(machine, torch.empty(3, 0), 8), torch.zeros(3, 8))


def test_more_threads_than_32_bits_count_are_plain_torch_s():
    """Nothing so large is made: plain torch is asked."""
    with torch.device("meta"):
        matrix = torch.empty(1 << 31, 7, dtype=torch.bfloat16)
    assert copying.padded(None, matrix, 9).shape == (1 << 31, 9)
    assert copying.padded(None, matrix, 9, 4, (1 << 29) + 1).shape == ((1 << 31) + 4, 9)
    x, lengths = matrix.unflatten(0, (2, 1 << 30)), torch.empty(2, dtype=torch.int64, device="meta")
    assert copying.by_step(None, x, 9, lengths).shape == (1 << 31, 9)


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


ODD = ["padded", "sequences", "padded", "transposed", "padded", "sequences", "padded"]
"""W_hh, x and W_ih; W_hh'; W_ih, x and the operand."""


@pytest.mark.parametrize(
    "H, widened, copies",
    [
        (32, False, ["sequences", "transposed", "sequences"]),
        (31, False, ["padded", "sequences", "transposed", "padded", "sequences"]),
        (31, True, ODD),
    ],
    ids=["even", "odd", "odd and large"],
)
def test_a_call_s_copies_are_these_kernels(H, widened, copies, monkeypatch):
    """Without a pad of plain torch."""
    machine, seen = emulator.put(emulator.Emulator(), monkeypatch.setattr), []
    case = Case("ordinary", C=H, H=H)
    tensors = case.make(torch.bfloat16)
    monkeypatch.setenv("LONGSHORT_CUDA_PLAN", "persistent")
    monkeypatch.setattr(packing, "WIDENED", 0 if widened else packing.WIDENED)
    kernel = machine.kernel

    def noted(program, name, shared=0):
        seen.append(name)
        return kernel(program, name, shared)

    monkeypatch.setattr(machine, "kernel", noted)
    weights._results.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "pad", None)
        patch.setattr(copying, "pad", None)
        got = case.differentiate(tensors, backend="gpu")
    weights._results.cache_clear()
    case.assert_as_accurate(got, tensors)
    assert [name for name in seen if name in ("padded", "transposed", "sequences")] == copies
