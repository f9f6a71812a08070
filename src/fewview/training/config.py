"""What a training run needs beyond the system: data, augmentation, and one table per stage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fewview import config as config_files
from fewview.models.discriminator import DiscriminatorConfig
from fewview.models.implicit import ImplicitConfig
from fewview.regressor import RegressorConfig
from fewview.system import SystemConfig


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How one stored scan becomes many bodies, and one body many sets of views."""

    rotate_deg: float = 6.0
    """Largest rotation about each patient axis."""

    scale: float = 0.15
    """Largest relative change of size, common to all axes."""

    stretch: float = 0.08
    """Largest further relative change of size along each axis."""

    shear: float = 0.05
    """Largest shear of one axis by another."""

    bend_mm: float = 0.0
    """Standard deviation of the displacements that bend the scan, per axis; 0 bends nothing."""

    bend_spacing_mm: float = 100.0
    """Distance between the independent displacements, which are smoothed and interpolated."""

    shift_mm: float = 12.0
    """Largest distance from the scan's center to the center of the model grid, per axis."""

    flip_share: float = 0.3
    """Share of examples mirrored left to right (situs inversus is rare; mirrored lungs teach)."""

    soft_gain: float = 0.03
    """Largest relative change of attenuation."""

    bone_gain: float = 0.2
    """Largest relative change of what exceeds 150 HU."""

    lung_gain: float = 0.0
    """Largest relative change of attenuation in lung (below -500 HU)."""

    crop_share: float = 0.7
    """Share of examples whose scan ends are cropped."""

    shortest_scan_mm: float = 220.0
    """Scans are cropped to no less than this height."""

    noise_share: float = 0.5
    """Share of view sets with photon noise."""

    photons: tuple[float, float] = (3e4, 1e6)
    """Range of photons per pixel in air, drawn on a logarithmic scale."""

    collimation_share: float = 0.1
    """Share of view sets with collimated borders (unexposed, so without value: 0)."""

    collimation: float = 0.12
    """Largest collimated part of the detector per side."""

    display_share: float = 0.1
    """Share of view sets in display style instead of line integrals."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage's optimization."""

    num_steps: int
    """Optimizer steps."""

    batch_size: int = 4
    """Examples per step, over all processes and micro-batches together."""

    accumulate: int = 1
    """Micro-batches per step: each process computes its examples in so many turns."""

    checkpointing: bool = False
    """Whether the inner activations of blocks are computed again in the backward pass instead of
    kept: less memory for one more forward pass of them."""

    learning_rate: float = 4e-4
    """Peak rate of AdamW."""

    warmup_steps: int = 50
    """Steps over which the rate rises."""

    steady_steps: int = 600
    """After this many steps the rate falls as one over the square root of the step (EDM2)."""

    cooldown_steps: int = 0
    """Over this many last steps the rate also falls linearly to zero; 0 leaves the end open."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the means of gradients and of their squares."""

    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    ema_decay: float = 0.995
    """Averaged weights, used for validation and in the bundle."""

    log_every: int = 10
    """Steps between lines of metrics.jsonl."""

    save_every: int = 50
    """Steps between checkpoints."""

    validate_every: int = 100
    """Steps between validations."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if min(self.num_steps, self.batch_size, self.log_every, self.save_every) < 1:
            raise ValueError("num_steps, batch_size, log_every and save_every must be positive")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must be positive and divide batch_size ({self.batch_size}), got "
                f"{self.accumulate}"
            )
        if not 0.0 < self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        if not 0 <= self.cooldown_steps <= self.num_steps:
            raise ValueError(
                f"cooldown_steps must be 0 to num_steps ({self.num_steps}), got "
                f"{self.cooldown_steps}"
            )


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
    """Weight of the same distance on a slab of eight slices across a random axis, which costs less
    (published for one sagittal slice, by a network learned from photographs)."""

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
        if min(self.slab_perceptual_weight, self.codebook_weight, self.revive_every) < 0:
            raise ValueError(
                "slab_perceptual_weight, codebook_weight and revive_every must be 0 or more"
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
    cases of the batch, or both."""

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
        if self.local_weight and self.local_negatives == "cases" and self.batch_size < 2:
            raise ValueError('local_negatives = "cases" needs a batch_size of 2 or more')

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

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        if self.num_noise_draws < 1:
            raise ValueError(f"num_noise_draws must be positive, got {self.num_noise_draws}")
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(
                f"condition_dropout must be at least 0 and below 1, got {self.condition_dropout}"
            )


