"""Noise that any backend, on any device, can recompute: counter-based, so that nothing is stored.

One 32-bit word decides one unit. With ⌊·⌋ the integer part,

    u = word k mod 4 of Philox4x32-10( counter (⌊k / 4⌋, t, n, stream), key (seed mod 2³², ⌊seed / 2³²⌋) )
    a unit is kept  iff  u ≥ ⌊rate · 2³²⌋

where k is the unit or channel, t the step (0 for masks that hold for the whole sequence), n the sequence
in the batch, and stream the kind of noise. The seed is one int64 for a call.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011), Philox4x32-10.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import torch
from torch import Tensor

from ..errors import ShapeError
from ..settings import Settings, setting
from .modes import watched

STREAM: Final = {
    "variational_x": 0,
    "variational_h": 1,
    "recurrent_dropout": 2,
    "zoneout_h": 3,
    "zoneout_c": 4,
    "weight_drop": 5,
    "dropout": 6,
}
"""The last word of the counter; "dropout" is the ordinary dropout between layers, a new mask each step."""

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


@dataclass(frozen=True, kw_only=True)
class Noise(Settings):
    """How much noise of each kind a layer gets in training. All rates are in [0, 1)."""

    variational_x: float = setting(
        0.0,
        "Share of x silenced, the same channels at every step (Gal & Ghahramani 2016).",
        least=0,
        below=1,
    )
    variational_h: float = setting(
        0.0,
        "Share of h silenced, the same units at every step (Gal & Ghahramani 2016).",
        least=0,
        below=1,
    )
    recurrent_dropout: float = setting(
        0.0, "Share of the candidate g silenced, new at every step (Semeniuta et al. 2016).", least=0, below=1
    )
    zoneout_h: float = setting(
        0.0, "Share of h that keeps its value, new at every step (Krueger et al. 2017).", least=0, below=1
    )
    zoneout_c: float = setting(
        0.0,
        "Share of the cell that keeps its value, new at every step (Krueger et al. 2017).",
        least=0,
        below=1,
    )
    weight_drop: float = setting(
        0.0,
        "Share of w_hh silenced, one mask for a call (Merity et al. 2018).",
        least=0,
        below=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("key", "silent", "evaluated"):
            getattr(self, name)  # made now: torch.compile reads a cached property, but cannot fill it

    @cached_property
    def evaluated(self) -> Noise:
        """What remains of the noise in evaluation: zoneout, which then mixes instead of choosing."""
        left = {"zoneout_h": self.zoneout_h, "zoneout_c": self.zoneout_c}
        same = all(rate == left.get(name, 0.0) for name, rate in self.to_json().items())
        return self if same else Noise(**left)

    @cached_property
    def key(self) -> str:
        """The rates as one word, so that a graph of torch.compile can carry them; see `from_key`."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @staticmethod
    @lru_cache(maxsize=256)
    def from_key(key: str) -> Noise:
        """Return the noise of that `key`."""
        return Noise.from_json(json.loads(key))

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return "Noise(" + ", ".join(f"{name}={rate}" for name, rate in self.to_json().items() if rate) + ")"

    @cached_property
    def silent(self) -> bool:
        """Whether every rate is zero."""
        return not any(self.to_json().values())


SILENT: Final = Noise()


def words(seed: Tensor, stream: int, steps: Tensor, N: int, K: int) -> Tensor:
    """Return the 32-bit words of N sequences, the given steps and K units.

    Args:
        seed:   () int64, any value; on the device the words are wanted on.
        stream: one of `STREAM`.
        steps:  (T,) int64, the numbers of the steps.
        N:      sequences.
        K:      units or channels.

    Returns:
        (N, T, K) int64 in [0, 2^32). The same on every device.

    >>> words(torch.tensor(0), 0, torch.tensor([0]), 1, 4)[0, 0].tolist()
    [1713891541, 3781805453, 3159862348, 2600524760]
    """
    sequences = torch.arange(N, device=seed.device)
    blocks = (K + 3) // 4
    rows = max(1, _CACHED // max(1, blocks * steps.shape[0]))
    if torch.compiler.is_compiling() or rows >= N:
        return _rounds(seed, stream, steps, sequences, blocks)[..., :K]
    parts = [_rounds(seed, stream, steps, part, blocks) for part in sequences.split(rows)]
    return torch.cat(parts)[..., :K]


_CACHED: Final = 1 << 16
"""Blocks of four words made at a time, so that the rounds stay in the cache."""


def _rounds(seed: Tensor, stream: int, steps: Tensor, sequences: Tensor, blocks: int) -> Tensor:
    """The ten rounds of Philox for some sequences: (sequences, T, 4 blocks)."""
    block = torch.arange(blocks, device=seed.device)
    counter = [block, (steps & _WORD)[:, None], sequences[:, None, None], torch.full_like(block, stream)]
    key = [seed & _WORD, (seed >> 32) & _WORD]
    for _ in range(10):
        (high0, low0), (high1, low1) = (
            _product(m, counter[place]) for m, place in zip(_MULTIPLIERS, (0, 2), strict=True)
        )
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(k + w) & _WORD for k, w in zip(key, _WEYL, strict=True)]
    return torch.stack(counter, dim=-1).flatten(2)


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of the product of two 32-bit words: int64 wraps, and so keeps all 64 bits."""
    product = b * a
    return (product >> 32) & _WORD, product & _WORD


def kept(seed: Tensor, kind: str, rate: float, steps: Tensor, N: int, K: int) -> Tensor:
    """Return (N, T, K) bool: which units survive noise of this kind and rate."""
    return words(seed, STREAM[kind], steps, N, K) >= int(rate * (1 << 32))


def scaled(seed: Tensor, kind: str, rate: float, steps: Tensor, N: int, K: int, like: Tensor) -> Tensor:
    """Return the dropout factor, 0 or 1 / (1 - rate), (N, T, K) in the dtype of `like`."""
    return kept(seed, kind, rate, steps, N, K).to(like.dtype) / (1 - rate)


def seeds(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return keys of so many calls, drawn from torch's CPU generator, on a device.

    The same generator gives the same keys on every device, and no device is waited for: CUDA gets them
    from pinned memory, in the order of its stream. While a CUDA graph is captured they are drawn on the
    device, from torch's generator for it, which a graph moves on at every replay: keys of the host would be
    read again from memory that by then is another's.

    Args:
        shape:  of the result.
        device: where it goes.

    Returns:
        int64 in [0, 2^63 - 1).
    """
    most = 2**63 - 1
    if device.type != "cuda" or watched():
        return torch.randint(most, shape, device="cpu").to(device)
    if torch.cuda.is_current_stream_capturing():
        return torch.randint(most, shape, device=device)
    return torch.randint(most, shape, device="cpu", pin_memory=True).to(device, non_blocking=True)


