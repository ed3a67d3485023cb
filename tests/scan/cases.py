"""The table of cases: every option alone, every pair of options, and sizes that divide nothing."""

import itertools
import re
from dataclasses import dataclass, field

import pytest
import torch

from longshort.errors import SettingError
from longshort.scan import Noise, State, Variant, checks, lstm
from longshort.scan.call import DIFFERENTIABLE, Inputs
from longshort.scan.plan import backends
from oracle import assert_all_as_accurate

NAMES = Inputs._fields[:DIFFERENTIABLE]


@dataclass(frozen=True)
class Case:
    why: str
    variant: dict = field(default_factory=dict)
    noise: dict = field(default_factory=dict)
    projected: bool = False
    reset: bool = False
    initial: bool = False
    lengths: bool = False
    bias: bool = True
    training: bool = True
    reverse: bool = False
    keep: str | None = None
    checkpoint_every: int | None = None
    N: int = 3
    T: int = 7
    C: int = 4
    H: int = 5
    P: int = 3
    "outputs of a projection"
    scale: float = 1.0
    "multiplies the weights: 30 drives every gate into saturation"

    def make(self, dtype=torch.float64, seed=0, **sizes):
        """Every tensor of the call by name, random but for the seed."""
        rng = torch.Generator().manual_seed(seed)
        variant = Variant(**self.variant)
        length = {"N": self.N, "T": self.T, "C": self.C, "H": self.H, **sizes}
        length["P"] = self.P if self.projected else length["H"]
        placeholder = torch.empty(0) if self.projected else None
        given = Inputs(*[None] * len(Inputs._fields))._replace(w_hr=placeholder)
        tensors = {}
        for name, axes in checks.axes(variant, given).items():
            absent = {
                "reset": True,
                "lengths": True,
                "w_hr": not self.projected,
                "bias": not self.bias,
                "initial_h": not self.initial,
                "initial_c": not self.initial,
            }
            if absent.get(name, False):
                continue
            shape = [int(re.match(r"\d*", a)[0] or 1) * length[a.lstrip("0123456789")] for a in axes.split()]
            value = torch.randn(shape, generator=rng, dtype=torch.float64)
            if name.startswith("w_"):
                value *= self.scale / shape[1] ** 0.5
            elif name.startswith("gain"):
                value = 1 + 0.3 * value
            tensors[name] = value.to(dtype)
        if self.reset:
            tensors["reset"] = torch.rand(length["N"], length["T"], generator=rng) < 0.3
        if self.lengths:
            few = [length["T"], 0, length["T"] // 2, 1]
            tensors["lengths"] = torch.tensor([few[n % 4] for n in range(length["N"])]).clamp(max=length["T"])
        return tensors

    def options(self):
        return {
            "variant": Variant(**self.variant),
            "noise": Noise(**self.noise),
            "training": self.training,
            "reverse": self.reverse,
            "keep": self.keep,
            "checkpoint_every": self.checkpoint_every,
            **({"seed": 1234567} if self.noise and self.training else {}),
        }

    def run(self, tensors, **options):
        """Outputs by name: y, h, c and what was kept."""
        return self.call(tensors, {**self.options(), **options})

    def call(self, tensors, options):
        tensors = dict(tensors)
        if self.initial:
            tensors["initial"] = State(tensors.pop("initial_h"), tensors.pop("initial_c"))
        y, (h, c), *kept = lstm(**tensors, **options)
        found = {"y": y, "h_n": h, "c_n": c}
        if kept:
            found |= {k: v for k, v in kept[0]._asdict().items() if v is not None}
        return found

    def differentiate(self, tensors, **options):
        """Outputs, and gradients of a random projection of them: a plain sum hides sign errors."""
        leaves = {k: v.detach().clone().requires_grad_() for k, v in tensors.items() if k in NAMES}
        outputs = self.run({**tensors, **leaves}, **options)
        rng = torch.Generator().manual_seed(1)
        weights = [torch.randn(o.shape, generator=rng, dtype=torch.float64) for o in outputs.values()]
        loss = sum((o * w.to(o.dtype)).sum() for o, w in zip(outputs.values(), weights, strict=True))
        grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        found = {k: v.detach() for k, v in outputs.items()}
        return found | {f"d{k}": g for k, g in zip(leaves, grads, strict=True)}

    def law(self, tensors, dtype=None):
        """What the equations say, in the tensors' dtype or another."""
        moved = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in tensors.items()}
        return self.differentiate(moved, backend="definition", checkpoint_every=None)

    def assert_as_accurate(self, got, tensors):
        """Fail unless what a backend made of tensors errs as little as the equations do in their dtype."""
        exact, yardstick = self.law(tensors, torch.float64), self.law(tensors)
        try:
            assert_all_as_accurate(got, exact, yardstick, usual_errors(self, tensors))
        except (
            AssertionError
        ):  # of few draws the largest says little of sums that cancel: draw more before it fails
            assert_all_as_accurate(got, exact, yardstick, usual_errors(self, tensors, 4 * MOVES))


def strided(tensors):
    """The same tensors, none of them dense: others lie between the elements of vectors."""
    found = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 1:
            found[name] = torch.stack([tensor, 1 - tensor], 1)[:, 0]
        else:
            found[name] = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        assert not found[name].is_contiguous()
    return found


MOVES = 4
_USUAL = {}


