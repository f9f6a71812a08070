"""Fresh views of bodies for training: drawn geometry, projection, noise, collimation, style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.inputs import GridConfig, ViewRange, network_images, ray_grid
from fewview.models.lifting import RayGrid
from fewview.training.examples import Body, uniform
from fewview.training.stage_config import AugmentationConfig
from fewview.xray.attenuation import hu_to_attenuation
from fewview.xray.cleaning import continued
from fewview.xray.detector import DetectorConfig, display_style, expose
from fewview.xray.geometry import (
    Cameras,
    ViewGeometry,
    cameras,
    preset,
    spread_angles,
    stack_cameras,
)
from fewview.xray.projector import project


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """Views of a batch as the view encoder takes them."""

    images: Float[Tensor, "batch view 2 row col"]
    rays: RayGrid


def draw_num_views(config: ViewRange, generator: torch.Generator) -> int:
    """How many views the next batch has."""
    weights = torch.tensor(config.num_views_weights)
    return config.num_views[int(torch.multinomial(weights, 1, generator=generator))]


def draw_geometries(
    config: ViewRange, num_views: int, generator: torch.Generator
) -> list[ViewGeometry]:
    """Geometries of one body's views: a standard set or any angles, with jitter."""
    angles = list(spread_angles(num_views))
    if uniform(generator, 0.0, 1.0) < config.any_angle_share:
        angles = [uniform(generator, -180.0, 180.0) for _ in angles]
    sod, detector = uniform(generator, *config.sod_mm), uniform(generator, *config.detector_mm)
    pitch = 1.0 + uniform(generator, -config.pitch_jitter, config.pitch_jitter)
    geometries = []
    for angle in angles:
        turn = uniform(generator, -config.angle_jitter_deg, config.angle_jitter_deg)
        offset = [uniform(generator, -config.offset_mm, config.offset_mm) for _ in "vu"]
        standard = preset(config.preset, angle_deg=angle + turn, size=config.num_pixels)
        cone = standard.beam == "cone"
        geometries.append(
            replace(
                standard,
                sod_mm=sod if cone else None,
                sdd_mm=sod + detector if cone else None,
                pixel_pitch_mm=(
                    pitch * standard.pixel_pitch_mm[0],
                    pitch * standard.pixel_pitch_mm[1],
                ),
                detector_offset_mm=(offset[0], offset[1]),
            )
        )
    return geometries


def standard_geometries(config: ViewRange, num_views: int) -> list[ViewGeometry]:
    """The set that validation uses: the preset without jitter."""
    return [
        preset(config.preset, angle_deg=angle, size=config.num_pixels)
        for angle in spread_angles(num_views)
    ]


def project_body(
    body: Body, geometries: list[ViewGeometry]
) -> tuple[Float[Tensor, "1 view row col"], Cameras]:
    """Line integrals of one body through its whole scan, turned about the model grid's center."""
    views = stack_cameras([cameras(geometries, body.center_mm.tolist())])
    mu = hu_to_attenuation(body.hu)[None, None]
    return project(mu, body.voxel_to_patient.float()[None], views), views


def degrade(
    line_integrals: Float[Tensor, "1 view row col"],
    config: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "1 view row col"], bool]:
    """Noise, collimation or display style as drawn; returns the images and if calibrated.

    What collimation covers has no value (0) in line integrals. Display-style views each get a
    style of their own, and borders as cleaning fills them.
    """
    images = line_integrals
    if uniform(generator, 0.0, 1.0) < config.noise_share:
        low, high = (math.log(count) for count in config.photons)
        photons = math.exp(uniform(generator, low, high))
        images = expose(images, DetectorConfig(photons=photons), generator)
    calibrated = uniform(generator, 0.0, 1.0) >= config.display_share
    covered = uniform(generator, 0.0, 1.0) < config.collimation_share
    widest = config.collimation if covered else 0.0
    views = []
    for image in images[0]:
        if not calibrated:
            cut, gamma = config.window_cut, config.gamma
            image = displayed(image, generator, gamma=gamma, window_cut=cut, widest=widest)
        elif covered:
            top, bottom, left, right = exposed_box(image.shape, widest, generator)
            field = image[top:bottom, left:right]
            image = torch.zeros_like(image)
            image[top:bottom, left:right] = field
        views.append(image)
    return torch.stack(views)[None], calibrated


def exposed_box(
    shape: Sequence[int], widest: float, generator: torch.Generator
) -> tuple[int, int, int, int]:
    """First and last row, first and last column (exclusive) of a collimated field.

    Args:
        shape: Rows and columns of the picture.
        widest: Largest covered share per side.
        generator: Draws the shares.
    """
    rows, cols = shape
    top, left = (int(uniform(generator, 0.0, widest) * count) for count in (rows, cols))
    bottom, right = (count - int(uniform(generator, 0.0, widest) * count) for count in shape)
    return top, bottom, left, right


def displayed(
    image: Float[Tensor, "row col"],
    generator: torch.Generator,
    *,
    gamma: tuple[float, float],
    window_cut: float,
    widest: float,
) -> Float[Tensor, "row col"]:
    """An X-ray in some display style, as cleaning hands it on; in [0, 1].

    Args:
        image: Line integrals, or gray values.
        generator: Draws the style.
        gamma: Range of the gray curve's exponent, drawn on a logarithmic scale.
        window_cut: Largest share of the gray range that becomes black or white.
        widest: Largest share per side that collimation covers.
    """
    gray = display_style(image)
    cut = uniform(generator, 0.0, window_cut)
    black = uniform(generator, 0.0, cut)
    gray = ((gray - black) / (1.0 - cut)).clamp(0.0, 1.0)
    low, high = (math.log(end) for end in gamma)
    gray = gray ** math.exp(uniform(generator, low, high))
    box = exposed_box(gray.shape, widest, generator)
    top, bottom, left, right = box
    field = display_style(gray[top:bottom, left:right])
    return continued(field, box, (gray.shape[0], gray.shape[1]))


def view_batch(
    images: list[Tensor],
    views: list[Cameras],
    bodies: list[Body],
    calibrated: list[bool],
    grid: GridConfig,
) -> ViewBatch:
    """Collate the views of several bodies."""
    stacked = torch.cat(images)[:, :, None]
    num_views = stacked.shape[1]
    kinds = [kind for kind in calibrated for _ in range(num_views)]
    together = stack_cameras([one[0] for one in views])
    centers = torch.stack([body.center_mm for body in bodies]).float()
    return ViewBatch(network_images(stacked, kinds), ray_grid(together, centers, grid))


def draw_view_batch(
    bodies: list[Body],
    num_views: int,
    config: ViewRange,
    augmentation: AugmentationConfig,
    grid: GridConfig,
    generators: list[torch.Generator],
) -> ViewBatch:
    """Fresh views of each body, the same number for all, each drawn by a generator of its own."""
    images, views, calibrated = [], [], []
    for body, generator in zip(bodies, generators, strict=True):
        projected, camera = project_body(body, draw_geometries(config, num_views, generator))
        image, kind = degrade(projected, augmentation, generator)
        images.append(image)
        views.append(camera)
        calibrated.append(kind)
    return view_batch(images, views, bodies, calibrated, grid)


def usual_view_count(views: ViewRange) -> int:
    """The number of views that occurs most often: the one to validate with."""
    pairs = zip(views.num_views_weights, views.num_views, strict=True)
    return max(pairs, key=lambda pair: pair[0])[1]
