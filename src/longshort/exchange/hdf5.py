"""HDF5 files as plain arrays, read where a damaged file can do no harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingExtra, need
from .layers import Array

SECONDS = 60
"""How long a processor may take to read a file; one that takes longer is damaged."""
CHILD = Path(__file__).with_name("hdf5_child.py")


@dataclass(frozen=True)
class Tree:
    """What an HDF5 file holds.

    Attributes:
        arrays: every numeric dataset, by its path.
        attributes: those of each group and dataset by its path; the file's own under ``""``.
    """

    arrays: dict[str, Array]
    attributes: dict[str, dict[str, Any]]

    def under(self, path: str) -> list[str]:
        """The paths of the arrays below a group, in order of their names."""
        return sorted(key for key in self.arrays if key.startswith(f"{path}/"))


def read_hdf5(content: bytes, name: str) -> Tree:
    """Read a whole HDF5 file.

    libhdf5 can crash or hang on a damaged file, so a second process reads it and hands back arrays.

    Args:
        content: the file's bytes.
        name: what messages call it.

    Raises:
        DataError: it is no HDF5 file, or damaged.
        MissingExtra: h5py is not installed, or the second process cannot import it.
    """
    need("h5py", extra="exchange", to="read Keras weights")
    most = 64 * len(content)
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD), str(most), str(SECONDS), _paths()],
            input=content,
            capture_output=True,
            timeout=10 * SECONDS,  # on a machine that is busy with other things
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{name}: is damaged: it could not be read within {10 * SECONDS} s.") from None
    if done.returncode:
        why = done.stderr.decode("utf8", "replace").strip().splitlines()
        if done.returncode == 3 and why:
            raise MissingExtra(
                f"{name}: the process that reads HDF5 files cannot import what it needs: {why[-1]}. "
                f"Install h5py and NumPy where this Python looks for packages, not in the current folder."
            )
        reason = why[-1] if done.returncode == 1 and why else "reading it ended the process"
        raise DataError(f"{name}: is damaged or is no HDF5 file: {reason}.")
    try:
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as loaded:
            arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: is damaged: {error}.") from None
    attributes = json.loads(arrays.pop("/").tobytes())
    return Tree(arrays, attributes)


def _paths() -> str:
    """Where this process looks for packages, but for the current folder, which may be anyone's."""
    try:
        here = str(Path.cwd())
    except OSError:  # it was deleted
        here = ""
    return json.dumps([str(path) for path in sys.path if str(path) not in ("", here)])
