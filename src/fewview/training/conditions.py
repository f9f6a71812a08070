"""Conditions of copies whose views stay the same, computed once.

Stage 3 then runs the denoiser alone: neither projector nor view encoder.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float16
from safetensors.torch import save_file
from torch import Tensor

from fewview.data.files import replacing_file
from fewview.sampling import EncodedViews, condition_of
from fewview.system import Networks, SystemConfig
from fewview.training.batches import in_shares
from fewview.training.checkpoint import read_checkpoint
from fewview.training.latents import Latents
from fewview.training.source import TrainingSource


@dataclass(frozen=True, eq=False)
class Conditions:
    """What the denoiser is told of each copy, in the order of its latents."""

    condition: Float16[Tensor, "example condition depth height width"]
    coarse: Float16[Tensor, "example latent depth height width"]

    def of(self, chosen: list[int], device: str) -> EncodedViews:
        """The encoded views of chosen copies, without the estimate."""
        condition, coarse = (
            kept[chosen].float().to(device) for kept in (self.condition, self.coarse)
        )
        return EncodedViews(condition, coarse, condition.new_empty(len(chosen), 1, 0, 0, 0))


@torch.no_grad()
def cached_conditions(
    path: Path,
    system: SystemConfig,
    networks: Networks,
    latents: Latents,
    source: TrainingSource,
) -> Conditions:
    """Read the conditions of the run, or draw each copy's views, encode them and keep that."""
    expected = json.dumps([[key.case, key.seed] for key in latents.keys])
    if path.exists():
        tensors, metadata = read_checkpoint(path)
        if metadata.get("keys") == expected:
            return Conditions(tensors["condition"], tensors["coarse"])

    def encoded(index: int) -> Tensor:
        views = source.views([source.body(latents.keys[index])], range(1), 35, index)
        with source.autocast():
            found = condition_of(system, networks, views.images, views.rays)
        return torch.cat([found.condition, found.coarse], dim=1).half()

    both = in_shares(encoded, len(latents.keys), source.processes)
    told = both.shape[1] - latents.mean.shape[1]
    conditions = Conditions(both[:, :told].contiguous(), both[:, told:].contiguous())
    if source.processes.first:
        tensors = {"condition": conditions.condition, "coarse": conditions.coarse}
        with replacing_file(path) as writing:
            save_file(tensors, writing, {"keys": expected})
    return conditions
