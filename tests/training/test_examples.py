"""Augmented bodies: target and views agree; the alignment losses."""

import math

import pytest
import torch

from fewview.data.volume import Volume, cubic_grid, resample
from fewview.system import GridConfig
from fewview.training.alignment import contrastive_loss, match_loss
from fewview.training.config import AugmentationConfig
from fewview.training.examples import Body, augment, center_of, generator_of, on_model_grid
from fewview.training.views import project_body
from fewview.xray.geometry import preset


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


def test_augmentation_depends_on_its_seed_alone():
    first, again, other = (
        augment(ball(), AugmentationConfig(), generator_of(seed), max_height_mm=400.0)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.voxel_to_patient, again.voxel_to_patient)
    assert not torch.equal(first.voxel_to_patient, other.voxel_to_patient)


def test_cropping_keeps_the_rest_where_it_was():
    config = AugmentationConfig(
        crop_share=1.0,
        rotate_deg=0.0,
        scale=0.0,
        stretch=0.0,
        shear=0.0,
        shift_mm=0.0,
        flip_share=0.0,
        shortest_scan_mm=80.0,
        soft_gain=0.0,
        bone_gain=0.0,
    )
    whole = ball()
    cropped = augment(whole, config, generator_of(3), max_height_mm=400.0)
    first = round(((cropped.voxel_to_patient - whole.voxel_to_patient)[2, 3] / 6.25).item())
    assert cropped.hu.shape[0] < whole.hu.shape[0]
    assert torch.equal(cropped.hu, whole.hu[first : first + cropped.hu.shape[0]])


def test_contrast_is_low_for_matched_and_high_for_swapped_pairs():
    latent = torch.randn(4, 8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    temperature = torch.tensor(math.log(0.1))
    matched = contrastive_loss(latent, latent, temperature)
    swapped = contrastive_loss(latent.flip(0), latent, temperature)
    assert matched < 0.01
    assert swapped > 5.0


def test_contrast_does_not_grow_with_the_grid():
    small, large = torch.ones(2, 4, 2, 2, 2), torch.ones(2, 4, 8, 8, 8)
    zero = torch.tensor(0.0)
    torch.testing.assert_close(
        contrastive_loss(small, small, zero), contrastive_loss(large, large, zero)
    )


def test_matched_latents_of_any_length_have_no_distance():
    latent = torch.randn(2, 4, 2, 2, 2)
    assert match_loss(3.0 * latent, latent) < 1e-10
