"""Forecasters, run folders and the verb; and the recorder of a training."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import Embedded, Reader
from torch import nn

from longshort import Forecaster, LanguageModel, cli, look
from longshort.errors import DataError, RunError, SettingError, ShapeError
from longshort.lens import Recorder, look_at
from longshort.lens.filming import RunRecorder
from longshort.lens.opening import open_model, open_run
from longshort.lens.payload import payload
from longshort.problems.settings import ComparisonSettings
from longshort.problems.story import compare_all
from longshort.runs import Run
from longshort.tasks.language.story import TrainSettings, train


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    import polars

    steps = np.arange(160)
    rows = {"y": 10 + np.sin(steps * np.pi / 6) + 0.1 * np.random.default_rng(0).normal(size=160)}
    model = Forecaster(horizon=4, season=12, hidden=8, max_steps=5, target=("y",), seed=0)
    model.fit(polars.DataFrame(rows), quiet=True)
    folder = tmp_path_factory.mktemp("runs") / "wave"
    model.save(folder)
    return model, folder


def test_a_forecaster(forecaster):
    made = look(forecaster[0])
    assert list(made.trace.layers) == ["lstm.l0"]
    assert made.trace.difference < 1e-5
    assert made.used is not None and made.surgery is not None
    assert made.channels[:3] == ["value", "known", "change in 12 steps"]
    assert len(made.channels) == made.trace["lstm.l0.x"].shape[2]
    assert made.influence.answer.shape == (len(made.names),)
    assert "Three horizons" in str(made)


def test_windows_of_several_series_take_turns():
    """Those of the same time would share their calendar, and a probe would know the one from the other."""
    import polars

    n, rng = 120, np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(n)
    parts = [polars.DataFrame({"shop": [k] * n, "day": days, "y": rng.normal(size=n)}) for k in "abc"]
    model = Forecaster(
        horizon=4, season=7, hidden=4, max_steps=2, seed=0, target=("y",), time="day", id="shop"
    )
    ends = [
        name.split(", up to ") for name in open_model(model.fit(polars.concat(parts), quiet=True), None).names
    ]
    assert {shop for shop, _ in ends} == {"a", "b", "c"} and len(ends) > 40
    assert len({day for _, day in ends}) == len(ends), "no two at the same time"


def test_a_forecaster_with_covariates_of_every_kind():
    """Each name is that of its channel: what is known is 1 there, and a series' own number stays."""
    import polars

    n, rng = 80, np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(n)
    parts = []
    for k, shop in enumerate(("one", "two")):
        words = {name: rng.choice(["a", "b", "c", "d"], n) for name in ("weather", "event")}
        numbers = {name: rng.normal(size=n) for name in ("y", "visitors", "price")}
        parts.append(
            polars.DataFrame(
                {"shop": [shop] * n, "day": days, **words, **numbers, "size": [k] * n, "land": [shop] * n}
            )
        )
    model = Forecaster(
        horizon=3, season=7, hidden=4, max_steps=2, id="shop", target=("y",), seed=0,
        past=("visitors", "event"), future=("price", "weather"), static=("size", "land"),
        categorical=("event", "weather", "land"),
    )  # fmt: skip
    model.fit(polars.concat(parts), quiet=True)
    made = look(model)
    x = made.trace["lstm.l0.x"]
    assert len(made.channels) == x.shape[2]
    place = {name: k for k, name in enumerate(made.channels)}
    assert [name for name in place if name.startswith(("event", "weather"))] == [
        *(f"event, {k} of 3" for k in (1, 2, 3)),
        *(f"weather, {k} of 3" for k in (1, 2, 3)),
    ]
    flags = torch.tensor([0, np.log(2)], dtype=x.dtype)  # 0 and 1, squashed
    for name in ("known", "visitors known", "price known", "size known"):
        assert bool(torch.isclose(x[..., place[name], None], flags).any(-1).all())
    for name in ("visitors", "price", "event, 1 of 3", "weather, 1 of 3"):
        assert len(x[..., place[name]].unique()) > 2
    for name in ("size", "land, 1 of 2", "land, 2 of 2"):
        assert bool((x[:, :1, place[name]] == x[..., place[name]]).all())
        assert len(x[:, 0, place[name]].unique()) == 2


@pytest.fixture
def verb(capsys):
    """Runs `longshort look` here, and returns its exit code and what it printed."""

    def run(*words):
        code = cli.main(["look", *map(str, words)])
        return SimpleNamespace(returncode=code, **capsys.readouterr()._asdict())

    return run


