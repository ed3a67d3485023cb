"""What the documents show is run: every Python block, in order, and every command that they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```(\w*)(?: *([^\n]*))?\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|<img[^>]* src=\"([^\"]+)\"|<source[^>]* srcset=\"([^\"]+)\"")
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)


def blocks(path, language):
    return [body for lang, _, body in FENCE.findall(path.read_text("utf8")) if lang == language]


@each_document
def test_python_blocks_run_in_order(path, tmp_path, monkeypatch):
    """Each document is one story: its blocks share a namespace, and run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__"}
    for number, block in enumerate(blocks(path, "python")):
        exec(compile(block, f"{path.name}, block {number + 1}", "exec"), space)


@each_document
def test_links_and_pictures_lead_somewhere(path):
    broken = [
        target
        for target in (a or b or c for a, b, c in LINK.findall(path.read_text("utf8")))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


@each_document
def test_what_names_a_test_names_one_that_is_there(path):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", path.read_text("utf8")):
        assert (ROOT / file).is_file(), file
        assert f"def {name}(" in (ROOT / file).read_text("utf8") or not name, f"{file}::{name}"


def test_every_yes_of_the_feature_table_names_its_test():
    rows = [line for line in (ROOT / "README.md").read_text("utf8").splitlines() if "| **yes** |" in line]
    assert len(rows) >= 10
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []


def commands(path):
    """Lines `longshort ...` of the console blocks, without their output."""
    for block in blocks(path, "console"):
        for line in block.splitlines():
            if line.startswith("$ longshort "):
                yield shlex.split(line.removeprefix("$ "), comments=True)


SHORT = {"train": ["--max-steps", "3"], "problems": ["--max-steps", "3", "--seeds", "1"]}
"""What cuts a verb's training to a few steps."""


ONE_PROCESS = """
import shlex, sys
from longshort import cli
for line in sys.argv[1:]:
    print("$ longshort " + line, flush=True)
    if cli.main(shlex.split(line)):
        sys.exit(1)
"""
"""Runs commands in turn, and loads torch once for all of them."""


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if any(commands(p))], ids=lambda p: p.name)
def test_commands_run(path, tmp_path):
    """In order, in one folder, with training cut to a few steps so that the suite stays fast."""
    for file in ROOT.glob("docs/files/*"):
        shutil.copy(file, tmp_path)
    lines = []
    for words in commands(path):
        short = SHORT.get(words[1], []) if words[1] != "train" or "--max-steps" not in words else []
        lines.append(shlex.join([*words[1:], *short]))
    result = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, *lines],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stdout.count("$ longshort ") == len(lines)
