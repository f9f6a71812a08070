"""The body stays, the couch goes."""

import numpy as np
import pytest

from fewview.data.body import body_mask, remove_couch
from fewview.data.images import read_volume
from fewview.data.volume import Volume


def scene(*, spacing: float = 2.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A trunk with lungs, an arm apart from it, and a couch that touches the back."""
    depth, height, width = 20, int(240 / spacing), int(400 / spacing)
    y, x = np.indices((height, width)) * spacing
    trunk = ((x - 200) / 120) ** 2 + ((y - 100) / 80) ** 2 < 1
    lung = ((x - 150) / 40) ** 2 + ((y - 100) / 50) ** 2 < 1
    arm = (x - 360) ** 2 + (y - 110) ** 2 < 25**2
    couch = (np.abs(y - 181) < 2) | (np.abs(y - 215) < 2)
    parts = {
        name: np.broadcast_to(part, (depth, height, width))
        for name, part in {"trunk": trunk, "lung": lung, "arm": arm, "couch": couch}.items()
    }
    hu = np.full((depth, height, width), -1000, np.float32)
    hu[parts["couch"]] = -100.0
    hu[parts["trunk"] | parts["arm"]] = 40.0
    hu[parts["lung"]] = -850.0
    return hu, parts


@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0])
def test_trunk_lung_and_arm_stay_and_the_couch_goes(spacing):
    hu, parts = scene(spacing=spacing)
    volume = Volume(hu, np.diag([spacing, spacing, spacing, 1.0]))
    clean = remove_couch(volume).hu
    body = parts["trunk"] | parts["arm"]
    assert np.array_equal(clean[body], hu[body])
    far = parts["couch"] & (np.indices(hu.shape)[1] * spacing > 190)
    assert (clean[far] == -1000.0).all()
    assert (clean[parts["couch"] & ~body] > -300).mean() < 0.3


def test_skin_cut_by_the_field_of_view_stays():
    hu, parts = scene()
    cut = slice(50, 150)
    mask = body_mask(Volume(np.ascontiguousarray(hu[:, :, cut]), np.diag([2.0, 2, 2, 1])))
    assert mask[parts["trunk"][:, :, cut]].all()


def test_a_volume_of_tissue_only_is_all_body():
    assert body_mask(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4))).all()


def test_a_volume_of_air_has_no_body():
    volume = Volume(np.full((4, 5, 6), -1000, np.float32), np.eye(4))
    assert not body_mask(volume).any()


def test_real_couches_go_and_real_bodies_stay(real_data):
    for name, share in {"cip_ct64": 0.738, "ts_example_ct": 0.674}.items():
        volume = read_volume(real_data / "ct" / f"{name}.nii.gz")
        mask = body_mask(volume)
        assert mask.mean() == pytest.approx(share, abs=0.02)
        bone = volume.hu > 400  # none of it in a couch of foam and carbon
        assert mask[bone].mean() > 0.995
