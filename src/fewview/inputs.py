"""What networks are given: the model grid, the views it is meant for, and both as their numbers.

Shared by systems (`system`) and regressors (`regressor`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.models.lifting import RayGrid
from fewview.xray.geometry import Cameras, project_points

LINE_INTEGRAL_SCALE = 4.0  # about the mean behind a chest (200 mm of water); images become -1 to 1


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """The cubic model grid and its HU window."""

    size: int = 64
    """Voxels along each axis; a multiple of eight."""

    extent_mm: float = 400.0
    """Edge of the cube in mm."""

    low_hu: float = -1000.0
    """HU that becomes -1; lower values are clipped."""

    high_hu: float = 1500.0
    """HU that becomes 1; higher values are clipped."""

    def __post_init__(self) -> None:
        """Refuse a grid or window that cannot exist."""
        if self.size < 8 or self.size % 8:
            raise ValueError(f"size must be a multiple of 8, got {self.size}")
        if not self.extent_mm > 0.0:
            raise ValueError(f"extent_mm must be positive, got {self.extent_mm}")
        if not self.low_hu < self.high_hu:
            raise ValueError(f"need low_hu < high_hu, got {self.low_hu} and {self.high_hu}")

    @property
    def spacing_mm(self) -> float:
        """Edge of a voxel in mm."""
        return self.extent_mm / self.size

    def to_unit(self, hu: Tensor) -> Tensor:
        """HU to [-1, 1] by the fixed window."""
        middle, half = (self.high_hu + self.low_hu) / 2, (self.high_hu - self.low_hu) / 2
        return ((hu - middle) / half).clamp(-1.0, 1.0)

    def to_hu(self, unit: Tensor) -> Tensor:
        """[-1, 1] to HU, clipped to the window."""
        middle, half = (self.high_hu + self.low_hu) / 2, (self.high_hu - self.low_hu) / 2
        return unit.clamp(-1.0, 1.0) * half + middle


@dataclass(frozen=True, kw_only=True)
class ViewRange:
    """The views a system is trained for; outside of it `reconstruct` warns."""

    preset: str = "chest"
    """Geometry the views are drawn around."""

    num_pixels: int = 128
    """Pixels per side of the detector in training; finer images are binned to about this pitch."""

    num_views: tuple[int, ...] = (1, 2, 3)
    """View counts that occur."""

    num_views_weights: tuple[float, ...] = (0.1, 0.8, 0.1)
    """How often each view count occurs, in the same order."""

    angle_jitter_deg: float = 4.0
    """Views of a standard set turn by up to this much, either way."""

    any_angle_share: float = 0.1
    """Share of bodies whose views come from anywhere instead of a standard set."""

    sod_mm: tuple[float, float] = (1400.0, 1800.0)
    """Range of the source-to-isocenter distance (cone beam)."""

    detector_mm: tuple[float, float] = (150.0, 260.0)
    """Range of the distance from isocenter to detector (cone beam)."""

    offset_mm: float = 15.0
    """Largest detector offset along either axis."""

    pitch_jitter: float = 0.06
    """Largest relative change of the pixel pitch."""

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be."""
        if len(self.num_views) != len(self.num_views_weights) or not self.num_views:
            raise ValueError("num_views and num_views_weights need the same, positive length")
        if min(self.num_views) < 1 or max(self.num_views) > 16:
            raise ValueError(f"num_views must be 1 to 16, got {self.num_views}")
        if min(self.num_views_weights) < 0 or sum(self.num_views_weights) <= 0:
            raise ValueError("num_views_weights must not be negative nor all zero")
        if self.num_pixels % 8:
            raise ValueError(f"num_pixels must be a multiple of 8, got {self.num_pixels}")


def network_images(
    images: Float[Tensor, "*lead 1 row col"], calibrated: Sequence[bool]
) -> Float[Tensor, "*lead 2 row col"]:
    """Views as the view encoder takes them: values of about -1 to 1 and a channel for their kind.

    Line integrals are scaled by a constant, so that attenuation keeps its meaning. Display-style
    images have no scale of their own: they get zero mean and unit spread.

    Args:
        images: Line integrals (unitless) or display-style images.
        calibrated: For each image of the flattened leading shape, whether it is line integrals.
    """
    flat = images.reshape(-1, *images.shape[-2:])
    known = torch.tensor(list(calibrated), device=images.device)[:, None, None]
    scaled = flat / LINE_INTEGRAL_SCALE - 1.0
    spread = flat.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    standard = (flat - flat.mean(dim=(1, 2), keepdim=True)) / spread
    values = torch.where(known, scaled, standard).reshape(images.shape)
    kind = known.to(images.dtype).expand(flat.shape).reshape(images.shape)
    return torch.cat([values, kind], dim=-3)


def ray_grid(
    cameras: Cameras,
    center_mm: Float[Tensor, "batch 3"],
    config: GridConfig,
) -> RayGrid:
    """Where the voxels of the model grid project in each view.

    Args:
        cameras: Cameras with leading shape [batch, view].
        center_mm: Center of the model grid of each case (LPS).
        config: The model grid.
    """
    size, device = config.size, center_mm.device
    axis = (torch.arange(size, device=device) - (size - 1) / 2) * config.spacing_mm
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(1, 1, -1, 3) + center_mm[:, None, None]
    row_col, _ = project_points(cameras, points)
    pixels = torch.tensor([cameras.num_rows, cameras.num_cols], device=device)
    position = ((2.0 * row_col + 1.0) / pixels - 1.0).flip(-1)
    along = cameras.direction[..., None, :]
    from_source = points - cameras.source[..., None, :]
    parallel = cameras.parallel[..., None, None]
    ray = torch.where(parallel, along.expand_as(from_source), from_source)
    ray = ray / ray.norm(dim=-1, keepdim=True)
    from_center = ((points - center_mm[:, None, None]) * along).sum(-1, keepdim=True)
    ray = torch.cat([ray, from_center / (config.extent_mm / 2)], dim=-1)
    lead = cameras.lead
    return RayGrid(
        position=position.reshape(*lead, size, size, size, 2),
        ray=ray.transpose(-1, -2).reshape(*lead, 4, size, size, size),
    )
