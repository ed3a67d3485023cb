"""One check of kernels that wait for each other, in a process of its own:   apart.py N T H DTYPE WHAT REPEATS

A kernel that faults, or whose wait is over, ends this process alone; the test that started it reads why.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["LONGSHORT_CUDA_PLAN"] = "persistent"

import torch

from gpu import conftest
from gpu.running import check, differentiate
from scan.cases import Case

WHAT = {
    "plain": {},
    "much": {
        "variant": {"peephole": True, "cell_clip": 0.8},
        "noise": {"variational_h": 0.2, "recurrent_dropout": 0.2, "zoneout_h": 0.2, "zoneout_c": 0.1},
        "reset": True,
        "initial": True,
        "lengths": True,
        "reverse": True,
        "keep": "all",
    },
    "nan": {},
}
WHAT |= {
    norm: {**WHAT["much"], "variant": {**WHAT["much"]["variant"], "norm": norm}}
    for norm in ("ba2016", "per_gate", "products")
}
WHAT["projected"] = {**WHAT["much"], "projected": True}
WHAT["both"] = {**WHAT["ba2016"], "projected": True}


def main(N, T, H, dtype, what, repeats):
    device = torch.device("cpu" if conftest.EMULATED else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if conftest.EMULATED:
        conftest.emulate()
    case = Case(what, N=int(N), T=int(T), C=8, H=int(H), P=int(H) // 2, **WHAT[what])
    dtype = getattr(torch, dtype)
    if what == "nan":
        tensors = case.make(dtype)
        tensors["x"][0, 1, 2], tensors["h"][0, 1] = torch.nan, torch.inf
        want = case.run(tensors, backend="definition")
        got = case.run({k: v.to(device) for k, v in tensors.items()}, backend="gpu")
        for name, value in got.items():
            assert torch.equal(value.isnan().cpu(), want[name].isnan()), name
        return
    once = check(case, dtype, device)
    for k in range(int(repeats)):
        for name, value in differentiate(case, case.make(dtype), device, backend="gpu").items():
            assert torch.equal(value, once[name]), f"repeat {k}: {name} has other bits"


def leave(code, said=""):
    """End at once: torch's autograd may abort a process as its interpreter ends (pytorch issue 38228)."""
    print(said, file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if not conftest.EMULATED:
            from longshort.scan.cuda import machine

            try:
                machine.cuda(0).report()
            except Exception as report:
                said = f"{said}\n{report}"
        leave(1, said)
    leave(0)
