"""A system: which networks work together on which grid, and how HU and views become their numbers.

A system is described by `SystemConfig` (a table of a TOML file in `configs/`), built by
`build_networks`, trained by `training`, stored by `bundle` and used by `reconstruct`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewview.diffusion.noise import NoiseConfig
from fewview.diffusion.sampler import SamplerConfig
from fewview.models.autoencoder import Autoencoder, AutoencoderConfig
from fewview.models.denoiser import Denoiser, DenoiserConfig
from fewview.models.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from fewview.models.lifting import RayGrid
from fewview.models.prior import PriorConfig
from fewview.models.progressive_encoder import ProgressiveEncoder, ProgressiveEncoderConfig
from fewview.models.projector import Projector
from fewview.models.pseudo_unet import PseudoUnetConfig, PseudoUnetDenoiser
from fewview.models.replicate_encoder import ReplicateEncoder, ReplicateEncoderConfig
from fewview.models.unet import UnetDenoiser, UnetDenoiserConfig
from fewview.models.view_encoder import ViewEncoder, ViewEncoderConfig
from fewview.models.vq_autoencoder import VqAutoencoder, VqAutoencoderConfig
from fewview.xray.geometry import Cameras, project_points

AnyAutoencoder = Autoencoder | LdmAutoencoder | VqAutoencoder
AnyViewEncoder = ViewEncoder | ReplicateEncoder | ProgressiveEncoder
AnyDenoiser = Denoiser | UnetDenoiser | PseudoUnetDenoiser

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
    """Share of batches whose views come from anywhere instead of a standard set."""

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


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """All that is needed to build and run a system, without its weights."""

    name: str
    """What users call it."""

    grid: GridConfig = field(default_factory=GridConfig)
    views: ViewRange = field(default_factory=ViewRange)
    autoencoder: Annotated[
        AutoencoderConfig | LdmAutoencoderConfig | VqAutoencoderConfig, Field(discriminator="kind")
    ] = field(default_factory=AutoencoderConfig)
    view_encoder: Annotated[
        ViewEncoderConfig | ReplicateEncoderConfig | ProgressiveEncoderConfig,
        Field(discriminator="kind"),
    ] = field(default_factory=ViewEncoderConfig)
    denoiser: Annotated[
        DenoiserConfig | UnetDenoiserConfig | PseudoUnetConfig, Field(discriminator="kind")
    ] = field(default_factory=DenoiserConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    diffusion_target: Literal["latent", "residual"] = "residual"
    """What diffusion samples: the latent (CLS-DM), or what it adds to the latent of the CT
    estimate."""

    condition: Literal["both", "views", "coarse"] = "both"
    """What the denoiser is told beside the detail: the view encoder's condition (CLS-DM), the
    latent of the CT estimate, or both."""

    estimate: bool = True
    """Whether the view encoder is trained to estimate the CT; a plain latent diffusion model has
    no estimate, and so no deterministic head."""

    head: Literal["estimate", "coded"] = "estimate"
    """What the deterministic head returns: the CT estimate, or the estimate coded and decoded by
    the autoencoder, which knows how a CT looks."""

    consistency_steps: int = 0
    """Projection consistency steps after decoding, 0 for none."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit, or need an estimate that the system does not make."""
        self._check_sizes()
        self._check_codebook()
        needy = self.stands_on_estimate or self.view_encoder.detail_channels
        if not self.estimate and needy:
            raise ValueError(
                "without an estimate, diffusion_target must be 'latent', condition 'views' and "
                "view_encoder.detail_channels 0"
            )
        if not self.estimate and not self.sampler.num_samples:
            raise ValueError("without an estimate, sampler.num_samples must be positive")

    def _check_sizes(self) -> None:
        """Refuse a condition or a denoiser that does not fit the latent."""
        reduction, told = self.autoencoder.reduction, self.view_encoder.reduction
        if reduction != told:
            raise ValueError(
                f"the latent has 1/{reduction} of the grid's resolution (autoencoder) and the "
                f"condition 1/{told} (view_encoder); they must agree"
            )
        needed = reduction * self.denoiser.coarsest
        if self.grid.size % needed:
            raise ValueError(
                f"grid.size must be a multiple of {needed}: the autoencoder divides it by "
                f"{reduction} and the denoiser by {self.denoiser.coarsest} more; got "
                f"{self.grid.size}"
            )
        block = self.denoiser.block if isinstance(self.denoiser, PriorConfig) else 1
        if self.grid.size // reduction % block:
            raise ValueError(
                f"denoiser.prior_block {block} must divide the latent's "
                f"{self.grid.size // reduction} voxels a side"
            )

    def _check_codebook(self) -> None:
        """Refuse to share a codebook that is not there or does not fit."""
        encoder = self.view_encoder
        if not isinstance(encoder, ProgressiveEncoderConfig) or encoder.codebook != "shared":
            return
        if not isinstance(self.autoencoder, VqAutoencoderConfig):
            raise ValueError(
                'view_encoder.codebook = "shared" needs an autoencoder of kind "vq", whose '
                "codebook it is"
            )
        if encoder.condition_channels != self.autoencoder.latent_channels:
            raise ValueError(
                f"a shared codebook needs as many condition_channels (view_encoder) as "
                f"latent_channels (autoencoder), got {encoder.condition_channels} and "
                f"{self.autoencoder.latent_channels}"
            )

    @property
    def self_conditioning(self) -> bool:
        """Whether the denoiser is shown its last clean estimate."""
        return isinstance(self.denoiser, PriorConfig) and self.denoiser.self_conditioning

    @property
    def estimate_is_of_condition(self) -> bool:
        """Whether the CT estimate is decoded from the condition, and so trains it."""
        return isinstance(self.view_encoder, ProgressiveEncoderConfig)

    @property
    def told_channels(self) -> int:
        """Channels that the denoiser is told beside the noisy latent."""
        latent = self.autoencoder.latent_channels
        condition = self.view_encoder.condition_channels
        told = {"both": condition + latent, "views": condition, "coarse": latent}[self.condition]
        return told + self.view_encoder.detail_channels

    @property
    def stands_on_estimate(self) -> bool:
        """Whether diffusion needs the CT estimate: as its base, or to be told of it."""
        return self.diffusion_target == "residual" or self.condition != "views"


