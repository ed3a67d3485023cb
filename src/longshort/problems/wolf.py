"""Wolf: a sequence of pictures whose last one is ambiguous.

L + 1 pictures of 16 x 16 grey pixels. The last shows an animal that may be a wolf or a dog. What it is was
decided before: long ago (one of the first five pictures) an elephant was seen or not, and just now (one of
the last three before the end) a fish was seen or not. An elephant means that this is a film about the wild,
and a fish that somebody stands before a bowl in a room: it is a wolf if an elephant was seen and no fish. All
other pictures show a bird, a tree, a house or a snail. Half of the sequences end with a wolf; the other three
cases are equally likely. Shapes are drawn by the code below at random places, sizes, brightness and, half the
time, mirrored, with noise on every pixel. A small convolutional encoder, trained with the cell, makes 32
numbers of each picture.

Without memory: 1 of 2 answers is wrong. With the last pictures alone, a fish says "dog" (a third of the
sequences), and without one "wolf" is right three times of four: 1 of 6 is wrong.

Source: a common way to explain long-term and short-term memory; the pictures are this package's own.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from .answers import Classes
from .problem import Array, Batch, Problem, Schedule, only_last

SIDE, EARLY, RECENT = 16, 5, 3
SHAPES = {
    "elephant": ("....####", "..######", "#.######", "#.######", "##.#..##", "...#..##"),
    "fish": (".###...#", "######.#", "########", "######.#", ".###...#"),
    "bird": ("#......#", "##....##", ".##..##.", "..####..", "...##..."),
    "tree": ("..###...", ".#####..", "#######.", ".#####..", "...#....", "...#....", "...#...."),
    "house": ("...##...", "..####..", ".######.", "########", ".##..##.", ".##..##."),
    "snail": ("..###...", ".#...#..", ".#.#.#.#", ".#..##.#", "########"),
    "wolf or dog": ("#.#.....", "###....#", "#######.", ".######.", ".#....#.", ".#....#."),
}
NAMES = tuple(SHAPES)
ELEPHANT, FISH, LAST = NAMES.index("elephant"), NAMES.index("fish"), NAMES.index("wolf or dog")
OTHERS = (2, 3, 4, 5)


class Wolf(Problem):
    """Wolf or dog, decided by what was seen long ago and just now.

    Args:
        noise: standard deviation of what is added to each pixel.
    """

    name = "wolf"
    about = "pictures: a wolf or a dog, by what was seen long ago and just now"
    source = "a story told of long-term and short-term memory; the pictures are this package's own"
    lag = "pictures before the last, with room for the early and the recent ones"
    least = EARLY + RECENT
    lags = (10, 20, 50, 100)
    inputs = 32
    rates = (0.003, 0.001)
    bound, stop = 0.02, 0.01
    schedule: ClassVar[Schedule] = Schedule(hidden=32, max_steps=1500, held=256, test=500)

    def __init__(self, noise: float = 0.1) -> None:
        self.noise = np.float32(noise)
        self.answers = Classes(2)
        self.drawings = drawings()

    def encoder(self) -> nn.Module:
        """Two convolutions and a linear layer, picture by picture."""
        return PictureEncoder(self.inputs)

    def subjects(self, lag: int, N: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """What each picture shows, (N, lag + 1) indices of NAMES, and the answers (N,): 1 is a wolf."""
        case = rng.choice(4, N, p=(1 / 2, 1 / 6, 1 / 6, 1 / 6))
        elephant, fish = (case == 0) | (case == 1), (case == 1) | (case == 2)
        shown = rng.choice(OTHERS, (N, lag + 1))
        rows = np.arange(N)
        early, recent = rng.integers(EARLY, size=N), lag - 1 - rng.integers(RECENT, size=N)
        shown[rows[elephant], early[elephant]] = ELEPHANT
        shown[rows[fish], recent[fish]] = FISH
        shown[:, -1] = LAST
        return shown, (case == 0).astype(np.int64)

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N sequences of lag + 1 pictures."""
        shown, answer = self.subjects(lag, N, rng)
        drawing = self.drawings[shown, rng.integers(self.drawings.shape[1], size=shown.shape)]
        brightness = rng.uniform(0.5, 1, (*shown.shape, 1, 1)).astype(np.float32)
        x = drawing * brightness + self.noise * rng.standard_normal(drawing.shape, np.float32)
        return Batch(x, *only_last(N, lag + 1, answer))

    def trivial(self, lag: int) -> float:
        """1 / 2."""
        return 0.5


class PictureEncoder(nn.Module):
    """(N, T, 16, 16) pictures -> (N, T, C).

    Args:
        C: numbers a picture.
    """

    def __init__(self, C: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode each picture by itself."""
        encoded: Tensor = self.layers(x.flatten(0, 1)[:, None])
        return encoded.view(*x.shape[:2], -1)


def drawings(count: int = 64) -> Array:
    """(shapes, count, 16, 16) float32 in [0, 1]: each shape at random places, sizes and mirrored."""
    rng = np.random.default_rng(0)
    found = np.zeros((len(SHAPES), count, SIDE, SIDE), np.float32)
    for k, rows in enumerate(SHAPES.values()):
        mask = np.array([[letter == "#" for letter in row] for row in rows], np.float32)
        for n in range(count):
            size = rng.uniform(1.0, 1.8)
            height, width = (int(side * size) for side in mask.shape)
            down, right = (np.arange(side) / size for side in (height, width))
            scaled = mask[np.ix_(down.astype(int), right.astype(int))]
            top, left = rng.integers(SIDE - height, endpoint=True), rng.integers(SIDE - width, endpoint=True)
            found[k, n, top : top + height, left : left + width] = scaled[:, :: rng.choice((-1, 1))]
    return found
