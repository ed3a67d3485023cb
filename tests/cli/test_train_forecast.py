"""train, predict and evaluate, as they are typed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars
import pytest

from longshort import cli
from longshort.runs import Run
from longshort.tasks.forecast import Backtest, story
from longshort.train import Fitted
from tasks.making import wave

FAST = [
    "--max-steps",
    "10",
    "--every",
    "5",
    "--hidden",
    "4",
    "--season",
    "8",
    "--context",
    "16",
    "--horizon",
    "6",
]


def longshort(*words):
    """The verb's exit code; what it prints goes to capsys."""
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """load.csv, the rows that follow it, and a run trained on the first."""
    folder = tmp_path_factory.mktemp("files")
    frame = polars.DataFrame({"ds": range(140), "load": wave(140), "heat": wave(140, 5)})
    frame[:100, :2].write_csv(folder / "load.csv")
    frame[100:, :2].write_csv(folder / "later.csv")
    frame[:100].write_csv(folder / "heat.csv")
    frame[100:106, ["ds", "heat"]].write_csv(folder / "heat-ahead.csv")
    assert longshort("train", "forecast", folder / "load.csv", *FAST, "--out", folder / "run") == 0
    heat = [folder / "heat.csv", "--target", "load", "--future", "heat", *FAST, "--out", folder / "heat"]
    assert longshort("train", "forecast", *heat) == 0
    return folder


def test_a_run_folder_has_everything(files):
    run = Run.open(files / "run", "forecast")
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "settings.json", "data.json", "weights.safetensors", "last.safetensors", "history.safetensors",
        "metrics.jsonl", "scores.json", "backtest.csv", "forecast.csv", "forecast.png", "forecast.svg",
    }  # fmt: skip
    scores = run.read_json("scores.json")
    assert scores["windows"] == 20 - 6 + 1 and "seasonal naive" in scores["scores"]
    forecast = polars.read_csv(run.path("forecast.csv"))
    assert forecast["ds"].to_list() == list(range(100, 106))
    backtest = polars.read_csv(run.path("backtest.csv"))
    assert backtest["cutoff"].min() == 79 and backtest["ds"].max() == 99


def test_training_prints_the_score_beside_the_baselines(files, capsys):
    assert longshort("train", "forecast", files / "load.csv", *FAST, "--out", files / "run") == 0
    printed = capsys.readouterr().out
    assert (
        "100 rows, a step of 1, a season of 8; trained on 80, scored on 20\n"
        "the rows held out are only scored, never trained on; --test 0 trains on all\n"
    ) in printed
    assert [line for line in printed.splitlines() if line != line.rstrip()] == []
    assert "\n\n\n" not in printed and "\n\n15 windows of 6 steps, 1 series\n" in printed
    assert "done after 10 steps" in printed
    for word in ("LSTM", "seasonal naive", "naive", "drift", "MASE", "OWA", "in 80 %"):
        assert word in printed
    assert f"longshort predict {files / 'run'}" in printed