def usual_errors(case, tensors, moves=MOVES):
    """By name, what the equations err at most in the tensors' dtype when every number is moved a little."""
    dtype = tensors["x"].dtype
    key = repr(case), dtype, float(tensors["x"].double().sum()), moves
    found = _USUAL.get(key)
    if found is None:
        found = _USUAL[key] = {}
        rng, far = torch.Generator().manual_seed(2), max(1e-3, 2 * torch.finfo(dtype).eps)
        for _ in range(moves):
            moved = {
                k: v * (1 + far * torch.randn(v.shape, generator=rng)).to(dtype)
                if v.is_floating_point()
                else v
                for k, v in tensors.items()
            }
            exact = case.law(moved, torch.float64)
            for what, value in case.law(moved).items():
                error = float((value.double() - exact[what]).abs().max()) if value.numel() else 0.0
                found[what] = max(found.get(what, 0.0), error)
    return found


OPTIONS = [
    Case("peephole", variant={"peephole": True}),
    Case("coupled", variant={"coupled": True}),
    Case("no input gate", variant={"input_gate": False}),
    Case("no forget gate", variant={"forget_gate": False}),
    Case("no output gate", variant={"output_gate": False}),
    Case("no input activation", variant={"input_activation": False}),
    Case("no output activation", variant={"output_activation": False}),
    Case("gate recurrence", variant={"gate_recurrence": True}),
    Case("norm ba2016", variant={"norm": "ba2016"}),
    Case("norm per gate", variant={"norm": "per_gate"}),
    Case("norm products", variant={"norm": "products"}),
    Case("cell clip", variant={"cell_clip": 0.4}),
    Case("hard sigmoid", variant={"gate_activation": "hard_sigmoid"}),
    Case("projection", projected=True),
    Case("projection clip", projected=True, variant={"projection_clip": 0.3}),
    Case("variational x", noise={"variational_x": 0.3}),
    Case("variational h", noise={"variational_h": 0.3}),
    Case("recurrent dropout", noise={"recurrent_dropout": 0.3}),
    Case("zoneout h", noise={"zoneout_h": 0.3}),
    Case("zoneout c", noise={"zoneout_c": 0.3}),
    Case("zoneout h evaluated", noise={"zoneout_h": 0.3}, training=False),
    Case("zoneout c evaluated", noise={"zoneout_c": 0.3}, training=False),
    Case("weight drop", noise={"weight_drop": 0.3}),
    Case("no bias", bias=False),
    Case("reset", reset=True),
    Case("reset to a given state", reset=True, initial=True),
    Case("lengths", lengths=True),
    Case("reversed", reverse=True),
    Case("cells kept", keep="cells"),
    Case("gates kept", keep="gates"),
    Case("segments", checkpoint_every=3),
]

SIZES = [
    Case("ordinary"),
    Case("one step", T=1),
    Case("no step", T=0),
    Case("one sequence", N=1),
    Case("no sequence", N=0),
    Case("one channel", C=1),
    Case("one hidden unit", H=1),
    Case("sizes that divide no tile", N=5, T=13, C=11, H=33),
    Case("long", N=2, T=200, H=16),
    Case("saturated gates", scale=30.0),
]

_NOISES = {
    "variational_x": 0.2,
    "variational_h": 0.2,
    "recurrent_dropout": 0.2,
    "zoneout_h": 0.2,
    "zoneout_c": 0.1,
    "weight_drop": 0.2,
}
_MUCH = {"projected": True, "reset": True, "initial": True, "lengths": True, "keep": "all"}
TOGETHER = [
    Case(
        "much at once, ba2016",
        variant={
            "norm": "ba2016",
            "peephole": True,
            "coupled": True,
            "cell_clip": 0.8,
            "projection_clip": 0.7,
        },
        noise=_NOISES,
        **_MUCH,
    ),
    Case(
        "much at once, per gate, reversed",
        variant={
            "norm": "per_gate",
            "peephole": True,
            "gate_recurrence": True,
            "gate_activation": "hard_sigmoid",
        },
        noise=_NOISES,
        reverse=True,
        checkpoint_every=2,
        **_MUCH,
    ),
    Case(
        "much at once, products, evaluated",
        variant={
            "norm": "products",
            "output_gate": False,
            "gate_recurrence": True,
            "input_activation": False,
        },
        noise={"zoneout_h": 0.3, "zoneout_c": 0.2},
        training=False,
        **_MUCH,
    ),
]


def pair(a, b):
    """Both options at once; None where they contradict each other or are the same setting."""
    same = (a.variant.keys() & b.variant.keys()) | (a.noise.keys() & b.noise.keys())
    if same or (a.training != b.training and (a.noise and b.noise)):
        return None
    variant = {**a.variant, **b.variant}
    try:
        Variant(**variant)
    except SettingError:
        return None
    merged = {
        name: getattr(a, name) if getattr(a, name) != getattr(Case("x"), name) else getattr(b, name)
        for name in Case.__dataclass_fields__
        if name not in ("why", "variant", "noise", "keep")
    }
    keep = "all" if a.keep and b.keep else a.keep or b.keep
    return Case(f"{a.why} + {b.why}", variant, {**a.noise, **b.noise}, keep=keep, **merged)


PAIRS = [c for a, b in itertools.combinations(OPTIONS, 2) if (c := pair(a, b)) is not None]
ALONE = [Case("ordinary"), *OPTIONS, *TOGETHER]


def ids(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.why.replace(" ", "-").replace(",", ""))


# The kernels of "gpu" run the table in test_gpu.py, test_persistent.py and tests/gpu.
ON_THE_CPU = [b.name for b in backends() if b.name not in ("definition", "gpu")]
each_backend = pytest.mark.parametrize("backend", ON_THE_CPU)


def refused(case, backend, dtype=torch.float64):
    """Skip, saying why, where a backend refuses a case."""
    from longshort.errors import BackendError
    from longshort.scan import plan

    tensors = case.make(dtype)
    if case.initial:
        tensors["initial"] = State(tensors.pop("initial_h"), tensors.pop("initial_c"))
    try:
        plan(**tensors, **{**case.options(), "backend": backend})
    except BackendError as error:
        pytest.skip(str(error))
