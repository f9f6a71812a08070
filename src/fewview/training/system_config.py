"""The three stages of a system of autoencoder, view encoder and denoiser."""

from dataclasses import dataclass, field
from typing import Literal

from fewview.models.discriminator import DiscriminatorConfig
from fewview.training.stage_config import StageConfig


@dataclass(frozen=True, kw_only=True)
class AutoencoderStage(StageConfig):
    """Stage 1: perceptual compression."""

    decoder_only: bool = False
    """Whether the encoder, and so every latent, stays as it is: a decoder may be made sharper
    without learning stages 2 and 3 again."""

    kl_weight: float = 1e-4
    """Weight of the divergence (mean over latent values) beside the mean absolute error. CLS-DM's
    1e-4 between two sums is 1e-4 over the compression between two means: 7.8e-7 at 128:1."""

    low_frequency_weight: float = 0.0
    """Weight of the mean absolute error of the spatial frequencies up to the cutoff."""

    high_frequency_weight: float = 0.0
    """Weight of the mean absolute error of the spatial frequencies beyond, which hold the edges."""

    frequency_cutoff: float = 0.15
    """Radius in cycles per voxel between low and high frequencies, along all axes alike."""

    sharpness_weight: float = 0.0
    """Weight of the error of the local strength of detail, wherever the detail lies."""

    perceptual_weight: float = 0.0
    """Weight of the distance in the features of a fixed random network (`RandomFeatures`)."""

    slab_perceptual_weight: float = 0.0
    """Weight of the same distance on a slab of eight slices across a random axis, which costs
    less."""

    slice_perceptual_weight: float = 0.0
    """Weight of the distance of a slice across a random axis in the features of a network learned
    from photographs (XctDiff: LPIPS of sagittal slices), which `slice_perceptual_file` holds."""

    slice_perceptual_file: str = ""
    """Weights of a VGG network on this machine, as safetensors (`fewview.models.vgg_features`);
    fewview ships none and downloads none."""

    codebook_weight: float = 1.0
    """Weight of the distance of latents and codes, where the autoencoder has a codebook: 1 for the
    latent's way to its code and 0.25 for the code's way to its latents (XctDiff)."""

    revive_every: int = 0
    """Codes not chosen within so many steps take the place of latent vectors that the codebook
    keeps badly, except in the last fifth of the steps, in which the averaged weights settle.
    0 revives none."""

    discriminator_weight: float = 0.0
    """Gradient of the adversarial loss in units of that of the mean absolute error, at the last
    convolution (CLS-DM: 0.5); above 0 a patch discriminator learns beside the autoencoder, with
    the same rate, betas and norm of gradients."""

    discriminator_start: int = 0
    """Batches before the discriminator begins to learn and to count (CLS-DM: 5000)."""

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    slice_discriminator: bool = False
    """Whether a 2-D discriminator of the same sizes judges a slice across a random axis as well,
    with the same weight."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        for name in ("slab_perceptual_weight", "slice_perceptual_weight", "codebook_weight"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.revive_every < 0:
            raise ValueError(f"revive_every must be 0 or more, got {self.revive_every}")
        if bool(self.slice_perceptual_weight) != bool(self.slice_perceptual_file):
            raise ValueError(
                "slice_perceptual_weight and slice_perceptual_file go together: give both or none"
            )
        if self.slice_discriminator and not self.discriminator_weight:
            raise ValueError("slice_discriminator needs a discriminator_weight")
        bands = (self.low_frequency_weight, self.high_frequency_weight, self.sharpness_weight)
        if min(*bands, self.kl_weight, self.perceptual_weight, self.discriminator_weight) < 0.0:
            raise ValueError("the weights of the autoencoder's losses must not be negative")
        if not 0.0 < self.frequency_cutoff < 0.5:
            raise ValueError(
                f"frequency_cutoff must be between 0 and 0.5 cycles per voxel, got "
                f"{self.frequency_cutoff}"
            )
        if self.discriminator_start < 0:
            raise ValueError(
                f"discriminator_start must be 0 or more, got {self.discriminator_start}"
            )


@dataclass(frozen=True, kw_only=True)
class AlignmentStage(StageConfig):
    """Stage 2: reconstruction and contrast.

    The loss is reconstruction_weight x error of the estimate + contrast_weight x (case_weight x
    InfoNCE of cases + match_weight x distance of matched pairs + local_weight x InfoNCE of
    positions). What has no weight is not computed.
    """

    reconstruction_weight: float = 1.0
    """Weight of the error of the CT estimate, CLS-DM's "autoregressive" constraint. Without it the
    system has no estimate (`system.estimate = false`)."""

    reconstruction: Literal["l1", "mse"] = "mse"
    """Error of the CT estimate; `l1` is CLS-DM's, `mse` aims at the posterior mean."""

    contrast_weight: float = 0.005
    """Weight of all contrastive terms; CLS-DM's 1e4 beside a sum over voxels, as a mean."""

    case_weight: float = 1.0
    """Of the cases told apart, inside the contrastive terms."""

    match_weight: float = 0.5
    """Of the distance of matched pairs, inside the contrastive terms (CLS-DM)."""

    local_weight: float = 0.0
    """Of the latent positions told apart, inside the contrastive terms."""

    local_positions: int = 256
    """Positions drawn for the local term in each step; they bound its memory."""

    local_negatives: Literal["positions", "cases", "both"] = "both"
    """What a position is told apart from: other positions of its case, the same position of other
    cases of the turn (micro-batch), or both."""

    num_negatives: int = 16
    """Cached latents of other copies that each set of views is also told apart from."""

    queue_size: int = 0
    """Aligned latents of the last sets of views that each CT is also told apart from."""

    codebook_weight: float = 1.0
    """Weight of the distance of conditions and codes, where the view encoder has a codebook. What
    both share with the autoencoder stays as stage 1 left it."""

    revive_every: int = 0
    """As in stage 1, for a codebook of the view encoder's own; 0 revives none."""

    levels: int = 1
    """Resolutions at which views and CT are compared; each level halves the one before."""

    def __post_init__(self) -> None:
        """Refuse a stage that would learn nothing, and terms without anything to tell apart."""
        super().__post_init__()
        for name in ("reconstruction", "contrast", "case", "match", "local"):
            if not getattr(self, f"{name}_weight") >= 0.0:
                raise ValueError(f"{name}_weight must be 0 or more")
        if min(self.codebook_weight, self.revive_every) < 0:
            raise ValueError("codebook_weight and revive_every must be 0 or more")
        if min(self.num_negatives, self.queue_size) < 0 or self.levels < 1:
            raise ValueError("num_negatives and queue_size must be 0 or more, levels 1 or more")
        if not self.contrasts and not self.reconstructs:
            raise ValueError(
                "nothing to learn: give reconstruction_weight, or contrast_weight with one of "
                "case_weight, match_weight and local_weight"
            )
        if self.contrast_weight > 0.0 and not self.contrasts:
            raise ValueError(
                "contrast_weight weighs nothing: case_weight, match_weight and local_weight are 0"
            )
        if self.contrasts:
            self._check_negatives()

    def _check_negatives(self) -> None:
        """Refuse contrast with nothing to tell apart, and a queue that nothing reads."""
        if self.queue_size and (not self.case_weight or self.queue_size < self.batch_size):
            raise ValueError("queue_size needs case_weight, and must hold a batch")
        if self.case_weight and self.batch_size + self.num_negatives + self.queue_size < 2:
            raise ValueError(
                "case_weight needs negatives: raise batch_size, num_negatives or queue_size"
            )
        if self.local_weight and self.local_positions < 2:
            raise ValueError(f"local_positions must be 2 or more, got {self.local_positions}")
        in_turn = self.batch_size // self.accumulate
        if self.local_weight and self.local_negatives == "cases" and in_turn < 2:
            raise ValueError(
                'local_negatives = "cases" needs a batch_size of 2 or more in each of the turns '
                f"(accumulate), got {self.batch_size} in {self.accumulate}"
            )

    @property
    def reconstructs(self) -> bool:
        """Whether the CT estimate is part of the loss."""
        return self.reconstruction_weight > 0.0

    @property
    def contrasts(self) -> bool:
        """Whether any contrastive term is part of the loss."""
        terms = self.case_weight + self.match_weight + self.local_weight
        return self.contrast_weight * terms > 0.0


