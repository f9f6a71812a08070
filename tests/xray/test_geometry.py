"""Sources, detectors and image axes stand where the conventions say."""

from dataclasses import replace

import pytest
import torch

from fewview.xray.geometry import (
    PRESET_NAMES,
    ViewGeometry,
    cameras,
    preset,
    project_points,
    spread_angles,
    stack_cameras,
)

LEFT, POSTERIOR, SUPERIOR = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
CONE = preset("chest", size=64)


def axes(geometry):
    """Directions of the central ray, of the image's right and of its bottom."""
    one = cameras([geometry], (0.0, 0.0, 0.0), dtype=torch.float64)
    vectors = (one.direction[0], one.step_u[0], one.step_v[0])
    return [vector / vector.norm() for vector in vectors]


def close(vector, expected):
    torch.testing.assert_close(vector, torch.tensor(expected, dtype=torch.float64))


def negative(vector):
    return [-value for value in vector]


def test_at_zero_the_source_is_behind_and_the_image_shows_left_on_the_right():
    direction, right, down = axes(CONE)
    close(direction, negative(POSTERIOR))
    close(right, LEFT)
    close(down, negative(SUPERIOR))


def test_at_90_the_detector_is_on_the_left_and_posterior_is_on_the_right():
    direction, right, down = axes(replace(CONE, primary_angle_deg=90.0))
    close(direction, LEFT)
    close(right, POSTERIOR)
    close(down, negative(SUPERIOR))


def test_a_positive_secondary_angle_tilts_the_detector_toward_the_head():
    direction, _, _ = axes(replace(CONE, secondary_angle_deg=30.0))
    assert direction[2].item() == pytest.approx(0.5)


def test_roll_turns_u_toward_v():
    _, right, down = axes(replace(CONE, roll_deg=90.0))
    close(right, negative(SUPERIOR))
    close(down, negative(LEFT))


def test_axes_are_orthogonal_at_any_angles():
    turned = replace(CONE, primary_angle_deg=37.0, secondary_angle_deg=-21.0, roll_deg=11.0)
    matrix = torch.stack(axes(turned))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix).item() == pytest.approx(-1.0)  # right x down = -direction


def test_distances_are_between_source_isocenter_and_detector():
    isocenter = torch.tensor([10.0, -20.0, 300.0], dtype=torch.float64)
    one = cameras([CONE], isocenter.tolist(), dtype=torch.float64)
    assert (one.source[0] - isocenter).norm().item() == pytest.approx(1600.0)
    distance = ((one.origin[0] - one.source[0]) * one.direction[0]).sum()
    assert distance.item() == pytest.approx(1800.0)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_size_keeps_the_detector_extent(name):
    small, standard = preset(name, size=50), preset(name)
    assert small.num_rows == small.num_cols == 50
    extents = [one.num_rows * one.pixel_pitch_mm[0] for one in (small, standard)]
    assert extents[0] == pytest.approx(extents[1])


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_the_isocenter_lands_in_the_middle_of_the_detector(name):
    isocenter = (5.0, 6.0, 7.0)
    one = cameras([preset(name, angle_deg=30.0, size=64)], isocenter)
    where, _ = project_points(one, torch.tensor([[isocenter]]))
    torch.testing.assert_close(where[0, 0], torch.tensor([31.5, 31.5]), atol=1e-3, rtol=0)


def test_detector_offset_is_where_the_foot_of_the_perpendicular_lies():
    shifted = replace(CONE, detector_offset_mm=(10.0, -20.0))
    where, _ = project_points(cameras([shifted], (0.0, 0.0, 0.0)), torch.zeros(1, 1, 3))
    pitch = CONE.pixel_pitch_mm[0]
    expected = torch.tensor([31.5 + 10.0 / pitch, 31.5 - 20.0 / pitch])
    torch.testing.assert_close(where[0, 0], expected, atol=1e-3, rtol=0)


