"""Whether a device computes what the equations say: what `longshort check` runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BackendError
from ..scan import Noise, Variant, lstm, plan
from ..scan.plan import backends
from .layer import LSTM

N, T, C, H = 3, 9, 5, 8
VARIANTS = {
    "as torch.nn.LSTM": Variant(),
    "peephole, coupled": Variant(peephole=True, coupled=True),
    "layer norm": Variant(norm="ba2016"),
}
TIMES = 4.0
"""A float32 result may err this many times what the equations err in float32."""


class Check(NamedTuple):
    """One comparison and what came of it."""

    name: str
    passed: bool
    detail: str


def devices() -> list[str]:
    """Return the names of this machine's devices: the CPU, then every GPU torch sees."""
    found = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def checks(device: str) -> Iterator[Check]:
    """Run every check of a device, one after the other.

    Args:
        device: one of `devices()`.
    """
    for backend in backends():
        if backend.name != "definition" and backend.device in (None, device.split(":")[0]):
            for name, variant in VARIANTS.items():
                yield _parity(device, backend.name, name, variant)
    yield _finite_differences(device)


def _tensors(variant: Variant) -> dict[str, Tensor]:
    """Random tensors of one call, in float64 on the CPU, rounded to float32's values."""
    rng = torch.Generator().manual_seed(0)
    rows = len(variant.gates) * H
    shapes: dict[str, tuple[int, ...]] = {
        "x": (N, T, C), "w_ih": (rows, C), "w_hh": (rows, H), "bias": (rows,), "h": (N, H), "c": (N, H),
    }  # fmt: skip
    for name, axes in variant.weights.items():
        shapes[name] = tuple(int(axis[:-1] or 1) * H for axis in axes.split())
    return {k: torch.randn(s, generator=rng).div(s[-1] ** 0.5).double() for k, s in shapes.items()}


def _differentiated(tensors: dict[str, Tensor], **options: Any) -> list[Tensor]:
    """y, h, c and the gradients of a fixed projection of them."""
    leaves: dict[str, Any] = {k: v.detach().requires_grad_() for k, v in tensors.items()}
    reset = (torch.arange(T) == 4).expand(N, T).to(tensors["x"].device)
    lengths = torch.tensor([T, 0, 5], device=tensors["x"].device)
    y, state = lstm(**leaves, reset=reset, lengths=lengths, **options)
    loss = sum((o * torch.linspace(-1, 1, o.numel()).view(o.shape).to(o)).sum() for o in (y, *state))
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return [t.detach().cpu().double() for t in (y, *state, *grads)]


def _parity(device: str, backend: str, name: str, variant: Variant) -> Check:
    title = f"{backend}, {name}"
    noise: dict[str, Any] = {"variant": variant, "noise": Noise(zoneout_c=0.2, variational_h=0.2), "seed": 5}
    exact = _tensors(variant)
    short: dict[str, Any] = {k: v.float().to(device) for k, v in exact.items()}
    try:
        plan(**short, **noise, backend=backend)
    except BackendError as error:
        return Check(title, True, f"not run: {str(error).partition(': ')[2].partition('. Use ')[0]}")
    truth = _differentiated(exact, **noise, backend="definition")
    yardstick = _differentiated(short, **noise, backend="definition")
    got = _differentiated(short, **noise, backend=backend)
    worst = 0.0
    for value, exactly, plainly in zip(got, truth, yardstick, strict=True):
        floor = torch.finfo(torch.float32).eps * exactly.abs().max()
        unavoidable = torch.maximum((plainly - exactly).abs().max(), floor)
        error_times = ((value - exactly).abs().max() / unavoidable).item()
        worst = max(worst, error_times) if error_times == error_times else float("inf")
    return Check(title, worst <= TIMES, f"errs {worst:.2f} times what the equations err, {TIMES:g} allowed")


def _finite_differences(device: str) -> Check:
    """A directional derivative of a stack with dropout, against a central difference of the same masks."""
    title = "three layers with dropout, finite differences"
    dtype = torch.float32 if device == "mps" else torch.float64
    generator = torch.get_rng_state()
    torch.manual_seed(0)
    layer = LSTM(C, H, 3, dropout=0.5, device=device, dtype=dtype)
    x, way = (torch.randn(T, N, C).to(device, dtype) for _ in range(2))

    def loss(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return layer(x)[0].square().sum()  # type: ignore[no-any-return]

    step = 1e-2 if dtype == torch.float32 else 1e-5
    (gradient,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    slope = (gradient * way).sum().item()
    with torch.no_grad():
        difference = ((loss(x + step * way) - loss(x - step * way)) / (2 * step)).item()
    torch.set_rng_state(generator)
    off = abs(slope - difference) / max(abs(difference), 1e-12)
    allowed = 1e-2 if dtype == torch.float32 else 1e-6
    return Check(title, off <= allowed, f"off by {off:.1e} of the slope, {allowed:g} allowed")
