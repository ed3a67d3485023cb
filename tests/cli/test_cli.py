"""The frame of the command line: verbs are files, errors are sentences, exit codes mean what they say."""

import argparse
import subprocess
import sys

import pytest

from longshort import cli
from longshort.errors import DataError


def invoke(*words, **options):
    command = [sys.executable, "-m", "longshort.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.parametrize("name", sorted(cli.verbs()))
def test_a_verb_has_help(name):
    result = invoke(name, "--help")
    assert result.returncode == 0
    first = cli.verbs()[name].__doc__.partition("\n")[0]
    assert first in result.stdout
    assert first in cli.parser().format_help() or len(first) > 40


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "positional arguments:\n  <verb>"),
        (["tran"], "'train'). Did you mean train? `longshort --help` lists what there is."),
        (["check", "--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_wrong_usage_is_exit_code_2(words, message):
    result = invoke(*words)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


class Verb:
    __doc__ = "A verb that fails."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """No arguments."""

    @staticmethod
    def run(args):
        raise DataError("load.csv, line 3: not a number.")


def test_an_error_is_a_sentence_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(cli, "verbs", lambda: {"fail": Verb})
    assert cli.main(["fail"]) == 1
    assert capsys.readouterr().err == "longshort fail: load.csv, line 3: not a number.\n"
    with pytest.raises(DataError):
        cli.main(["--debug", "fail"])


def test_ctrl_c_is_a_line_and_exit_code_130(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "verbs", lambda: {"fail": Verb})
    monkeypatch.setattr(Verb, "run", interrupted)
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr().err == "longshort fail: interrupted\n"


def test_the_version():
    import longshort

    assert invoke("--version").stdout == f"longshort {longshort.__version__}\n"
