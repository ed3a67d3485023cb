"""Loan: the first words of a sentence decide the tense of its end.

"Today, due to my current job situation and my family conditions, I ..." goes on "need to take a loan"; "Last
year, ..." goes on "had to take a loan". A sentence begins with one of 6 phrases of the present or one of 6 of
the past; then come exactly L words of clauses about other people, in either tense, drawn at random; then "I".
At the "I" the network says "need" or "had"; the rest of the sentence ("to take a loan") is decided by then.
Both are equally likely, and the score is the share of wrong ones. Words enter through a learned embedding of
32 numbers.

Without memory: 1 of 2 answers is wrong.

Source: a common way to explain why recurrent networks forget; the grammar is this package's own.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import nn

from .answers import Classes
from .problem import Batch, Problem, Schedule
from .sentences import Vocabulary, clauses, filler

PRESENT = ("today ,", "this year ,", "at the moment ,", "right now ,", "nowadays ,", "this month ,")
PAST = ("last year ,", "back then ,", "ten years ago ,", "in those days ,", "in my youth ,", "long ago ,")
ENDINGS = {"need": PRESENT, "had": PAST}


class Loan(Problem):
    """The tense of the end, decided by the first words."""

    name = "loan"
    about = "a sentence whose first words decide the tense of its end"
    source = "a story told of recurrent networks; the grammar is this package's own"
    lag = "words between the opening and the question, at least a clause of 4"
    least = 4
    lags = (10, 50, 100, 500)
    inputs = 32
    rates = (0.01, 0.003)
    schedule: ClassVar[Schedule] = Schedule(size=16, max_steps=1000, every=50, held=256)

    def __init__(self) -> None:
        self.clauses = clauses()
        texts = [" ".join(words) for several in self.clauses.values() for words in several]
        self.vocabulary = Vocabulary([*texts, *PRESENT, *PAST, "I"])
        self.answers = Classes(len(ENDINGS))

    def encoder(self) -> nn.Module:
        """A vector for each word."""
        return self.vocabulary.embedding(self.inputs)

    def sentence(self, lag: int, rng: np.random.Generator) -> tuple[list[str], str]:
        """One sentence up to its "I", and the word that follows."""
        ending = list(ENDINGS)[rng.integers(len(ENDINGS))]
        openings = ENDINGS[ending]
        opening = openings[rng.integers(len(openings))].split()
        return [*opening, *filler(lag, self.clauses, rng), "I"], ending

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sentences."""
        made = [self.sentence(lag, rng) for _ in range(N)]
        x = self.vocabulary.padded([words for words, _ in made])
        endings = np.array([list(ENDINGS).index(ending) for _, ending in made])
        asked = np.arange(x.shape[1]) == np.array([len(words) - 1 for words, _ in made])[:, None]
        return Batch(x, np.where(asked, endings[:, None], 0), asked)

    def trivial(self, lag: int) -> float:
        """1 / 2."""
        return 0.5