def test_prediction_goes_to_standard_output(files, capsys):
    assert longshort("predict", files / "run") == 0
    printed = capsys.readouterr().out
    assert printed == (files / "run" / "forecast.csv").read_text()
    assert longshort("predict", files / "run", "--levels", "50,90", "--horizon", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unique_id,ds,mean,median,lo-90,lo-50,hi-50,hi-90" and len(lines) == 3


def test_prediction_goes_on_from_a_file_of_new_rows(files, capsys):
    assert longshort("predict", files / "run", files / "later.csv") == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("load,140,")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.png", "out.svg"])
def test_prediction_goes_to_a_file(files, tmp_path, name):
    assert longshort("predict", files / "run", "--out", tmp_path / name) == 0
    assert (tmp_path / name).stat().st_size > 300


def test_prediction_reads_standard_input(files):
    command = [sys.executable, "-m", "longshort.cli", "predict", str(files / "run"), "-"]
    with open(files / "later.csv", "rb") as rows:
        result = subprocess.run(command, stdin=rows, capture_output=True, text=True)
    assert result.stderr == "" and result.stdout.splitlines()[1].startswith("load,140,")


def test_a_spreadsheet_of_another_country(files, tmp_path, capsys):
    """Decimal commas, umlauts of one byte: later files are read as the first was, or as --encoding says."""
    rows = polars.read_csv(files / "load.csv").rows()
    text = "sep=;\r\nds;Höhe\r\n" + "".join(f"{t};{v}\r\n".replace(".", ",") for t, v in rows)
    later = "ds;Höhe\r\n100;1,234\r\n"
    (tmp_path / "old.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "later.csv").write_bytes(later.encode("cp1252"))
    (tmp_path / "new.csv").write_bytes(later.encode())
    told = [tmp_path / "old.csv", *FAST, "--out", tmp_path / "run"]
    assert longshort("train", "forecast", *told) == 1
    assert "not UTF-8 there. Save the file as UTF-8, or pass its `encoding`" in capsys.readouterr().err
    assert longshort("train", "forecast", *told, "--encoding", "cp1252") == 0
    assert "note: numbers have a decimal comma\n" in capsys.readouterr().out
    assert longshort("predict", tmp_path / "run", tmp_path / "later.csv") == 0
    old = capsys.readouterr().out
    assert longshort("predict", tmp_path / "run", tmp_path / "new.csv", "--encoding", "utf-8") == 0
    assert capsys.readouterr().out == old and old.splitlines()[1].startswith("Höhe,101,")
    assert longshort("predict", tmp_path / "run", tmp_path / "new.csv") == 1
    assert "HÃ¶he" in capsys.readouterr().err


def test_forecasts_in_utc_say_so_and_go_back_in(files, tmp_path, capsys):
    hours = np.datetime64("2024-03-29T00:00") + np.arange(101) * np.timedelta64(1, "h")
    summer = np.datetime64("2024-03-31T03:00")
    values = polars.read_csv(files / "load.csv")["load"].to_list()
    times = [
        f"{hour}+0{1 + (hour >= summer)}:00" for hour in hours if hour != summer - np.timedelta64(1, "h")
    ]
    rows = [f"{time},{value}\n" for time, value in zip(times, values, strict=True)]
    (tmp_path / "zoned.csv").write_text("stamp,load\n" + "".join(rows))
    assert longshort("train", "forecast", tmp_path / "zoned.csv", *FAST, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    assert longshort("predict", tmp_path / "run") == 0
    printed = [line.split(",")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert times[-1] == "2024-04-02T04:00+02:00" and printed[0] == "2024-04-02T03:00:00.000000+0000"
    backtest = polars.read_csv(tmp_path / "run" / "backtest.csv")
    assert backtest["ds"][0].endswith("+0000") and backtest["cutoff"][0].endswith("+0000")
    later = "stamp,load\n" + "".join(f"{time},3\n" for time in printed)
    (tmp_path / "later.csv").write_text(later)
    assert longshort("predict", tmp_path / "run", tmp_path / "later.csv") == 0
    (tmp_path / "later.csv").write_text(later.replace("+0000", ""))
    assert longshort("predict", tmp_path / "run", tmp_path / "later.csv") == 1
    assert "must have an offset from UTC, as those of the earlier table did" in capsys.readouterr().err


def test_a_dead_sensor_does_not_take_the_others_with_it(files, tmp_path, capsys):
    frame = polars.DataFrame({"ds": range(140), "hall": wave(140), "yard": wave(140, 5)})
    frame[:100].write_csv(tmp_path / "both.csv")
    frame[100:].with_columns(hall=polars.lit(None)).write_csv(tmp_path / "dead.csv")
    assert longshort("train", "forecast", tmp_path / "both.csv", *FAST, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    assert longshort("predict", tmp_path / "run", tmp_path / "dead.csv") == 0
    out, err = capsys.readouterr()
    assert err == "note: series 'hall' is left out: it has no value\n"
    assert [line.split(",")[:2] for line in out.splitlines()[1:]] == [
        ["yard", str(t)] for t in range(140, 146)
    ]


def test_a_missing_future_covariate(files, capsys):
    assert longshort("predict", files / "heat") == 1
    assert capsys.readouterr().err == (
        "longshort predict: 6 values of covariates known in advance are missing "
        "(series, time, column):\n"
        + "".join(f"  load {hour} heat\n" for hour in range(100, 106))
        + "  Give them with `future` (--future FILE), or as rows of the table with an empty target.\n"
    )
    assert longshort("predict", files / "heat", "--future", files / "heat-ahead.csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert not (files / "heat" / "forecast.csv").exists()
    assert (files / "heat" / "scores.json").exists()


@pytest.mark.parametrize("test", ["0.2", "0"])
def test_training_with_covariates_that_end_with_the_target(files, tmp_path, capsys, test):
    """The command that is printed is the one that works, and there is a picture without a forecast."""
    run = tmp_path / "run"
    words = [files / "heat.csv", "--target", "load", "--future", "heat", *FAST, "--test", test, "--out", run]
    assert longshort("train", "forecast", *words) == 0
    assert capsys.readouterr().out.endswith(
        "no forecast yet: it needs the next 6 rows of heat, known in advance\n"
        f"{run}/backtest.png, .svg: the last forecast of the score, and what happened\n"
        f"{run}: the run. longshort predict {run} --future FILE (columns ds, heat)\n"
    )
    assert (run / "backtest.png").read_bytes()[:4] == b"\x89PNG" and (run / "backtest.svg").exists()
    assert longshort("predict", run, "--future", files / "heat-ahead.csv") == 0


def test_evaluation(files, tmp_path, capsys):
    words = [
        "evaluate",
        files / "run",
        files / "later.csv",
        "--stride",
        "5",
        "--out",
        tmp_path / "scores.json",
    ]
    assert longshort(*words) == 0
    assert "7 windows of 6 steps, 1 series" in capsys.readouterr().out
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved["windows"] == 7 and set(saved["scores"]) == {"LSTM", "seasonal naive", "naive", "drift"}
    assert (
        longshort("evaluate", files / "run", files / "later.csv", "--out", tmp_path / "windows.parquet") == 0
    )
    assert polars.read_parquet(tmp_path / "windows.parquet").height == 35 * 6


def test_evaluation_of_rows_that_were_trained_on(files, capsys):
    assert longshort("evaluate", files / "run", files / "load.csv") == 1
    assert capsys.readouterr().err == (
        "longshort evaluate: backtest: no series has a row after the ones that the model was trained on. "
        "Give rows that continue the series.\n"
    )


def test_settings_are_printed_repeated_and_changed(files, capsys):
    assert longshort("train", "forecast", files / "load.csv", *FAST, "--print-settings") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == Run.open(files / "run").settings
    repeated = ["train", "forecast", "--settings", files / "run" / "settings.json", "--seed", "5"]
    assert longshort(*repeated, "--print-settings") == 0
    assert json.loads(capsys.readouterr().out) == printed | {"seed": 5}
    assert longshort(*repeated, "--out", files / "again") == 0
    assert Run.open(files / "again").settings == printed | {"seed": 5}


def test_other_settings_in_the_same_folder(files, capsys):
    words = ["train", "forecast", files / "load.csv", *FAST, "--out", files / "run", "--seed", "9"]
    assert longshort(*words) == 1
    assert capsys.readouterr().err == (
        f"longshort train: {files / 'run'}: holds a run with other settings: seed 0 -> 9. "
        "Give another --out, or repeat the run's own settings to resume it.\n"
    )


def test_a_folder_of_another_task(tmp_path, capsys):
    Run.create(tmp_path / "book", "language", {})
    assert longshort("train", "forecast", *FAST, "--out", tmp_path / "book") == 1
    assert capsys.readouterr().err == (
        f"longshort train: {tmp_path / 'book'}: holds a run of `language`, not of `forecast`. "
        "Give another folder.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "forecast", "--horizn", "3"],
            "unrecognized arguments: --horizn. Did you mean --horizon? `longshort train",
        ),
        (
            ["train", "forecast", "a.csv", "--target", "boiler C", "hall", "vibration", "--horizon", "3"],
            "longshort train forecast: unrecognized arguments: hall vibration. Commas separate the names of "
            "a list: --target 'boiler C,hall,vibration'. `longshort train forecast --help` lists what there "
            "is.",
        ),
        (
            ["train", "forecast", "a.csv", "--past=wind", "sun"],
            "unrecognized arguments: sun. Commas separate the names of a list: --past wind,sun. `",
        ),
        (
            ["evaluate", "run", "a.csv", "--levels", "80", "95"],
            "unrecognized arguments: 95. Commas separate the names of a list: --levels 80,95. `",
        ),
        (["train", "forecast", "--horizon", "soon"], "argument --horizon: invalid int value: 'soon'"),
        (["train", "weather"], "argument task: invalid choice: 'weather'"),
        (["predict"], "the following arguments are required: RUN"),
        (["predict", "run", "--levels", "a"], "argument --levels: invalid percentages value: 'a'"),
        (["evaluate", "run"], "the following arguments are required: FILE"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as raised:
        longshort(*words)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--horizon", "0"], "--horizon must be in [1, inf), got 0.\n  Steps to forecast.\n"),
        (
            ["--season", "8", "--horizon", "300"],
            "series 'y' has 100 rows, and must have at least 901: the test part alone takes 300, at least "
            "one horizon. Give a smaller `horizon`, or `test` 0 for no test part.\n",
        ),
        (
            ["--season", "8", "--context", "70", "--horizon", "20"],
            "series 'y' has 80 rows, and must have at least 90 (context 70 + horizon 20). "
            "Give a smaller `horizon` or `context`, or leave the series out. "
            "(The last 20% of each series are held out: `test`. With them it must have at least 112 rows.)\n",
        ),
        (["nowhere.csv"], "nowhere.csv: there is no such file."),
    ],
)
def test_what_cannot_be_trained(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    if words[0] != "nowhere.csv":
        polars.DataFrame({"y": wave(100)}).write_csv("y.csv")
        words = ["y.csv", *words]
    assert longshort("train", "forecast", *words, "--out", folder) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("longshort train: ") and message in printed
    assert not folder.exists()


@pytest.mark.parametrize("words", [[], ["--horizon", "6", "--context", "70"], ["--test", "0.7"]])
def test_the_length_that_a_short_series_is_told_is_the_shortest_that_trains(words, tmp_path, capsys):
    def train(rows):
        polars.DataFrame({"y": wave(rows)}).write_csv(tmp_path / "y.csv")
        small = ["--season", "8", "--max-steps", "1", "--every", "1", "--hidden", "4", *words]
        code = longshort("train", "forecast", tmp_path / "y.csv", *small, "--out", tmp_path / "run")
        return code, capsys.readouterr().err

    code, message = train(14)
    least = int(re.findall("at least ([0-9]+)", message)[-1])
    assert code == 1
    assert train(least - 1)[0] == 1
    assert train(least)[0] == 0


def test_help_lists_every_setting():
    command = [sys.executable, "-m", "longshort.cli", "train", "forecast", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for flag in ("--horizon", "--target", "--future", "--max-steps", "--seed", "--device", "--out", "--test"):
        assert f"{flag} " in printed
    assert printed.count("\n    longshort train forecast ") == 2
    order = [
        printed.index(f"\n  {flag} ") for flag in ("--horizon", "--target", "--test", "--max-steps", "--lr")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("absent", ["polars", "rich"])
def test_help_without_the_extra_says_how_to_install_it(absent):
    program = (
        f"import sys; sys.modules[{absent!r}] = None; from longshort import cli; "
        "sys.exit(cli.main(['train', 'forecast', '--help']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"longshort train: longshort needs `{absent}` to train on a file, and it is not installed. "
        "Install it with: pip install 'longshort[tasks]'\n"
    )


def scored(mase, naive):
    rows = {"LSTM": {"MASE": mase}, "seasonal naive": {"MASE": 3.0}, "naive": {"MASE": naive}}
    return Backtest((), *[np.zeros((0, 0))] * 3, None, rows, (), None)


WORSE = "the LSTM does not beat the naive forecast"
LAST = "the best weights are those of the last step allowed"


@pytest.mark.parametrize(
    ("found", "best_step", "interrupted", "said"),
    [
        (scored(1.0, 1.1), 700, False, None),
        (scored(1.1, 1.1), 700, False, f"{WORSE}: try --max-steps 1600, another --season or --context"),
        (scored(1.0, 1.1), 800, False, f"{LAST}: try --max-steps 1600"),
        (scored(1.2, 1.1), 800, False, f"{WORSE}, and {LAST}: try --max-steps 1600"),
        (None, 800, False, f"{LAST}: try --max-steps 1600"),
        (scored(1.2, 1.1), 800, True, None),
        (scored(float("nan"), float("nan")), 700, False, None),
    ],
)
def test_advice(found, best_step, interrupted, said):
    fitted = Fitted(800, best_step, 0.1, 1.0, interrupted)
    expected = None if said is None else f"{said}, with a new --out"
    assert story._advice(found, fitted, story.TrainSettings(max_steps=800)) == expected


@pytest.mark.parametrize(("kept", "step"), [((), 0), (("last.safetensors",), 10)])
def test_an_unfinished_run(files, tmp_path, capsys, kept, step):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("settings.json", *kept):
        (run / name).write_bytes((files / "run" / name).read_bytes())
    for words in (["predict", run], ["evaluate", run, files / "later.csv"]):
        assert longshort(*words) == 1
        assert capsys.readouterr().err == (
            f"longshort {words[0]}: {run}: is unfinished: its training came to step {step} of 10. "
            "The same training command goes on from there.\n"
        )


def test_a_finished_run_whose_history_is_gone_is_repaired(files, tmp_path, capsys):
    words = ["train", "forecast", files / "load.csv", *FAST, "--out", tmp_path / "run"]
    shutil.copytree(files / "run", tmp_path / "run")
    history = tmp_path / "run" / "history.safetensors"
    before = history.read_bytes()
    history.unlink()
    assert longshort("predict", tmp_path / "run") == 1
    assert capsys.readouterr().err == (
        f"longshort predict: {history}: there is no such file, and forecasts go on from the rows in it. The "
        "run is trained to its end: the same training command writes the file again, and trains no further.\n"
    )
    assert longshort(*words) == 0
    assert history.read_bytes() == before
    assert longshort("predict", tmp_path / "run") == 0


def test_folders_of_what_is_written_are_made_before_the_work(files, tmp_path, capsys, monkeypatch):
    run, new = files / "run", tmp_path / "new"
    for k, (words, name) in enumerate(
        [
            (["predict", run], "x.csv"),
            (["predict", run], "x.svg"),
            (["evaluate", run, files / "later.csv"], "x.json"),
            (["look", run], "look.html"),
            (["export", run, "--to", "torch"], "m.safetensors"),
        ]
    ):
        assert longshort(*words, "--out", new / f"{k}" / name) == 0
        assert (new / f"{k}" / name).is_file()
    file = tmp_path / "file"
    file.write_bytes(b"")
    capsys.readouterr()
    for name in ("predict", "score", "backtest"):
        monkeypatch.setattr(story.Forecaster, name, None)  # no work is done
    for words, name in (
        (["predict", run], "x.svg"),
        (["evaluate", run, files / "later.csv"], "x.json"),
        (["export", run, "--to", "torch"], "x.safetensors"),
    ):
        assert longshort(*words, "--out", file / name) == 1
        assert capsys.readouterr().err == (
            f"longshort {words[0]}: {file}: cannot be made: File exists. Give another name.\n"
        )
    for words, name in ((["predict", run], "x.json"), (["evaluate", run, "none.csv"], "x.svg")):
        assert longshort(*words, "--out", new / "another" / name) == 1
        assert capsys.readouterr().err.endswith("Give one of these endings.\n")
        assert not (new / "another").exists()


def test_control_c_saves_scores_and_says_how_to_go_on(files, tmp_path):
    words = ["train", "forecast", str(files / "load.csv"), *FAST, "--out", str(tmp_path / "run")]
    words[words.index("--max-steps") + 1] = "100000"
    words += ["--patience", "100000"]
    command = [sys.executable, "-m", "longshort.cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.stat().st_size > 300):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate()
    step = out.split("interrupted after ")[1].split(" steps")[0]
    assert child.returncode == 130
    assert err.endswith(f"Interrupted at step {step}. The same command goes on from there.\n")
    assert "seasonal naive" in out
    assert Run.open(tmp_path / "run").read_arrays("last.safetensors")[1]["place"]["step"] == int(step)
    assert np.isfinite(polars.read_csv(tmp_path / "run" / "forecast.csv")["median"].to_numpy()).all()
