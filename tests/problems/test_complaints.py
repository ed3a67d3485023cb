"""The three usual complaints, answered with figures: complexity, overfitting, the random start."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from longshort.errors import DataError, SettingError
from longshort.problems import complexity, overfitting, story
from longshort.problems.cells import CELLS
from longshort.problems.overfitting import Regulariser, WordModel, WordObjective, read_on, read_text
from longshort.problems.settings import ComparisonSettings
from longshort.runs import Run
from longshort.scan import Noise

FEW = {"none": Regulariser("nothing"), "dropout": Regulariser("dropout of 0.4", dropout=0.4)}


def test_complexity_has_each_cell_with_as_many_units_and_with_as_many_weights():
    cells = ("rnn", "gru", "lstm")
    rows = complexity.complexity(cells, C=5, H=8, N=2, T=3)
    assert [(row["equal"], row["cell"]) for row in rows] == [
        (equal, cell) for equal in ("units", "weights") for cell in cells
    ]
    for row in rows:
        assert row["weights"] == CELLS[row["cell"]].parameters(5, row["units"])
        assert min(row["training ms"], row["forward ms"], row["bytes kept"]) > 0
    wanted = CELLS["lstm"].parameters(5, 8)
    assert all(row["units"] == 8 for row in rows[:3])
    assert all(abs(row["weights"] / wanted - 1) < 0.15 for row in rows[3:])
    text = complexity.table(rows).splitlines()
    assert text[0] == "as many units" and text[5] == "as many weights" and len(text) == 10


def test_kept_bytes_are_those_that_the_way_back_needs():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            y = torch.exp(x * self.weight)  # keeps its own result; x and the weight are not counted
            return (y * 2,)

    x = torch.randn(3, 4)
    assert complexity.kept_bytes(Layer(), x) == 4 * x.numel()
    assert complexity.kept_bytes(nn.LSTM(4, 6), x[None]) > complexity.kept_bytes(nn.RNN(4, 6), x[None])


def text_file(path, words=4000):
    """Words in a fixed order that comes again and again, so that a small model learns it."""
    order = np.random.default_rng(0).integers(12, size=40)
    path.write_text("\n".join(" ".join(f"w{k}" for k in order) for _ in range(words // 41)) + "\n")
    return str(path)


def test_a_text_is_cut_into_words_to_train_on_and_words_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a b a\nc\n" * 2400)
    train, held, types = read_text(str(path))
    assert types == ["<unk>", "a", "<eos>", "b", "c"] or types[:2] == ["<unk>", "a"]
    assert len(train) == 9 * len(held) and len(train) + len(held) == 6 * 2400
    assert [types[k] for k in train[:6]] == ["a", "b", "a", "<eos>", "c", "<eos>"]


def test_a_word_that_only_the_second_file_has_is_unknown(tmp_path):
    (tmp_path / "ptb.train.txt").write_text("a b <unk>\n" * 400)
    (tmp_path / "ptb.valid.txt").write_text("a new word\n" * 400)
    _, held, types = read_text(str(tmp_path))
    assert [types[k] for k in held[:4]] == ["a", "<unk>", "<unk>", "<eos>"] and len(set(types)) == len(types)


@pytest.mark.parametrize("tied", [False, True])
def test_a_text_is_read_on_with_the_state_carried_over(tied):
    """Parts of 100 words give what one pass over each whole stream gives."""
    torch.manual_seed(0)
    model = WordModel(9, 6, Regulariser("", tied=tied)).eval()
    assert (model.head.weight is model.vectors.weight) == tied
    words = np.random.default_rng(0).integers(9, size=20 * 250 + 7)
    with torch.no_grad():
        found = read_on(model, words).reshape(20, 249)
        streams = torch.from_numpy(words[:5000].reshape(20, 250))
        out = model.head(model.lstm(model.vectors(streams[:, :-1]))[0])
        wanted = nn.functional.cross_entropy(out.transpose(1, 2), streams[:, 1:], reduction="none")
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_windows_go_on_where_the_one_before_ended_and_a_pass_begins_anew():
    train = np.arange(20 * 45 + 3)
    objective = WordObjective(train, train)
    batches = [objective.batch(step) for step in range(4)]
    assert [fresh for _, fresh in batches] == [True, False, True, False]
    first, second = batches[0][0], batches[1][0]
    assert first.shape == (20, 21) and first[:, 0].tolist() == list(range(0, 900, 45))
    assert (first.diff(dim=1) == 1).all() and torch.equal(second, first + 20)
    assert torch.equal(batches[2][0], first)


def test_the_state_is_carried_inside_a_pass_and_not_into_the_next():
    words = np.random.default_rng(0).integers(9, size=20 * 45)
    torch.manual_seed(0)
    model, objective = WordModel(9, 6, FEW["none"]), WordObjective(words, words)
    losses = [objective.loss(model, objective.batch(step)) for step in range(3)]
    assert torch.equal(losses[0], losses[2])  # both begin from the zero state
    fresh = WordObjective(words, words)
    fresh.carry({})
    assert not torch.equal(fresh.loss(model, objective.batch(1)), losses[1])
    fresh.loss(model, objective.batch(0))
    again = WordObjective(words, words)
    again.carry(fresh.carried())
    assert torch.equal(again.loss(model, objective.batch(1)), losses[1])
    losses[1].backward()  # through its own window alone: the graph of the one before is free to go


def test_each_regulariser_silences_in_training_and_not_in_evaluation():
    words = torch.arange(9)[None]
    for name, regulariser in overfitting.REGULARISERS.items():
        torch.manual_seed(0)
        model = WordModel(9, 8, regulariser)
        twice = [model(words)[0] for _ in range(2)]
        assert torch.equal(*twice) == (name in ("none", "tied")), name
        model.eval()
        assert torch.equal(model(words)[0], model(words)[0])


def overfit(folder, data, **changed):
    settings = {"max_steps": 40, "units": 16, "quiet": True, **changed}
    return overfitting.overfitting(Run.create(folder, "overfitting", {}), data, **settings)


def test_overfitting_has_a_row_for_each_regulariser_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(overfitting, "REGULARISERS", FEW)
    data = text_file(tmp_path / "text.txt", 12_500)
    rows = overfit(tmp_path / "run", data)
    assert [row["name"] for row in rows] == ["none", "dropout"]
    for row in rows:
        assert row["gap"] == pytest.approx(row["held-out"] - row["training"])
        assert row["perplexity"] == pytest.approx(math.exp(row["held-out"]))
        assert row["held-out"] == min(point[1] for point in row["curve"])
        assert row["perplexity"] < 13 and row["curve"][-1][0] == 40
    monkeypatch.setattr(overfitting.WordObjective, "loss", None)  # nothing is trained again
    assert overfit(tmp_path / "run", data) == rows


TABLE = """\
regulariser      perplexity  held-out  training    gap  step
none                  100.0     4.605     4.000  0.605  600
dropout                85.0     4.443     4.300  0.143  1,200