def test_the_verb_writes_the_page_and_prints_the_findings(forecaster, tmp_path, verb):
    _, folder = forecaster
    result = verb(folder, "--out", tmp_path / "look.html", "--words", "torch", "--limit", "0.00001")
    assert result.returncode == 0, result.err
    assert "half-lives of the c_t" in result.out and "Three horizons" in result.out
    assert f"{tmp_path / 'look.html'}: the page, " in result.out
    assert (tmp_path / "look.html").read_text("utf8").count("<title>wave</title>") == 1
    assert result.err == ("note: the page is larger than --limit 1e-05: of this model it cannot show less.\n")


FILE = (
    "longshort look: FILE must be the folder of a run, and is a file. A model that torch saved is looked at "
    'from Python: load it, then longshort.look(model, input).save("look.html").\n'
)


@pytest.mark.parametrize(("words", "message"), [
    (["nowhere"], "longshort look: nowhere: is not a run: there is no such folder. "),
    (["FILE"], FILE),
    (["RUN", "missing.csv"], "missing.csv"),
    (["RUN", "--out", "/dev/null/look.html"],
     "longshort look: /dev/null: cannot be made: File exists. Give another name.\n"),
    (["RUN", "--out", "."],
     "longshort look: .: cannot be written: it is a folder. Give the name of a file in it.\n"),
    (["RUN", "--out", "FILE"],
     "longshort look: --out must end in .html or .htm, got FILE: what is written is a page, and would "
     "replace a file of that name.\n"),
    (["RUN", "--limit", "-1"], "longshort look: --limit must be a number of MB above 0, got -1.\n"),
    (["RUN", "--limit", "nan"], "longshort look: --limit must be a number of MB above 0, got nan.\n"),
    (["RUN", "--findings", "--out", "f.html"],
     "longshort look: --findings writes no page, and --out asks for one in f.html. Leave out one of them.\n"),
])  # fmt: skip
def test_what_fails_says_what(forecaster, words, message, verb):
    file = str(forecaster[1] / "settings.json")
    result = verb(*[{"RUN": forecaster[1], "FILE": file}.get(word, word) for word in words])
    assert result.returncode == 1
    assert result.err.startswith("longshort look: ") and message.replace("FILE", file) in result.err
    assert "Traceback" not in result.err
    assert result.out == "", "found out before the work"


def test_a_run_of_another_task(tmp_path):
    Run.create(tmp_path / "other", "overfitting", {})
    with pytest.raises(RunError) as raised:
        open_run(tmp_path / "other")
    assert str(raised.value) == (
        f"look: {tmp_path / 'other'} must be a run of forecast, language or problems, and is one of "
        "overfitting. From Python any model can be looked into: longshort.look(model, input)."
    )


TEXT = "It was so, and so it was; once more it was not so.\n" * 60


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    (folder / "book.txt").write_text(TEXT)
    settings = TrainSettings(
        file=str(folder / "book.txt"), hidden=12, embedding=6, layers=2, batch=4, window=16, max_steps=6,
        every=3, validation=0.3,
    )  # fmt: skip
    train(settings, folder / "run", quiet=True, recorder=RunRecorder(folder / "run", 2))
    return folder


def test_a_text_and_a_prompt(book):
    opened = open_run(book / "run", "once more")
    (tokens,) = opened.inputs
    assert tokens.shape[1] == 128 and 6 <= len(tokens) <= 48
    assert "".join(opened.tokens[0]).startswith("once more") and "↵" in "".join(opened.tokens[1])
    assert opened.names[:2] == ["“once more” and on", "the text at char 0"]
    assert opened.title == "run" and opened.notes[0].startswith("The first 9 chars of the first sequence are")
    made = look_at(opened)
    assert list(made.trace.layers) == ["layers.0.l0", "layers.1.l0"] and made.trace.difference < 1e-5
    network, scores = opened.model, made.trace.output
    assert opened.answer == int(scores[0, -1].argmax())
    with torch.no_grad():
        read = network(tokens[:, :-1], None, tokens[:, 1:])
    torch.testing.assert_close(opened.loss(scores)[:, :-1], read.losses, rtol=0, atol=1e-5)
    assert made.used is not None and made.surgery is not None and "the next char" in made.answer
    assert [frame["step"] for frame in made.film] == [0, 2, 4, 6]
    assert all(frame["full"][0] == 1 and frame["full"][1] > 0.01 for frame in made.film)