@dataclass(frozen=True, kw_only=True)
class RegressionStage(StageConfig):
    """Training of a regressor; the weights are those of losses of volumes in [0, 1]."""

    mse_weight: float = 1.0
    """Of the mean squared error."""

    projection_weight: float = 0.0
    """Of X2CT-GAN's projection loss."""

    adversarial_weight: float = 0.0
    """Of the least-squares adversarial losses; above 0 a discriminator is trained as well."""

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    voxels_per_step: int = 0
    """Voxels drawn per example, for a network that can be asked for some; 0 takes all."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        if self.voxels_per_step < 0:
            raise ValueError(f"voxels_per_step must be 0 or more, got {self.voxels_per_step}")
        if self.voxels_per_step and (self.projection_weight or self.adversarial_weight):
            raise ValueError(
                "voxels_per_step goes with the squared error alone: the projection and the "
                "adversarial loss need whole volumes"
            )


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """How a run draws its examples, whatever it trains."""

    seed: int = 0
    """Every random number of the run follows from it."""

    num_examples: int = 1000
    """Augmented copies whose latents are computed once, for stages 2 and 3."""

    phantom_share: float = 0.4
    """Share of examples from phantoms, where the store has phantoms and real scans."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Autocast type on model grids of 32 and more; weights and optimizer stay in float32."""

    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(ExamplesConfig):
    """Data and stages of a run that trains a system."""

    autoencoder: AutoencoderStage
    alignment: AlignmentStage | None = None
    """Without it the view encoder learns with the denoiser, in stage 3 (a plain latent diffusion
    model); the system then has no estimate."""

    diffusion: DiffusionStage

    def __post_init__(self) -> None:
        """Refuse batches of more copies than there are."""
        for stage in (self.autoencoder, self.alignment, self.diffusion):
            _check_copies(self, stage)


@dataclass(frozen=True, kw_only=True)
class RegressionTraining(ExamplesConfig):
    """Data and the one stage of a run that trains a regressor."""

    regression: RegressionStage

    def __post_init__(self) -> None:
        """Refuse batches of more copies than there are."""
        _check_copies(self, self.regression)


def _check_copies(examples: ExamplesConfig, stage: StageConfig | None) -> None:
    """Refuse a batch for which there are too few different copies."""
    if stage is not None and stage.batch_size > examples.num_examples:
        raise ValueError(
            f"num_examples ({examples.num_examples}) must be at least batch_size "
            f"({stage.batch_size})"
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A file in `configs/`: a system and how to train it."""

    system: SystemConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Refuse an estimate that no stage trains, and what the latent is too small for."""
        alignment = self.training.alignment
        reconstructs = alignment is not None and alignment.reconstructs
        if self.system.estimate and not reconstructs:
            raise ValueError(
                "system.estimate is trained by the alignment stage: give [training.alignment] "
                "with a reconstruction_weight, or set system.estimate = false"
            )
        if reconstructs and not self.system.estimate:
            raise ValueError(
                "the alignment stage would train an estimate that the system does not have: set "
                "reconstruction_weight = 0, or system.estimate = true"
            )
        if self.system.sampler.guidance != 1.0 and not self.training.diffusion.condition_dropout:
            raise ValueError(
                "sampler.guidance other than 1 needs training.diffusion.condition_dropout: the "
                "denoiser must learn to do without condition"
            )
        if alignment is not None and alignment.levels > 1:
            size = self.system.grid.size // self.system.autoencoder.reduction
            if size % 2 ** (alignment.levels - 1) or size < 2**alignment.levels:
                raise ValueError(
                    f"a latent of {size} voxels a side has no {alignment.levels} levels of 2 or "
                    "more voxels a side"
                )
        taught = alignment is not None and (
            alignment.contrasts or self.system.estimate_is_of_condition
        )
        learned = (
            alignment is None
            or self.system.view_encoder.detail_channels > 0
            or (not taught and self.system.condition != "coarse")
        )
        if self.training.diffusion.fixed_views and learned:
            raise ValueError(
                "fixed_views needs a view encoder that stage 3 leaves as it is: give "
                "[training.alignment] with a contrast, or a view encoder whose estimate is decoded "
                "from the condition, and view_encoder.detail_channels = 0"
            )


@dataclass(frozen=True, kw_only=True)
class RegressionRun:
    """A file in `configs/`: a regressor and how to train it."""

    system: RegressorConfig
    training: RegressionTraining

    def __post_init__(self) -> None:
        """Refuse a draw of voxels from a network that makes whole volumes."""
        drawn = self.training.regression.voxels_per_step
        if drawn and not isinstance(self.system.network, ImplicitConfig):
            raise ValueError("voxels_per_step needs a network of kind inrr3ct")


AnyRun = RunConfig | RegressionRun


def load_run(path: Path) -> AnyRun:
    """Read a file of `configs/`, whatever kind of system it trains."""
    if config_files.value_at(path, "system", "kind") == "regressor":
        return config_files.load(path, RegressionRun)
    return config_files.load(path, RunConfig)
