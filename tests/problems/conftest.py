import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def digits(tmp_path):
    """Idx files of 5,040 training and 30 test pictures; brightness, or a white pixel, tells the digit."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 5040), ("t10k", 30)):
        labels = rng.integers(10, size=count).astype(np.uint8)
        pictures = np.repeat(labels, 784).reshape(count, 28, 28) * 20
        pictures[np.arange(count), 20, 9 + labels] = 255
        head = struct.pack(">4i", 0x803, count, 28, 28)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pictures.tobytes(), 1))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, count) + labels.tobytes()
        )
    return tmp_path
