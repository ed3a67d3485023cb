"""The noise: known answers of the generator, independence of what asks for it, and the rates."""

import re

import pytest
import torch

from longshort.errors import SettingError, ShapeError
from longshort.scan import Noise, lstm, masks
from scan.cases import Case


def philox(counter, key):
    """Philox4x32-10 in Python's own integers."""
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ counter[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def test_known_answers():
    """From the Random123 distribution: all zero, all one, and the digits of pi."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    pi = philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0])
    assert pi == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, -1, -(2**63), 0x299F31D0A4093822])
def test_words_are_philox(seed):
    steps = torch.tensor([0, 5, 4_000_000_000])
    got = masks.words(torch.tensor(seed), 3, steps, 2, 7)
    assert got.shape == (2, 3, 7)
    for n in range(2):
        for t, step in enumerate(steps.tolist()):
            for k in range(7):
                word = philox([k // 4, step, n, 3], [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF])[k % 4]
                assert got[n, t, k] == word


def test_the_threshold_is_the_whole_part_of_the_rate_times_2_to_the_32():
    seed, steps = torch.tensor(9), torch.arange(50)
    u = masks.words(seed, masks.STREAM["zoneout_h"], steps, 4, 16)
    for rate in (0.1, 0.5, 0.999):
        assert torch.equal(masks.kept(seed, "zoneout_h", rate, steps, 4, 16), u >= int(rate * 2**32))


@pytest.mark.parametrize("kind", [k for k in masks.STREAM if k != "weight_drop"])
def test_the_rate_is_the_share_that_is_dropped(kind):
    kept = masks.kept(torch.tensor(1), kind, 0.3, torch.arange(100), 20, 32)
    assert abs(kept.float().mean() - 0.7) < 0.01
    scale = masks.scaled(torch.tensor(1), kind, 0.3, torch.arange(100), 20, 32, torch.zeros(1))
    assert torch.equal(scale, kept / 0.7)


def test_streams_do_not_repeat_each_other():
    seed, steps = torch.tensor(1), torch.arange(3)
    seen = [masks.words(seed, stream, steps, 2, 8) for stream in masks.STREAM.values()]
    assert len(torch.cat([s.flatten() for s in seen]).unique()) == len(seen) * 48


def test_variational_masks_hold_for_the_sequence_and_others_change():
    x = torch.ones(2, 6, 8, dtype=torch.float64)
    dropped = masks.dropped_input(x, 0.5, torch.tensor(3))
    assert (dropped == dropped[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    per_step = masks.kept(torch.tensor(3), "recurrent_dropout", 0.5, torch.arange(6), 2, 8)
    assert not (per_step == per_step[:, :1]).all()


def test_a_seed_repeats_and_another_does_not():
    case = Case("noise", noise={"variational_h": 0.5})
    tensors = case.make()
    one, again, other = (case.run(tensors, seed=s)["y"] for s in (1, torch.tensor(1), 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("seed, got", [
    (torch.tensor(1.5), "torch.float32 of shape ()"), (torch.tensor([1, 2]), "torch.int64 of shape (2,)"),
    (torch.tensor(True), "torch.bool of shape ()"), ("a", "'a'"), (1.0, "1.0"),
    (2**63, "9223372036854775808"),
])  # fmt: skip
def test_a_seed_that_is_no_whole_number_is_refused(seed, got):
    """A kernel would read 64 bits of whatever it is."""
    case = Case("zoneout", noise={"zoneout_h": 0.2})
    said = re.escape(
        f"lstm: seed must be a whole number of 64 bits, or an int64 tensor of shape (), got {got}. "
        f"Pass seed=None to draw one."
    )
    with pytest.raises(ShapeError, match=f"^{said}$"):
        case.run(case.make(), seed=seed)


@pytest.mark.parametrize("dtype", masks.WHOLE, ids=str)
def test_a_seed_of_any_whole_type_is_that_number(dtype):
    found = masks.key(torch.tensor(7, dtype=dtype), torch.device("cpu"))
    assert found.dtype == torch.int64 and found.item() == 7


def test_without_a_seed_torch_s_generator_decides():
    case = Case("noise", noise={"zoneout_c": 0.5})
    tensors = case.make()
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(case.run(tensors, seed=None)["y"])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_keys_are_what_the_cpu_s_generator_gives(default):
    """Whatever the default device: the masks of a seed never change."""
    torch.manual_seed(5)
    want = torch.randint(2**63 - 1, (3,), device="cpu")
    torch.manual_seed(5)
    with torch.device(default):
        got = masks.seeds((3,), torch.device("cpu"))
    assert torch.equal(got, want)


@pytest.mark.parametrize("capturing", [False, True])
def test_keys_reach_cuda_without_waiting(capturing, monkeypatch):
    """From pinned memory; in a graph under capture, from the device's own generator."""
    asked = []

    class Drawn:
        def to(self, device, non_blocking=False):
            asked.append(("to", device.type, non_blocking))
            return self

    def randint(most, shape, **where):
        asked.append((most, shape, {k: str(v) for k, v in where.items()}))
        return Drawn()

    monkeypatch.setattr(torch, "randint", randint)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    masks.seeds((3,), torch.device("cuda"))
    shape = (2**63 - 1, (3,))
    pinned = [(*shape, {"device": "cpu", "pin_memory": "True"}), ("to", "cuda", True)]
    assert asked == ([(*shape, {"device": "cuda"})] if capturing else pinned)


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1, -(2**63)])
def test_a_given_key_is_the_same_as_a_number_and_as_a_tensor(seed):
    cpu = torch.device("cpu")
    for given in (seed, torch.tensor(seed)):
        found = masks.key(given, cpu)
        assert found.dtype == torch.int64 and found.shape == () and found.item() == seed


def test_keys_may_be_tensors_that_hold_nothing():
    from torch._subclasses.fake_tensor import FakeTensorMode

    meta = torch.device("meta")
    assert masks.seeds((2,), meta).shape == (2,) and masks.key(3, meta).dtype == torch.int64
    with FakeTensorMode():
        assert masks.seeds((2,), torch.device("cpu")).shape == (2,)
        assert masks.key(torch.empty((), dtype=torch.int64), meta).device == meta


def test_evaluation_draws_nothing_and_mixes_zoneout():
    tensors = Case("noise").make()
    before = torch.get_rng_state()
    y, _ = lstm(**tensors, noise=Noise(zoneout_h=0.25, variational_h=0.5), training=False)
    assert torch.equal(torch.get_rng_state(), before)
    first = lstm(**(tensors | {"x": tensors["x"][:, :1]}))[0][:, 0]
    torch.testing.assert_close(y[:, 0], 0.25 * tensors["h"] + 0.75 * first)


def test_a_rate_outside_its_range():
    with pytest.raises(SettingError) as raised:
        Noise(zoneout_h=1.0)
    assert str(raised.value) == (
        "Noise: `zoneout_h` must be in [0, 1), got 1.0.\n"
        "  Share of h that keeps its value, new at every step (Krueger et al. 2017)."
    )
