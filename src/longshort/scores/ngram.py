"""The baseline of a language model: how often what followed the last few tokens, counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_MIX = np.uint64(0x9E3779B97F4A7C15)


def ngram(train: Array, text: Array, V: int, order: int) -> Array:
    r"""Return -log p of each token of a text but the first, by the interpolated n-gram model of another text.

    $$p_k(v \mid u) = \frac{c(u v) + n(u) \, p_{k-1}(v \mid u')}{c(u) + n(u)}, \qquad p_{-1} = 1 / V$$

    u are the last k tokens and u' the last k - 1, c counts in the training text, and n(u) is the number of
    different tokens that follow u there.

    Args:
        train: (T,) integers in [0, V).
        text: (S,) integers in [0, V), S at least 2; what is scored is all but the first.
        V: tokens of the vocabulary.
        order: n, at least 1; n - 1 tokens are looked back at.

    Returns:
        (S - 1,) nats. Where a context was never seen, they are those of the next shorter one.

    Memory: a few arrays of T 64-bit numbers for each order in turn.

    >>> ngram(np.array([0, 1] * 50), np.array([0, 1, 0]), 2, order=2).round(3)
    array([0.01, 0.01])

    Source: Witten & Bell, "The zero-frequency problem" (1991).
    """
    p = np.full(len(text) - 1, 1 / V)
    seen, read = np.zeros(len(train), np.uint64), np.zeros(len(text), np.uint64)
    for k in range(order):
        if k:  # one token further back goes into the context
            seen, read = _further(train, seen, k), _further(text, read, k)
        first = max(k - 1, 0)  # the first place with k tokens up to it
        contexts, follows = (seen[first:-1], train[first + 1 :]) if k else (seen, train)
        follows, wanted = follows.astype(np.uint64), read[:-1]
        known, times = np.unique(contexts, return_counts=True)
        both = _mixed(contexts, follows)
        pairs, places, counts = np.unique(both, return_index=True, return_counts=True)
        kinds = np.bincount(np.searchsorted(known, contexts[places]), minlength=len(known))
        total = _looked_up(known, times, wanted)
        different = _looked_up(known, kinds, wanted)
        found = _looked_up(pairs, counts, _mixed(wanted, text[1:].astype(np.uint64)))
        p = np.where(total > 0, (found + different * p) / np.maximum(total + different, 1), p)
    return np.asarray(-np.log(p))


def _mixed(one: Array, other: Array) -> Array:
    """One 64-bit number for two; two pairs that share one are rare enough not to matter."""
    with np.errstate(over="ignore"):
        mixed = (one + other + np.uint64(1)) * _MIX
        return np.asarray((mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + one)


def _further(tokens: Array, contexts: Array, k: int) -> Array:
    """The contexts of the last k tokens: those of the last k - 1, and the token before."""
    before = np.zeros(len(tokens), np.uint64)
    before[k - 1 :] = tokens[: max(len(tokens) - k + 1, 0)].astype(np.uint64) + np.uint64(1)
    return _mixed(contexts, before)


def _looked_up(keys: Array, values: Array, wanted: Array) -> Array:
    """The values of the wanted keys; 0 for those that are not there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
