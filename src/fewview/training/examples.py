"""Stored scans to training examples: an augmented body on the model grid and fresh views of it.

The affine part of augmentation never resamples the scan: it goes into the scan's voxel-to-patient
matrix, which the projector and the grid sampling follow exactly. Only smooth bending resamples it.
Every example follows from seeds alone, so a resumed run sees what an unbroken one would have seen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16
from torch import Tensor

from fewview.data.store import Store
from fewview.inputs import GridConfig
from fewview.training.stage_config import AugmentationConfig

BONE_HU = 150.0
LUNG_HU = -500.0


@dataclass(frozen=True, eq=False)
class Body:
    """A body in patient space: its scan and the center of the model grid."""

    hu: Float[Tensor, "depth height width"]
    voxel_to_patient: Float[Tensor, "4 4"]
    center_mm: Float[Tensor, "3"]


@dataclass(frozen=True)
class ExampleKey:
    """Which scan, and the seed of its augmentation."""

    case: str
    seed: int


def generator_of(*numbers: int) -> torch.Generator:
    """A generator whose stream belongs to this sequence of numbers alone."""
    seed = 0
    for number in numbers:
        seed = (seed * 0x9E3779B97F4A7C15 + number + 0x632BE59BD9B4E019) % 2**63
        seed ^= seed >> 29
    return torch.Generator().manual_seed(seed)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number between `low` and `high`."""
    return low + (high - low) * torch.rand(1, generator=generator).item()


class ScanCache:
    """Scans of a store as tensors, the last used kept in memory."""

    def __init__(self, store: Store, *, capacity: int = 400) -> None:
        """Read from `store`; at most `capacity` scans stay in memory."""
        self.store = store
        self._read = lru_cache(maxsize=capacity)(self._load)

    def _load(self, case: str) -> tuple[Int16[Tensor, "depth height width"], Tensor]:
        volume = self.store.read(case)
        hu = torch.from_numpy(volume.hu).round().clamp(-1000, 32767).to(torch.int16)
        return hu, torch.from_numpy(volume.voxel_to_patient)

    def read(self, case: str, *, keep: bool = True) -> Body:
        """The scan as stored, the model grid about its center; kept in memory unless told not."""
        hu, matrix = self._read(case) if keep else self._load(case)
        return Body(hu.float(), matrix, center_of(hu, matrix))


class BodyCache:
    """Augmented bodies in memory, the first ones met, up to a number of bytes.

    Every stage meets the same copies again and again, and bending one takes longer than its views.
    """

    def __init__(self, *, capacity_bytes: int = 3 * 2**30) -> None:
        """Keep nothing yet; 3 GiB hold 384 copies of 128^3 voxels."""
        self._left = capacity_bytes
        self._bodies: dict[ExampleKey, Body] = {}

    def get(self, key: ExampleKey, make: Callable[[], Body]) -> Body:
        """The body of a copy, made if it is not there."""
        if key in self._bodies:
            return self._bodies[key]
        body = make()
        size = body.hu.numel() * body.hu.element_size()
        if size <= self._left:
            self._left -= size
            # Its own memory: a part of a larger scan would keep all of it.
            self._bodies[key] = replace(body, hu=body.hu.clone())
        return body


def center_of(hu: Tensor, matrix: Tensor) -> Float[Tensor, "3"]:
    """Patient position of the center of the voxel extent."""
    middle = torch.tensor([*((size - 1) / 2 for size in reversed(hu.shape)), 1.0]).double()
    return (matrix.double() @ middle)[:3]


def augment(
    body: Body, config: AugmentationConfig, generator: torch.Generator, *, max_height_mm: float
) -> Body:
    """A plausible other body: cropped, bent, moved by an affine map, of other attenuation."""
    hu, matrix = _crop_ends(body.hu, body.voxel_to_patient, config, generator, max_height_mm)
    if config.bend_mm > 0.0:
        hu = _bent(hu, matrix, config, generator)
    if config.lung_gain > 0.0:
        more = uniform(generator, -config.lung_gain, config.lung_gain)
        hu = hu + more * ((LUNG_HU - hu) / 200.0).clamp(0.0, 1.0) * (hu + 1000.0)
    soft = 1.0 + uniform(generator, -config.soft_gain, config.soft_gain)
    bone = 1.0 + uniform(generator, -config.bone_gain, config.bone_gain)
    hu = (hu + 1000.0) * soft - 1000.0
    hu = hu + (bone - 1.0) * (hu - BONE_HU).clamp(min=0.0)
    center = center_of(hu, matrix)
    change = torch.eye(4, dtype=torch.float64)
    change[:3, :3] = _random_linear(config, generator)
    change[:3, 3] = center - change[:3, :3] @ center
    shift = [uniform(generator, -config.shift_mm, config.shift_mm) for _ in range(3)]
    return Body(hu, change @ matrix, center + torch.tensor(shift).double())


