"""What a caller gives, as arrays of the type that is wanted; nothing of it is lost on the way."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import SettingError, ShapeError
from .files import Array


def array(what: str, value: Any, dtype: str) -> Array:
    """Return a value as a contiguous array of a type that can hold it; datetime64 as microseconds in int64.

    Args:
        what: the caller and the argument, the beginning of every message.
        value: an array, or lists of numbers.
        dtype: NumPy's name of the type.

    Raises:
        ShapeError: it is no array, or of a kind that would lose something.

    >>> array("model: `x`", [[1, 2]], "float32")
    array([[1., 2.]], dtype=float32)
    """
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):  # rows of different lengths
        raise ShapeError(f"{what} must be an array of {dtype}, got rows of different lengths.") from None
    if given.dtype.kind == "M" and dtype == "int64":
        given = given.astype("datetime64[us]").astype(np.int64)
    if not np.can_cast(given.dtype, dtype, "same_kind"):
        raise ShapeError(f"{what} must be of {dtype}, got {given.dtype}.")
    return np.asarray(given, dtype, order="C")


def whole(what: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        SettingError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingError(f"{what} must be a whole number of at least 1, got {value!r}.")
    return int(value)