def test_the_file_of_a_text_and_a_fitted_model(book):
    opened = open_run(book / "run", str(book / "book.txt"))
    assert opened.names[0] == "the text at char 0" and not opened.notes
    model = LanguageModel(hidden=8, embedding=4, batch=2, window=8, max_steps=1, validation=0.3).fit(
        TEXT, quiet=True
    )
    assert open_model(model, "so").names[:2] == ["“so” and on", "the text at char 0"]
    assert "LanguageModel" in repr(look(model, "so"))


@pytest.mark.parametrize(("prompt", "why"), [
    ("missing.txt", "there is no file of this name."),
    ("my notes.txt", "there is no file of this name."),
    ("texts/missing", "there is no file of this name."),
    ("FOLDER", "it is the name of a folder, not of a file."),
    ("once more. so it was", None),
])  # fmt: skip
def test_a_prompt_that_may_have_been_meant_as_a_file_is_noted(book, prompt, why):
    prompt = prompt.replace("FOLDER", str(book))
    notes = [note for note in open_run(book / "run", prompt).notes if "is taken as the prompt" in note]
    assert notes == ([] if why is None else [f"“{prompt}” is taken as the prompt: {why}"])


def test_of_a_long_text_it_is_said_how_much_was_read(book, tmp_path):
    (tmp_path / "long.txt").write_text(TEXT * 4)
    opened = open_run(book / "run", str(tmp_path / "long.txt"))
    assert opened.notes == ["Of the text's 12,240 chars 48 stretches of 128 were read, evenly spread."]
    with torch.no_grad():
        read = opened.model(*opened.inputs)
        torch.testing.assert_close(opened.last(read), opened.output(read)[:, -1:])


def test_how_much_is_done_is_shown_where_it_is_asked_for(contest, monkeypatch, capsys):
    monkeypatch.setattr("longshort.train.progress.Lines.seconds", 0.0)
    look_at(open_run(contest, "loan"), quiet=False)
    shares = [f"looking: {k / 10:.0%}\n" for k in range(10)]  # five stages, and five more models
    assert capsys.readouterr().err == "".join(shares)


def test_prompts_that_are_long_strange_or_alone(book, monkeypatch):
    long = open_run(book / "run", "so it was " * 120)
    assert long.inputs[0].shape[1] == 1000
    assert long.notes[0] == "Of the prompt's 1,200 chars the last 1,000 are looked at."
    strange = open_run(book / "run", "İt was 42 …")
    assert strange.notes[0].startswith(
        "Outside the vocabulary, and read as what is nearest or as unknown: 'İ'"
    )
    (book / "book.txt").rename(book / "moved.txt")
    alone = open_run(book / "run", "so")
    assert len(alone.inputs[0]) == 1
    assert alone.notes[-1].startswith(
        "The prompt alone was looked at, so the statistics are of one sequence. The run's own text cannot be "
        f"read: {book / 'book.txt'}: "
    )
    with pytest.raises(
        DataError, match=r"^look: needs a prompt, or a text of 129 chars or more\. The run's own"
    ):
        open_run(book / "run")
    (book / "moved.txt").rename(book / "book.txt")


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems") / "two"
    settings = ComparisonSettings(
        cells=("rnn", "gru", "lstm-chrono"), lags=(8,), seeds=2, hidden=6, rates=(0.02,), max_steps=2
    )
    assert compare_all(["loan", "wolf"], settings, folder, quiet=True) == 0
    return folder


def test_cells_and_seeds_of_a_comparison_stand_side_by_side(contest):
    opened = open_run(contest, "loan")
    assert opened.name == "lstm-chrono" and opened.required == 8 and opened.title == "loan, lag 8"
    assert {name: len(models) for name, models in opened.compare.items()} == {
        "rnn": 2, "gru": 2, "lstm-chrono": 1,
    }  # fmt: skip
    assert {row[-1] for row in opened.tokens} == {"I"}, "every sequence ends at the step that is asked"
    assert opened.notes[0].startswith("The views show lstm-chrono, seed ")
    with torch.no_grad():
        out, losses = opened.model(*opened.inputs), opened.loss(opened.model(*opened.inputs))
    assert losses.shape == (len(opened.inputs[0]),) and out.shape[:2] == opened.inputs[0].shape
    made = look_at(opened)
    models = payload(made, 2e6)["horizon"]["models"]
    assert [(m["name"], m["kind"], m["seeds"], m["shade"]) for m in models] == [
        ("lstm-chrono", "lstm", 2, 0), ("rnn", "rnn", 2, 0), ("gru", "gru", 2, 0),
    ]  # fmt: skip
    for model in models:
        low, high = model["learnable"]["band"]
        middle = model["learnable"]["full"]
        assert all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True)) and low != high