def _bent(
    hu: Float[Tensor, "depth height width"],
    matrix: Float[Tensor, "4 4"],
    config: AugmentationConfig,
    generator: torch.Generator,
) -> Float[Tensor, "depth height width"]:
    """The scan resampled along a smooth random displacement, repeated beyond its edges."""
    spacing = matrix[:3, :3].norm(dim=0).flip(0).tolist()  # of depth, height, width
    coarse = [
        max(2, round(count * side / config.bend_spacing_mm)) + 2
        for count, side in zip(hu.shape, spacing, strict=True)
    ]
    moved = config.bend_mm * torch.randn(1, 3, *coarse, generator=generator)
    moved = F.interpolate(moved, size=[2 * count for count in coarse], mode="trilinear")
    moved = F.interpolate(F.avg_pool3d(moved, 3, 1, 1), size=hu.shape, mode="trilinear")
    axes = [(2 * torch.arange(count) + 1.0) / count - 1 for count in reversed(hu.shape)]
    x, y, z = axes
    where = torch.stack(
        torch.broadcast_tensors(x[None, None, :], y[None, :, None], z[:, None, None]), dim=-1
    )
    extents = [count * side for count, side in zip(hu.shape, spacing, strict=True)]
    scale = torch.tensor([2.0 / extent for extent in reversed(extents)])
    where = where + moved[0].permute(1, 2, 3, 0) * scale
    sampled = F.grid_sample(hu[None, None], where[None], padding_mode="border", align_corners=False)
    return sampled[0, 0]


def _random_linear(config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Scale, stretch, shear, rotation and mirror as one 3x3 matrix in patient axes."""
    scale = 1.0 + uniform(generator, -config.scale, config.scale)
    stretch = [1.0 + uniform(generator, -config.stretch, config.stretch) for _ in range(3)]
    linear = torch.diag(torch.tensor(stretch).double()) * scale
    for row, col in ((0, 1), (0, 2), (1, 2)):
        shear = torch.eye(3).double()
        shear[row, col] = uniform(generator, -config.shear, config.shear)
        linear = shear @ linear
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(uniform(generator, -config.rotate_deg, config.rotate_deg))
        turn = torch.eye(3).double()
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        linear = turn @ linear
    if uniform(generator, 0.0, 1.0) < config.flip_share:
        linear = torch.diag(torch.tensor([-1.0, 1.0, 1.0]).double()) @ linear
    return linear


def _crop_ends(
    hu: Tensor,
    matrix: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
    max_height_mm: float,
) -> tuple[Tensor, Tensor]:
    """A random part of the scan's height; the draw is made whether or not it is used."""
    spacing = matrix[:3, 2].norm().item()
    height = hu.shape[0] * spacing
    longest = min(height, max_height_mm)
    shortest = min(config.shortest_scan_mm, longest)
    kept = uniform(generator, shortest, longest)
    place = uniform(generator, 0.0, 1.0)
    if uniform(generator, 0.0, 1.0) >= config.crop_share:
        return hu, matrix
    count = max(1, round(kept / spacing))
    first = round(place * (hu.shape[0] - count))
    moved = matrix.clone()
    moved[:3, 3] += first * matrix[:3, 2]
    return hu[first : first + count], moved


def on_model_grid(body: Body, grid: GridConfig) -> Float[Tensor, "1 1 size size size"]:
    """The body on the model grid in HU, anti-aliased; air where nothing was scanned.

    A voxel counts as scanned when part of it was, and then the scan is continued past its ends
    rather than mixed with air. (By its center, as in `fewview.data.volume.resample`, an end within
    a millimeter of it would decide, which no X-ray tells: the estimate would go halfway to air in
    the last slices that are scored.)
    """
    spacing = body.voxel_to_patient[:3, :3].norm(dim=0).mean().item()
    hu = body.hu[None, None]
    index = torch.linalg.inv(body.voxel_to_patient) @ _grid_matrix(body, grid)
    axis = torch.arange(grid.size, dtype=torch.float32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1) @ index[:3, :3].float().T + index[:3, 3].float()
    sizes = torch.tensor(hu.shape[:1:-1])
    reach = 0.5 + 0.5 * grid.spacing_mm / spacing
    scanned = ((points > -reach) & (points < sizes - 1 + reach)).all(dim=-1)
    factor = max(1, round(grid.spacing_mm / spacing))
    if factor > 1:  # a box as wide as a grid voxel, its center half a step before its first voxel
        before, after = factor // 2, (factor - 1) // 2
        hu = F.pad(hu, (before, after) * 3, mode="replicate")
        hu = F.avg_pool3d(hu, factor, stride=1)
        points = points + (before - (factor - 1) / 2)
    sampled = F.grid_sample(
        hu, ((2 * points + 1) / sizes - 1)[None], padding_mode="border", align_corners=False
    )
    return torch.where(scanned, sampled, -1000.0)


def _grid_matrix(body: Body, grid: GridConfig) -> Float[Tensor, "4 4"]:
    matrix = torch.diag(torch.tensor([grid.spacing_mm] * 3 + [1.0])).double()
    matrix[:3, 3] = body.center_mm - grid.spacing_mm * (grid.size - 1) / 2
    return matrix
