"""MNIST as a sequence: a digit read row by row, or pixel by pixel, and named at the end.

Rows: 28 steps of 28 pixels. Pixels: 784 steps of one, row by row. Permuted: 784 steps in one fixed random
order, so that neighbours are far apart. Pixels are divided by 255. Of the 60,000 training pictures the last
5,000, in a fixed random order, are the validation part (of which as many are read as the schedule holds); the
test part is the 10,000 test pictures. There is no lag to choose: it is the number of steps.

Without memory: the last step, a blank row or pixel, says nothing, and always naming the commonest digit of
the training is wrong for 88.65 % of the test pictures.

Sources: Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units"
(2015); Arjovsky, Shah & Bengio (2016).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import DataError, SettingError
from .answers import Classes
from .problem import Array, Batch, Problem, Schedule, only_last

SIDE, DIGITS, VALIDATED = 28, 10, 5000
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


class Mnist(Problem):
    """Digits, row by row.

    Args:
        folder: where the four idx files lie, packed (.gz) or not.
    """

    name = "mnist"
    about = "MNIST digits, row by row (needs --data FOLDER)"
    source = "Le et al. (2015)"
    lag = "the number of steps of a picture"
    lags = (SIDE,)
    inputs = SIDE
    bound, stop = 0.015, 0.0
    rates: ClassVar[tuple[float, ...]] = (0.003, 0.001)
    schedule: ClassVar[Schedule] = Schedule(
        hidden=128, size=64, max_steps=8000, every=400, held=VALIDATED, test=10_000
    )

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder, self.answers = folder, Classes(DIGITS)
        self._parts: dict[str, tuple[Array, Array]] = {}

    def check(self, lag: int) -> None:
        """Raise where the lag is not the number of steps, or the files are missing.

        Raises:
            SettingError: another lag.
            DataError: a file is missing, cut short or no idx file.
        """
        if (lag,) != self.lags:
            raise SettingError(f"{self.name}: its only lag is {self.lags[0]}, {self.lag}; got {lag}.")
        self._load()

    def draw(self, lag: int, N: int, rng: np.random.Generator, part: str = "train") -> Batch:
        """N pictures: drawn at random for training; else the first N of the part, each once."""
        pictures, digits = self._load()[part]
        which = rng.integers(len(digits), size=N) if part == "train" else np.arange(min(N, len(digits)))
        x = self.steps(pictures[which].astype(np.float32) / 255)
        return Batch(x, *only_last(len(x), x.shape[1], digits[which]))

    def steps(self, pictures: Array) -> Array:
        """(N, 28, 28) pictures -> (N, T, C) sequences."""
        return pictures

    def trivial(self, lag: int) -> float:
        """The commonest digit of the training, always; 0.8865 on the files as published."""
        parts = self._load()
        commonest = np.bincount(parts["train"][1]).argmax()
        return float((parts["test"][1] != commonest).mean())

    def _load(self) -> dict[str, tuple[Array, Array]]:
        if not self._parts:
            pictures, digits, *test = (read_idx(self.folder, name) for name in FILES)
            order = np.random.default_rng(0).permutation(len(digits))
            kept, held = order[:-VALIDATED], order[-VALIDATED:]
            self._parts = {
                "train": (pictures[kept], digits[kept]),
                "validation": (pictures[held], digits[held]),
                "test": (test[0], test[1]),
            }
        return self._parts


class MnistPixels(Mnist):
    """Digits, pixel by pixel."""

    name = "mnist-pixels"
    about = "MNIST digits, pixel by pixel, 784 steps (needs --data FOLDER)"
    lags = (SIDE * SIDE,)
    inputs = 1
    bound = 0.04
    rates = (0.01,)
    schedule: ClassVar[Schedule] = Schedule(
        hidden=128, size=64, max_steps=10_000, every=800, held=1000, test=10_000
    )

    def steps(self, pictures: Array) -> Array:
        """(N, 28, 28) -> (N, 784, 1)."""
        return pictures.reshape(len(pictures), -1, 1)


class MnistPermuted(MnistPixels):
    """Digits, pixel by pixel in one fixed random order."""

    name = "mnist-permuted"
    about = "MNIST digits, pixel by pixel in a fixed random order (needs --data FOLDER)"
    source = "Le et al. (2015); Arjovsky et al. (2016)"

    def steps(self, pictures: Array) -> Array:
        """(N, 28, 28) -> (N, 784, 1), permuted."""
        order = np.random.default_rng(0).permutation(SIDE * SIDE)
        return super().steps(pictures)[:, order]


def read_idx(folder: str | Path | None, name: str) -> Array:
    """Read one idx file of unsigned bytes.

    Args:
        folder: where it lies.
        name: such as "train-images-idx3", of `train-images-idx3-ubyte`, with mnist- before or .gz after it.

    Returns:
        Labels (N,) as int64, or pictures (N, rows, columns) as uint8.

    Raises:
        DataError: no folder, no such file, or it is cut short or no idx file.
    """
    if folder is None:
        raise DataError(
            f"mnist: needs the folder with its idx files. Give --data FOLDER ({name}-ubyte.gz ...)."
        )
    plain = f"{name}-ubyte"
    names = [start + plain + end for start in ("", "mnist-") for end in ("", ".gz")]
    path = next((p for p in (Path(folder) / each for each in names) if p.is_file()), None)
    if path is None:
        raise DataError(f"mnist: looked for {', '.join(names)} in {folder}, and found none of them.")
    try:
        content = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read, or is cut short: {error}.") from None
    axes = int(name[-1])
    head = np.frombuffer(content[: 4 + 4 * axes], ">i4") if len(content) >= 4 + 4 * axes else np.zeros(1, int)
    if head[0] != 0x0800 + axes:
        raise DataError(f"{path}: is no idx file of unsigned bytes with {axes} axes.")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    wanted = int(np.prod(head[1:]))
    if len(values) != wanted:
        raise DataError(
            f"{path}: must have {wanted:,} bytes after its head, got {len(values):,}. Is it cut short?"
        )
    shaped: Array = values.reshape(head[1:])
    return shaped.astype(np.int64) if axes == 1 else shaped