WHOLE: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""The dtypes of a seed that is given as a tensor: kernels read 64 bits of it."""


def key(seed: int | Tensor, device: torch.device) -> Tensor:
    """Return the given key of one call on a device, which is not waited for.

    Args:
        seed:   an int in [-2^63, 2^63), or a tensor () of whole numbers on any device.
        device: where it goes.

    Returns:
        () int64.

    Raises:
        ShapeError: the seed is something else.
    """
    if isinstance(seed, Tensor):
        whole, got = seed.dim() == 0 and seed.dtype in WHOLE, f"{seed.dtype} of shape {tuple(seed.shape)}"
        seed = seed.to(torch.int64) if whole else seed
    else:
        whole, got = isinstance(seed, int | torch.SymInt), repr(seed)
        whole = whole and (watched() or -(2**63) <= seed < 2**63)
    if not whole:
        raise ShapeError(
            f"lstm: seed must be a whole number of 64 bits, or an int64 tensor of shape (), got {got}. "
            f"Pass seed=None to draw one."
        )
    if watched():
        return (seed if isinstance(seed, Tensor) else torch.tensor(seed, device="cpu")).to(device)
    if not isinstance(seed, Tensor):
        return torch.full((), seed, device=device)
    if seed.device.type == "cpu" and device.type == "cuda" and seed.dim() == 0:
        return torch.full((), seed.item(), dtype=seed.dtype, device=device)
    return seed.to(device)


def always(seed: Tensor) -> Tensor:
    """Return (1,) int64: the step number of masks that hold for a whole sequence."""
    return torch.zeros(1, dtype=torch.int64, device=seed.device)


def dropped(x: Tensor, kind: str, rate: float, seed: Tensor, factor: torch.dtype | None = None) -> Tensor:
    """Return x (N, T, K) where the noise keeps a unit, times 1 / (1 - rate); x times 0 elsewhere.

    Args:
        x:      of any strides.
        kind:   "variational_x", "weight_drop" or "dropout"; the last has a new mask at every step.
        rate:   share that is dropped, in [0, 1).
        seed:   () int64, on x's device.
        factor: dtype of 1 / (1 - rate) and of the product, which then is rounded to x's; x's own if None.

    Returns:
        A tensor in the dtype of x.

    >>> dropped(torch.ones(1, 2, 6), "dropout", 0.5, torch.tensor(3)).tolist()
    [[[2.0, 2.0, 0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]]]
    """
    N, T, K = x.shape
    steps = torch.arange(T, device=seed.device) if kind in EACH_STEP else always(seed)
    wide = x if factor is None else x.to(factor)
    return (wide * scaled(seed, kind, rate, steps, N, K, wide)).to(x.dtype)


EACH_STEP: Final = frozenset({"recurrent_dropout", "zoneout_h", "zoneout_c", "dropout"})
"""The kinds whose masks are new at every step; those of the others hold for the sequence."""


def dropped_input(x: Tensor, rate: float, seed: Tensor) -> Tensor:
    """Return x (N, T, C) under variational dropout: the same channels of a sequence at every step."""
    return dropped(x, "variational_x", rate, seed)


def dropped_weight(w_hh: Tensor, rate: float, seed: Tensor) -> Tensor:
    """Return w_hh (4H, P) under weight drop; n is the row, k the column."""
    return dropped(w_hh[:, None], "weight_drop", rate, seed)[:, 0]
