"""What `import longshort` offers: no more, no less, and nothing heavy until asked."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import longshort

SOURCE = Path(longshort.__file__).read_text("utf8")
ROOT = Path(__file__).parents[1]


def loaded_by(code):
    """The modules that a fresh Python has loaded after `code`."""
    code += "\nimport sys, json; print(); print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", longshort.__all__)
def test_every_public_name_loads(name):
    assert getattr(longshort, name).__name__ == name


def test_type_checkers_see_the_same_names():
    block = next(n for n in ast.parse(SOURCE).body if isinstance(n, ast.If))
    seen = {alias.asname for n in block.body for alias in n.names}
    assert seen == set(longshort.__all__) == set(dir(longshort)) - {"__version__"}


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'longshort' has no attribute 'GRU'"):
        longshort.GRU  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import longshort",
        "from longshort.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "import longshort.engine, longshort.runs, longshort.settings",
    ],
)
def test_light_start(code):
    heavy = {"torch", "polars", "pandas", "matplotlib", "lightning_fabric", "rich", "onnx", "keras"}
    assert loaded_by(code) & heavy == set()


def test_the_layer_needs_no_table_library():
    heavy = {"polars", "narwhals", "matplotlib", "lightning_fabric"}
    assert loaded_by("import longshort; longshort.LSTM(2, 3)") & heavy == set()


def test_a_missing_torch_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import longshort\n"
        "try: longshort.LSTM\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == (
        "MissingExtra longshort needs `torch` to offer LSTM, and it is not installed. "
        "Install it with: pip install 'longshort[torch]'"
    )


def test_the_version_is_the_changelog_s_newest():
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf8"), re.M)
    assert newest is not None
    assert newest[1] == longshort.__version__
