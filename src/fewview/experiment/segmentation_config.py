"""What the segmentation transfer compares: the TOML file of `fewview.experiment.segmentation`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from fewview.data.labelled import LabelLayout
from fewview.experiment.config import MAX_VIEWS
from fewview.inputs import GridConfig
from fewview.transfer.pretrain import PretrainingStage
from fewview.transfer.segment import FinetuningStage
from fewview.transfer.segmenter import SegResNetConfig, SwinUnetrConfig
from fewview.xray.geometry import PRESET_NAMES

Arm = Literal["none", "real", "reconstructed"]
"""What a network is pre-trained on."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Labelled cases, and who of them is held out. Counts are of patients."""

    layout: LabelLayout
    """How the folder given by `--data` is laid out."""

    num_test: int
    """Held out, for the Dice."""

    label_counts: tuple[int, ...] = (2, 8, 32)
    """How many labelled cases a network is fine-tuned on, once for each."""

    num_unlabelled: int = 64
    """CTs to pre-train on: of `--unlabelled`, or without it of `--data`, labels unread."""

    seed: int = 0
    """Another seed holds out other patients."""

    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels of each class; by default each label is a class."""

    def __post_init__(self) -> None:
        """Refuse counts from which nothing can be learned or told."""
        if self.num_test < 2:
            raise ValueError(f"num_test must be at least 2 for intervals, got {self.num_test}")
        if not self.label_counts or min(self.label_counts) < 1:
            raise ValueError(f"label_counts must be 1 or more, got {self.label_counts}")
        if len(set(self.label_counts)) != len(self.label_counts):
            raise ValueError(f"the same value stands twice in {self.label_counts}")
        if self.num_unlabelled < 1:
            raise ValueError(f"num_unlabelled must be 1 or more, got {self.num_unlabelled}")


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How the reconstructed CTs are made: X-rays of each unlabelled CT, then `reconstruct`."""

    model: str = "fewview-64"
    """Bundled name or model folder."""

    num_views: int = 2
    """X-rays, spread over 180 degrees from 0."""

    geometry: str = "chest"
    """Preset of all views."""

    num_pixels: int = 256
    """Detector pixels per side; the detector keeps its extent."""

    nfe: int | None = None
    """Denoiser calls, 0 for the deterministic head; the model's default."""

    def __post_init__(self) -> None:
        """Refuse views that cannot be made."""
        if not 1 <= self.num_views <= MAX_VIEWS:
            raise ValueError(f"num_views must be 1 to {MAX_VIEWS}, got {self.num_views}")
        if self.geometry not in PRESET_NAMES:
            raise ValueError(f"geometry must be one of {', '.join(PRESET_NAMES)}")
        if self.num_pixels < 8:
            raise ValueError(f"num_pixels must be at least 8, got {self.num_pixels}")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Arms x numbers of labelled cases x seeds, all with one network and one budget."""

    name: str
    """What the report is called."""

    arms: tuple[Arm, ...] = ("none", "real", "reconstructed")
    """What the network is pre-trained on."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Each draws weights, examples and which cases have labels, alike for all arms."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the forward passes; weights and optimizer stay in float32."""

    grid: GridConfig = field(default_factory=GridConfig)
    data: DataConfig
    network: Annotated[SegResNetConfig | SwinUnetrConfig, Field(discriminator="kind")] = field(
        default_factory=SegResNetConfig
    )
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    pretraining: PretrainingStage
    finetuning: FinetuningStage

    def __post_init__(self) -> None:
        """Refuse what cannot be run or compared."""
        for values in (self.arms, self.seeds):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"arms and seeds must be given, each once; got {values}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be 0 or more, got {self.seeds}")
        if self.grid.size % self.network.reduction or self.grid.size < 2 * self.network.reduction:
            raise ValueError(
                f"{self.network.kind} halves its grid down to 1/{self.network.reduction}: "
                f"grid.size must be a multiple of that, and twice at least; got {self.grid.size}"
            )
        damage = self.pretraining.damage
        for edge in (damage.shuffle_edge, damage.mask_edge):
            if self.grid.size % edge:
                raise ValueError(f"cubes of {edge} voxels do not fill a grid of {self.grid.size}")
