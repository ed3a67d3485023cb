"""What each problem makes, against a reader that works the answers out by itself."""

import itertools
import re

import numpy as np
import pytest
import readers

from longshort.problems.catalogue import PROBLEMS
from longshort.problems.loan import Loan
from longshort.problems.mnist import Mnist, MnistPermuted, MnistPixels
from longshort.problems.reber import ALPHABET, embedded
from longshort.problems.samosa import FOODS
from longshort.problems.wolf import ELEPHANT, FISH, LAST

READERS = {
    "recall": readers.recall,
    "adding": readers.adding,
    "copy": readers.copy,
    "temporal": readers.temporal,
    "temporal-4": readers.temporal,
    "echo": readers.echo,
    "flipflop": readers.flipflop,
    "timing": readers.timing,
    "anbn": lambda x, lag: readers.counted(x, 2),
    "anbncn": lambda x, lag: readers.counted(x, 3),
}
CASES = [(name, lag) for name in READERS for lag in {PROBLEMS[name].least, 13, PROBLEMS[name].lags[-1]}]


def drawn(name, lag, N=40, part="train"):
    return PROBLEMS[name].draw(lag, N, np.random.default_rng(1), part)


@pytest.mark.parametrize(("name", "lag"), CASES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_answers_are_those_of_an_independent_reader(name, lag, part):
    batch = drawn(name, lag, part=part)
    for x, target, asked in zip(batch.x, batch.target, batch.asked, strict=True):
        wanted = READERS[name](x, lag)
        assert sorted(wanted) == np.flatnonzero(asked).tolist()
        for step, answer in wanted.items():
            np.testing.assert_allclose(target[step], answer, atol=1e-6)


@pytest.mark.parametrize(("name", "lag"), CASES)
def test_a_wrong_answer_is_noticed(name, lag):
    """The reader is not fooled: a batch whose answers were moved to other sequences disagrees with it."""
    batch = drawn(name, max(lag, 5))
    moved = np.roll(batch.target, 1, axis=0)
    differing = [
        not np.allclose(target[step], answer, atol=1e-6)
        for x, target in zip(batch.x, moved, strict=True)
        for step, answer in READERS[name](x, max(lag, 5)).items()
    ]
    assert any(differing)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if "mnist" not in name])
def test_the_same_generator_gives_the_same_sequences_and_the_next_one_others(name):
    problem = PROBLEMS[name]
    lag = problem.lags[0]
    rng = np.random.default_rng(3)
    first, second = problem.draw(lag, 8, rng), problem.draw(lag, 8, rng)
    again = problem.draw(lag, 8, np.random.default_rng(3))
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.target, again.target)
    assert first.x.shape != second.x.shape or (first.x != second.x).any()
    assert first.asked.any(axis=1).all()
    assert first.x.dtype in (np.float32, np.int64) and first.target.dtype in (np.float32, np.int64)


@pytest.mark.parametrize("least", [0, 5, 12, 40])
def test_reber_strings_are_of_the_grammar_and_as_long_as_asked(least):
    rng = np.random.default_rng(0)
    strings = ["".join(symbol for symbol, _ in embedded(least, rng)) for _ in range(300)]
    for string in strings:
        assert readers.reber_end(string) == string[-2]
        assert len(string) - 4 >= least
    assert {string[1] for string in strings} == {"T", "P"}
    assert min(map(len, strings)) - 4 == max(least, 5)


def test_reber_s_reader_refuses_what_is_not_of_the_grammar():
    good = "BTBTXSETE"
    assert readers.reber_end(good) == "T"
    for bad in ("BTBTXSEPE", "BTBTTXSETE", "BPBPVVSEPE", "BTBTXETE"):
        try:
            accepted = readers.reber_end(bad) == bad[-2]
        except AssertionError:
            accepted = False
        assert not accepted, bad


@pytest.mark.parametrize(("name", "lag"), [("reber", 5), ("reber", 20), ("reber-continual", 4)])
def test_reber_targets_are_the_next_symbol_and_all_legal_ones(name, lag):
    batch = drawn(name, lag, 30)
    legal: dict[str, set[str]] = {}
    for x, target, asked in zip(batch.x, batch.target, batch.asked, strict=True):
        text = readers.symbols(x, ALPHABET)
        strings = re.sub("(E[TP]E)(?=B)", r"\1 ", text).split()
        assert len(strings) == (lag if name == "reber-continual" else 1)
        for t in np.flatnonzero(asked):
            (came,) = np.flatnonzero(target[t] == 2)
            if t + 1 < len(text):
                assert ALPHABET[came] == text[t + 1]
            may = "".join(ALPHABET[k] for k in np.flatnonzero(target[t]))
            legal.setdefault(text[: t + 1].split("B")[-1] + text[t], set()).add(may)
        assert asked.sum() == len(text)
    assert {frozenset(may) for several in legal.values() for may in several} <= {
        frozenset(pair) for pair in ("B", "TP", "SX", "TV", "XS", "PV", "E", "T", "P", "X")
    }


