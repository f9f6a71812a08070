"""A file in `configs/`: what is trained, and how."""

from dataclasses import dataclass
from pathlib import Path

from fewview import config as config_files
from fewview.system import SystemConfig
from fewview.training.regression_config import RegressionRun
from fewview.training.stage_config import ExamplesConfig, check_copies
from fewview.training.style_config import StyleRun
from fewview.training.system_config import AlignmentStage, AutoencoderStage, DiffusionStage


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
        super().__post_init__()
        for stage in (self.autoencoder, self.alignment, self.diffusion):
            check_copies(self, stage)


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
        self._check_learning_on()
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
            or self.training.diffusion.learns_views
            or self.system.view_encoder.detail_channels > 0
            or (not taught and self.system.condition != "coarse")
        )
        if self.training.diffusion.fixed_views and learned:
            raise ValueError(
                "fixed_views needs a view encoder that stage 3 leaves as it is: give "
                "[training.alignment] with a contrast, or a view encoder whose estimate is decoded "
                "from the condition, view_encoder.detail_channels = 0 and learns_views = false"
            )

    def _check_learning_on(self) -> None:
        """Refuse a view encoder that would learn on for nothing, or forget its estimate."""
        diffusion = self.training.diffusion
        if diffusion.learns_views and self.training.alignment is None:
            raise ValueError(
                "without [training.alignment] the view encoder learns in the diffusion stage "
                "anyway: leave learns_views out"
            )
        if diffusion.reconstruction_weight and not (
            diffusion.learns_views and self.system.estimate
        ):
            raise ValueError(
                "diffusion.reconstruction_weight needs a view encoder that learns on "
                "(learns_views = true) and has an estimate (system.estimate = true)"
            )
        if diffusion.learns_views and self.system.estimate and not diffusion.reconstruction_weight:
            raise ValueError(
                "a view encoder that learns on without its estimate forgets it: give "
                "diffusion.reconstruction_weight as well"
            )


AnyRun = RunConfig | RegressionRun | StyleRun


def load_run(path: Path) -> AnyRun:
    """Read a file of `configs/`, whatever kind of system it trains."""
    match config_files.value_at(path, "system", "kind"):
        case "regressor":
            return config_files.load(path, RegressionRun)
        case "style":
            return config_files.load(path, StyleRun)
        case _:
            return config_files.load(path, RunConfig)
