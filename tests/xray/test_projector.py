"""Laws every projector obeys, over beams, poses, detectors and voxel grids."""

import math
from dataclasses import replace

import pytest
import torch

from fewview.xray import projector
from fewview.xray.geometry import (
    Cameras,
    ViewGeometry,
    cameras,
    preset,
    project_points,
    stack_cameras,
)
from fewview.xray.projector import backproject, project, project_plain

SHAPE = (10, 12, 14)
CONE = ViewGeometry(
    beam="cone", sdd_mm=900.0, sod_mm=700.0, num_rows=16, num_cols=16, pixel_pitch_mm=(6.0, 6.0)
)
PARALLEL = replace(CONE, beam="parallel", sdd_mm=None, sod_mm=None)


def cubic(spacing=(5.0, 5.0, 5.0), shape=SHAPE):
    """A matrix that centers the voxel extent on the origin; spacing along x, y, z."""
    matrix = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    for axis in range(3):
        matrix[axis, 3] = -0.5 * spacing[axis] * (shape[2 - axis] - 1)
    return matrix


def oblique():
    """Turned about a slanted axis, so that no voxel axis is a patient axis."""
    generator = torch.tensor([[0, -0.3, 0.5], [0.3, 0, -0.2], [-0.5, 0.2, 0]], dtype=torch.float64)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.linalg.matrix_exp(generator)
    return turn @ cubic((4.0, 6.0, 5.0))


