"""Samosa: who likes which food, held side by side and asked for in any order.

"Dhaval eats samosa almost every day, it shouldn't be hard to guess that his favourite cuisine is Indian.
His brother Bhavin however is a lover of pasta and cheese, that means Bhavin's favourite cuisine is
Italian." Here three people of four are told of, one after the other, each with a food of one of four
cuisines (three foods each); then come exactly L words of clauses that say nothing of them, drawn at random;
then each of the three is asked for, in random order: "the favourite cuisine of Dhaval is". At each "is" the
network says which of the four it is, and is not told whether it was right; the score is the share of wrong
ones. People, foods and order are drawn at random, and two people may like the same cuisine. The stories of a
training's batch have a number of words there that is drawn anew for each batch, as likely short as long on a
logarithmic scale, from 4 to L; those of the validation and the test have L. Words enter through a learned
embedding of 32 numbers. A name must be bound to its cuisine: one who knows which cuisines
were named, but not whose they are, is wrong for 44 of 100.

Without memory: 3 of 4 answers are wrong.

Source: a common way to explain what an LSTM is for; the grammar is this package's own.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import nn

from .answers import Classes
from .problem import Batch, Problem, Schedule
from .sentences import Vocabulary, clauses, filler

NAMES = ("Dhaval", "Bhavin", "Maria", "Chen")
FOODS = {
    "Indian": ("samosa", "dosa", "dal"),
    "Italian": ("pasta", "risotto", "pizza"),
    "Japanese": ("sushi", "ramen", "soba"),
    "Mexican": ("tacos", "burritos", "tamales"),
}
TOLD = (
    "{name} eats {food} almost every day .",
    "{name} loves {food} with cheese .",
    "{name} orders {food} again and again .",
    "{name} cooks {food} every week .",
)
ASKED = "the favourite cuisine of {name} is"
PEOPLE = 3


class Samosa(Problem):
    """Several people's favourite cuisines, asked for in any order.

    Args:
        people: how many are told of.
    """

    name = "samosa"
    about = "three people's favourite cuisines, asked for in any order"
    source = "a story told of LSTMs; the grammar is this package's own"
    lag = "words between the last fact and the first question, at least a clause of 4"
    least = 4
    lags = (10, 50, 100)
    inputs = 32
    rates = (0.01, 0.005)
    bound, stop = 0.02, 0.01
    schedule: ClassVar[Schedule] = Schedule(size=64, max_steps=6000, every=200)

    def __init__(self, people: int = PEOPLE) -> None:
        self.people = people
        self.clauses = clauses()
        texts = [" ".join(words) for several in self.clauses.values() for words in several]
        foods = [food for several in FOODS.values() for food in several]
        told = [text.format(name="", food="") for text in (*TOLD, ASKED)]
        self.vocabulary = Vocabulary([*texts, *NAMES, *foods, *told])
        self.answers = Classes(len(FOODS))

    def encoder(self) -> nn.Module:
        """A vector for each word."""
        return self.vocabulary.embedding(self.inputs, length=2.4)

    def story(self, lag: int, rng: np.random.Generator) -> tuple[list[str], dict[int, str]]:
        """One story: its words, and at which of them which cuisine is the answer."""
        names = [NAMES[k] for k in rng.permutation(len(NAMES))[: self.people]]
        cuisines = [list(FOODS)[k] for k in rng.integers(len(FOODS), size=self.people)]
        words: list[str] = []
        for name, cuisine in zip(names, cuisines, strict=True):
            food = FOODS[cuisine][rng.integers(len(FOODS[cuisine]))]
            words += TOLD[rng.integers(len(TOLD))].format(name=name, food=food).split()
        words += filler(lag, self.clauses, rng)
        answers = {}
        for k in rng.permutation(self.people):
            words += ASKED.format(name=names[k]).split()
            answers[len(words) - 1] = cuisines[k]
            words.append(".")
        return words[:-1], answers

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N stories: with the lag's words between, or up to as many in a batch of the training."""
        if part == "train":
            lag = min(lag, int(self.least * ((lag + 1) / self.least) ** rng.random()))
        made = [self.story(lag, rng) for _ in range(N)]
        x = self.vocabulary.padded([words for words, _ in made])
        target, asked = np.zeros_like(x), np.zeros(x.shape, bool)
        for n, (_, answers) in enumerate(made):
            for step, cuisine in answers.items():
                target[n, step], asked[n, step] = list(FOODS).index(cuisine), True
        return Batch(x, target, asked)

    def trivial(self, lag: int) -> float:
        """3 / 4."""
        return 1 - 1 / len(FOODS)

    def longest(self, lag: int) -> int:
        """From the first fact to the last question."""
        return lag + 45
