"""What every test may use: the development data where it exists, the command line, a small CT."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner, Result

from fewview import cli

Command = Callable[..., Result]


def pytest_configure() -> None:
    """Two threads are enough for these sizes, and more only fight each other.

    A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests that send
    it need it to arrive.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    hypothesis.settings.register_profile("no clock", deadline=None)  # a busy machine is no defect
    hypothesis.settings.load_profile("no clock")


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


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs a `fewview` command line in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(cli.app, [str(word) for word in words])

    return run


@pytest.fixture(scope="session")
def complaint() -> Callable[[Result], str]:
    """The one line on stderr that a failed command prints."""

    def only_line(result: Result) -> str:
        assert result.exit_code in (1, 2), f"{result.output}{result.stderr}{result.exception!r}"
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("fewview: ")
        return lines[0]

    return only_line


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder with a CT of a water ball in air, 24 voxels of 5 mm a side, and two views of it."""
    folder = tmp_path_factory.mktemp("made_once")
    axis = np.linspace(-1, 1, 24)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    image = sitk.GetImageFromArray(np.where(distance < 0.7, 40, -1000).astype(np.int16))
    image.SetSpacing([5.0, 5.0, 5.0])
    sitk.WriteImage(image, str(folder / "scan.nii.gz"))
    done = command("project", folder / "scan.nii.gz", "--out", folder / "views", "--size", 32)
    assert done.exit_code == 0, f"{done.stderr}{done.exception!r}"
    return folder


@pytest.fixture
def ct_file(made_once: Path, tmp_path: Path) -> Path:
    """A CT file that a test may change."""
    return Path(shutil.copy(made_once / "scan.nii.gz", tmp_path))


@pytest.fixture
def views_folder(made_once: Path, tmp_path: Path) -> Path:
    """Two views of that CT that a test may change."""
    return Path(shutil.copytree(made_once / "views", tmp_path / "views"))


TINY_CONFIG = """
[system]
name = "tiny"
[system.grid]
size = 16
[system.views]
num_pixels = 16
[system.autoencoder]
latent_channels = 2
width = 8
deep_width = 8
num_blocks = 1
[system.view_encoder]
image_width = 8
lifted_channels = 4
width = 8
deep_width = 8
bottom_width = 8
num_blocks = 1
condition_channels = 4
[system.denoiser]
width = 8
deep_width = 8
num_blocks = 1
num_heads = 2
[training]
num_examples = 4
[training.autoencoder]
num_steps = 4
batch_size = 2
log_every = 1
save_every = 2
[training.alignment]
num_steps = 4
batch_size = 2
log_every = 1
save_every = 2
[training.diffusion]
num_steps = 4
batch_size = 2
log_every = 1
save_every = 2
"""
"""A whole system that trains in seconds and knows nothing."""


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three coarse phantoms, two to train and one to validate."""
    from fewview.data.phantom import write_cases
    from fewview.data.prepare import prepare

    folder = tmp_path_factory.mktemp("tiny")
    write_cases(folder / "cases", 3, size=32)
    rows = ["case,patient,split", "case_0000,a,train", "case_0001,b,train", "case_0002,c,val"]
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    prepare([folder / "cases"], folder / "store", size=32, split_file=folder / "split.csv")
    return folder / "store"


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """The tiny system's file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_CONFIG)
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny system."""
    from fewview.training import train

    folder = tmp_path_factory.mktemp("tiny_run")
    (folder / "tiny.toml").write_text(TINY_CONFIG)
    train(folder / "tiny.toml", tiny_store, folder / "run")
    return folder / "run"