CASES = {
    "cone": ([CONE], cubic()),
    "parallel": ([PARALLEL], cubic()),
    "lateral": ([replace(CONE, primary_angle_deg=90.0)], cubic()),
    "from above": ([replace(CONE, secondary_angle_deg=70.0)], cubic()),
    "slanted": (
        [replace(CONE, primary_angle_deg=130.0, secondary_angle_deg=25.0, roll_deg=12.0)],
        cubic(),
    ),
    "slanted parallel": ([replace(PARALLEL, primary_angle_deg=-40.0, roll_deg=5.0)], cubic()),
    "oblique voxels": ([replace(CONE, primary_angle_deg=20.0)], oblique()),
    "anisotropic voxels": ([replace(CONE, primary_angle_deg=20.0)], cubic((2.0, 5.0, 9.0))),
    "shifted detector": ([replace(CONE, detector_offset_mm=(15.0, -22.0))], cubic()),
    "non-square": (
        [replace(CONE, num_rows=9, num_cols=21, pixel_pitch_mm=(8.0, 5.0))],
        cubic(),
    ),
    "several views": (
        [replace(CONE, primary_angle_deg=angle) for angle in (0.0, 45.0, 100.0)] + [PARALLEL],
        cubic(),
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    """Cameras [1, view] and voxel_to_patient [1, 4, 4] of one case, in float64."""
    geometries, matrix = CASES[request.param]
    return cameras(geometries, (0.0, 0.0, 0.0), dtype=torch.float64).view(1, -1), matrix[None]


def random_pair(views, dtype, batch=1):
    generator = torch.Generator().manual_seed(0)
    lead = (batch, views.lead[1], views.num_rows, views.num_cols)
    mu = torch.rand(batch, 1, *SHAPE, generator=generator, dtype=torch.float64)
    images = torch.rand(lead, generator=generator, dtype=torch.float64)
    return mu.to(dtype), images.to(dtype)


def adjoint_gap(mu, images, matrix, views):
    """Relative difference of <A x, y> and <x, A' y>."""
    there = (project(mu, matrix, views).double() * images.double()).sum()
    back = (mu.double() * backproject(images, matrix, views, SHAPE).double()).sum()
    return ((there - back).abs() / there.abs()).item()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_projection_and_back_projection_are_adjoint(case, dtype, most):
    views, matrix = case
    mu, images = random_pair(views, dtype)
    assert adjoint_gap(mu, images, matrix, views) < most


def test_fast_projector_and_gradient_equal_the_plain_reference(case):
    views, matrix = case
    mu, images = random_pair(views, torch.float64)
    mu.requires_grad_()
    plain = project_plain(mu, matrix, views)
    fast = project(mu, matrix, views)
    torch.testing.assert_close(fast, plain)
    expected = torch.autograd.grad(plain, mu, images)[0]
    torch.testing.assert_close(torch.autograd.grad(fast, mu, images)[0], expected)
    torch.testing.assert_close(backproject(images, matrix, views, SHAPE), expected)


def test_blocks_of_planes_change_nothing(case, monkeypatch):
    views, matrix = case
    mu, images = random_pair(views, torch.float64)
    whole = project(mu, matrix, views), backproject(images, matrix, views, SHAPE)
    monkeypatch.setattr(projector, "BLOCK_SAMPLES_CPU", 3 * 16 * 16)
    torch.testing.assert_close(project(mu, matrix, views), whole[0])
    torch.testing.assert_close(backproject(images, matrix, views, SHAPE), whole[1])


def test_batches_of_volumes_have_their_own_geometries():
    first, second = (
        cameras([replace(CONE, primary_angle_deg=angle), PARALLEL], (0.0, 0.0, angle / 10))
        for angle in (0.0, 80.0)
    )
    views, matrix = stack_cameras([first, second]), torch.stack((cubic(), oblique()))
    mu, images = random_pair(views, torch.float32, batch=2)
    together = project(mu, matrix, views)
    for index, alone in enumerate((first, second)):
        single = project(mu[index, None], matrix[index, None], alone.view(1, -1))
        torch.testing.assert_close(together[index], single[0])
    assert adjoint_gap(mu, images, matrix, views) < 1e-5


def test_gradients_in_the_volume_and_the_image_pass_gradcheck():
    shape = (4, 5, 6)
    small = replace(CONE, num_rows=5, num_cols=4, primary_angle_deg=25.0)
    views = cameras([small], (0.0, 0.0, 0.0), dtype=torch.float64).view(1, -1)
    matrix = cubic(shape=shape)[None]
    mu = torch.rand(1, 1, *shape, dtype=torch.float64, requires_grad=True)
    images = torch.rand(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: project(one, matrix, views), mu)
    assert torch.autograd.gradcheck(lambda one: backproject(one, matrix, views, shape), images)
    assert torch.autograd.gradgradcheck(lambda one: project(one, matrix, views) ** 2, mu)


def blob(points, center=(3.0, -4.0, 2.0), width=20.0):
    """A smooth blob of attenuation at patient points [..., 3]."""
    offset = points - torch.tensor(center, dtype=points.dtype)
    return torch.exp(-offset.square().sum(-1) / (2.0 * width**2))


def voxel_points(matrix, shape):
    """Patient positions [depth, height, width, 3] of voxel centers."""
    axes = [torch.arange(count, dtype=matrix.dtype) for count in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1) @ matrix[:3, :3].T + matrix[:3, 3]


def test_pose_gradient_agrees_with_finite_differences():
    shape = (24, 24, 24)
    matrix = cubic((4.0, 4.0, 4.0), shape)
    mu = blob(voxel_points(matrix, shape))[None, None]
    base = cameras(
        [replace(CONE, primary_angle_deg=30.0)], (0.0, 0.0, 0.0), dtype=torch.float64
    ).view(1, -1)

    def loss(shift):
        # A quarter of a pixel off the pixel grid, where bilinear interpolation has a slope.
        moved = Cameras(
            base.source + shift, base.origin + shift, base.step_v, base.step_u, base.direction,
            base.parallel, base.num_rows, base.num_cols,
        )  # fmt: skip
        return (project(mu, matrix[None], moved) * torch.linspace(0, 1, 16)).sum()

    start = torch.tensor([0.3, 0.7, -0.4], dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(loss(start), start)[0]
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-4
        slope = (loss(start.detach() + step) - loss(start.detach() - step)) / 2e-4
        assert gradient[axis].item() == pytest.approx(slope.item(), rel=1e-3)


def test_matrix_gradient_flows_and_back_projection_refuses_one():
    views = cameras([CONE], (0.0, 0.0, 0.0)).view(1, -1)
    matrix = cubic()[None].requires_grad_()
    mu, images = random_pair(views, torch.float32)
    project(mu, matrix, views).sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="no gradient in pose"):
        backproject(images, matrix, views, SHAPE)


@pytest.mark.parametrize(
    ("angles", "spacing"),
    [
        ((0.0, 0.0), (3.0, 3.0, 3.0)),
        ((30.0, 0.0), (3.0, 3.0, 3.0)),
        ((50.0, 35.0), (2.0, 3.0, 4.0)),
    ],
)
@pytest.mark.parametrize("beam", ["cone", "parallel"])
def test_smooth_blobs_project_to_their_analytic_integrals(beam, angles, spacing):
    shape = (72, 64, 80)  # a blob of eight voxels' width; interpolation flattens narrower ones
    matrix = cubic(spacing, shape)
    geometry = replace(
        CONE if beam == "cone" else PARALLEL,
        primary_angle_deg=angles[0], secondary_angle_deg=angles[1], pixel_pitch_mm=(5.0, 5.0),
    )  # fmt: skip
    views = cameras([geometry], (0.0, 0.0, 0.0), dtype=torch.float64).view(1, -1)
    found = project(blob(voxel_points(matrix, shape))[None, None], matrix[None], views)
    exact = analytic_blob(views[0, 0])
    assert ((found[0, 0] - exact).norm() / exact.norm()).item() < 0.003


def analytic_blob(camera, center=(3.0, -4.0, 2.0), width=20.0):
    """Integral of `blob` along every pixel's line: a Gaussian of the line's distance."""
    rows = torch.arange(camera.num_rows, dtype=torch.float64)[:, None, None]
    cols = torch.arange(camera.num_cols, dtype=torch.float64)[:, None]
    pixels = camera.origin + rows * camera.step_v + cols * camera.step_u
    along = camera.direction.expand_as(pixels) if camera.parallel else pixels - camera.source
    along = along / along.norm(dim=-1, keepdim=True)
    offset = torch.tensor(center, dtype=torch.float64) - pixels
    distance = torch.linalg.cross(offset, along).norm(dim=-1)
    return width * math.sqrt(2 * math.pi) * torch.exp(-(distance**2) / (2 * width**2))


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0, 180.0])
@pytest.mark.parametrize("geometry", [CONE, PARALLEL])
def test_the_central_ray_through_a_water_cube_is_mu_times_length(geometry, angle):
    shape = (21, 21, 21)
    odd = replace(geometry, num_rows=3, num_cols=3, primary_angle_deg=angle)
    views = cameras([odd], (0.0, 0.0, 0.0)).view(1, -1)
    mu = torch.full((1, 1, *shape), 0.02)
    image = project(mu, cubic(shape=shape)[None], views)
    turn = math.radians(angle)
    length = 105.0 / max(abs(math.sin(turn)), abs(math.cos(turn)))
    if angle == 135.0:
        length -= 5.0 * math.sqrt(2.0) / 4.0  # an edge voxel is a hat, not a corner
        assert image[0, 0, 1, 1].item() == pytest.approx(0.02 * length, rel=0.02)
    else:
        assert image[0, 0, 1, 1].item() == pytest.approx(0.02 * length, rel=1e-5)


