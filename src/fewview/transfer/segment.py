"""Supervised fine-tuning of a segmentation network, and its label maps as files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fewview.data.images import write_labels
from fewview.data.labelled import LabelledCase, LabelledSet, on_cube, read_labelled
from fewview.training.loop import Report, Stage, fit
from fewview.training.stage_config import StageConfig
from fewview.transfer.setting import (
    MovementConfig,
    Setting,
    Unit,
    moved,
    moved_classes,
    movement,
    unit_of,
)

NAME = "finetuning"
SMOOTH = 1e-5
"""Keeps the Dice of a class that is nowhere at 1; MONAI's `DiceLoss` has the same."""


@dataclass(frozen=True, kw_only=True)
class FinetuningStage(StageConfig):
    """How a network learns to segment; every arm of a comparison gets the same."""

    dice_weight: float = 1.0
    """Weight of the soft Dice loss."""

    cross_entropy_weight: float = 1.0
    """Weight of the cross-entropy."""

    movement: MovementConfig = field(default_factory=MovementConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        if self.checkpointing:
            raise ValueError("checkpointing is not there for segmentation networks; leave it out")
        weights = (self.dice_weight, self.cross_entropy_weight)
        if min(weights) < 0.0 or not any(weights):
            raise ValueError("dice_weight and cross_entropy_weight must be 0 or more, not both 0")


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled CT on the model grid."""

    id: str
    unit: Unit
    classes: UInt8[Tensor, "depth height width"]
    voxel_to_patient: Float[np.ndarray, "4 4"]


def read_example(
    case: LabelledCase, found: LabelledSet, table: UInt8[np.ndarray, "256"], setting: Setting
) -> Example:
    """Read a labelled CT; `table` says the class of each label number."""
    grid = setting.grid
    volume, numbers = read_labelled(case, found.labels)
    volume, numbers = on_cube(volume, numbers, size=grid.size, extent_mm=grid.extent_mm)
    classes = torch.from_numpy(table[numbers])
    return Example(case.id, unit_of(volume, grid), classes, volume.voxel_to_patient)


def finetune(
    config: FinetuningStage,
    network: nn.Module,
    examples: Sequence[Example],
    setting: Setting,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit a network to labelled CTs; the budget alone ends it, so that nothing is chosen on them.

    Args:
        config: Budget and loss.
        network: From one channel to one for each class and the background; ends with the
            averaged weights.
        examples: The labelled CTs; each example of a step is one of them, moved.
        setting: Seed, precision and device.
        out: Gets the checkpoint `finetuning.safetensors` and `metrics.jsonl`.
        report: Called while training.
    """
    assert examples, "nothing to learn from"

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        units, classes = [], []
        for place in places:
            generator = setting.generator(22, step, place)
            one = examples[int(torch.randint(len(examples), (1,), generator=generator))]
            affine = movement(config.movement, generator)
            units.append(moved(one.unit, affine))
            classes.append(moved_classes(one.classes.float(), affine).long())
        truth = torch.stack(classes).to(setting.device)
        with setting.autocast():
            logits = network(torch.stack(units).to(setting.device)).float()
        overlap = dice_loss(logits, truth)
        entropy = F.cross_entropy(logits, truth)
        loss = config.dice_weight * overlap + config.cross_entropy_weight * entropy
        return loss, {"dice_loss": overlap.item(), "cross_entropy": entropy.item()}

    out.mkdir(parents=True, exist_ok=True)
    stage = Stage(name=NAME, config=config, module=network, step_loss=step_loss, validate=dict)
    fit(stage, out, setting.processes, report=report)


def dice_loss(
    logits: Float[Tensor, "batch channel depth height width"],
    truth: Int64[Tensor, "batch depth height width"],
) -> Float[Tensor, ""]:
    """One minus the soft Dice, mean over examples and classes without the background.

    References:
        Milletari et al. (2016), V-Net, arXiv:1606.04797, without their squares in the denominator.
    """
    shares = logits.softmax(dim=1)[:, 1:]
    there = F.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:]
    common = (shares * there).flatten(2).sum(dim=2)
    both = shares.flatten(2).sum(dim=2) + there.flatten(2).sum(dim=2)
    return 1.0 - ((2.0 * common + SMOOTH) / (both + SMOOTH)).mean()


@torch.no_grad()
def write_segmentation(network: nn.Module, example: Example, setting: Setting, path: Path) -> None:
    """Write the most likely class of every voxel of a CT as a label map."""
    with setting.autocast():
        logits = network(example.unit[None].to(setting.device))
    classes = logits[0].float().argmax(dim=0).to(torch.uint8).cpu().numpy()
    write_labels(classes, example.voxel_to_patient, path)
