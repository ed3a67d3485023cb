"""The second complaint: "an LSTM overfits". A small word model, with and without each regulariser.

The model is that of Zaremba et al. (2014), small: two layers of 200 units, fed by learned vectors of 200 numbers,
read by a linear layer over the vocabulary; 20 steps of 20 streams at a time, the state carried on. It is trained
once for each row of REGULARISERS from the same first weights, and after every epoch the loss on the training's own
words is set beside that on words held out.

Sources: Zaremba, Sutskever & Vinyals, "Recurrent neural network regularization" (2014); Gal & Ghahramani, "A
theoretically grounded application of dropout in recurrent neural networks" (2016); Krueger et al., "Zoneout" (2017);
Merity, Keskar & Socher, "Regularizing and optimizing LSTM language models" (2018).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError
from ..nn import LSTM, uniform
from ..scan import Noise
from .problem import Array

UNITS, STREAMS, STEPS, CLIP, RATE, UNKNOWN, END = 200, 20, 20, 0.25, 2e-3, "<unk>", "<eos>"
LEAST = 2 * STREAMS * (STEPS + 1)
"""Words that a part must have."""


@dataclass(frozen=True)
class Regulariser:
    """What a row of the comparison adds to the plain model.

    Args:
        about: in a few words.
        dropout: share of the vectors' and outputs' numbers silenced, new at every step; also between the layers.
        noise: inside the recurrence.
        decay: of the weights, as a share of the learning rate a step.
        tied: the vectors of the words are also the weights of the answer (Press & Wolf 2017).
    """

    about: str
    dropout: float = 0.0
    noise: Noise = Noise()
    decay: float = 0.0
    tied: bool = False


REGULARISERS = {
    "none": Regulariser("nothing"),
    "decay": Regulariser("decay of the weights, 0.1 of the learning rate a step", decay=0.1),
    "zoneout": Regulariser("zoneout, h 0.1 and c 0.3 (Krueger et al. 2017)", noise=Noise(zoneout_h=0.1, zoneout_c=0.3)),
    "weight-drop": Regulariser("half of the recurrent weights dropped (Merity et al. 2018)", noise=Noise(weight_drop=0.5)),
    "variational": Regulariser(
        "one mask of h for all steps, 0.3 (Gal & Ghahramani 2016)", noise=Noise(variational_h=0.3)
    ),
    "dropout": Regulariser("dropout of half between the layers (Zaremba et al. 2014)", dropout=0.5),
    "dropout-tied": Regulariser("the same, and one matrix of vectors for input and answer", dropout=0.5, tied=True),
    "all": Regulariser(
        "dropout of half, tied vectors, weight drop 0.3", dropout=0.5, tied=True, noise=Noise(weight_drop=0.3)
    ),
}
"""Each regulariser alone, and combinations."""
