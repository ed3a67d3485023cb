"""Files in, series out; knows no model.

`read` takes CSV, Parquet, pandas and polars; `embedded` gives the series that comes with the package.
"""

from .calendar import Step
from .reading import read, read_ahead
from .sample import embedded
from .series import Columns, Missing, Series, SeriesTable

__all__ = ["Columns", "Missing", "Series", "SeriesTable", "Step", "embedded", "read", "read_ahead"]