@dataclass(frozen=True, kw_only=True)
class DiffusionStage(StageConfig):
    """Stage 3: the conditional denoiser."""

    num_noise_draws: int = 1
    """Noise levels drawn for each example of a step; its views are encoded only once."""

    error: Literal["l1", "mse"] = "l1"
    """Error of the denoiser; `l1` is CLS-DM's, `mse` keeps the spread of what it samples."""

    condition_dropout: float = 0.0
    """Share of examples whose condition is replaced by zeros, so that the denoiser also learns to
    do without, for `sampler.guidance` (XctDiff and CLS-DM: none)."""

    fixed_views: bool = False
    """Whether each cached copy keeps one set of views, whose condition is computed once and kept
    beside its latent; a step then runs the denoiser alone. False draws fresh views every step."""

    learns_views: bool = False
    """Whether the view encoder learns on with the denoiser (CLS-DM: no). Contrast is then no longer
    part of its loss, and the CT estimate is by `reconstruction_weight`."""

    reconstruction_weight: float = 0.0
    """Weight of the error of the CT estimate, of stage 2's kind, where the view encoder learns on;
    the denoiser's error counts once."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        if self.num_noise_draws < 1:
            raise ValueError(f"num_noise_draws must be positive, got {self.num_noise_draws}")
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(
                f"condition_dropout must be at least 0 and below 1, got {self.condition_dropout}"
            )
        if not self.reconstruction_weight >= 0.0:
            raise ValueError(
                f"reconstruction_weight must be 0 or more, got {self.reconstruction_weight}"
            )
