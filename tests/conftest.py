"""What every test may use: the development data where it exists, and quiet threads."""

import os
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    """Two threads are enough for these sizes, and more only fight each other."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of development data; the test is skipped where there is none."""
    folder = os.environ.get("FEWVIEW_TEST_DATA")
    if not folder:
        pytest.skip("FEWVIEW_TEST_DATA is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"FEWVIEW_TEST_DATA is {folder}, which is not a folder")
    return path
