"""What every training run and stage is told: data, augmentation, optimization."""

from dataclasses import dataclass, field
from typing import Literal


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
    """Share of view sets with collimated borders: 0 in line integrals, filled in display style."""

    collimation: float = 0.12
    """Largest collimated part of the detector per side."""

    display_share: float = 0.1
    """Share of view sets in display style instead of line integrals."""

    gamma: tuple[float, float] = (0.6, 1.6)
    """Range of the gray curves of views in display style; the held-out style has 0.4 to 2.5."""

    window_cut: float = 0.0
    """Largest share of the gray range cut from a view in display style; held out: 0.3."""

    def __post_init__(self) -> None:
        """Refuse displays that cannot be."""
        if not 0.0 < self.gamma[0] <= self.gamma[1]:
            raise ValueError(f"gamma must be a rising pair of positive numbers, got {self.gamma}")
        for name in ("window_cut", "collimation"):
            if not 0.0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be at least 0 and below 0.5")


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

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves the weights of convolutions and linear layers by orthogonal matrices, and all
    else by AdamW (see `fewview.training.optimizer`)."""

    learning_rate: float = 4e-4
    """Peak rate; Muon's steps are scaled so that it means the same there."""

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

    start_share: float = 0.0
    """Share of the weights of `--start` in the final ones, the rest is what was trained: what a run
    learned anew then costs less of what the model knew (WiSE-FT, arXiv 2109.01903, equation 1)."""

    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        """Refuse a share that leaves nothing of the training."""
        if not 0.0 <= self.start_share < 1.0:
            raise ValueError(f"start_share must be 0 or more and below 1, got {self.start_share}")


def check_copies(examples: ExamplesConfig, stage: StageConfig | None) -> None:
    """Refuse a batch for which there are too few different copies."""
    if stage is not None and stage.batch_size > examples.num_examples:
        raise ValueError(
            f"num_examples ({examples.num_examples}) must be at least batch_size "
            f"({stage.batch_size})"
        )
