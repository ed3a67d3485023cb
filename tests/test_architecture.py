"""The import graph is the one ARCHITECTURE.md draws, and the house keeps its limits."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = ROOT / "src" / "longshort"
ROW = re.compile(r"^\| (\d) \| `(\w+)` \|.*\| *((?:`\w+` ?)*)\|$", re.M)
RULES = {
    name: (int(level), set(re.findall(r"`(\w+)`", allowed)))
    for level, name, allowed in ROW.findall((ROOT / "ARCHITECTURE.md").read_text("utf8"))
}
FILES = sorted(HOME.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOME)))


def package_of(path):
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imports(tree, path):
    """Absolute dotted names of everything that a file imports or needs, wherever in the file."""
    package = path.relative_to(HOME.parent).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def breaches(source, path):
    """What a file imports against the table, as sentences."""
    here = package_of(path)
    level, third_party = RULES[here]
    for name in imports(ast.parse(source), path):
        top, *rest = name.split(".")
        if top == "longshort":
            there = next((part for part in rest if part in RULES), None)
            if there not in (None, here) and RULES[there][0] >= level:
                yield f"{here} (level {level}) imports {there} (level {RULES[there][0]})"
        elif top not in third_party | sys.stdlib_module_names:
            yield f"{here} imports {top}, which its row does not name"


def test_every_package_has_a_row_and_every_row_a_package():
    assert {package_of(p) for p in FILES} - {"__init__"} == set(RULES)


@each_file
def test_imports_only_what_stands_above(path):
    if package_of(path) == "__init__":
        return  # the public names: it may reach everything, and computes nothing
    assert list(breaches(path.read_text("utf8"), path)) == []


@pytest.mark.parametrize(
    ("file", "source", "breach"),
    [
        ("scan/new.py", "from ..tasks import Forecaster", "scan (level 2) imports tasks (level 5)"),
        ("data/new.py", "from ..figures import draw", "data (level 3) imports figures (level 3)"),
        ("runs.py", "def f():\n    import torch", "runs imports torch, which its row does not name"),
        ("nn/new.py", "need('polars', extra='x', to='y')", "nn imports polars, which its row does not name"),
    ],
)
def test_a_breach_is_found(file, source, breach):
    assert list(breaches(source, HOME / file)) == [breach]


@each_file
def test_a_file_fits_in_the_head(path):
    lines = path.read_text("utf8").splitlines()
    assert len(lines) <= 400, f"{len(lines)} lines; split it by role"


@each_file
def test_a_function_fits_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = (
                (node.body[1].lineno if len(node.body) > 1 else first.lineno) if documented else node.lineno
            )
            assert node.end_lineno - start < 60, f"{node.name}: {node.end_lineno - start + 1} lines"


@each_file
def test_no_assert_for_what_a_user_can_cause_and_no_swallowed_error(path):
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error that says what to do"
        if isinstance(node, ast.ExceptHandler):
            empty = all(isinstance(line, ast.Pass) for line in node.body)
            assert not empty, f"line {node.lineno}: an error is swallowed"


def public_definitions(tree):
    """Public functions, classes and methods of a module that has public names, with dotted names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for child in node.body:
                    if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                        yield f"{node.name}.{child.name}", child


@each_file
def test_every_public_name_is_documented(path):
    if path.stem.startswith("_") and path.stem != "__init__":
        return
    missing = [
        name
        for name, node in public_definitions(ast.parse(path.read_text("utf8")))
        if not ast.get_docstring(node)
    ]
    assert missing == []


def test_no_attic():
    banned = {"utils", "util", "common", "helpers", "base", "misc"}
    assert [p for p in HOME.rglob("*") if p.stem in banned] == []


def test_nothing_of_a_machine_is_in_the_tree():
    texts = [
        p
        for p in ROOT.rglob("*")
        if p.suffix in {".py", ".md", ".toml", ".txt", ".cpp", ".h", ".json"}
        and not {".venv", "build", ".git", "runs", "node_modules"} & set(p.relative_to(ROOT).parts)
    ]
    found = [
        str(p)
        for p in texts
        if re.search(r"/(home|root|work|tmp)/\w", p.read_text("utf8", "replace"))
        and p.name != "test_architecture.py"
    ]
    assert found == []