best: dropout, 15.0 % below none"""


def test_the_table_of_regularisers():
    keys = ("name", "perplexity", "held-out", "training", "gap", "step")
    values = (("none", 100.0, 4.605, 4.0, 0.605, 600), ("dropout", 85.0, 4.443, 4.3, 0.143, 1200))
    rows = [dict(zip(keys, row, strict=True)) for row in values]
    assert overfitting.table(rows) == TABLE


def test_complaints_leave_a_table_numbers_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overfitting, "REGULARISERS", FEW)
    settings = ComparisonSettings(
        data=text_file(tmp_path / "text.txt", 12_500), hidden=8, max_steps=20, cells=("rnn", "lstm")
    )
    for name, files in (("overfitting", {"overfitting.png", "overfitting.svg"}), ("complexity", set())):
        folder = tmp_path / name
        assert story.complain(name, settings, folder, device="cpu") == 0
        printed = capsys.readouterr().out
        assert printed.startswith((folder / "table.txt").read_text().rstrip("\n"))
        assert len(json.loads((folder / "results.json").read_text())["rows"]) == {"overfitting": 2}.get(
            name, 4
        )
        assert files | {"table.txt", "results.json"} <= {path.name for path in folder.iterdir()}


def test_complexity_measures_each_recurrence_once_where_none_is_named(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(complexity, "complexity", lambda cells, **sizes: asked.append((cells, sizes)) or [])
    story.complain("complexity", ComparisonSettings(), tmp_path / "a")
    story.complain("complexity", ComparisonSettings(cells=("gru",), hidden=9), tmp_path / "b")
    assert asked == [(complexity.USUAL, {"H": 128}), (("gru",), {"H": 9})]


def test_start_asks_for_ten_seeds_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        story, "compare_all", lambda names, settings, out, device: asked.append(settings) or 0
    )
    story.complain("start", ComparisonSettings(), tmp_path)
    story.complain("start", ComparisonSettings(lags=(7,), seeds=2), tmp_path)
    assert [(settings.lags, settings.seeds) for settings in asked] == [(story.START_LAGS, 10), ((7,), 2)]


def bad(name, **settings):
    return lambda folder: story.complain(name, ComparisonSettings(**settings), folder / "out")


BAD = [
    (
        lambda folder: bad("overfitting"),
        DataError,
        "overfitting: needs words to read. Give --data FILE, or a folder with ptb.train.txt.",
    ),
    (
        lambda folder: bad("overfitting", data=str(folder / "no.txt")),
        DataError,
        "{folder}/no.txt: cannot be read: No such file or directory.",
    ),
    (
        lambda folder: bad("overfitting", data=str(folder)),
        DataError,
        "{folder}/ptb.train.txt: cannot be read: No such file or directory.",
    ),
    (
        lambda folder: bad("overfitting", data=str(folder / "short.txt")),
        DataError,
        "{folder}/short.txt: must have 420 words to train on and as many to hold out, got 3 and 1. "
        "Give a longer text.",
    ),
    (
        lambda folder: bad("overfitting", data=str(folder / "latin.txt")),
        DataError,
        "{folder}/latin.txt: not UTF-8 text at byte 3.",
    ),
    (
        lambda folder: bad("complexity", cells=("lstn",)),
        SettingError,
        f"`cells` must be of {', '.join(CELLS)}, got 'lstn'.",
    ),
    (
        lambda folder: (
            lambda folder: story.compare_all(["recall", "start"], ComparisonSettings(), folder / "out")
        ),
        SettingError,
        "'start' must stand alone, got recall start.",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD, ids=[str(k) for k in range(len(BAD))])
def test_messages_in_full(tmp_path, make, kind, message):
    (tmp_path / "short.txt").write_text("a b c\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(kind) as raised:
        make(tmp_path)(tmp_path)
    assert str(raised.value) == message.format(folder=tmp_path)
    assert not (tmp_path / "out").exists()


def test_zoneout_of_the_combination_is_that_of_zoneout_alone():
    rows = overfitting.REGULARISERS
    assert rows["dropout-zoneout"].noise == rows["zoneout"].noise == Noise(zoneout_h=0.1, zoneout_c=0.3)
    assert rows["dropout-zoneout"].dropout == rows["dropout"].dropout
