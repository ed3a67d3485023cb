"""One check names the tensor, the axis, where its length came from, and the convention."""

import numpy as np
import pytest

from longshort import shapes
from longshort.errors import ShapeError


def zeros(*shape):
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("contract", "sizes"),
    [
        ({"x": (zeros(2, 5, 3), "N T C")}, {"N": 2, "T": 5, "C": 3}),
        ({"w": (zeros(8, 2), "4H H")}, {"H": 2}),
        ({"x": (zeros(0, 0), "N T")}, {"N": 0, "T": 0}),
        ({"x": (zeros(1, 7), "1 T")}, {"T": 7}),
    ],
)
def test_sizes(contract, sizes):
    assert shapes.check("demo", **contract) == sizes


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (
            {"w": (zeros(24, 6), "4H H"), "h": (zeros(3, 5), "N H")},
            "demo: `h` must be (N, H) = (3, 6), got (3, 5).\n  H = 6 was taken from `w` (4H, H) = (24, 6).\n"
            "  A hint.",
        ),
        ({"x": (zeros(3), "N T")}, "demo: `x` must be (N, T), got (3,).\n  A hint."),
        ({"w": (zeros(7, 2), "4H C")}, "demo: `w` must be (4H, C) = (4H, 2), got (7, 2).\n  A hint."),
        ({"x": (zeros(2, 7), "1 T")}, "demo: `x` must be (1, T) = (1, 7), got (2, 7).\n  A hint."),
    ],
)
def test_messages_in_full(contract, message):
    with pytest.raises(ShapeError) as raised:
        shapes.check("demo", "A hint.", **contract)
    assert str(raised.value) == message


def test_a_contract_that_is_no_axis_is_a_programming_error():
    with pytest.raises(ValueError, match="an axis is a number, a capital letter, or both: got 'n'"):
        shapes.check("demo", x=(zeros(1), "n"))
