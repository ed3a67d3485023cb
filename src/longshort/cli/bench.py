"""Measure this machine: ours beside its peers, in turns.

    longshort bench cpu
    longshort bench cpu --threads 1 --case "small batch" --out cpu.json
    longshort bench cpu --dtype bfloat16
    longshort bench gpu --rounds 7 --out gpu.json

One thread is timed by its own processor time, so that others on the machine disturb it little; several by
the wall. Prints medians and, for each peer, how many times faster ours is, with a 95 % interval over the
rounds; at the end, each number that the project asks of its engine beside what was found. With
--dtype bfloat16 torch's layer and OpenVINO compute in bfloat16 as ours does, both layers' float32 stands
beside them, and the end is a mean.

On a GPU the peer is torch.nn.LSTM, which is cuDNN; times are the device's own, and every case is run in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `longshort bench`."""
    parser.add_argument("device", choices=("cpu", "gpu"), help="what to measure")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="K", help="threads of all (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=15, metavar="K", help="rounds of a case (default: %(default)s)"
    )
    parser.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="only this case; may repeat"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the layers, on a CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="write every number here, as JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print a line for each result, and write the file."""
    from .. import engine
    from ..errors import BackendError, SettingError
    from ..runs import require_writable

    if args.out is not None:
        require_writable(args.out)
    if args.device == "gpu":
        if args.dtype != "float32":
            raise SettingError(
                "bench: `--dtype` is for the cpu: on a gpu every type is measured. Leave it out."
            )
        return _gpu(args)
    if not engine.available():
        raise BackendError(f"bench: {engine.why_not()}.")
    import torch  # here, not above: it takes seconds

    from ..bench import cpu, targets

    known = [case.name for case in cpu.CASES]
    for name in args.case:
        if name not in known:
            raise SettingError(f"bench: `--case` must be one of {', '.join(map(repr, known))}, got {name!r}.")
    dtype = getattr(torch, args.dtype)
    setup = cpu.Setup(threads=args.threads, rounds=args.rounds, names=tuple(args.case), dtype=dtype)
    kind = "" if args.dtype == "float32" else f" --dtype {args.dtype}"
    found: dict[str, Any] = {
        "command": f"longshort bench cpu --threads {args.threads} --rounds {args.rounds}{kind}{_cases(args)}",
        "threads": args.threads,
        "rounds": args.rounds,
        **cpu.machine(args.threads),
    }
    for kind, case, numbers in cpu.measure(setup):
        found.setdefault(kind, {})[case] = numbers
        print(f"{kind:10} {case:16} {_line(kind, numbers)}", flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(found, indent=2) + "\n")
    if args.dtype != "float32":
        print(*_means(found), sep="\n")
        return 0
    found["first call, milliseconds"] = cpu.first_call()
    rows = targets.rows(found, cpu.CASES)
    found["asked"] = [row.to_json() for row in rows]
    print(*rows, sep="\n")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _means(found: dict[str, Any]) -> Iterator[str]:
    """How many times faster than each of the others ours is, the geometric mean of the batched cases."""
    from ..bench import cpu, targets

    batched = {case.name for case in cpu.CASES if case.batched}
    for kind in ("inference", "training"):
        each: dict[str, list[float]] = {}
        for case in batched & found.get(kind, {}).keys():
            for name, ratio in found[kind][case]["ratio"].items():
                each.setdefault(name, []).append(ratio["median"])
        for name, ratios in each.items():
            mean = targets.geometric_mean(ratios)
            yield f"{kind:10} {mean:.2f}x {name}, geometric mean of {len(ratios)} batched cases"


def _cases(args: argparse.Namespace) -> str:
    return "".join(f' --case "{name}"' for name in args.case)


def _gpu(args: argparse.Namespace) -> int:
    from ..errors import BackendError, SettingError
    from ..scan.cuda import machine  # here, not above: torch takes seconds to import

    why = machine.why_not()
    if why is not None:
        raise BackendError(f"bench: `gpu` cannot measure: {why}. Measure the cpu.")
    from ..bench import gpu

    known = [case.name for case in gpu.CASES]
    for name in args.case:
        if name not in known:
            raise SettingError(f"bench: `--case` must be one of {', '.join(map(repr, known))}, got {name!r}.")
    setup = gpu.Setup(rounds=args.rounds, names=tuple(args.case))
    found: dict[str, Any] = {
        "command": f"longshort bench gpu --rounds {args.rounds}{_cases(args)}",
        "rounds": args.rounds,
        **gpu.machine(),
    }
    failed = False
    for case, numbers in gpu.measure(setup):
        found.setdefault("cases", {})[case] = numbers
        failed = failed or "failed" in numbers
        for line in gpu.lines(case, numbers):
            print(line, flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(failed)


def _line(kind: str, numbers: dict[str, Any]) -> str:
    if kind == "options":
        return "  ".join(f"{name} {r['median']:.2f}x" for name, r in numbers.items())
    ours = numbers["milliseconds"]["ours"]["median"]
    each = (
        f"{name} {r['median']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]" for name, r in numbers["ratio"].items()
    )
    return f"{ours:9.3f} ms   " + "  ".join(each)
