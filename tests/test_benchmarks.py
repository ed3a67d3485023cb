"""Published numbers are files that say where they come from, and `scripts/bench` makes them again."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_its_command_machine_and_versions(path):
    content = json.loads(path.read_text())
    program, name = content["command"].split()[:2]
    if program == "scripts/bench":
        assert (ROOT / "benchmarks" / f"{name.replace('-', '_')}.py").is_file()
    elif program != "benchmarks/device.py":
        assert (program, name) == ("longshort", "bench")
    assert "cores" in content["machine"]
    assert {"python", "torch", "numpy"} <= set(content["versions"])


@pytest.mark.parametrize("words", [(), ("nothing",), ("record",)])
def test_without_a_known_name_the_names_are_listed(words):
    result = subprocess.run([ROOT / "scripts" / "bench", *words], capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("usage: scripts/bench NAME [OPTIONS], where NAME is one of:\n")
    assert {"  m4-hourly", "  classic-series"} <= set(result.stderr.splitlines())
    assert "record" not in result.stderr


def test_m4_hourly_is_what_was_promised():
    content = json.loads((ROOT / "benchmarks" / "results" / "m4-hourly.json").read_text())
    assert content["median"]["OWA"] <= 0.53
    for run in content["runs"]:
        assert run["seconds to fit and forecast"] < 600
        assert run["Naive2 sMAPE"] == pytest.approx(18.383, abs=1e-3)
        assert run["Naive2 MASE"] == pytest.approx(2.395, abs=1e-3)


def test_the_classic_series_are_what_was_promised():
    content = json.loads((ROOT / "benchmarks" / "results" / "classic-series.json").read_text())
    assert set(content["series"]) == {"monthly-sunspots", "taylor", "AirPassengers"}
    for result in content["series"].values():
        assert len(result["runs"]) == 5
        assert result["median"]["ratio"] <= 0.9
        assert 0.7 <= result["median"]["coverage-80"] <= 0.9


def test_shakespeare_is_what_was_promised():
    content = json.loads((ROOT / "benchmarks" / "results" / "language-shakespeare.json").read_text())
    assert content["weights"] < 10.65e6 and content["minutes in the loop"] < 60
    nats = content["scores"]["scores"]["LSTM"]["nats"]
    assert nats <= 1.47 and content["changed"] == {}
    for document in ("README.md", "docs/language.md"):
        assert f"{nats:.3f}" in (ROOT / document).read_text("utf8")


def test_language_is_as_fast_as_was_promised():
    content = json.loads((ROOT / "benchmarks" / "results" / "language-speed.json").read_text())
    assert content["generation"]["65"]["times torch.nn.LSTM"]["ours, full"] >= 10
    times = content["training"]["times the better peer"]
    assert times["ours, short"] >= 1.4 and times["ours, bf16-mixed"] >= 1.2
    assert 0 < content["decoder's share of a step"]["ours"] < 1


def test_zaremba_small_is_what_was_promised():
    content = json.loads((ROOT / "benchmarks" / "results" / "language-zaremba-small.json").read_text())
    assert content["passes"] == {"made": 13.0, "of": 13.0} and content["minutes in the loop"] < 90
    perplexity = content["scores"]["scores"]["LSTM"]["ppl"]
    assert perplexity <= 114.5
    assert f"| {perplexity:.1f} (" in (ROOT / "docs" / "language.md").read_text("utf8")
