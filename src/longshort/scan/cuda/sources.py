"""The kernels' text: one program for a type of numbers and a tiling, and the layout of their argument."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from ..call import hashed_once

FOLDER: Final = Path(__file__).parent
TYPES: Final = {
    torch.float64: ("double", "double"),
    torch.float32: ("float", "float"),
    torch.bfloat16: ("longshort::bfloat16", "float"),
    torch.float16: ("longshort::float16", "float"),
}
"""The C++ types E of x and R of the sums, by the dtype of x."""

_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.M)
_FIELD = re.compile(r"^  (?:const )?(\w+)(\*?) (\w+);", re.M)


@lru_cache(maxsize=64)
def assembled(file: str, folder: Path = FOLDER, twin: Path | None = None) -> str:
    """Return a source with what it includes in place, each file once.

    Args:
        file:   name in `folder`.
        folder: where the sources are.
        twin:   a folder whose files replace those of the same name; the tests keep one for the host.

    >>> "struct Arguments" in assembled("step_forward.cu")
    True
    """
    seen: set[str] = set()

    def text(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        path = twin / name if twin is not None and (twin / name).is_file() else folder / name
        body = path.read_text("utf8").replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda found: text(found[1]), body)

    return text(file)


@dataclass(frozen=True)
class Entry:
    """One kernel of a program: its name, and what a block of it computes."""

    name: str
    threads: int
    template: str = ""
    "arguments of the kernel's template, between angle brackets"
    resident: int = 1
    "blocks that must fit a multiprocessor: more leave each thread fewer registers"


@hashed_once
@dataclass(frozen=True)
class Program:
    """A source file, the type it is compiled for, and its entry points."""

    file: str
    dtype: torch.dtype
    entries: tuple[Entry, ...]
    sizes: tuple[int, ...] = ()
    "numbers of `Sized` in arguments.cuh, where the program is compiled for the sizes of a call"
    short: bool = False
    "whether 32 bits count the elements of every array"
    argument: str = "Arguments"
    "the struct that its kernels get"

    def text(self, twin: Path | None = None) -> str:
        """Return the whole translation unit."""
        element, wide = TYPES[self.dtype]
        chosen = f"longshort::{self.argument}<{element}, {wide}>"
        if self.sizes:
            chosen = f"longshort::Sized<{', '.join((chosen, *map(str, self.sizes)))}>"
        lines = [assembled(self.file, twin=twin), f"using Chosen = {chosen};"]
        if self.short:
            lines.insert(0, "#define LONGSHORT_INDEX int")
        for entry in self.entries:
            template = f"<{entry.template}>" if entry.template else ""
            lines.append(
                f"KERNEL({entry.name}, {entry.threads}, {entry.resident}, Chosen, "
                f"(longshort::{entry.name}{template}(a)))"
            )
        return "\n".join(lines) + "\n"


class Layout:
    """The fields of the kernels' argument, a struct of this name: eight bytes each, in its order."""

    def __init__(self, text: str, name: str = "Arguments") -> None:
        body = text[text.index(f"struct {name} {{") :]
        body = body[: body.index("\n};")]
        fields = [(name, kind, star) for kind, star, name in _FIELD.findall(body)]
        self.place = {name: 8 * k for k, (name, _, _) in enumerate(fields)}
        self.formats = {name: "<d" if kind == "double" and not star else "<q" for name, kind, star in fields}
        self.word = {name: k for k, (name, _, _) in enumerate(fields)}
        self.size = 8 * len(fields)

    def pack(self, values: Mapping[str, Any]) -> bytearray:
        """Return the bytes of an argument; fields not named are zero, or null."""
        packed = bytearray(self.size)
        for name, value in values.items():
            self.put(packed, name, value)
        return packed

    def put(self, packed: bytearray, name: str, value: Any) -> None:
        """Write one field; a tensor gives its address, None is null."""
        if value is None:
            value = 0
        elif isinstance(value, torch.Tensor):
            value = value.data_ptr()
        struct.pack_into(self.formats[name], packed, self.place[name], value)


@lru_cache(maxsize=8)
def layout(file: str = "arguments.cuh", name: str = "Arguments") -> Layout:
    """Return the layout of the argument, or of another struct that a file states."""
    return Layout((FOLDER / file).read_text("utf8"), name)


FLAGS: Final = {
    name: 1 << int(bit)
    for name, bit in re.findall(
        r"^  (\w+) = 1u << (\d+),", (FOLDER / "arguments.cuh").read_text("utf8"), re.M
    )
}
"""The bits of the argument's `flags`, as `arguments.cuh` numbers them."""
