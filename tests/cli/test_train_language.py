"""train, predict and evaluate on texts, as they are typed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from language.texts import RHYME, words
from longshort import cli
from longshort.runs import Run
from longshort.tasks.language import recipes

FAST = [
    "--max-steps", "10", "--every", "5", "--hidden", "8", "--embedding", "4", "--batch", "4", "--window", "8",
    "--device", "cpu",
]  # fmt: skip


def longshort(*given):
    """The verb's exit code; what it prints goes to capsys."""
    return cli.main([str(word) for word in given])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """book.txt, and a run trained on it; a run of words."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "book.txt").write_text(RHYME * 20)
    (folder / "other.txt").write_text("one for the show,\ntwo to go é\n")
    (folder / "words.txt").write_text(words(600))
    (folder / "later.txt").write_text(words(200, seed=1))
    assert longshort("train", "language", folder / "book.txt", *FAST, "--out", folder / "run") == 0
    told = ["--unit", "word", "--valid", folder / "later.txt", "--test", folder / "later.txt"]
    assert longshort("train", "language", folder / "words.txt", *FAST, *told, "--out", folder / "words") == 0
    return folder


def test_a_run_folder_has_everything(files):
    run = Run.open(files / "run", "language")
    assert {path.name for path in run.folder.iterdir()} == {
        "settings.json", "data.json", "weights.safetensors", "last.safetensors", "metrics.jsonl",
        "scores.json", "sample.txt",
    }  # fmt: skip
    assert set(run.read_json("scores.json")["scores"]) == {"LSTM", "6-gram", "1-gram", "xz"}
    assert [line["step"] for line in run.read_metrics()] == [5, 10]
    assert {"nats", "ppl", "loss", "lr"} < set(run.read_metrics()[0])


def test_training_says_what_it_does_and_what_came_of_it(files, capsys):
    assert longshort("train", "language", files / "book.txt", *FAST, "--out", files / "run") == 0
    printed = capsys.readouterr().out
    total = len(RHYME) * 20
    assert printed.startswith(f"{files / 'book.txt'}: {total:,} chars, 19 different\n")
    assert f"trained on {int(0.9 * total):,}, validated on {total - int(0.9 * total)}\n" in printed
    assert "1 x 8 units, 695 weights; 10 steps of 4 x 8 chars, 0.2 passes over the text\n" in printed
    assert "done after 10 steps" in printed and "what it writes at temperature 0.7:" in printed
    assert "the validation part, which also decided when to stop: " in printed
    assert (
        "\nthe LSTM does not beat 6-gram, and the best weights are those of the last step allowed: "
        "a longer text helps, and so do more steps, from these weights on:\n"
        f"    longshort train language {files / 'book.txt'} --start {files / 'run'} "
        f"--max-steps 2500 --out {files / 'run'}-more\n\n"
    ) in printed
    assert [line for line in printed.splitlines() if line != line.rstrip()] == []
    assert f'longshort predict {files / "run"} "Some words"' in printed


def test_the_command_that_training_advises_goes_on_from_its_weights(files, capsys):
    longshort("train", "language", files / "book.txt", *FAST, "--out", files / "run")
    (advised,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("    longshort train")
    ]
    assert longshort(*advised.split()[1:]) == 0
    assert Run.open(f"{files / 'run'}-more", "language").settings["start"] == str(files / "run")


def test_prose_is_advised_to_be_read_in_subwords(files, capsys, monkeypatch):
    monkeypatch.setattr("longshort.tasks.language.story.PROSE", 10)
    longshort("train", "language", files / "book.txt", *FAST, "--out", files / "run")
    assert (
        "For prose of this length --unit subword learns more in the same time.\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize("flags", [(), ("--unknown",)], ids=["by default", "asked for"])
def test_unk_is_written_only_where_it_is_asked_for(files, capsys, flags):
    text = ["predict", files / "words", "one", "--length", "400", "--temperature", "20", "--seed", "0"]
    assert longshort(*text, *flags) == 0
    assert ("<unk>" in capsys.readouterr().out) == bool(flags)
    assert longshort(*text[:3], "two", *text[3:], *flags) == 0
    assert ("<unk>" in capsys.readouterr().out) == bool(flags)


def test_without_a_file_it_trains_on_the_topics(tmp_path, capsys):
    assert longshort("train", "language", *FAST, "--out", tmp_path / "run") == 0
    assert capsys.readouterr().out.startswith("Python's help topics, which come with it: ")
    assert longshort("evaluate", tmp_path / "run", __file__) == 0
    assert "6-gram" in capsys.readouterr().out


def test_a_test_file_is_scored(files):
    scores = Run.open(files / "words", "language").read_json("scores.json")
    assert scores["unit"] == "word" and scores["tokens"] == len(words(200, seed=1).split()) + 25 - 1


def test_a_text_goes_on(files, capsys):
    how = ["--length", "30", "--seed", "1"]
    assert longshort("predict", files / "run", "one for ", *how) == 0
    first = capsys.readouterr()
    assert first.out.startswith("one for ") and len(first.out) == len("one for ") + 30 + 1
    assert re.fullmatch(r"note: 30 tokens, [\d,]+ a second; --seed 1 repeats this\n", first.err)
    assert longshort("predict", files / "run", "one for ", *how) == 0
    assert capsys.readouterr().out == first.out
    assert longshort("predict", files / "run", "one for ", "two", *how) == 0
    both = capsys.readouterr().out
    assert both.startswith(first.out + "\n") and both[len(first.out) + 1 :].startswith("two")
    assert longshort("predict", files / "run", "one for ", *how, "--out", files / "out.txt") == 0
    assert capsys.readouterr().out == "" and (files / "out.txt").read_text() == first.out


def test_a_prompt_from_a_file_and_from_standard_input(files, capsys):
    how = ["--length", "12", "--seed", "1", "--temperature", "0"]
    assert longshort("predict", files / "run", "--prompt-file", files / "other.txt", *how) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith((files / "other.txt").read_text())
    assert printed.err.splitlines()[0] == (
        "note: 1 character outside the vocabulary, read as the likest one the model knows: 'é' 1x"
    )
    command = [sys.executable, "-m", "longshort.cli", "predict", str(files / "run"), "-", *how]
    result = subprocess.run(command, input="one for\n", capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("one for") and "\none" not in result.stdout[:9]


def test_a_temperature_of_zero_needs_no_seed_and_a_held_back_end_is_no_token(files, capsys):
    assert longshort("predict", files / "run", "one", "--length", "9", "--temperature", "0") == 0
    greedy = capsys.readouterr()
    told = r"note: 9 tokens, [\d,]+ a second; the likeliest each time, whatever the seed\n"
    assert re.fullmatch(told, greedy.err)
    assert (
        longshort("predict", files / "run", "one", "--length", "9", "--temperature", "0", "--stop", "??") == 0
    )
    held = capsys.readouterr()
    assert held.out == greedy.out and held.err.startswith("note: 9 tokens, ")
    assert longshort("predict", files / "run", "one", "--length", "1", "--seed", "3") == 0
    assert capsys.readouterr().err == "note: 1 token; --seed 3 repeats this\n"


def test_a_run_goes_on_with_another_text(files, tmp_path, capsys):
    told = ["--start", files / "run", "--max-steps", "5", "--out", tmp_path / "run"]
    assert longshort("train", "language", files / "other.txt", *told, "--batch", "1") == 0
    printed = capsys.readouterr().out
    assert "1 x 8 units, 695 weights; 5 steps of 1 x 8 chars" in printed and "'é' 1x" in printed
    given = ["train", "language", files / "other.txt", "--start", files / "run", "--recipe", "char-rnn"]
    assert longshort(*given) == 1
    assert capsys.readouterr().err == (
        "longshort train: language: `recipe` and `start` both say what to begin with. Give one of them.\n"
    )


def test_a_mapped_text_is_not_read_again_for_the_baselines(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("longshort.tasks.language.corpus.IN_MEMORY", 100)
    (tmp_path / "book.txt").write_text(RHYME * 20)
    assert longshort("train", "language", tmp_path / "book.txt", *FAST, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "tokens.bin").stat().st_size == len(RHYME) * 20
    assert longshort("evaluate", files / "run", files / "book.txt") == 0
    expected = capsys.readouterr().out.split("scored\n")[-1].splitlines()[3:]
    (tmp_path / "book.txt").unlink()
    assert longshort("evaluate", tmp_path / "run", files / "book.txt") == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.split("scored\n")[-1].splitlines()[3:] == expected


def test_an_empty_prompt_and_one_that_names_a_file(files, capsys, monkeypatch):
    assert longshort("predict", files / "run", "", "--length", "3", "--seed", "1") == 0
    assert len(capsys.readouterr().out) == 4
    monkeypatch.chdir(files)
    assert longshort("predict", "run", "book.txt", "--length", "3") == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "note: 'book.txt' is taken as the prompt; --prompt-file reads the file of this name"
    )


def test_a_file_is_scored_beside_baselines(files, capsys):
    assert longshort("evaluate", files / "run", files / "other.txt", "--out", files / "scores.json") == 0
    printed = capsys.readouterr()
    assert "6-gram" in printed.out and "'é' 1x" in printed.out and printed.err == ""
    assert json.loads((files / "scores.json").read_text())["outside the vocabulary"] == {"é": 1}
    assert longshort("evaluate", files / "words", files / "book.txt") == 0
    assert "words outside the vocabulary, read as <unk>: " in capsys.readouterr().out


def test_without_the_training_text_there_are_no_baselines(files, tmp_path, capsys):
    (tmp_path / "book.txt").write_text(RHYME * 20)
    assert longshort("train", "language", tmp_path / "book.txt", *FAST, "--out", tmp_path / "run") == 0
    (tmp_path / "book.txt").write_text(RHYME * 21)
    assert longshort("evaluate", tmp_path / "run", files / "other.txt") == 0
    printed = capsys.readouterr()
    assert "6-gram" not in printed.out.split("other.txt")[-1]
    assert printed.err.splitlines()[-1] == (
        f"note: no baselines: {tmp_path / 'book.txt'} has changed since the training."
    )


def test_settings_are_printed_and_a_recipe_stands_beneath_flags(files, capsys):
    assert longshort("train", "language", "--recipe", "zaremba-small", "--hidden", 7, "--print-settings") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["hidden"] == 7 and printed["embedding"] == 200 and printed["recipe"] == "zaremba-small"
    again = ["train", "language", "--settings", files / "run" / "settings.json", "--seed", 5]
    assert longshort(*again, "--print-settings") == 0
    assert json.loads(capsys.readouterr().out)["hidden"] == 8


@pytest.mark.parametrize("recipe", recipes())
def test_steps_that_are_asked_for_stand_in_place_of_a_recipes_passes(capsys, recipe):
    how = ["train", "language", "--recipe", recipe, "--print-settings"]
    assert longshort(*how, "--max-steps", 3) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["max_steps"], printed["epochs"]) == (3, None)
    assert longshort(*how, "--epochs", 0.5) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 0.5


@pytest.mark.parametrize("task", ["language", "forecast"])
def test_a_device_that_is_not_there_is_missed_before_anything_is_written(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert longshort("train", task, "--device", "cuda", "--out", tmp_path / "run") == 1
    assert "'cuda' is not available on this machine" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_run_says_how_to_train_it_further(files, capsys):
    more = [*FAST, "--max-steps", 12, "--out", files / "run"]
    assert longshort("train", "language", files / "book.txt", *more) == 1
    assert capsys.readouterr().err == (
        f"longshort train: {files / 'run'}: holds a run with other settings: max_steps 10 -> 12. Give "
        f"another --out, or repeat the run's own settings to resume it. To train its weights further, give "
        f"--start {files / 'run'} and another --out.\n"
    )
    other = [*FAST, "--hidden", 9, "--out", files / "run"]
    assert longshort("train", "language", files / "book.txt", *other) == 1
    assert "--start" not in capsys.readouterr().err, "whose weights another model cannot take"


def test_a_long_run_is_advised_to_go_on_at_a_lower_rate(files, capsys, monkeypatch):
    monkeypatch.setattr("longshort.tasks.language.story.LanguageSettings.max_steps", 8)
    longshort("train", "language", files / "book.txt", *FAST, "--out", files / "run")
    assert f"--start {files / 'run'} --max-steps 20 --lr 0.0005 --out" in capsys.readouterr().out


def test_a_model_of_words_says_what_its_bits_leave_out(files, tmp_path, capsys):
    said = "of them are <unk>, whose characters count in bits/char and cost\nnothing: not to be compared"
    assert longshort("evaluate", files / "words", files / "book.txt") == 0
    assert said in capsys.readouterr().out
    assert longshort("evaluate", files / "words", files / "later.txt") == 0
    assert "<unk>" not in capsys.readouterr().out
    few = ["--unit", "word", "--vocabulary", 5, "--out", tmp_path / "run"]
    assert longshort("train", "language", files / "words.txt", *FAST, *few) == 0
    assert said in capsys.readouterr().out


def test_the_help_lists_the_recipes(capsys):
    with pytest.raises(SystemExit) as left:
        longshort("train", "language", "--help")
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n    {name}" in printed for name in recipes())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train", "language", "none.txt"], "none.txt: cannot be read: No such file or directory."),
        (["train", "language", "empty.txt"], "empty.txt: is empty. Give a text of some thousand characters."),
        (
            ["train", "language", "short.txt"],
            "short.txt: is too short: 18 chars to learn from, and one window takes 65. "
            "Give a longer text, or a smaller --window.",
        ),
        (
            ["train", "language", "latin.txt"],
            "latin.txt: not utf-8 text at byte 3 (0xe9). "
            "Name its encoding, such as --encoding latin-1, or use --unit byte.",
        ),
        (
            ["train", "language", "binary.txt"],
            "binary.txt: must be text, and has a zero byte at 2. "
            "UTF-16 without a mark needs --encoding utf-16-le or utf-16-be; bytes of any kind can be "
            "modelled with --unit byte.",
        ),
        (
            ["train", "language", "wide.txt"],
            "wide.txt: not utf-8 text but utf-16. Give --encoding utf-16.",
        ),
        (
            ["train", "language", "latin.txt", "--encoding", "utf-16"],
            "latin.txt: not utf-16 text: UTF-16 stream does not start with BOM. "
            "Name its encoding, such as --encoding utf-16-le, or use --unit byte.",
        ),
        (
            ["train", "language", "short.txt", "--encoding", "base64"],
            "language: `encoding` must be one that Python knows, such as 'utf-8' or 'latin-1', got 'base64'.",
        ),
        (
            ["train", "language", "long.txt", "--test", "none.txt"],
            "none.txt: cannot be read: No such file or directory.",
        ),
        (
            ["train", "language", "long.txt", "--test", "empty.txt"],
            "empty.txt: must have two chars at least, got 0.",
        ),
        (
            ["train", "language", "long.txt", "--valid", "empty.txt"],
            "empty.txt: is empty. Give a text of some thousand characters.",
        ),
        (
            ["train", "language", "long.txt", "--valid", "one.txt"],
            "one.txt: is too short: 1 chars to validate on, and 2 are needed. Give a longer text.",
        ),
        (
            ["train", "language", "short.txt", "--file", "latin.txt"],
            "FILE and `--file` both say what to learn from, got short.txt and latin.txt. Give one.",
        ),
        (
            ["train", "language", "--epochs", "1", "--max-steps", "2"],
            "language: `--epochs` and `--max-steps` both say how long. Give one of them; a run that was "
            "begun with both goes on with --settings and its settings.json.",
        ),
        (
            ["train", "language", "--recipe", "char-rnn", "--settings", "a.json"],
            "`--settings` and `--recipe` both stand beneath the flags. Give one.",
        ),
        (
            ["train", "language", "--recipe", "zarenba"],
            f"language: `recipe` must be one of {', '.join(recipes())}, got 'zarenba'.",
        ),
        (
            ["predict", "RUN", "a", "--temperature", "-1"],
            "language: `temperature` must be in [0, inf), got -1.0.\n"
            "  What scores are divided by: 0 takes the likeliest always, 1 what was learned.",
        ),
        (
            ["predict", "RUN", "a", "--seed", "-1"],
            "language: `seed` must be a whole number of at least 0, got -1.",
        ),
        (["predict", "RUN", "--prompt-file", "none"], "none: cannot be read: No such file or directory."),
        (["predict", "RUN", "a", "--length", "0"], "`length` must be at least 1, got 0."),
        (
            ["predict", "RUN", "a", "--levels", "80"],
            "--levels is for runs of forecast, and RUN is one of language.",
        ),
        (
            ["evaluate", "RUN", "short.txt", "--stride", "2"],
            "--stride is for runs of forecast, and RUN is one of language.",
        ),
        (["evaluate", "RUN", "empty.txt"], "empty.txt: must have two chars at least, got 0."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_input_is_a_sentence(files, tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "one.txt").write_bytes(b"a")
    (tmp_path / "long.txt").write_text(RHYME * 20)
    (tmp_path / "short.txt").write_bytes(b"to be or not to be\n\n")
    (tmp_path / "latin.txt").write_bytes("café ".encode("latin-1") * 200)
    (tmp_path / "wide.txt").write_text("as Windows writes it\n" * 20, encoding="utf-16")
    (tmp_path / "binary.txt").write_bytes(b"PK\0\1" * 200)
    run = str(files / "run")
    assert longshort(*[run if word == "RUN" else word for word in given]) == 1
    assert capsys.readouterr().err == f"longshort {given[0]}: {message.replace('RUN', run)}\n"
    assert not (tmp_path / "runs").exists()


def test_without_torch_a_verb_says_how_to_install_it(tmp_path):
    """The base install, which serves `longshort.runtime`, has none."""
    code = (
        "import sys; sys.modules['torch'] = None; from longshort import cli; "
        "sys.exit(cli.main(['train', 'language']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        "longshort train: longshort needs `torch` to run `longshort train`, and it is not installed. "
        "Install it with: pip install 'longshort[tasks]'\n",
    )


def test_what_is_advised_can_be_pasted(tmp_path, capsys):
    """Names with blanks too."""
    (tmp_path / "my book.txt").write_text(RHYME * 20)
    run = tmp_path / "my run"
    assert longshort("train", "language", tmp_path / "my book.txt", *FAST, "--out", run) == 0
    printed = capsys.readouterr().out
    (advised,) = [line for line in printed.splitlines() if line.startswith("    longshort train")]
    assert shlex.split(advised)[2:6] == ["language", str(tmp_path / "my book.txt"), "--start", str(run)]
    assert shlex.split(advised)[-1] == f"{run}-more"
    assert shlex.split(printed.splitlines()[-1])[-3:] == ["predict", str(run), "Some words"]


def test_another_encoding(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("café au lait\n".encode("latin-1") * 40)
    told = ["--encoding", "latin-1", "--out", tmp_path / "run"]
    assert longshort("train", "language", tmp_path / "latin.txt", *FAST, *told) == 0
    assert longshort("predict", tmp_path / "run", "é", "--length", "2") == 0
    assert capsys.readouterr().err.count("outside") == 0


def test_control_c_saves_and_the_same_command_goes_on(files, tmp_path, capsys):
    folder = tmp_path / "run"
    more = ["--max-steps", "100000", "--patience", "100000", "--out", str(folder)]
    command = [
        sys.executable, "-m", "longshort.cli", "train", "language", str(files / "book.txt"), *FAST, *more,
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "last.safetensors").exists() and child.poll() is None:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    step = int(re.search(r"Interrupted at step (\d+)\. The same command goes on from there\.", err)[1])
    assert f"interrupted after {step} steps" in out
    assert step > 0


def test_another_text_may_have_another_encoding(files, tmp_path, capsys):
    old = tmp_path / "old.txt"
    old.write_bytes("one for the show,\ntwo to gö\n".encode("latin-1"))
    assert longshort("evaluate", files / "run", old) == 1
    assert "not utf-8 text at byte 26 (0xf6). Name its encoding, such as --encoding latin-1" in (
        capsys.readouterr().err
    )
    assert longshort("evaluate", files / "run", old, "--encoding", "latin-1") == 0
    assert "6-gram" in capsys.readouterr().out  # the run's own text is read in its own encoding
    told = ["--prompt-file", old, "--encoding", "latin-1", "--length", "3", "--seed", "1"]
    assert longshort("predict", files / "run", *told) == 0


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_run_of_no_such_task_is_a_sentence(tmp_path, capsys, verb):
    Run.create(tmp_path / "memory", "problems", {})
    assert longshort(verb, tmp_path / "memory", "text") == 1
    assert capsys.readouterr().err == (
        f"longshort {verb}: {tmp_path / 'memory'}: must hold a run of forecast or language, and holds one of "
        "problems. Name another folder.\n"
    )