def test_halving_the_pitch_moves_nothing():
    shape = (48, 48, 48)
    matrix = cubic((3.0, 3.0, 3.0), shape)[None]
    mu = blob(voxel_points(matrix[0], shape))[None, None]
    fine = replace(CONE, num_rows=64, num_cols=64, pixel_pitch_mm=(1.5, 1.5))
    coarse = replace(CONE, num_rows=32, num_cols=32, pixel_pitch_mm=(3.0, 3.0))
    image, binned = (
        project(mu, matrix, cameras([one], (0.0, 0.0, 0.0)).view(1, -1)) for one in (coarse, fine)
    )
    binned = torch.nn.functional.avg_pool2d(binned, 2)
    torch.testing.assert_close(image, binned, atol=5e-3 * float(image.max()), rtol=0)


def brightest(image):
    """Row and column of the center of mass."""
    rows, cols = (torch.arange(count, dtype=image.dtype) for count in image.shape)
    total = image.sum()
    return torch.stack(((image.sum(1) * rows).sum() / total, (image.sum(0) * cols).sum() / total))


@pytest.mark.parametrize(
    "case_name", ["cone", "slanted", "lateral", "non-square", "shifted detector"]
)
@pytest.mark.parametrize("voxel", [(5, 6, 7), (2, 3, 9), (8, 9, 4)])
def test_a_marker_is_projected_where_its_point_lands(case_name, voxel):
    geometries, matrix = CASES[case_name]
    geometry = replace(geometries[0], num_rows=120, num_cols=140, pixel_pitch_mm=(1.0, 1.0))
    views = cameras([geometry], (0.0, 0.0, 0.0), dtype=torch.float64).view(1, -1)
    mu = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    mu[0, 0, *voxel] = 1.0
    point = matrix[:3, :3] @ torch.tensor(voxel[::-1], dtype=torch.float64) + matrix[:3, 3]
    where, _ = project_points(views, point.view(1, 1, 1, 3))
    image = project(mu, matrix[None], views)[0, 0]
    torch.testing.assert_close(brightest(image), where[0, 0, 0], atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("angle", "voxel", "side"),
    [
        (0.0, (5, 6, 12), "right"),  # the patient's left in a PA view
        (90.0, (5, 10, 7), "right"),  # posterior at +90
        (0.0, (8, 6, 7), "top"),  # the head
        (90.0, (8, 6, 7), "top"),
        (180.0, (5, 6, 12), "left"),
    ],
)
def test_a_marker_appears_on_the_side_the_conventions_say(angle, voxel, side):
    mu = torch.zeros(1, 1, *SHAPE)
    mu[0, 0, *voxel] = 1.0
    views = cameras([preset("chest", angle_deg=angle, size=64)], (0.0, 0.0, 0.0)).view(1, -1)
    row, col = brightest(project(mu, cubic()[None], views)[0, 0]).tolist()
    found = {"right": col > 32.5, "left": col < 30.5, "top": row < 30.5}
    assert found[side]


