"""Bad input is refused with one clear line, and nothing is lost or half-written."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

BAD_CONFIG = '[system]\nname = "x"\n[system.grid]\nsiz = 64\n'
COMMAND = [sys.executable, "-c", "from fewview.cli import main; main()"]


def blob(size: int = 24) -> np.ndarray:
    """A water ball in air, int16 HU."""
    axis = np.linspace(-1, 1, size)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return np.where(distance < 0.7, 40, -1000).astype(np.int16)


def write(array: np.ndarray, path: Path, *, is_vector: bool = False) -> Path:
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing([5.0] * image.GetDimension())
    sitk.WriteImage(image, str(path))
    return path


def not_a_ct(path: Path) -> Path:
    path.write_text("hello")
    return path


def truncated(path: Path) -> Path:
    whole = write(blob(), path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def with_nan(path: Path) -> Path:
    array = blob().astype(np.float32)
    array[3, 3, 3] = np.nan
    return write(array, path)


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def huge(path: Path) -> Path:
    path = path.with_name("huge.mha")
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "DimSize = 60000 60000 60000\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n"
    )
    return path


def no_spacing(path: Path) -> Path:
    path = path.with_name("flat.mha")
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        b"DimSize = 24 24 24\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + blob().tobytes()
    )
    return path


BAD_VOLUMES = {
    "missing": lambda path: path,
    "not a CT": not_a_ct,
    "truncated": truncated,
    "constant": lambda path: write(np.full((16, 16, 16), 40, np.int16), path),
    "not HU": lambda path: write((blob() > 0).astype(np.float32), path),
    "NaN": with_nan,
    "2-D": lambda path: write(blob()[12], path),
    "4-D": lambda path: write(np.stack([blob(), blob()]), path),
    "color": lambda path: write(np.zeros((8, 8, 8, 3), np.uint8), path, is_vector=True),
    "empty folder": empty_folder,
    "huge": huge,
    "no spacing": no_spacing,
}


@pytest.mark.parametrize("bad", BAD_VOLUMES)
def test_a_bad_volume_is_refused_in_one_line_that_names_it(bad, tmp_path, command, complaint):
    path = BAD_VOLUMES[bad](tmp_path / "bad.nii.gz")
    line = complaint(command("project", path, "--out", tmp_path / "views"))
    assert path.name in line
    assert not (tmp_path / "views").exists()


def test_views_without_geometry_are_refused(views_folder, tmp_path, command, complaint):
    (views_folder / "views.json").unlink()
    line = complaint(command("reconstruct", views_folder, "--out", tmp_path / "ct.nii.gz"))
    assert "views.json" in line


def test_a_damaged_view_is_refused(views_folder, tmp_path, command, complaint):
    image = views_folder / "view_01.tiff"
    image.write_bytes(image.read_bytes()[:2000])
    line = complaint(command("reconstruct", views_folder, "--out", tmp_path / "ct.nii.gz"))
    assert "view_01.tiff" in line


def test_angles_that_do_not_match_the_images_are_refused(tmp_path, command, complaint):
    image = write((blob()[12] > 0).astype(np.uint8) * 255, tmp_path / "a.png")
    words = ("reconstruct", image, "--angles-deg", "0,90", "--out", tmp_path / "ct.nii.gz")
    assert "angle" in complaint(command(*words))


def test_a_color_image_is_refused(tmp_path, command, complaint):
    color = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    image = write(color, tmp_path / "a.png", is_vector=True)
    words = ("reconstruct", image, "--angles-deg", "0", "--out", tmp_path / "ct.nii.gz")
    assert "a.png" in complaint(command(*words))


def test_a_model_folder_with_a_missing_file_is_refused(views_folder, tmp_path, command, complaint):
    (tmp_path / "model").mkdir()
    words = ("--model", tmp_path / "model", "--out", tmp_path / "ct.nii.gz")
    assert "config.toml is missing" in complaint(command("reconstruct", views_folder, *words))


def test_an_unknown_model_names_the_bundled_ones(views_folder, tmp_path, command, complaint):
    words = ("--model", "fewview-65", "--out", tmp_path / "ct.nii.gz")
    assert "fewview-65" in complaint(command("reconstruct", views_folder, *words))


def test_an_unknown_config_key_is_named(ct_file, tmp_path, command, complaint):
    store = tmp_path / "store"
    assert command("prepare", ct_file, "--out", store, "--size", 16, "--keep-couch").exit_code == 0
    (tmp_path / "bad.toml").write_text(BAD_CONFIG)
    words = ("train", tmp_path / "bad.toml", "--data", store, "--out", tmp_path / "run")
    line = complaint(command(*words))
    assert "siz" in line
    assert "bad.toml" in line


def test_training_without_a_store_is_refused(tmp_path, command, complaint):
    (tmp_path / "bad.toml").write_text(BAD_CONFIG)
    words = ("train", tmp_path / "bad.toml", "--data", tmp_path / "no", "--out", tmp_path / "run")
    complaint(command(*words))


def test_an_output_below_a_file_is_refused_before_work(ct_file, tmp_path, command, complaint):
    line = complaint(command("project", ct_file, "--out", ct_file / "views"))
    assert "scan.nii.gz" in line


def test_a_full_disk_is_one_line_and_leaves_nothing(ct_file, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, "project", ct_file, "--out", out / "views", "--size", "256"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("fewview: ")
    assert done.stderr.count("\n") == 1
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_command_leaves_nothing_half_written(sent, code, tmp_path):
    out = tmp_path / "phantoms"
    words = ["phantom", str(out), "--count", "1000", "--size", "32"]
    running = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.rglob("ct.nii.gz")))
    running.send_signal(sent)
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == code
    assert not out.exists()
    assert len(stderr.splitlines()) == (1 if sent == signal.SIGINT else 0)


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
