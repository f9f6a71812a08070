"""Self-supervised pre-training: a network learns to undo damage done to unlabelled CTs.

What it restores is what makes anatomy: where things lie (masked cubes, from in-painting to
out-painting), and how tissue looks up close (shuffled voxels). No label is read.

References:
    Zhou et al. (2021), Models Genesis, Medical Image Analysis 67, sections 2.2.2 to 2.2.4: local
    shuffling, out-painting and in-painting with noise, restored by one encoder and decoder. Their
    intensity transformation is left out, for in CT intensity is measured, not arbitrary.
    Xie et al. (2022), SimMIM, arXiv:2111.09886: masked cubes on a grid and an L1 loss.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewview.training.examples import uniform
from fewview.training.loop import Report, Stage, fit
from fewview.training.stage_config import StageConfig
from fewview.transfer.setting import MovementConfig, Setting, Unit, UnitVolumes, moved, movement

NAME = "pretraining"


@dataclass(frozen=True, kw_only=True)
class DamageConfig:
    """What is done to a CT before the network sees it. Edges in voxels."""

    shuffle_share: float = 0.5
    """Share of examples with shuffled voxels."""

    shuffle_edge: int = 4
    """Edge of the cubes inside which voxels are shuffled."""

    shuffled_cubes: float = 0.5
    """Share of the cubes that are shuffled."""

    mask_edge: int = 8
    """Edge of the cubes that are masked."""

    masked_cubes: tuple[float, float] = (0.1, 0.7)
    """Range of the share of cubes masked by noise: little is in-painting, much out-painting."""

    def __post_init__(self) -> None:
        """Refuse damage that cannot be."""
        low, high = self.masked_cubes
        if not 0.0 <= low <= high < 1.0:
            raise ValueError(f"masked_cubes must be a range in 0 to below 1, got {low} to {high}")
        if min(self.shuffle_edge, self.mask_edge) < 2:
            raise ValueError("shuffle_edge and mask_edge must be 2 or more voxels")
        if not (0.0 <= self.shuffle_share <= 1.0 and 0.0 <= self.shuffled_cubes <= 1.0):
            raise ValueError("shuffle_share and shuffled_cubes must be 0 to 1")


@dataclass(frozen=True, kw_only=True)
class PretrainingStage(StageConfig):
    """How a network is pre-trained."""

    damage: DamageConfig = field(default_factory=DamageConfig)
    movement: MovementConfig = field(default_factory=MovementConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        super().__post_init__()
        if self.checkpointing:
            raise ValueError("checkpointing is not there for segmentation networks; leave it out")


def pretrain(
    config: PretrainingStage,
    network: nn.Module,
    volumes: UnitVolumes,
    setting: Setting,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit a network with one output channel to restore damaged CTs; resumes exactly.

    Args:
        config: Budget and damage.
        network: From one channel to one; ends with the averaged weights.
        volumes: The unlabelled CTs; each example of a step is one of them.
        setting: Seed, precision and device.
        out: Gets the checkpoint `pretraining.safetensors` and `metrics.jsonl`.
        report: Called while training.

    Raises:
        ValueError: If there is no volume, or cubes do not fill the grid.
    """
    if not len(volumes):
        raise ValueError("there is no volume to pre-train on")
    for edge in (config.damage.shuffle_edge, config.damage.mask_edge):
        if setting.grid.size % edge:
            raise ValueError(f"cubes of {edge} voxels do not fill a grid of {setting.grid.size}")

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        whole, broken = [], []
        for place in places:
            generator = setting.generator(21, step, place)
            index = int(torch.randint(len(volumes), (1,), generator=generator))
            whole.append(moved(volumes[index], movement(config.movement, generator)))
            broken.append(damaged(whole[-1], config.damage, generator))
        with setting.autocast():
            restored = network(torch.stack(broken).to(setting.device))
        loss = (restored.float() - torch.stack(whole).to(setting.device)).abs().mean()
        return loss, {}

    out.mkdir(parents=True, exist_ok=True)
    stage = Stage(name=NAME, config=config, module=network, step_loss=step_loss, validate=dict)
    fit(stage, out, setting.processes, report=report)


def damaged(unit: Unit, config: DamageConfig, generator: torch.Generator) -> Unit:
    """A CT with voxels shuffled inside cubes, and cubes of noise; the draws are always the same.

    Args:
        unit: A CT in [-1, 1].
        config: What to do.
        generator: Draws which cubes and how.
    """
    shuffles = uniform(generator, 0.0, 1.0) < config.shuffle_share
    cubes = to_cubes(unit, config.shuffle_edge)
    order = torch.rand(cubes.shape, generator=generator).argsort(dim=1)
    chosen = torch.rand(len(cubes), 1, generator=generator) < config.shuffled_cubes
    if shuffles:
        unit = from_cubes(torch.where(chosen, cubes.gather(1, order), cubes), unit)
    cubes = to_cubes(unit, config.mask_edge)
    count = round(uniform(generator, *config.masked_cubes) * len(cubes))
    masked = torch.randperm(len(cubes), generator=generator)[:count]
    noise = 2.0 * torch.rand(count, cubes.shape[1], generator=generator) - 1.0
    return from_cubes(cubes.index_copy(0, masked, noise), unit)


def to_cubes(unit: Unit, edge: int) -> Float[Tensor, "cube voxel"]:
    """The voxels of each cube of a grid of cubes."""
    depth, height, width = (count // edge for count in unit.shape[1:])
    split = unit.reshape(depth, edge, height, edge, width, edge)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, edge**3)


def from_cubes(cubes: Float[Tensor, "cube voxel"], like: Unit) -> Unit:
    """The volume that `to_cubes` took apart, of the shape of `like`."""
    edge = round(cubes.shape[1] ** (1 / 3))
    depth, height, width = (count // edge for count in like.shape[1:])
    split = cubes.reshape(depth, height, width, edge, edge, edge)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(like.shape)
