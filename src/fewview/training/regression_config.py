"""A run that trains a regressor, and its one stage."""

from dataclasses import dataclass, field

from fewview.models.discriminator import DiscriminatorConfig
from fewview.models.implicit import ImplicitConfig
from fewview.regressor import RegressorConfig
from fewview.training.stage_config import ExamplesConfig, StageConfig, check_copies


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
class RegressionTraining(ExamplesConfig):
    """Data and the one stage of a run that trains a regressor."""

    regression: RegressionStage

    def __post_init__(self) -> None:
        """Refuse batches of more copies than there are."""
        super().__post_init__()
        check_copies(self, self.regression)


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
