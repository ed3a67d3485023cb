"""What the CUDA kernels take, as far as a machine without a GPU can say: scripts/bench kernels.

For the shapes of `longshort bench gpu`, on the properties of an H200: how each call is cut, and for each
kernel its registers, spills and shared memory, and the time to compile it. What a device alone can say is in
device-h200.json; the file lists what no device has said yet.
"""

import hashlib
import os
import statistics
import tempfile
import threading
import time

import torch

from longshort.bench.gpu import CASES, TYPES
from longshort.scan.call import Call, Options
from longshort.scan.cuda import (
    compiler,
    copying,
    persistent_plan,
    plans,
    rounding,
    sources,
    step_plan,
    team_plan,
)
from longshort.scan.cuda.machine import Properties
from longshort.scan.variant import Variant
from record import write

H200 = Properties("H200", (9, 0), 132, 227 * 1024)
WIDE = ("64 x 128", "64 x 512", "64 x 1024", "1024 x 128")
"""The cases whose float32 kernels are compiled too."""
SPANNING = {
    "ba2016": {"norm": "ba2016"},
    "per gate": {"norm": "per_gate"},
    "projection": {"projected": True},
    "ba2016 and projection": {"norm": "ba2016", "projected": True},
}
OPEN = {
    "first use": "at most 1.5 s, median 0.5 s; 20 ms from the disk; here without a device",
    "host time of a call": "at most 15 us to the launch",
}


class _Compiled:
    specialises = True


def call(case, dtype, norm="none", projected=False):
    """A call of a case: plain, with a norm, or with half as many outputs as units."""
    given, P = frozenset({"bias"} | ({"w_hr"} if projected else set())), case.H // 2 if projected else case.H
    options = Options(Variant(norm=norm))
    return Call(options, "cuda", dtype, case.N, case.T, case.C, case.H, P, given, True)


def measured(text):
    """Registers, spills and seconds of one kernel."""
    start = time.perf_counter()
    found = compiler.cost(text, H200.architecture)
    return {**found, "seconds to compile": round(time.perf_counter() - start, 3)}


def kernel(asked, cut):
    """One persistent kernel: how it is cut, and what it takes."""
    found = measured(persistent_plan.program(asked, cut, specialises=True).text())
    return {
        "blocks": f"{cut.groups} groups of {cut.blocks}",
        "threads": cut.threads,
        "sequences of a block": f"{cut.subs} x {cut.sequences}",
        "shared bytes": cut.shared,
        **found,
    }


def kernels(asked, tf32):
    """The kernels of a call whose steps run in one launch, forward at least; else a word."""
    cut = plans._cut(H200, asked, "persistent", tf32)
    if cut is not None:
        return {
            "forward": kernel(asked, cut.forward),
            "backward": kernel(asked, cut.backward),
            "first use": first_use(asked, cut),
        }
    teams = team_plan.cut(H200, asked, tf32)
    if teams is None:
        return "one launch a step"
    text = team_plan.program(asked, teams, step_plan.adjacent(asked, "step_forward"), specialises=True).text()
    return {
        "forward, by teams": {
            "blocks": f"{teams.groups} groups of {teams.grid // teams.groups}",
            "threads": teams.threads,
            "sequences of a block": f"{teams.sets} x {teams.sequences}",
            "shared bytes": teams.shared,
            **measured(text),
        },
        "backward": "one launch a step",
    }


def first_use(asked, cut):
    """How long all kernels of a training step take: compiled, then from the disk."""
    there, *back = (
        program.text()
        for program in (
            persistent_plan.program(asked, cut.forward, specialises=True),
            persistent_plan.program(asked, cut.backward, specialises=True),
            copying.program(asked.dtype, "transposed"),
            *([rounding.program(asked.dtype)] if asked.dtype.itemsize == 2 else []),
        )
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LONGSHORT_CACHE"] = folder
        for way in ("compiled side by side, ms", "from the disk, ms"):
            start = time.perf_counter()
            for text in back:
                compiler.ahead(text, H200.architecture)
            for text in (there, *back):
                compiler.binary(text, H200.architecture)
            found[way] = round(1e3 * (time.perf_counter() - start), 1)
    return found


def summary(cases):
    """The median and the most of `first_use` over all cases."""
    there = [found for types in cases.values() for found in types.values() if "first use" in found]
    columns = {way: [found["first use"][way] for found in there] for way in there[0]["first use"]}
    columns["the slower of the two alone, ms"] = [
        1e3 * max(found[way]["seconds to compile"] for way in ("forward", "backward")) for found in there
    ]
    return {way: {"median": round(statistics.median(t), 1), "most": max(t)} for way, t in columns.items()}


def cores_worth():
    """How many times one thread's work two threads do in the same time."""
    block = bytes(20_000_000)

    def took(count):
        threads = [threading.Thread(target=lambda: hashlib.sha256(block).digest()) for _ in range(count)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    return round(2 * min(took(1) for _ in range(5)) / min(took(2) for _ in range(5)), 2)


def main():
    """Measure and write."""
    cases = {}
    for case in CASES:
        for name, (dtype, tf32) in TYPES.items():
            if name == "float16" or (name != "bfloat16" and case.name not in WIDE):
                continue  # float16's kernels are bfloat16's, but for two instructions
            cases.setdefault(case.name, {})[name] = kernels(call(case, dtype), tf32)
            print(case.name, name, cases[case.name][name], flush=True)
    spanning = {}
    for case in CASES:
        for name, settings in SPANNING.items() if case.name in WIDE else ():
            asked = call(case, torch.bfloat16, **settings)
            spanning.setdefault(case.name, {})[name] = kernels(asked, False)
            print(case.name, name, spanning[case.name][name], flush=True)
    steps = {}
    for dtype in sources.TYPES:
        for kind in (
            ("step_begin",),
            ("step_forward",),
            ("step_backward",),
            ("step_end",),
            ("step_operands",),
        ):
            program = step_plan.program(_Compiled(), call(CASES[3], dtype), kind)
            steps.setdefault(str(dtype), {})[kind[0]] = measured(program.text())
    print(write("kernels", {
        "state": "every one compiles, and runs the table of cases on the host; on a device: device-h200.json",
        "nvrtc": ".".join(map(str, compiler.version())),
        "open": OPEN,
        "first use": summary(cases),
        "two threads do the work of": cores_worth(),
        "persistent kernels": cases,
        "persistent kernels of what spans units, bfloat16": spanning,
        "kernels of one launch a step": steps,
    }))  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
