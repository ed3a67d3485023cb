"""Words for the stories: a vocabulary, and clauses that fill any number of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .problem import Array

PEOPLE = ("my sister", "my brother", "the neighbour", "a friend", "our teacher", "the doctor")
TO_DO = {
    "had": ("a long day", "no time", "a new car", "an idea", "a cold"),
    "has": ("a small garden", "two jobs", "an old dog", "a big family", "no car"),
    "bought": ("a house", "two bicycles", "some bread"),
    "needs": ("more time", "a new coat", "help"),
    "lost": ("a key", "the job", "the way home"),
    "likes": ("the sea", "old songs", "long walks"),
}
TIMES = ("last week", "this week", "last month", "every day", "these days", "as always")
SAYINGS = (
    "it rains", "time passes", "people talk", "nobody knew", "it rained", "they waited",
    "it rains again", "time passed slowly", "people talk much", "nobody knew why", "it rained again",
)  # fmt: skip
LINKS = ("and", "while", "because", "although", "so")


def clauses() -> dict[int, list[list[str]]]:
    """Every clause by its number of words, each ended by a comma.

    Tenses and times of the clauses are mixed at random: they say nothing about what came first.
    """
    found: dict[int, list[list[str]]] = {}
    for link in LINKS:
        for who in PEOPLE:
            for verb, things in TO_DO.items():
                for thing in things:
                    for time in ("", *TIMES):
                        words = f"{link} {who} {verb} {thing} {time} ,".split()
                        found.setdefault(len(words), []).append(words)
    for link in LINKS:
        for saying in SAYINGS:
            words = f"{link} {saying} ,".split()
            found.setdefault(len(words), []).append(words)
    return found


def filler(count: int, known: dict[int, list[list[str]]], rng: np.random.Generator) -> list[str]:
    """Exactly `count` words of random clauses.

    There are clauses of every length from 4 to 7, so any number of words from 4 on can be reached.

    Args:
        count: at least 4.
        known: what `clauses` returned.
        rng: where the choices come from.
    """
    words: list[str] = []
    shortest = min(known)
    while left := count - len(words):
        fitting = [length for length in known if length == left or length <= left - shortest]
        length = fitting[rng.integers(len(fitting))]
        choices = known[length]
        words += choices[rng.integers(len(choices))]
    return words


class Vocabulary:
    """Words <-> numbers; 0 is no word.

    Args:
        texts: whatever holds every word that may come.

    >>> Vocabulary(["to be or", "not to be"]).numbers(["not", "to"])
    [2, 4]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.words = ["", *sorted({word for text in texts for word in text.split()})]
        self._number = {word: k for k, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, words: Sequence[str]) -> list[int]:
        """The number of each word."""
        return [self._number[word] for word in words]

    def text(self, numbers: Sequence[int]) -> str:
        """The words of some numbers as one line, without the padding."""
        return " ".join(self.words[k] for k in numbers if k)

    def padded(self, sentences: Sequence[Sequence[str]]) -> Array:
        """Sentences -> (N, T) int64, zeros after the end of each."""
        x = np.zeros((len(sentences), max(map(len, sentences))), np.int64)
        for row, words in zip(x, sentences, strict=True):
            row[: len(words)] = self.numbers(words)
        return x

    def embedding(self, C: int, length: float = 1.0) -> nn.Embedding:
        """A learned vector of C numbers for each word, of about this length at first."""
        vectors = nn.Embedding(len(self), C, padding_idx=0)
        with torch.no_grad():
            vectors.weight.mul_(length / math.sqrt(C))
        return vectors
