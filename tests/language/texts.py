"""Texts and one small fitted model that the tests of language share."""

import functools

import numpy as np
import torch

from longshort.tasks import LanguageModel
from longshort.tasks.language.model import LanguageNetwork
from longshort.tasks.language.settings import LanguageSettings

RHYME = "one for the money,\ntwo for the show,\nthree to get ready,\nand four to go.\n"
SMALL = {
    "hidden": 16, "embedding": 8, "batch": 4, "window": 8, "max_steps": 20, "every": 10, "dropout": 0.1,
    "average": 0.0, "lr": 0.01,
}  # fmt: skip
"""Settings of a model that fits in a second."""


def words(count, seed=0):
    """A text of some dozen words, in lines of eight."""
    random = np.random.default_rng(seed)
    drawn = random.choice(["the", "cat", "dog", "saw", "a", "bird", "and", "ran"], count)
    return "\n".join(" ".join(drawn[k : k + 8]) for k in range(0, count, 8)) + "\n"


def network(V=11, **settings):
    """A network in evaluation mode, of two layers unless said otherwise."""
    torch.manual_seed(1)
    chosen = {"hidden": 12, "embedding": 6, "layers": 2, **settings}
    return LanguageNetwork(V, LanguageSettings(**chosen)).eval()


@functools.cache
def fitted():
    return LanguageModel(**SMALL).fit(RHYME * 12, quiet=True, device="cpu")
