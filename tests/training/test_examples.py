"""Augmented bodies: target and views agree."""

from dataclasses import replace

import pytest
import torch
from scipy.ndimage import label

from fewview.data.volume import Volume, cubic_grid, resample
from fewview.inputs import GridConfig, ViewRange
from fewview.training.diffusion import noise_draws
from fewview.training.examples import Body, augment, center_of, generator_of, on_model_grid
from fewview.training.loop import learning_rate
from fewview.training.stage_config import AugmentationConfig
from fewview.training.system_config import AlignmentStage
from fewview.training.views import draw_geometries, project_body
from fewview.xray.geometry import preset, spread_angles


def ball(size: int = 32, radius_mm: float = 60.0, spacing: float = 6.25) -> Body:
    axis = (torch.arange(size) - (size - 1) / 2) * spacing
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    hu = torch.where((x - 20) ** 2 + y**2 + z**2 < radius_mm**2, 0.0, -1000.0)
    matrix = torch.diag(torch.tensor([spacing] * 3 + [1.0])).double()
    return Body(hu, matrix, center_of(hu, matrix))


def test_the_model_grid_agrees_with_resampling_the_volume():
    body, grid = ball(), GridConfig(size=16, extent_mm=200.0)
    target = on_model_grid(body, grid)[0, 0]
    volume = Volume(body.hu.numpy(), body.voxel_to_patient.numpy())
    expected = resample(volume, cubic_grid(body.center_mm.numpy(), size=16, extent_mm=200.0))
    assert (target - torch.from_numpy(expected.hu)).abs().mean() < 20.0


def test_a_linear_ramp_survives_on_the_model_grid():
    ramp = torch.arange(32.0)[:, None, None].expand(32, 32, 32).contiguous()
    matrix = torch.diag(torch.tensor([3.125] * 3 + [1.0])).double()
    target = on_model_grid(
        Body(ramp, matrix, center_of(ramp, matrix)), GridConfig(size=16, extent_mm=100.0)
    )
    expected = ramp.reshape(16, 2, 16, 2, 16, 2).mean(dim=(1, 3, 5))
    torch.testing.assert_close(target[0, 0], expected, atol=1e-3, rtol=0)


def test_what_was_not_scanned_is_air_on_the_model_grid():
    body = ball(size=8)
    full = Body(torch.full_like(body.hu, 40.0), body.voxel_to_patient, body.center_mm)
    target = on_model_grid(full, GridConfig(size=16, extent_mm=100.0))[0, 0]
    scanned = torch.zeros(16, 16, 16, dtype=torch.bool)
    scanned[4:12, 4:12, 4:12] = True
    assert (target[scanned] == 40.0).all()
    assert (target[~scanned] == -1000.0).all()


def test_a_voxel_that_was_scanned_in_part_goes_on_as_the_scan_ends():
    body = ball(size=8)
    moved = body.center_mm + torch.tensor([0.0, 0.0, 2.0])
    full = Body(torch.full_like(body.hu, 40.0), body.voxel_to_patient, moved)
    target = on_model_grid(full, GridConfig(size=16, extent_mm=100.0))[0, 0]
    assert (target[:, 8, 8] == 40.0).nonzero().flatten().tolist() == list(range(3, 12))


def test_drawn_views_stay_in_the_range_the_model_will_name():
    config = ViewRange(any_angle_share=0.0)
    for seed in range(20):
        drawn = draw_geometries(config, 3, generator_of(seed))
        for geometry, angle in zip(drawn, spread_angles(3), strict=True):
            assert abs(geometry.primary_angle_deg - angle) <= config.angle_jitter_deg
            assert max(map(abs, geometry.detector_offset_mm)) <= config.offset_mm
            assert geometry.sod_mm is not None
            assert geometry.sdd_mm is not None
            assert config.sod_mm[0] <= geometry.sod_mm <= config.sod_mm[1]
            gap = geometry.sdd_mm - geometry.sod_mm
            assert config.detector_mm[0] <= gap <= config.detector_mm[1]
    angles = {view.primary_angle_deg for view in drawn}
    assert len(angles) == 3


