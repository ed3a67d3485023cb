"""A case of the scan's table on a device, and the equations beside it on the CPU."""

import torch

from scan.cases import NAMES


def differentiate(case, tensors, device, **options):
    """Outputs and gradients as `Case.differentiate` gives them, computed on a device, returned on the CPU."""
    there = {k: v.detach().to(device) for k, v in tensors.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in there.items() if k in NAMES}
    outputs = case.run({**there, **leaves}, **options)
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=rng, dtype=torch.float64) for o in outputs.values()]
    loss = sum((o * w.to(device, o.dtype)).sum() for o, w in zip(outputs.values(), weights, strict=True))
    grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    found = {k: v.detach() for k, v in outputs.items()} | {
        f"d{k}": g for k, g in zip(leaves, grads, strict=True)
    }
    return {k: v.cpu() for k, v in found.items()}


def check(case, dtype, device):
    """Fail unless the kernels err as little as the equations do in this type; return what they gave."""
    tensors = case.make(dtype)
    got = differentiate(case, tensors, device, backend="gpu")
    case.assert_as_accurate(got, tensors)
    return got
