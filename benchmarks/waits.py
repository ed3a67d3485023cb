"""Where the loops of the persistent kernels wait for memory, read in machine code: no device is needed.

A warp waits on one of six scoreboards, which all loads share that were given it. So a number that is loaded
before the loop, or that the assembler spills, can make every step wait for its tape before the product that
should hide the tape's way: nothing in the sources shows it, and a step takes a third longer. For each kernel:

    instructions     of the loop
    waits            loads of a step that every step waits for before its first tensor-core instruction
    with the operand the same where the wait is one for other blocks too, whose words come later
    spilled          loads that are waited for where they are made, to be stored on the stack

    scripts/bench waits [--disassembler PATH] [--architecture sm_90a] [--nvrtc PATH]

Another NVRTC spills other numbers: that of torch for CUDA 13.0 has a file of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from longshort.bench.gpu import _OPTIONS, CASES, TYPES
from longshort.scan.call import Call, Options
from longshort.scan.cuda import compiler, persistent_plan, tiling
from longshort.scan.cuda.machine import Properties
from record import write

H200 = Properties("H200", (9, 0), 132, 227 * 1024)
OTHER = ("1024 x 128", "64 x 512", "20 x 650", "64 x 128")
"""The cases that are read with every option."""
GIVEN = {
    "reset": {"reset"},
    "lengths": {"lengths"},
    "peephole": {"peephole"},
    "zoneout": {"seed"},
    "masks": {"seed"},
    "layer norm": {"gain_ih", "gain_hh", "gain_c", "shift_c"},
}
"""What an option's call is given."""


class Instruction(NamedTuple):
    """One of a kernel: its words, the scoreboards that it waits for, and the one that a load of it sets."""

    words: str
    waits: frozenset[int]
    sets: int | None


Load = tuple[int, str, bool, int]
"""On its way: scoreboard, register, whether it asks for another block's word, how many steps ago."""


def disassembler(named: str | None) -> str:
    """nvdisasm: as named, on the path, or of the package nvidia-cuda-nvdisasm."""
    found = named or shutil.which("nvdisasm")
    if found is None and (spec := importlib.util.find_spec("nvidia")) and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for path in Path(folder).glob("*/bin/nvdisasm"):
                path.chmod(path.stat().st_mode | 0o111)
                return str(path)
    return found or sys.exit("no nvdisasm: pip install nvidia-cuda-nvdisasm, or name one by --disassembler")


def listed(binary: bytes, tool: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of a binary with one kernel, and where its labels stand.

    Bits 41 on of an instruction's second word: stall (4), yield, scoreboard set by what it writes (3) and by
    what it reads (3), scoreboards waited for (6). NVIDIA says nothing of it; known since Volta.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = subprocess.run([tool, "-hex", file.name], check=True, capture_output=True, text=True).stdout
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    words = ""
    for line in text.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label[1]] = len(found)
        elif first := re.match(r"\s*/\*[0-9a-f]{4,5}\*/\s+(.*?);?\s+/\* 0x[0-9a-f]{16} \*/", line):
            words = first[1]
        elif words and (second := re.match(r"\s*/\* 0x([0-9a-f]{16}) \*/", line)):
            control = int(second[1], 16) >> 41
            waits = frozenset(k for k in range(6) if control >> 11 >> k & 1)
            sets = control >> 5 & 7
            found.append(Instruction(words, waits, sets if sets < 6 else None))
            words = ""
    return found, labels


def target(words: str, labels: dict[str, int]) -> int | None:
    """Where an instruction may go, if it is a branch."""
    found = re.search(r"\bBRA.*`\(\.(L_x_\d+)\)", words)
    return labels[found[1]] if found else None


def ways_on(code: list[Instruction], labels: dict[str, int], k: int) -> list[int]:
    """Where a warp may go from instruction k."""
    to = target(code[k].words, labels)
    return [k + 1] if to is None else [to, k + 1] if code[k].words.startswith("@") else [to]


def on_their_way(
    code: list[Instruction], labels: dict[str, int], first: int, last: int
) -> dict[int, frozenset[Load]]:
    """The loads that may be on their way before each instruction of a loop."""
    arriving: dict[int, frozenset[Load]] = {first: frozenset()}
    left = [first]
    while left:
        k = left.pop()
        words, waits, sets = code[k]
        out = {load for load in arriving[k] if load[0] not in waits}
        if "LDG" in words and sets is not None:
            width, register = re.findall(r"LDG(\S*)\s+R(\d+)", words)[0]
            count = 4 if ".128" in width else 2 if ".64" in width else 1
            out |= {(sets, f"R{int(register) + k}", "STRONG" in words, 0) for k in range(count)}
        for way in ways_on(code, labels, k):
            if not first <= way <= last:
                continue
            aged = {(*load[:3], min(2, load[3] + (way <= k))) for load in out}
            if way not in arriving or not aged <= arriving[way]:
                arriving[way] = arriving.get(way, frozenset()) | aged
                left.append(way)
    return arriving