def test_the_findings_say_which_cell_they_are_of(contest, verb):
    result = verb(contest, "loan", "--findings")
    assert result.returncode == 0, result.err
    assert result.out.startswith("loan, lag 8: lstm-chrono\n\n")


def test_no_more_steps_back_are_needed_than_a_sequence_has(tmp_path):
    settings = ComparisonSettings(cells=("lstm",), lags=(6,), seeds=1, hidden=4, rates=(0.02,), max_steps=2)
    assert compare_all(["adding"], settings, tmp_path / "run", quiet=True) == 0
    opened = open_run(tmp_path / "run", "adding")
    assert opened.inputs[0].shape[1] == 6 and opened.required == 5


def test_a_trial_and_pictures(contest):
    trial = open_run(contest / "loan" / "lag-8" / "gru" / "seed-1")
    assert trial.title == "loan, lag 8: gru, seed 1" and trial.compare == {}
    assert open_run(contest, "wolf").tokens is None


def test_a_comparison_that_cannot_be_shown(contest, tmp_path):
    with pytest.raises(SettingError) as raised:
        open_run(contest)
    assert str(raised.value) == f"look: INPUT must be one of loan, wolf for {contest}, got none."
    with pytest.raises(SettingError, match=r"got 'recall'\.$"):
        open_run(contest, "recall")
    Run.create(tmp_path / "begun", "problems", {"names": ["loan"]})
    with pytest.raises(RunError, match=r"begun: is unfinished: no results\.json\."):
        open_run(tmp_path / "begun")


def test_neither_a_module_nor_a_forecaster():
    with pytest.raises(SettingError) as raised:
        look("model")
    assert str(raised.value) == (
        "look: `model` must be a torch module, or a fitted longshort.Forecaster or LanguageModel, got str."
    )


LSTM = nn.LSTM(3, 4, batch_first=True)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((LSTM,), SettingError,
     "look: `input` must be what the forward of LSTM takes, a tensor or a tuple of arguments, got None."),
    ((LSTM, torch.zeros(0, 5, 3)), ShapeError,
     "look: `input` must have a sequence or more, and `lstm` was given none."),
    ((LSTM, torch.zeros(4, 5, 3), lambda out: out.sum(2).T), SettingError,
     "look: `loss` must give the loss of each step (4, 5), of each sequence (4,), or a scalar, got (5, 4)."),
    ((LSTM, torch.zeros(4, 5, 3), lambda out: out.square()), SettingError,
     "look: `loss` must give the loss of each step (4, 5), of each sequence (4,), or a scalar, got "
     "(4, 5, 4). Average over what comes after them: .mean(-1)."),
    ((LSTM, torch.zeros(4, 5, 3), lambda out: out.sum((1, 2)) * torch.nan), DataError,
     "look: `loss` must be finite, got nan."),
    ((LSTM, torch.zeros(4, 5, 3), lambda out: 1.0), SettingError,
     "look: `loss` must give a tensor, got float."),
], ids=["no input", "no sequences", "across", "of channels", "not finite", "a number"])  # fmt: skip
def test_what_cannot_be_looked_at_says_why(arguments, error, message):
    with pytest.raises(error) as raised:
        look(*arguments[:2], loss=(*arguments, None, None)[2])
    assert str(raised.value) == message


def test_weights_after_the_layers_that_are_not_finite_are_named():
    model = Reader(nn.LSTM, 3, 4, 2)
    with torch.no_grad():
        model.out.weight[1, 2] = torch.nan
    with pytest.raises(DataError) as raised:
        look(model, torch.randn(6, 9, 3))
    assert str(raised.value) == (
        "look: what Reader returns must be finite; 6 of 12 numbers are not, the first is nan. The weights "
        "`out.weight` are not finite: load an earlier checkpoint."
    )


def test_channels_are_those_of_the_model_or_of_its_layer():
    model, x = Embedded(3, 4), torch.randn(8, 9, 3)
    asked = look(model, x, channels=["a", "b", "c"])
    assert payload(asked, 2e6)["channels"] == ["a", "b", "c"] and asked.asked == "the model's input"
    assert torch.equal(asked.source, x)
    read = look(model, x, channels=list("uvwxyz"))
    assert set(payload(read, 2e6)["channels"]) <= set("uvwxyz") and read.asked == "what `rnn` reads"
    with pytest.raises(SettingError) as raised:
        look(model, x, channels=["a", "b"])
    assert str(raised.value) == (
        "look: `channels` must name each of the 3 channels of the model's input, or each of the 6 channels "
        "that `rnn` reads, got 2 names."
    )


