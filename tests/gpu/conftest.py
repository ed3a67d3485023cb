"""A CUDA device, or a loud skip. LONGSHORT_EMULATED=1 runs these very tests in the host's emulation."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scan" / "cuda"))

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else torch warns of every product, which fails
EMULATED = os.environ.get("LONGSHORT_EMULATED") == "1"
WHY_NOT = (
    None if torch.cuda.is_available() or EMULATED else "NO CUDA DEVICE: the kernels did not run on one here"
)


def pytest_configure(config):
    """torch 2.9 to 2.11 warn once of the switches that they and torch 2.13 all have."""
    config.addinivalue_line("filterwarnings", "ignore:Please use the new API settings to control TF32")


def pytest_runtest_logreport(report):
    """Say at once why a test failed: a lent device may be gone before the session's end."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nWHY {report.nodeid}: {str(report.longrepr)[-1500:]}", file=sys.__stdout__, flush=True)


def emulate():
    """Put the emulated machine behind the backend "gpu"."""
    import emulator

    emulator.put(emulator.Emulator(), setattr)


@pytest.fixture(scope="session", autouse=True)
def device():
    """Where the tensors of these tests are."""
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)
    if EMULATED:
        emulate()
        return torch.device("cpu")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def without_tf32():
    """Products of float32 are float32's, as the tolerance asks."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
