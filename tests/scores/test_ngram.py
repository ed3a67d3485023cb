"""The n-gram against the same recursion written out with dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from longshort.scores import ngram


def written_out(train, text, V, order):
    after = defaultdict(Counter)
    for k in range(order):
        for t in range(k, len(train)):
            after[tuple(train[t - k : t])][train[t]] += 1

    def p(context, token):
        shorter = p(context[1:], token) if context else 1 / V
        seen = after[context]
        if not seen:
            return shorter
        return (seen[token] + len(seen) * shorter) / (sum(seen.values()) + len(seen))

    found = []
    for t in range(1, len(text)):
        context = tuple(text[max(0, t - order + 1) : t])
        found.append(-np.log(p(context, text[t])))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("V", [2, 7])
def test_the_recursion(order, V):
    random = np.random.default_rng(order)
    train, text = random.integers(0, V, 300), random.integers(0, V, 80)
    train[::3] = 1
    want = written_out(train.tolist(), text.tolist(), V, order)
    np.testing.assert_allclose(ngram(train, text, V, order), want, rtol=1e-9)


def test_the_next_token_is_a_distribution():
    random = np.random.default_rng(1)
    train = random.integers(0, 4, 200)
    for context in random.integers(0, 5, (6, 3)):
        texts = [np.array([*context, v]) for v in range(5)]
        total = sum(np.exp(-ngram(train, text, 5, 3)[-1]) for text in texts)
        assert total == pytest.approx(1)


@pytest.mark.parametrize("T", [0, 1, 2])
def test_a_training_text_of_almost_nothing(T):
    assert np.isfinite(ngram(np.zeros(T, int), np.array([0, 1, 2]), 3, 4)).all()


def test_a_text_of_fewer_tokens_than_the_order_looks_back_at():
    train, text = np.random.default_rng(0).integers(0, 4, 300), np.array([0, 1, 3, 2, 0, 1, 1, 2])
    whole = ngram(train, text, 4, 6)
    for S in range(2, 8):
        np.testing.assert_array_equal(ngram(train, text[:S], 4, 6), whole[: S - 1])


def test_small_types_do_not_wrap():
    train, text = np.arange(200, dtype=np.uint8), np.array([254, 255, 3], dtype=np.uint8)
    np.testing.assert_array_equal(
        ngram(train, text, 256, 3), ngram(train.astype(int), text.astype(int), 256, 3)
    )