def passed(code: list[Instruction], labels: dict[str, int], first: int, product: int, k: int) -> bool:
    """Whether every way from the first instruction of a loop to its product passes instruction k."""
    seen, left = {first}, [first] * (k != first)
    while left:
        ways = {way for way in ways_on(code, labels, left.pop()) if way > first and way != k} - seen
        seen |= ways
        left += ways - {product}
    return product not in seen


def read(code: list[Instruction], labels: dict[str, int]) -> dict[str, Any]:
    """What this file says of the longest loop of a kernel."""
    ends = ((k, target(one.words, labels)) for k, one in enumerate(code))
    first, last = max(((to, k) for k, to in ends if to is not None and to <= k), key=lambda s: s[1] - s[0])
    product = next((k for k in range(first, last + 1) if "HMMA" in code[k].words), None)
    arriving = on_their_way(code, labels, first, last)
    before: set[Load] = set()
    told: set[Load] = set()
    spilled: set[Load] = set()
    for k in sorted(arriving):
        now = {load for load in arriving[k] if load[0] in code[k].waits and load[3] == 0 and not load[2]}
        if "STL" in code[k].words:
            spilled |= {load for load in now if re.search(rf"\b{load[1]}\b", code[k].words)}
        elif now and product and k < product and passed(code, labels, first, product, k):
            others = any(load[0] in code[k].waits and load[2] for load in arriving[k])
            (told if others else before).update(now)
    found: dict[str, Any] = {"instructions": last - first + 1, "spilled": len(spilled)}
    if product is not None:  # else there is no tensor core's
        found |= {"waits": len(before), "with the operand": len(told)}
    return found


def asked(case: Any, kind: str, option: str) -> Call:
    """A training call of a case with an option."""
    settings = {"keep_cells": True} if option == "kept cells" else _OPTIONS.get(option, {})
    given = frozenset({"bias"} | GIVEN.get(option, set()))
    options = Options(**settings)
    return Call(options, "cuda", TYPES[kind][0], case.N, case.T, case.C, case.H, case.H, given, True)


def use(nvrtc: Path) -> None:
    """Compile by another NVRTC than the installed one."""
    for builtins in nvrtc.parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(nvrtc))
    compiler.nvrtc = lambda: library  # type: ignore[assignment]


def main() -> None:
    """Read all, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--disassembler", help="path of nvdisasm")
    parser.add_argument("--architecture", default=H200.architecture)
    parser.add_argument("--nvrtc", type=Path, help="another libnvrtc.so, with its builtins beside it")
    given = parser.parse_args()
    if given.nvrtc:
        use(given.nvrtc)
    tool, kernels = disassembler(given.disassembler), {}
    for case in CASES:
        for kind, (_, tf32) in TYPES.items():
            if kind == "float16":
                continue  # bfloat16's kernels, but for two instructions
            for option in ("plain", *(_OPTIONS if case.name in OTHER and kind == "bfloat16" else ())):
                call = asked(case, kind, option)
                pair = tiling.pair(H200, call, tf32)
                for way in ("forward", "backward"):
                    cut = pair and getattr(pair, way)
                    if not cut:
                        continue
                    text = persistent_plan.program(call, cut, specialises=True).text()
                    found = read(*listed(compiler.compiled(text, given.architecture), tool))
                    kernels.setdefault(f"{case.name}, {kind}, {option}", {})[way] = found
                    print(f"{case.name}, {kind}, {option}, {way}: {found}", flush=True)
    wrong = [
        f"{name}, {way}"
        for name, ways in kernels.items()
        for way, found in ways.items()
        if found.get("waits") or found["spilled"]
    ]
    print("waits before a product, or spilled loads:", wrong or "none")
    found = {
        "nvrtc": ".".join(map(str, compiler.version())),
        "state": "read in machine code; nothing has run",
        "waits before a product, or spilled loads": wrong,
        "kernels": kernels,
    }
    print(write("waits", found, f"waits-nvrtc-{found['nvrtc']}" if given.nvrtc else None))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
