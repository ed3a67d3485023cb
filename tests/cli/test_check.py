"""`longshort check` finds what is wrong, and says nothing is where nothing is."""

from longshort import cli
from longshort.scan import definition, derivative, tape


def test_a_sound_machine(capsys):
    assert cli.main(["check", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("cpu      ok   plain, layer norm: errs ") for line in lines)
    assert lines[-1].startswith("cpu      ok   three layers with dropout, finite differences: off by ")
    assert not [line for line in lines if "FAIL" in line]


def test_a_wrong_forward_pass_fails(capsys, monkeypatch):
    right = derivative._recurrent_part

    def wrong(v, w, z, h):
        a, saved = right(v, w, z, h)
        return a + 1e-5, saved

    monkeypatch.setattr(derivative, "_recurrent_part", wrong)
    assert cli.main(["check", "--device", "cpu"]) == 1
    assert "FAIL plain, as torch.nn.LSTM: errs " in capsys.readouterr().out


def test_a_wrong_gradient_fails(capsys, monkeypatch):
    monkeypatch.setattr(tape, "slope", lambda v, y: y * (1 - y) * 0.999)
    assert cli.main(["check", "--device", "cpu"]) == 1
    assert "FAIL plain, layer norm: errs " in capsys.readouterr().out


def test_not_a_number_fails(capsys, monkeypatch):
    monkeypatch.setattr(derivative.definition, "squash", lambda v, a: a * float("nan"))
    assert definition.squash is derivative.definition.squash
    assert cli.main(["check", "--device", "cpu"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_device_that_is_not_there(capsys):
    assert cli.main(["check", "--device", "tpu"]) == 1
    assert capsys.readouterr().err.startswith(
        "longshort check: --device must be one of this machine's devices, cpu"
    )
    assert cli.main(["check", "--device", "tpu"]) == 1
    assert capsys.readouterr().err.endswith("got 'tpu'.\n")
