"""What pre-training and fine-tuning share: grid, seed, precision, files as examples, movements."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewview.data.images import read_volume
from fewview.data.volume import Volume, cubic_grid, resample
from fewview.inputs import GridConfig
from fewview.training.examples import generator_of, uniform
from fewview.training.processes import Processes

Unit = Float[Tensor, "1 depth height width"]
"""One CT in [-1, 1] on the model grid."""

SMALLEST_DEEPEST = 4
"""Voxels along an axis of the deepest features. Where they are smaller than a kernel, gradients in
bfloat16 are undefined on some processors (see `fewview.training.source`)."""


@dataclass(frozen=True, kw_only=True)
class MovementConfig:
    """How a CT is moved, with its labels if it has any. No mirror: left and right have names."""

    rotate_deg: float = 8.0
    """Largest rotation about each axis."""

    scale: float = 0.15
    """Largest relative change of size."""

    shift: float = 0.08
    """Largest shift along each axis, as a share of the grid's edge."""

    def __post_init__(self) -> None:
        """Refuse what turns a body inside out."""
        if not (0.0 <= self.scale < 1.0 and self.rotate_deg >= 0.0 and self.shift >= 0.0):
            raise ValueError("movements need 0 <= scale < 1, rotate_deg >= 0 and shift >= 0")


@dataclass(frozen=True, eq=False)
class Setting:
    """Where and how one network is trained; every draw follows from the seed."""

    grid: GridConfig
    reduction: int
    seed: int
    precision: Literal["float32", "bfloat16"]
    processes: Processes

    @property
    def device(self) -> str:
        """Where the network computes."""
        return self.processes.device

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision of forward passes; single where features are too small for bfloat16."""
        small = self.grid.size // self.reduction < SMALLEST_DEEPEST
        if small or self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], torch.bfloat16)

    def generator(self, *numbers: int) -> torch.Generator:
        """The draws that belong to these numbers, such as a step and a place."""
        return generator_of(self.seed, *numbers)


class UnitVolumes:
    """CT files as examples on the model grid, the last used kept in memory."""

    def __init__(self, paths: Sequence[Path], grid: GridConfig, *, capacity: int = 512) -> None:
        """Read from files that this package wrote; at most `capacity` stay in memory."""
        self.paths = tuple(paths)
        self.grid = grid
        self._read = lru_cache(maxsize=capacity)(self._load)

    def __len__(self) -> int:
        """How many files there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Unit:
        """One of the volumes."""
        return self._read(index).float()

    def _load(self, index: int) -> Tensor:
        volume = on_model_grid(read_volume(self.paths[index], known_hu=True), self.grid)
        return unit_of(volume, self.grid).half()


def on_model_grid(volume: Volume, grid: GridConfig) -> Volume:
    """A CT on the model grid about its center."""
    cube = cubic_grid(volume.center_mm, size=grid.size, extent_mm=grid.extent_mm)
    return resample(volume, cube)


def unit_of(volume: Volume, grid: GridConfig) -> Unit:
    """A CT on the model grid as a tensor in [-1, 1]."""
    return grid.to_unit(torch.from_numpy(volume.hu))[None]


def movement(config: MovementConfig, generator: torch.Generator) -> Float[Tensor, "3 4"]:
    """A random affine map of places in [-1, 1]^3, as `affine_grid` takes it."""
    linear = torch.eye(3) / (1.0 + uniform(generator, -config.scale, config.scale))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(uniform(generator, -config.rotate_deg, config.rotate_deg))
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        linear = turn @ linear
    shift = [2.0 * uniform(generator, -config.shift, config.shift) for _ in range(3)]
    return torch.cat([linear, torch.tensor(shift)[:, None]], dim=1)


def moved(unit: Unit, affine: Float[Tensor, "3 4"]) -> Unit:
    """A CT after a movement; air comes in from outside."""
    places = F.affine_grid(affine[None], [1, 1, *unit.shape[1:]], align_corners=False)
    return F.grid_sample(unit[None] + 1.0, places, align_corners=False)[0] - 1.0


def moved_classes(
    classes: Float[Tensor, "depth height width"], affine: Float[Tensor, "3 4"]
) -> Float[Tensor, "depth height width"]:
    """A map of classes after the same movement, each voxel taking the nearest; 0 outside."""
    places = F.affine_grid(affine[None], [1, 1, *classes.shape], align_corners=False)
    return F.grid_sample(classes[None, None], places, mode="nearest", align_corners=False)[0, 0]
