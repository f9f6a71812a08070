"""A system: which networks work together on which grid.

A system is described by `SystemConfig` (a table of a TOML file in `configs/`), built by
`build_networks`, trained by `training`, stored by `bundle` and used by `reconstruct`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from fewview.diffusion.noise import NoiseConfig
from fewview.diffusion.sampler import SamplerConfig
from fewview.inputs import GridConfig, ViewRange
from fewview.models.autoencoder import Autoencoder, AutoencoderConfig
from fewview.models.denoiser import Denoiser, DenoiserConfig
from fewview.models.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from fewview.models.prior import PriorConfig
from fewview.models.progressive_encoder import ProgressiveEncoder, ProgressiveEncoderConfig
from fewview.models.projector import Projector
from fewview.models.pseudo_unet import PseudoUnetConfig, PseudoUnetDenoiser
from fewview.models.replicate_encoder import ReplicateEncoder, ReplicateEncoderConfig
from fewview.models.unet import UnetDenoiser, UnetDenoiserConfig
from fewview.models.view_encoder import ViewEncoder, ViewEncoderConfig
from fewview.models.vq_autoencoder import VqAutoencoder, VqAutoencoderConfig

AnyAutoencoder = Autoencoder | LdmAutoencoder | VqAutoencoder
AnyViewEncoder = ViewEncoder | ReplicateEncoder | ProgressiveEncoder
AnyDenoiser = Denoiser | UnetDenoiser | PseudoUnetDenoiser


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

    calibrate_displays: bool = False
    """Whether pictures for the eye are taken for line integrals in a second pass, by what the CT
    estimate of the first one projects to (`calibration`); needs training on both kinds."""

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
        if not self.estimate and self.calibrate_displays:
            raise ValueError("without an estimate, calibrate_displays must be false")
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
    """The networks of a system, and what else of its training a user of them must know."""

    autoencoder: AnyAutoencoder
    view_encoder: AnyViewEncoder
    projector: Projector
    denoiser: AnyDenoiser
    latent_scale: float = 1.0
    """1 / standard deviation of what diffusion samples."""

    guidable: bool = False
    """Whether the denoiser has also learned to do without condition, which guidance needs."""

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
