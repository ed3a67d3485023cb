"""Every test starts from the same place: one thread, fixed seeds, and fresh memory that is not zero."""

import os
import random

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(autouse=True)
def a_fixed_start():
    """The same random numbers in every test, whichever ran before."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread_and_fresh_memory_is_nan():
    """torch.empty returns NaN, so code that forgets to write an element is caught."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan().all(), "this torch no longer fills fresh memory"
