"""Small gradients summed and rounded by the kernel of `cuda/rounded.cu`, beside float64."""

import sys
from pathlib import Path

import pytest
import torch

from longshort.scan.cuda import rounding, sources
from longshort.scan.cuda.rounding import Rounding

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
import emulator

pytestmark = pytest.mark.skipif(emulator.WHY_NOT is not None, reason=str(emulator.WHY_NOT))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
PARTS = {
    "numbers and sums": [(1, 2048), (64, 256), (1, 1030)],
    "tails": [(1, 1), (1, 3), (1, 1025), (2, 1), (3, 33)],
    "rows that lanes do not share alike": [(9, 40), (64, 32), (65, 32), (130, 70)],
    "more than a launch has": [(1, 5), (2, 5), (1, 6), (3, 6), (1, 7), (4, 7), (1, 8), (5, 8)],
    "more rows than a thread adds": [(rounding.MOST_ADDED + 1, 40), (rounding.MOST_ADDED, 40), (1, 4)],
    "nothing in between": [(1, 8), (3, 0), (1, 0), (2, 8)],
    "alone": [(1, 40)],
    "a sum alone": [(7, 40)],
}


@pytest.fixture
def machine():
    return emulator.Emulator(seed=3)


def drawn(shapes):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=rng) for shape in shapes]


def rounded(machine, dtype, values, factors, known=lambda count, dtype: None):
    work = Rounding(machine, dtype)
    found = [work.add(v, known(v.shape[1], dtype), f) for v, f in zip(values, factors, strict=True)]
    work.run()
    work.run()  # nothing is left
    return found


@DTYPES
@pytest.mark.parametrize("name", PARTS)
def test_sums_over_rows_rounded_once(name, dtype, machine):
    values = drawn(PARTS[name])
    factors = [1.25 if len(v) == 1 else 1 for v in values]
    got = rounded(machine, dtype, values, factors)
    for value, factor, out in zip(values, factors, got, strict=True):
        want, sizes = value.double().sum(0) * factor, value.double().abs().sum(0)
        error = (out.double() - want).abs()
        # half a unit in the last place, and what float32 leaves of a sum
        assert out.dtype == dtype
        assert bool((error <= want.abs() * torch.finfo(dtype).eps / 2 + sizes * 2.0**-23 + 1e-7).all())
        if len(value) == 1:
            assert torch.equal(out, (value[0] * factor).to(dtype))


@pytest.mark.parametrize("name", PARTS)
def test_the_order_of_threads_changes_no_bit(name):
    values = drawn(PARTS[name])
    first, *others = [
        rounded(emulator.Emulator(seed=seed), torch.bfloat16, values, [1] * len(values)) for seed in (0, 1, 2)
    ]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_places_that_are_given_lie_beside_each_other(machine):
    """As the gradients of weights do: nothing beside them is touched."""
    room = torch.full((512,), 7, dtype=torch.bfloat16)
    places = iter([room[:70], room[128:198], room[256:260]])
    values = drawn([(1, 70), (5, 70), (1, 4)])
    rounded(machine, torch.bfloat16, values, [1, 1, 1], lambda count, dtype: next(places))
    written = [*range(70), *range(128, 198), *range(256, 260)]
    untouched = torch.ones(512, dtype=torch.bool).index_fill(0, torch.tensor(written), False)
    assert bool((room[untouched] == 7).all()) and not (room[written] == 7).any()


def test_what_is_not_a_number_stays_none(machine):
    values = drawn([(1, 40), (9, 40)])
    for value in values:
        value[-1, 3], value[-1, 5] = float("nan"), float("inf")
    for out in rounded(machine, torch.bfloat16, values, [1, 1]):
        assert out[3].isnan() and out[5] == float("inf") and out.isfinite().sum() == 38


@DTYPES
@pytest.mark.parametrize(
    "gates, padded, pitch, units, width",
    [(4, 32, 32, 5, 3), (4, 32, 40, 32, 33), (3, 64, 8, 33, 7), (4, 32, 4, 1, 1), (1, 96, 100, 65, 99)],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_matrix_without_its_padding(gates, padded, pitch, units, width, alone, dtype, machine):
    values = drawn([(gates * padded, pitch), (3, 40)])
    work = Rounding(machine, dtype)
    got = work.within(values[0], gates, units, width, 1.25)
    if not alone:
        work.add(values[1])
    work.run()
    want = values[0].unflatten(0, (gates, padded))[:, :units, :width].flatten(0, 1) * 1.25
    assert got.is_contiguous() and torch.equal(got, want.to(dtype))
    assert machine.launches == (not alone)


def test_one_launch_for_all_and_torch_s_own_for_one(machine):
    rounded(machine, torch.bfloat16, drawn([(1, 4)] * rounding.PARTS), [1] * rounding.PARTS)
    assert machine.launches == 1
    rounded(machine, torch.bfloat16, drawn([(1, 4)] * (rounding.PARTS + 1)), [1] * (rounding.PARTS + 1))
    rounded(machine, torch.bfloat16, drawn([(3, 4)]), [1])
    rounded(machine, torch.float64, [v.double() for v in drawn([(3, 4), (1, 4)])], [1, 2])
    assert machine.launches == 2


def test_the_host_packs_what_the_kernel_reads():
    layout = sources.layout("rounded.cu", "Part")
    assert tuple(layout.word) == rounding.FIELDS and layout.size == rounding._FORM.size
    work = Rounding(emulator.Emulator(), torch.float32)
    same = torch.ones(3, 4)
    assert work.of(same) is same and Rounding(emulator.Emulator(), torch.float16).of(same).shape == (3, 4)


WRONG = {
    "a lane left out": ("k < Lanes; ++k) total +=", "k < Lanes - 1; ++k) total +="),
    "no barrier": ("block_barrier();", ""),
    "a tail of one": ("k < part.count; ++k)", "k < at + 1 && k < part.count; ++k)"),
    "no factor": ("values[j] * factor", "values[j]"),
    "another part's blocks": ("block_x() - begin", "block_x()"),
    "padding between gates": ("row / units * part.padded", "row / units * units"),
    "padding behind columns": ("* part.pitch +", "* width +"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_kernel_fails(what, machine, monkeypatch):
    right, wrong = WRONG[what]
    text = rounding.program(torch.bfloat16).text(twin=emulator.HERE)
    assert right in text
    monkeypatch.setattr(emulator, "library", lambda program: emulator.compiled(text.replace(right, wrong)))
    with pytest.raises(AssertionError):
        for name in PARTS:
            test_sums_over_rows_rounded_once(name, torch.bfloat16, machine)
        test_a_matrix_without_its_padding(4, 32, 40, 31, 33, False, torch.bfloat16, emulator.Emulator())