@pytest.mark.parametrize("angle", [0.0, 180.0])
def test_rays_go_on_beyond_the_detector_but_not_behind_the_source(angle):
    shape = (8, 40, 8)
    matrix = cubic((5.0, 5.0, 5.0), shape)
    small = replace(
        CONE, primary_angle_deg=angle, num_rows=3, num_cols=3, pixel_pitch_mm=(0.1, 0.1)
    )
    near = replace(small, sod_mm=50.0, sdd_mm=60.0)
    views = cameras([near], (0.0, 0.0, 0.0)).view(1, -1)
    image = project(torch.ones(1, 1, *shape), matrix[None], views)
    # From the source 50 mm before the isocenter to the volume's end 100 mm beyond it.
    assert image[0, 0, 1, 1].item() == pytest.approx(150.0, rel=1e-3)


def test_a_volume_behind_the_source_or_beside_the_rays_gives_nothing():
    views = cameras([CONE], (0.0, -2000.0, 0.0)).view(1, -1)
    assert project(torch.ones(1, 1, *SHAPE), cubic()[None], views).abs().max() == 0
    views = cameras([CONE], (500.0, 0.0, 0.0)).view(1, -1)
    image = project(torch.ones(1, 1, *SHAPE), cubic()[None], views)
    assert image.abs().max() == 0
    assert backproject(torch.ones_like(image), cubic()[None], views, SHAPE).abs().max() == 0


def test_a_single_slice_is_a_volume_too():
    matrix = cubic(shape=(1, 12, 14))[None]
    views = cameras([CONE], (0.0, 0.0, 0.0)).view(1, -1)
    image = project(torch.ones(1, 1, 1, 12, 14), matrix, views)
    assert image.max().item() == pytest.approx(60.0 * 0.5, rel=0.3)  # both middle rows see half


@pytest.mark.slow
def test_blobs_at_128_are_within_three_per_mille():
    shape = (128, 128, 128)
    matrix = cubic((2.5, 2.5, 2.5), shape)
    sharp = replace(CONE, num_rows=96, num_cols=96, pixel_pitch_mm=(2.0, 2.0))
    views = cameras([sharp], (0.0, 0.0, 0.0), dtype=torch.float64).view(1, -1)
    mu = blob(voxel_points(matrix, shape))[None, None].float()
    exact = analytic_blob(views[0, 0])
    found = project(mu, matrix[None], views)[0, 0]
    assert ((found - exact).norm() / exact.norm()).item() < 0.003
