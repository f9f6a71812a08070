"""Files in and out: positions, values, and everything that must be refused."""

import gzip
import os
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fewview.data.images import read_labels, read_volume, write_labels, write_volume
from fewview.data.volume import Volume

FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha"]
FILES = [*FORMATS, ".mhd", ".nhdr"]
ORIENTATIONS = list(product(permutations(range(3)), product((1.0, -1.0), repeat=3)))


def values(shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    """HU that differ in every voxel, with air and bone."""
    return np.linspace(-1000, 1200, int(np.prod(shape))).round().reshape(shape).astype(np.int16)


def a_volume(shape: tuple[int, int, int] = (4, 5, 6)) -> Volume:
    """Oblique, with unequal spacing and a fractional offset."""
    c, s = np.cos(0.2), np.sin(0.2)
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * [0.7, 1.3, 2.9]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, [-123.456, 78.901, -1234.567]
    return Volume(values(shape).astype(np.float32), matrix)


def write_itk(path: Path, array: np.ndarray, compress: bool = True, **kwargs: object) -> Path:
    """What another program writes."""
    image = sitk.GetImageFromArray(array, **kwargs)
    image.SetSpacing([1.5, 2.5, 3.5][: image.GetDimension()] + [1.0] * (image.GetDimension() - 3))
    sitk.WriteImage(image, str(path), compress)
    return path


def edit(path: Path, old: bytes, new: bytes) -> Path:
    """Change a text header."""
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_and_sits_where_it_was(tmp_path, suffix):
    volume = a_volume()
    write_volume(volume, tmp_path / f"ct{suffix}")
    found = read_volume(tmp_path / f"ct{suffix}")
    assert np.array_equal(found.hu, volume.hu)
    np.testing.assert_allclose(found.voxel_to_patient, volume.voxel_to_patient, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [f"ct{suffix}"]


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_48_orientations_of_other_programs_keep_every_position(tmp_path, suffix, order, signs):
    image = sitk.GetImageFromArray(values((3, 4, 5)))
    image.SetSpacing((0.7, 1.3, 2.9))
    tilt = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    image.SetDirection((tilt * signs)[:, order].ravel().tolist())
    image.SetOrigin((-200.3, 150.7, 1300.1))
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(image, str(path))
    found = read_volume(path)
    for index in [(0, 0, 0), (4, 3, 2), (4, 0, 0), (0, 3, 0), (1, 2, 1)]:
        place = np.append(image.TransformIndexToPhysicalPoint(index), 1.0)
        x, y, z, _ = np.linalg.inv(found.voxel_to_patient) @ place
        nearest = round(z), round(y), round(x)
        back = found.voxel_to_patient @ [*map(float, nearest[::-1]), 1.0]
        np.testing.assert_allclose(back, place, atol=0.01)
        assert found.hu[nearest] == image[index]
    assert (np.diag(found.voxel_to_patient)[:3] > 0.5).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_programs_read_what_we_write_at_the_same_place(tmp_path, suffix):
    volume = a_volume()
    write_volume(volume, tmp_path / f"ct{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"ct{suffix}"))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.hu)
    for index in [(0, 0, 0), (5, 4, 3)]:
        place = (volume.voxel_to_patient @ [*map(float, index), 1.0])[:3]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place, atol=0.001)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_found_out(tmp_path, suffix, compress, kept):
    rng = np.random.default_rng(0)
    noise = rng.integers(-1000, 1000, (20, 21, 22)).astype(np.int16)
    path = write_itk(tmp_path / f"ct{suffix}", noise, compress)
    data = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    data.write_bytes(data.read_bytes()[: int(kept * data.stat().st_size)])
    with pytest.raises(ValueError, match=r"truncated|header|corrupt"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_flipped_byte_in_values_or_checksum_is_found_out(tmp_path, suffix, share):
    rng = np.random.default_rng(0)
    noise = rng.integers(-1000, 1000, (20, 21, 22)).astype(np.int16)
    path = write_itk(tmp_path / f"ct{suffix}", noise)
    raw = bytearray(path.read_bytes())
    raw[int(share * (len(raw) - 2))] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="truncated"):
        read_volume(path)


def test_a_file_that_is_something_else_is_refused_in_one_line(tmp_path):
    for suffix in FILES:
        path = tmp_path / f"ct{suffix}"
        path.write_bytes(b"<html>not found</html>\n" * 100)
        with pytest.raises(ValueError, match="header") as caught:
            read_volume(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_unknown_suffix_and_missing_file_are_refused(tmp_path):
    (tmp_path / "ct.txt").write_text("hello")
    with pytest.raises(ValueError, match="suffix"):
        read_volume(tmp_path / "ct.txt")
    with pytest.raises(ValueError, match="no such file"):
        read_volume(tmp_path / "ct.nii.gz")
    for name in ("ct.txt", "ct", "ct.mhd"):
        with pytest.raises(ValueError, match="known are"):
            write_volume(a_volume(), tmp_path / name)


@pytest.mark.parametrize("suffix", FILES)
def test_a_picture_a_film_and_colors_are_refused(tmp_path, suffix):
    with pytest.raises(ValueError, match="2-D"):
        read_volume(write_itk(tmp_path / f"flat{suffix}", values((1, 9, 9))))
    with pytest.raises(ValueError, match="4-D"):
        read_volume(write_itk(tmp_path / f"film{suffix}", np.stack([values()] * 2), isVector=False))
    colors = np.zeros((4, 5, 6, 3), np.uint8)
    with pytest.raises(ValueError, match="RGB"):
        read_volume(write_itk(tmp_path / f"colors{suffix}", colors, isVector=True))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_text_header_without_spacing_is_refused(tmp_path, suffix):
    path = write_itk(tmp_path / f"ct{suffix}", values())
    names = {".mha": b"ElementSpacing", ".nrrd": b"space directions"}
    edit(path, names[suffix], b"x" * len(names[suffix]))
    with pytest.raises(ValueError, match=r"ElementSpacing|space directions"):
        read_volume(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".mha", b"DimSize = 6 5 4", b"DimSize = 60000 50000 40000"),
        (".nrrd", b"sizes: 6 5 4", b"sizes: 60000 50000 40000"),
    ],
)
def test_a_header_that_claims_more_than_memory_is_refused_before_reading(
    tmp_path, suffix, old, new
):
    path = edit(write_itk(tmp_path / f"ct{suffix}", values(), compress=False), old, new)
    with pytest.raises(ValueError, match="too much"):
        read_volume(path)


def test_a_mhd_without_its_values_says_which_file_is_missing(tmp_path):
    path = write_itk(tmp_path / "ct.mhd", values(), compress=False)
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(ValueError, match=r"ct\.raw"):
        read_volume(path)


def test_nrrd_in_ras_lies_where_the_same_in_lps_does(tmp_path):
    path = write_itk(tmp_path / "ct.nrrd", values())
    lps = read_volume(path)
    edit(path, b"left-posterior-superior", b"right-anterior-superior")
    ras = read_volume(path)
    np.testing.assert_array_equal(ras.hu, lps.hu[:, ::-1, ::-1])
    np.testing.assert_allclose(ras.center_mm, lps.center_mm * [-1, -1, 1])


def test_label_maps_of_every_format_come_back(tmp_path):
    volume = a_volume()
    labels = np.arange(120, dtype=np.uint8).reshape(volume.shape)
    for suffix in FORMATS:
        write_labels(labels, volume.voxel_to_patient, tmp_path / f"labels{suffix}")
        found, matrix = read_labels(tmp_path / f"labels{suffix}")
        assert np.array_equal(found, labels)
        np.testing.assert_allclose(matrix, volume.voxel_to_patient, atol=1e-4)


def test_a_ct_is_no_label_map(tmp_path):
    write_volume(a_volume(), tmp_path / "ct.nii.gz")
    with pytest.raises(ValueError, match="not a label map"):
        read_labels(tmp_path / "ct.nii.gz")


def test_nothing_is_written_of_a_volume_that_is_not_finite_or_sheared(tmp_path):
    hu = a_volume().hu.copy()
    hu[0, 0, 0] = np.nan
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    for volume in (Volume(hu, np.eye(4)), Volume(a_volume().hu, sheared)):
        for name in ("ct.nii.gz", "series/"):
            with pytest.raises(ValueError, match=r"NaN|sheared"):
                write_volume(volume, f"{tmp_path}/{name}")
    assert not list(tmp_path.iterdir())


def test_values_beyond_int16_are_held_at_its_ends(tmp_path):
    hu = a_volume().hu.copy()
    hu[0, 0, 0] = 40000.4
    write_volume(Volume(hu, np.eye(4)), tmp_path / "ct.nii")
    assert read_volume(tmp_path / "ct.nii").hu.max() == 32767


def test_a_full_disk_leaves_the_old_files_and_nothing_else(tmp_path):
    """A file size limit stands for the full disk; no write may end in silence."""
    names = [f"ct{suffix}" for suffix in FORMATS]
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from fewview.data.images import write_volume\n"
        "from fewview.data.volume import Volume\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "hu = np.random.default_rng(0).integers(-999, 999, (40, 40, 40)).astype(np.float32)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        write_volume(Volume(hu, np.eye(4)), path)\n"
        "    except OSError as error:\n        print(error)\n"
    )
    paths = [str(tmp_path / name) for name in names]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:4]] == [f"cannot write {p}" for p in paths[:4]]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(names)
    assert all((tmp_path / name).read_bytes() == b"old" for name in names)


def test_gzip_without_the_suffix_is_still_read(tmp_path):
    write_volume(a_volume(), tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    assert np.array_equal(read_volume(tmp_path / "b.nii").hu, a_volume().hu)


def test_an_unwritable_folder_is_told_with_the_name_of_the_output(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot write .*ct\.nii"):
        write_volume(a_volume(), tmp_path / "ct.nii")