@dataclass(eq=False)
class Networks:
    """The networks of a system and the two scales measured on its training set."""

    autoencoder: AnyAutoencoder
    view_encoder: AnyViewEncoder
    projector: Projector
    denoiser: AnyDenoiser
    latent_scale: float = 1.0
    """1 / standard deviation of what diffusion samples."""

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name, as they are stored."""
        return {
            "autoencoder": self.autoencoder,
            "view_encoder": self.view_encoder,
            "projector": self.projector,
            "denoiser": self.denoiser,
        }

    def to(self, device: str) -> "Networks":
        """Move all networks to a device."""
        for module in self.modules().values():
            module.to(device)
        return self


def build_networks(config: SystemConfig) -> Networks:
    """Fresh networks of a system; the denoiser is told `config.condition`."""
    latent = config.autoencoder.latent_channels
    autoencoder = _autoencoder(config)
    return Networks(
        autoencoder=autoencoder,
        view_encoder=_view_encoder(config, autoencoder),
        projector=Projector(config.view_encoder.condition_channels, latent),
        denoiser=_denoiser(config, latent, config.told_channels),
    )


def _autoencoder(config: SystemConfig) -> AnyAutoencoder:
    match config.autoencoder:
        case AutoencoderConfig() as chosen:
            return Autoencoder(chosen)
        case LdmAutoencoderConfig() as chosen:
            return LdmAutoencoder(chosen)
        case VqAutoencoderConfig() as chosen:
            return VqAutoencoder(chosen)


def _view_encoder(config: SystemConfig, autoencoder: AnyAutoencoder) -> AnyViewEncoder:
    match config.view_encoder:
        case ViewEncoderConfig() as chosen:
            return ViewEncoder(chosen)
        case ReplicateEncoderConfig() as chosen:
            return ReplicateEncoder(chosen, config.grid.size)
        case ProgressiveEncoderConfig() as chosen:
            shared = autoencoder.codebook if isinstance(autoencoder, VqAutoencoder) else None
            return ProgressiveEncoder(chosen, config.grid.size, shared)


def _denoiser(config: SystemConfig, latent: int, told: int) -> AnyDenoiser:
    match config.denoiser:
        case DenoiserConfig() as chosen:
            return Denoiser(chosen, latent_channels=latent, condition_channels=told)
        case UnetDenoiserConfig() as chosen:
            return UnetDenoiser(chosen, latent_channels=latent, condition_channels=told)
        case PseudoUnetConfig() as chosen:
            return PseudoUnetDenoiser(chosen, latent_channels=latent, condition_channels=told)


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
