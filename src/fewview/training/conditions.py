"""Conditions of copies whose views stay the same, computed once.

Stage 3 then runs the denoiser alone: neither projector nor view encoder.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float16
from torch import Tensor

from fewview.models.digest import weights_digest
from fewview.sampling import EncodedViews, condition_of
from fewview.system import Networks, SystemConfig
from fewview.training.caches import cached
from fewview.training.latents import Latents
from fewview.training.loop import Report
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


def cached_conditions(
    path: Path,
    system: SystemConfig,
    networks: Networks,
    latents: Latents,
    source: TrainingSource,
    report: Report,
) -> Conditions:
    """Read the conditions by these networks, or draw each copy's views, encode and keep them."""

    def encoded(index: int) -> Tensor:
        views = source.views([source.body(latents.keys[index])], range(1), 35, index)
        with source.autocast():
            found = condition_of(system, networks, views.images, views.rays)
        return torch.cat([found.condition, found.coarse], dim=1).half()

    both = cached(
        path,
        latents.keys,
        encoded,
        source.processes,
        partial(report, "conditions"),
        made_by=weights_digest(networks.view_encoder, networks.autoencoder),
    )
    num_latent = latents.mean.shape[1]
    return Conditions(both[:, :-num_latent], both[:, -num_latent:])