def test_loan_s_first_words_decide_and_the_clauses_fill_the_lag():
    problem = PROBLEMS["loan"]
    batch = drawn("loan", 23, 200)
    past = ("last year ,", "back then ,", "ten years ago ,", "in those days ,", "in my youth ,", "long ago ,")
    said = set()
    for x, target, asked in zip(batch.x, batch.target, batch.asked, strict=True):
        text = problem.vocabulary.text(x)
        (step,) = np.flatnonzero(asked)
        answer = ("need", "had")[target[step]]
        opening = text.partition(" ,")[0] + " ,"
        assert answer == ("had" if opening in past else "need")
        assert text.endswith(" , I") and step == len(text.split()) - 1
        assert len(text.removeprefix(opening).split()) == 23 + 1
        said.add(answer)
    assert said == {"had", "need"}


def test_loan_s_clauses_do_not_tell_the_tense():
    problem = Loan()
    rng = np.random.default_rng(0)
    counts = {"need": 0, "had": 0}
    words = {"need": 0, "had": 0}
    for _ in range(600):
        sentence, ending = problem.sentence(40, rng)
        counts[ending] += 1
        words[ending] += sentence[4:].count("had")
    assert abs(words["had"] / counts["had"] - words["need"] / counts["need"]) < 0.25


def between(x):
    """The words of a story between its three facts and its first question."""
    text = PROBLEMS["samosa"].vocabulary.text(x)
    facts, _, rest = text.partition(" the favourite cuisine of ")[0].rpartition(" . ")
    assert facts.count(" .") == 2 and rest.endswith(",")
    return len(rest.split())


@pytest.mark.parametrize("lag", range(4, 30))
def test_a_story_has_exactly_the_words_asked_for(lag):
    assert {between(x) for x in drawn("samosa", lag, 3, "test").x} == {lag}


@pytest.mark.parametrize("lag", [4, 60])
def test_the_stories_of_a_training_s_batch_have_one_length_up_to_the_lag(lag):
    problem, lengths = PROBLEMS["samosa"], []
    for seed in range(400):
        batch = problem.draw(lag, 2, np.random.default_rng(seed))
        (length,) = {between(x) for x in batch.x}
        lengths.append(length)
    assert min(lengths) == 4 and max(lengths) == lag
    if lag > 4:  # as likely below the middle of the logarithms as above
        assert 160 < sum(length < (4 * (lag + 1)) ** 0.5 for length in lengths) < 240


def test_samosa_asks_for_each_of_three_people():
    problem = PROBLEMS["samosa"]
    cuisine_of = {food: cuisine for cuisine, several in FOODS.items() for food in several}
    batch = drawn("samosa", 10, 100)
    for x, target, asked in zip(batch.x, batch.target, batch.asked, strict=True):
        words = problem.vocabulary.text(x).split()
        likes = {}
        for sentence in " ".join(words).split(" . ")[:3]:
            (name,) = re.findall(r"\b[A-Z]\w+", sentence)
            (food,) = set(sentence.split()) & set(cuisine_of)
            likes[name] = cuisine_of[food]
        questions = [t for t, word in enumerate(words) if word == "favourite"]
        answers = {t + 4: likes[words[t + 3]] for t in questions}
        assert len(likes) == len(questions) == 3
        assert {t: list(FOODS)[target[t]] for t in np.flatnonzero(asked)} == answers
        assert not set(words) & set(FOODS)  # no answer is ever shown


def test_wolf_follows_the_rule():
    problem = PROBLEMS["wolf"]
    shown, answer = problem.subjects(12, 600, np.random.default_rng(0))
    elephant, fish = (shown == ELEPHANT), (shown == FISH)
    np.testing.assert_array_equal(answer == 1, elephant.any(1) & ~fish.any(1))
    assert not elephant[:, 5:].any() and not fish[:, :9].any() and not fish[:, 12].any()
    assert (shown[:, -1] == LAST).all() and (shown[:, :-1] != LAST).all()
    assert 0.45 < answer.mean() < 0.55


def test_wolf_s_pictures_vary_and_show_their_shape():
    problem = PROBLEMS["wolf"]
    drawings = problem.drawings
    assert all(len(np.unique(several, axis=0)) > 40 for several in drawings)
    middle = drawings.mean(1)
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(middle, 2))
    batch = problem.draw(10, 4, np.random.default_rng(0))
    assert batch.x.shape == (4, 11, 16, 16) and batch.x.std() > 0.1


@pytest.mark.parametrize("kind", [Mnist, MnistPixels, MnistPermuted])
def test_mnist_s_parts(digits, kind):
    problem = kind(digits)
    problem.check(problem.lags[0])
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("validation", 16), ("test", 30)):
        batch = problem.draw(problem.lags[0], 16 if part != "test" else 100, rng, part)
        assert batch.x.shape == (count, problem.lags[0], problem.inputs) and batch.x.max() == 1
        answers = batch.target[:, -1]
        usual = np.median(batch.x.reshape(count, -1), axis=1) * 255 / 20
        np.testing.assert_allclose(usual, answers, atol=1e-4)
    assert {len(digits) for _, digits in problem._parts.values()} == {40, 5000, 30}


def test_rows_pixels_and_permuted_hold_the_same_picture(digits):
    rows, pixels, permuted = (
        kind(digits).draw(kind.lags[0], 3, np.random.default_rng(0), "test").x.reshape(3, -1)
        for kind in (Mnist, MnistPixels, MnistPermuted)
    )
    np.testing.assert_array_equal(rows, pixels)
    np.testing.assert_array_equal(np.sort(rows), np.sort(permuted))
    assert (rows != permuted).any()
