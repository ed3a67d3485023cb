"""Layers that do not make one stack, and what is said of them."""

import re

import numpy as np
import pytest

from longshort.errors import DataError
from longshort.exchange.layers import Layers, checked


def weights(C, H, bias=True):
    found = {"weight_ih": np.zeros((4 * H, C)), "weight_hh": np.zeros((4 * H, H))}
    return found | ({"bias_ih": np.zeros(4 * H), "bias_hh": np.zeros(4 * H)} if bias else {})


@pytest.mark.parametrize(
    "stack, said",
    [
        ((), "file: must hold at least one LSTM layer, got none."),
        (
            ((weights(3, 4),), (weights(4, 4), weights(4, 4))),
            "file, layer 1: must run in as many directions as layer 0, 1, got 2. Take the layers "
            "one by one, each by its name.",
        ),
        (
            ((weights(3, 4),), (weights(4, 4, bias=False),)),
            "file, layer 1: must have the weights of layer 0, bias_hh, bias_ih, weight_hh, weight_ih, got "
            "weight_hh, weight_ih. Take the layers one by one, each by its name.",
        ),
        (
            ((weights(3, 4),), (weights(4, 5),)),
            "file, layer 1: must have the 4 units of layer 0, got 5: one LSTM has one width. Take "
            "the layers one by one.",
        ),
    ],
    ids=["none", "directions", "biases", "units"],
)
def test_what_is_no_stack_is_named(stack, said):
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        checked(Layers(stack), "file")