def test_every_noise_draw_stands_beside_the_condition_of_its_example():
    clean, condition = noise_draws(torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]]), 3)
    assert len(clean) == 6
    assert torch.equal(10 * clean, condition)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.1), (9, 1.0), (40, 1.0), (160, 0.5), (190, 0.1147)]
)
def test_the_rate_rises_stays_falls_and_cools_down(step, rate):
    config = AlignmentStage(
        num_steps=200, learning_rate=1.0, warmup_steps=10, steady_steps=40, cooldown_steps=40
    )
    assert learning_rate(config, step) == pytest.approx(rate, rel=1e-3)


def test_a_cooldown_longer_than_the_stage_is_refused():
    with pytest.raises(ValueError, match="cooldown_steps"):
        AlignmentStage(num_steps=10, cooldown_steps=11)


def test_target_and_views_follow_the_same_augmentation():
    """The ball's center of mass on the grid must project to that of its X-ray."""
    config = AugmentationConfig(crop_share=0.0, soft_gain=0.0, flip_share=1.0)
    body = augment(ball(), config, generator_of(7), max_height_mm=400.0)
    target = on_model_grid(body, GridConfig(size=64, extent_mm=400.0))[0, 0] + 1000.0
    weight = target.sum(dim=(0, 1))
    axis = (torch.arange(64) - 31.5) * 6.25
    left_mm = ((weight * axis).sum() / weight.sum()).item()
    images, _ = project_body(body, [preset("parallel", size=64)])
    columns = images[0, 0].sum(dim=0)
    seen_mm = ((columns * axis).sum() / columns.sum()).item()
    assert left_mm == pytest.approx(seen_mm, abs=1.0)
    assert abs(left_mm) > 3.0


STILL = AugmentationConfig(
    crop_share=0.0,
    rotate_deg=0.0,
    scale=0.0,
    stretch=0.0,
    shear=0.0,
    shift_mm=0.0,
    flip_share=0.0,
    soft_gain=0.0,
    bone_gain=0.0,
)


def test_bending_moves_a_body_smoothly_and_keeps_its_hu():
    bent = augment(ball(), replace(STILL, bend_mm=30.0), generator_of(5), max_height_mm=400.0)
    whole = ball().hu + 1000.0
    moved = bent.hu + 1000.0
    assert (moved - whole).abs().max() > 500.0
    assert moved.sum() == pytest.approx(whole.sum().item(), rel=0.3)
    assert bent.hu.min() >= -1000.01
    assert bent.hu.max() <= 0.01
    parts, _ = label((moved > 500).numpy())
    assert parts.max() == 1


def test_nothing_bends_at_zero():
    still = augment(ball(), STILL, generator_of(5), max_height_mm=400.0)
    assert torch.equal(still.hu, ball().hu)


def test_lung_changes_and_soft_tissue_and_air_do_not():
    hu = torch.tensor([-1000.0, -850.0, -500.0, 40.0])[:, None, None].expand(4, 4, 4)
    body = Body(hu, ball().voxel_to_patient, ball().center_mm)
    changed = augment(body, replace(STILL, lung_gain=0.3), generator_of(1), max_height_mm=400.0)
    before, after = hu[:, 0, 0], changed.hu[:, 0, 0]
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert 1.0 < abs(after[1] - before[1]) <= 45.0


def test_augmentation_depends_on_its_seed_alone():
    first, again, other = (
        augment(ball(), AugmentationConfig(), generator_of(seed), max_height_mm=400.0)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.voxel_to_patient, again.voxel_to_patient)
    assert not torch.equal(first.voxel_to_patient, other.voxel_to_patient)


def test_cropping_keeps_the_rest_where_it_was():
    config = replace(STILL, crop_share=1.0, shortest_scan_mm=80.0)
    whole = ball()
    cropped = augment(whole, config, generator_of(3), max_height_mm=400.0)
    first = round(((cropped.voxel_to_patient - whole.voxel_to_patient)[2, 3] / 6.25).item())
    assert cropped.hu.shape[0] < whole.hu.shape[0]
    assert torch.equal(cropped.hu, whole.hu[first : first + cropped.hu.shape[0]])
