"""What `benchmarks/waits.py` finds in listings of a few instructions."""

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("waits", BENCHMARKS / "waits.py")
waits = importlib.util.module_from_spec(spec)
sys.path.insert(0, str(BENCHMARKS))
spec.loader.exec_module(waits)
sys.path.remove(str(BENCHMARKS))


def listing(*lines):
    """Lines "words | waits | sets", or a label."""
    code, labels = [], {}
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = len(code)
            continue
        words, waited, sets = (part.strip() for part in f"{line} | |".split("|")[:3])
        code.append(waits.Instruction(words, frozenset(map(int, waited)), int(sets) if sets else None))
    return code, labels


LOOP = [
    "L_x_1:",
    "LDG.E R4, desc[UR4][R2.64] | | 5",
    "LDG.E R5, desc[UR4][R2.64+0x4] | | 5",
    "MOV R9, R8",
    "HMMA.16816.F32 R12, R16, R20, R12",
    "FADD R6, R4, R5 | 5",
    "@P0 BRA `(.L_x_1)",
    "EXIT",
]


def read(**replaced):
    lines = [replaced.get(line.split()[0].split(".")[0], line) for line in LOOP]
    return waits.read(
        *listing(*[one for line in lines for one in ([line] if isinstance(line, str) else line)])
    )


def test_loads_that_a_product_hides():
    assert read() == {"instructions": 6, "waits": 0, "with the operand": 0, "spilled": 0}


def test_a_scoreboard_that_all_loads_share():
    assert read(MOV="MOV R9, R8 | 5")["waits"] == 2  # R8 was loaded before the loop, by scoreboard 5


def test_a_wait_that_only_some_steps_make():
    assert read(MOV=["@!P1 BRA `(.L_x_2)", "MOV R9, R8 | 5", "L_x_2:"])["waits"] == 0
    assert read(MOV=["@!P1 BRA `(.L_x_2)", "NOP", "L_x_2:", "MOV R9, R8 | 5"])["waits"] == 2


def test_loads_of_the_step_before_are_no_wait():
    found = read(FADD="NOP", MOV=["FADD R6, R30, R31 | 4"])
    assert found["waits"] == 0
    ahead = [
        "L_x_1:",
        "MOV R9, R4 | 5",
        "LDG.E R4, desc[UR4][R2.64] | | 5",
        "HMMA.16816.F32 R12, R16, R20, R12",
        "@P0 BRA `(.L_x_1)",
        "EXIT",
    ]
    assert waits.read(*listing(*ahead))["waits"] == 0


def test_a_wait_for_other_blocks_too():
    found = read(MOV=["LDG.E.128.STRONG.GPU R24, desc[UR4][R2.64] | | 5", "VIMNMX R9, R24, R25 | 5"])
    assert (found["waits"], found["with the operand"]) == (0, 2)


def test_a_load_that_goes_to_the_stack():
    assert read(MOV="STL [R1], R4 | 5")["spilled"] == 1
    assert read(MOV="STL [R1], R40 | 5")["spilled"] == 0
