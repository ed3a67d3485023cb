"""Scores into tokens: the law of each option, by counting many draws."""

import numpy as np
import pytest

from longshort.errors import SettingError
from longshort.tasks.language.sampling import Sampling
from longshort.tasks.language.stepping import Ending

SCORES = np.array([1.0, 3.0, 2.0, -1.0, 2.5])


def shares(recent=(), draws=4000, **options):
    random, sampling = np.random.default_rng(0), Sampling(**options)
    drawn = [sampling.choose(SCORES, list(recent), random) for _ in range(draws)]
    return np.bincount(drawn, minlength=5) / draws


def softmax(scores):
    p = np.exp(scores - scores.max())
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_scores(temperature):
    np.testing.assert_allclose(shares(temperature=temperature), softmax(SCORES / temperature), atol=0.03)


def test_temperature_zero_takes_the_likeliest():
    assert shares(temperature=0, draws=20).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(("k", "kept"), [(1, [1]), (2, [1, 4]), (3, [1, 2, 4]), (9, range(5))])
def test_top_k(k, kept):
    want = np.zeros(5)
    want[list(kept)] = softmax(SCORES[list(kept)])
    np.testing.assert_allclose(shares(temperature=1.0, top_k=k), want, atol=0.03)


@pytest.mark.parametrize(("p", "kept"), [(0.01, [1]), (0.5, [1, 4]), (0.9, [1, 2, 4]), (1.0, range(5))])
def test_top_p_keeps_the_fewest_that_have_the_share(p, kept):
    q = softmax(SCORES)
    if p < 1:
        assert q[list(kept)].sum() >= p and q[list(kept)].sum() - q[list(kept)].min() < p
    want = np.zeros(5)
    want[list(kept)] = softmax(SCORES[list(kept)])
    np.testing.assert_allclose(shares(temperature=1.0, top_p=p), want, atol=0.03)


def test_the_repetition_penalty_lowers_what_came_lately_and_nothing_else():
    plain, less = shares(temperature=1.0), shares(temperature=1.0, repetition_penalty=1.5, recent=[1, 1, 3])
    assert less[1] < plain[1] - 0.05 and less[3] <= plain[3]
    np.testing.assert_allclose(less[[0, 2, 4]] / less[[0, 2, 4]].sum(), softmax(SCORES[[0, 2, 4]]), atol=0.03)
    scores = SCORES.copy()
    Sampling(repetition_penalty=2.0).choose(scores, [1], np.random.default_rng(0))
    assert np.array_equal(scores, SCORES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temperature": -0.5},
            "language: `temperature` must be in [0, inf), got -0.5.\n"
            "  What scores are divided by: 0 takes the likeliest always, 1 what was learned.",
        ),
        (
            {"top_k": 0},
            "language: `top_k` must be in [1, inf), got 0.\n"
            "  Choose among so many of the likeliest; all if none.",
        ),
        (
            {"top_p": 1.5},
            "language: `top_p` must be in (0, 1], got 1.5.\n"
            "  Choose among the likeliest that have this probability together.",
        ),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(SettingError) as raised:
        Sampling(**options)
    assert str(raised.value) == message


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("stops", "passed", "reached"),
    [
        ((), "one THE END two", False),
        (("THE END",), "one ", True),
        (("two", "THE"), "one ", True),
        (("",), "one THE END two", False),
        (("THE ENDING",), "one THE END two", False),
        (("two",), "one THE END ", True),
    ],
)
def test_a_stop_text_ends_before_it_wherever_the_pieces_are_cut(stops, passed, reached, cut):
    ending, text, found = Ending(stops), "one THE END two", ""
    for k in range(0, len(text), cut):
        found += ending.take(text[k : k + cut])
        if ending.reached:
            break
    assert found + ("" if ending.reached else ending.rest()) == passed
    assert ending.reached is reached