def test_a_point_is_magnified_by_the_ratio_of_distances():
    where, depth = project_points(
        cameras([CONE], (0.0, 0.0, 0.0)), torch.tensor([[[20.0, -100.0, 30.0]]])
    )
    magnified = 1800.0 / 1700.0 / CONE.pixel_pitch_mm[0]
    expected = torch.tensor([31.5 - 30.0 * magnified, 31.5 + 20.0 * magnified])
    torch.testing.assert_close(where[0, 0], expected, atol=1e-3, rtol=0)
    assert depth.item() == pytest.approx(1700.0)


def test_a_parallel_beam_magnifies_nothing():
    geometry = preset("parallel", size=100)
    where, depth = project_points(
        cameras([geometry], (0.0, 0.0, 0.0)), torch.tensor([[[20.0, -100.0, 40.0]]])
    )
    torch.testing.assert_close(where[0, 0], torch.tensor([39.5, 54.5]), atol=1e-4, rtol=0)
    assert depth.item() == pytest.approx(100.0)


def test_a_point_behind_the_source_lands_far_off_the_detector():
    where, depth = project_points(
        cameras([CONE], (0.0, 0.0, 0.0)), torch.tensor([[[5.0, 2000.0, 5.0]]])
    )
    assert depth.item() < 0
    assert (where - 31.5).abs().min().item() > 1000


def test_projected_points_broadcast_over_batches_of_views():
    batch = stack_cameras([cameras([CONE, CONE], (0.0, 0.0, z)) for z in (0.0, 10.0, 20.0)])
    where, depth = project_points(batch, torch.randn(3, 1, 5, 3))
    assert where.shape == (3, 2, 5, 2)
    assert depth.shape == (3, 2, 5)


def test_cameras_keep_their_values_when_reshaped_and_picked():
    batch = stack_cameras([cameras([CONE, replace(CONE, roll_deg=5.0)], (0.0, 0.0, 1.0))])
    torch.testing.assert_close(batch.view(2)[1].origin, batch[0, 1].origin)
    assert batch.to(dtype=torch.float64).source.dtype == torch.float64


def test_views_are_spread_over_half_a_turn():
    assert spread_angles(1) == (0.0,)
    assert spread_angles(2) == (0.0, 90.0)
    assert spread_angles(4) == (0.0, 45.0, 90.0, 135.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sod_mm": 1900.0}, "sod_mm < sdd_mm"),
        ({"sod_mm": 0.0}, "0 < sod_mm"),
        ({"sdd_mm": float("nan")}, "sod_mm < sdd_mm"),
        ({"sdd_mm": 1.8, "sod_mm": 1.6}, "in m or cm"),
        ({"sdd_mm": None}, "needs sdd_mm"),
        ({"beam": "parallel"}, "parallel beam has no"),
        ({"num_rows": 0}, "needs pixels"),
        ({"pixel_pitch_mm": (1.0, 0.0)}, "pixel_pitch_mm must be positive"),
        ({"pixel_pitch_mm": (float("inf"), 1.0)}, "pixel_pitch_mm must be finite"),
        ({"primary_angle_deg": float("nan")}, "primary_angle_deg must be finite"),
        ({"detector_offset_mm": (0.0, float("nan"))}, "detector_offset_mm must be finite"),
        ({"secondary_angle_deg": 90.0}, "secondary_angle_deg must be"),
    ],
)
def test_a_geometry_that_cannot_exist_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(CONE, **changes)


def test_what_is_not_a_set_of_views_is_refused():
    with pytest.raises(ValueError, match="no geometry named 'lateral'; there are chest"):
        preset("lateral")
    with pytest.raises(ValueError, match="size must be a positive"):
        preset("chest", size=0)
    with pytest.raises(ValueError, match="at least 1"):
        spread_angles(0)
    with pytest.raises(ValueError, match="no views"):
        cameras([], (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="one detector size"):
        cameras([CONE, preset("chest", size=32)], (0.0, 0.0, 0.0))
    one, two = (cameras([CONE] * count, (0.0, 0.0, 0.0)) for count in (1, 2))
    with pytest.raises(ValueError, match="equal view counts"):
        stack_cameras([one, two])
    assert isinstance(CONE, ViewGeometry)
