"""The montage: which side is where, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewview.data.volume import Volume, cubic_grid
from fewview.evaluation.montage import plane_image, write_montage


def marked(depth: int, height: int, width: int) -> np.ndarray:
    hu = np.zeros((6, 8, 10), dtype=np.float32)
    hu[depth, height, width] = 1000.0
    return hu


@pytest.mark.parametrize(
    ("plane", "row", "col"),
    [("axial", 6, 9), ("coronal", 0, 9), ("sagittal", 0, 6)],
)
def test_left_and_posterior_are_on_the_right_and_superior_on_top(plane, row, col):
    index = {"axial": 5, "coronal": 6, "sagittal": 9}[plane]
    image = plane_image(marked(5, 6, 9), plane, index)  # superior, posterior, left
    assert image[row, col] == 1000.0


def test_the_middle_slice_is_the_default():
    assert plane_image(marked(3, 4, 5), "axial")[4, 5] == 1000.0


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def volume(hu: float, size: int = 8) -> Volume:
    grid = cubic_grid(np.zeros(3), size=size, extent_mm=80.0)
    return Volume(np.full(grid.shape, hu, np.float32), grid.voxel_to_patient)


def test_a_difference_stands_beside_every_volume_but_the_truth(tmp_path):
    write_montage(tmp_path / "one.png", {"truth": volume(0.0)})
    write_montage(tmp_path / "two.png", {"truth": volume(0.0), "mine": volume(100.0)})
    write_montage(tmp_path / "none.png", {"mine": volume(0.0), "other": volume(100.0)})
    one, two, none = (picture_size(tmp_path / name) for name in ("one.png", "two.png", "none.png"))
    column = none[0] - one[0]
    assert two[0] - one[0] == pytest.approx(2 * column, abs=1)
    assert one[1] == two[1] == none[1]


def test_a_low_volume_makes_a_low_picture(tmp_path):
    tall, low = volume(0.0), volume(0.0)
    squeezed = low.voxel_to_patient.copy()
    squeezed[2, 2] = 5.0  # half the spacing along the patient
    write_montage(tmp_path / "tall.png", {"truth": tall})
    write_montage(tmp_path / "low.png", {"truth": Volume(low.hu, squeezed)})
    heights = [picture_size(tmp_path / name)[1] for name in ("tall.png", "low.png")]
    assert heights[0] - heights[1] == pytest.approx(2.7 * 110, abs=2)  # two half rows


def test_volumes_of_two_shapes_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one shape"):
        write_montage(tmp_path / "a.png", {"truth": volume(0.0), "mine": volume(0.0, 9)})
    with pytest.raises(ValueError, match=r"\.png"):
        write_montage(tmp_path / "a.jpg", {"truth": volume(0.0)})
    assert list(tmp_path.iterdir()) == []
