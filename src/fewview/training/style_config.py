"""A run that trains a style model, and its one stage."""

from dataclasses import dataclass

from fewview.training.stage_config import ExamplesConfig, StageConfig, check_copies
from fewview.transfer.style import StyleConfig


@dataclass(frozen=True, kw_only=True)
class StyleStage(StageConfig):
    """Training of a style model; pictures are standardized, so weights are in units of contrast."""

    adversarial_weight: float = 1.0
    """Of fooling the two discriminators (CycleGAN: 1); these learn with weight 1."""

    cycle_weight: float = 2.0
    """Of the mean absolute error of pictures sent to the other style and back (CycleGAN: 10, for
    pictures of half the contrast)."""

    identity_weight: float = 1.0
    """Of the mean absolute change of pictures that have the style already (CycleGAN: 5)."""

    restoration_weight: float = 10.0
    """Of the mean absolute error of DRRs whose display was changed and then undone: a paired term,
    which needs no radiograph."""

    num_displays: int = 8
    """DRRs that are displayed otherwise and restored, beside each of the batch."""

    zoom: float = 0.15
    """Largest enlargement of a radiograph, which crops it; it is never mirrored: the heart is on
    the left."""

    gamma: tuple[float, float] = (0.5, 2.0)
    """Range of the gray curves of radiographs and of DRRs to restore; the held-out display style
    has 0.4 to 2.5."""

    window_cut: float = 0.22
    """Largest share of the gray range cut from a DRR to restore; held out: 0.3."""

    collimation: float = 0.18
    """Largest covered share per side of a DRR to restore; held out: 0.2."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        for name in ("adversarial", "cycle", "identity", "restoration"):
            if getattr(self, f"{name}_weight") < 0.0:
                raise ValueError(f"{name}_weight must be 0 or more")
        for name in ("zoom", "window_cut", "collimation"):
            if not 0.0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be at least 0 and below 0.5")
        if self.num_displays < 1:
            raise ValueError(f"num_displays must be at least 1, got {self.num_displays}")
        if not 0.0 < self.gamma[0] <= self.gamma[1]:
            raise ValueError(f"gamma must be a rising pair of positive numbers, got {self.gamma}")


@dataclass(frozen=True, kw_only=True)
class StyleTraining(ExamplesConfig):
    """Data and the one stage of a run that trains a style model."""

    style: StyleStage

    def __post_init__(self) -> None:
        """Refuse batches of more copies than there are."""
        super().__post_init__()
        check_copies(self, self.style)


@dataclass(frozen=True, kw_only=True)
class StyleRun:
    """A file in `configs/`: a style model and how to train it."""

    system: StyleConfig
    training: StyleTraining