class TimeFirst(nn.Module):
    """Sequences in the middle, as torch's default has it; or symbols."""

    def __init__(self, symbols):
        super().__init__()
        self.embed = nn.Embedding(5, 3) if symbols else nn.Identity()
        self.rnn = nn.LSTM(3, 4, batch_first=symbols)

    def forward(self, x):
        return self.rnn(self.embed(x))[0]


@pytest.mark.parametrize("symbols", [False, True])
def test_the_models_own_input_is_found_in_either_order(symbols):
    x = torch.randint(0, 5, (8, 9)) if symbols else torch.randn(9, 8, 3)
    made = look(TimeFirst(symbols), x)
    assert made.asked == "the model's input"
    assert torch.equal(made.source, x if symbols else x.transpose(0, 1))
    assert "of the model's input" in str(made)


def test_a_recorder_sees_memory_being_learnt_and_disturbs_nothing():
    def train(recorded):
        torch.manual_seed(0)
        model, rng = Reader(nn.LSTM, 1, 8, 1), torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(model.parameters(), 2e-2)
        watched = torch.randn(6, 16, 1, generator=rng)
        recorder = Recorder(model, watched, every=20)
        for step in range(81):
            x = torch.randn(32, 16, 1, generator=rng)
            optimiser.zero_grad()
            (model(x)[:, 0] - x[:, 0, 0]).square().mean().backward()
            if recorded:
                recorder.note(step)
            optimiser.step()
        return model, recorder

    model, recorder = train(recorded=True)
    plain, _ = train(recorded=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert model.training
    assert [frame["step"] for frame in recorder.film] == [0, 20, 40, 60, 80]
    assert recorder.film[0]["full"] != recorder.film[-1]["full"]
    with torch.no_grad():
        model.rnn.bias_ih_l0[8:16] += 3.0
    recorder.note(100)
    assert recorder.film[-1]["half"][4] > 2 * recorder.film[-2]["half"][4], "the median of eight"
    assert recorder.film[-1]["gates"]["f"][1] > recorder.film[-2]["gates"]["f"][1], "more are open"
    assert recorder.film[-1]["full"][-1] > recorder.film[-2]["full"][-1]
    assert json.loads(json.dumps(recorder.film)) == recorder.film
    with pytest.raises(SettingError, match=r"^Recorder: `every` must be at least 1, got 0\.$"):
        Recorder(model, torch.zeros(1, 2, 1), every=0)


class Watched:
    """An objective that gives the same sequences each time."""

    def watched(self):
        return (torch.randn(3, 12, 1, generator=torch.Generator().manual_seed(1)),), lambda out: out


def test_the_film_of_a_run_survives_a_resume(tmp_path):
    torch.manual_seed(0)
    models = [Reader(nn.LSTM, 1, 4, 1) for _ in range(7)]  # a model a step, the same in both courses

    def course(folder, *parts):
        Run.create(folder, "forecast", {})
        for steps in parts:
            recorder = RunRecorder(folder, 2)  # a process that goes on where the checkpoint stood
            for step in steps:
                recorder(step, models[0], Watched())
                recorder._recorder.specimen = Recorder(models[step], Watched().watched()[0]).specimen
        return json.loads((folder / "film.json").read_bytes())

    whole = course(tmp_path / "whole", range(7))
    again = course(tmp_path / "again", range(5), range(3, 7))
    assert [frame["step"] for frame in whole] == [frame["step"] for frame in again] == [0, 2, 4, 6]
    with pytest.raises(SettingError) as raised:
        RunRecorder(tmp_path, 0)
    assert str(raised.value) == "watch: must be at least 1, got 0: steps between two frames of the film."


def test_a_training_that_is_filmed_is_the_same_training(forecaster, tmp_path):
    import polars

    steps = np.arange(160)
    rows = polars.DataFrame(
        {"y": 10 + np.sin(steps * np.pi / 6) + 0.1 * np.random.default_rng(0).normal(size=160)}
    )
    run = Run.create(tmp_path / "run", "forecast", {})
    filmed = Forecaster(horizon=4, season=12, hidden=8, max_steps=5, target=("y",), seed=0)
    filmed.fit(rows, run=run, quiet=True, recorder=RunRecorder(tmp_path / "run", 2))
    film = run.read_json("film.json")
    assert [frame["step"] for frame in film] == [0, 2, 4]
    assert all(frame["full"][0] == 1 and frame["full"][1] > 0.01 for frame in film), (
        "it ends where it is asked"
    )
    plain = forecaster[0]._fitted()[1].state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in filmed._fitted()[1].state_dict().items())
