"""Products of whole matrices, and the loss of a softmax over many classes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .machine import there

Array = NDArray[Any]


def multiply(a: Array, b: Array, bias: Array | None = None, *, threads: int = 1) -> Array:
    """Return a b' plus a bias: a linear layer on the product that the recurrence runs on.

    Args:
        a:       (M, C), with either axis contiguous, as b.
        b:       (K, C), of the same type: float32 or float64.
        bias:    (K,), zero if None.
        threads: used where the product is long enough to pay for them.

    Returns:
        (M, K). Sums run over C in order: a value's bits depend neither on the layouts nor on the threads.

    Raises:
        ShapeError: arrays that do not fit, or that have no contiguous axis.

    Memory: two panels of 1,024 rows a thread, and where a's rows are not contiguous a copy of b.

    >>> import numpy as np
    >>> multiply(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, 0.0])).tolist()
    [[1.5, 3.0], [2.5, 4.0]]
    """
    made: Array = there().multiply(a, b, bias, threads)
    return made


def cross_entropy(scores: Array, targets: Array, *, threads: int = 1) -> Array:
    """Return the cross entropy of each row of scores, and leave its gradient in their place.

    With p = softmax(scores) and the target y of a row: loss = -log p_y, and scores becomes p - onehot(y).

    Args:
        scores:  (M, V), float32 or float64; written. The last axis is contiguous.
        targets: (M,), int64, in [0, V).
        threads: used where the scores are many enough to pay for them.

    Returns:
        (M,) in nats. A row's bits do not depend on the threads. A row with a score that is not a number, or
        infinite above, becomes not-a-number, and so does one of minus infinities alone; a score of minus
        infinity has p = 0, and as the target's an infinite loss.

    Raises:
        ShapeError: arrays that do not fit, of another type or not writable, or a target outside [0, V).

    >>> import numpy as np
    >>> scores = np.log(np.array([[0.5, 0.25, 0.25]]))
    >>> cross_entropy(scores, np.array([1])).round(4).tolist(), scores.tolist()
    ([1.3863], [[0.5, -0.75, 0.25]])
    """
    made: Array = there().cross_entropy(scores, targets, threads)
    return made
