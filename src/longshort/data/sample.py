"""The series that comes with the package."""

from __future__ import annotations

from pathlib import Path

from .reading import read
from .series import SeriesTable

FILE = Path(__file__).parent / "mauna-loa" / "co2.csv"
"""Its columns are `month` and `co2`; `README.md` beside it tells where every number comes from."""


def embedded() -> SeriesTable:
    """Monthly mean carbon dioxide in the air at Mauna Loa, Hawaii, in parts per million (mole fraction).

    Returns:
        One series named "co2", a step of one month, a season of 12.
    """
    return read(FILE, target="co2", time="month")
