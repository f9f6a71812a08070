"""From encoded views to latents: the inference path shared by reconstruction and validation."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.diffusion.noise import Schedule
from fewview.diffusion.sampler import sample
from fewview.models.lifting import RayGrid
from fewview.system import Networks, SystemConfig


class EncodedViews(NamedTuple):
    """All that the denoiser is told, computed once per set of views."""

    condition: Float[Tensor, "batch condition depth_r height_r width_r"]
    coarse: Float[Tensor, "batch latent depth_r height_r width_r"]
    """Latent of the CT estimate; zeros where nothing needs it."""

    estimate: Float[Tensor, "batch 1 depth height width"]
    """Empty where nothing needs it."""


def condition_of(
    system: SystemConfig,
    networks: Networks,
    images: Float[Tensor, "batch view 2 row col"],
    rays: RayGrid,
    *,
    for_head: bool = False,
) -> EncodedViews:
    """Encode views: the aligned condition, the latent of the CT estimate, or one beside the other.

    Encoding the coarse CT puts condition and target into one latent space; the aligned condition
    and the detail add what the estimate, a mean, cannot say. Estimate and coarse latent are left
    out where neither diffusion nor the caller needs them.

    Args:
        system: The system.
        networks: Its networks.
        images: Normalized views and their kind.
        rays: Where the voxels of the model grid project.
        for_head: Whether the estimate is wanted for itself, as the deterministic head.
    """
    detailed = system.view_encoder.detail_channels > 0
    needed = system.stands_on_estimate or detailed or for_head
    encoding = networks.view_encoder(images, rays, with_estimate=needed)
    coded = for_head and system.head == "coded"
    if not system.stands_on_estimate and not coded:
        condition = torch.cat([encoding.condition, encoding.detail], dim=1)
        size = (len(images), system.autoencoder.latent_channels, *condition.shape[2:])
        return EncodedViews(condition, condition.new_zeros(size), encoding.estimate)
    coarse = networks.autoencoder.encode(encoding.estimate.clamp(-1.0, 1.0)).mean
    told = {"both": [encoding.condition, coarse], "views": [encoding.condition], "coarse": [coarse]}
    condition = torch.cat([*told[system.condition], encoding.detail], dim=1)
    return EncodedViews(condition, coarse, encoding.estimate)


def sample_latents(
    system: SystemConfig,
    networks: Networks,
    encoded: EncodedViews,
    noise: Float[Tensor, "batch latent depth height width"],
    *,
    nfe: int,
) -> Float[Tensor, "batch latent depth height width"]:
    """Latents from noise; encoded views of batch 1 serve any number of noises."""
    condition = encoded.condition.expand(len(noise), -1, -1, -1, -1)

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        prediction: Tensor = networks.denoiser(noisy, time, condition)
        return prediction

    sampled = sample(system.sampler, predict, Schedule(system.noise), noise, nfe=nfe)
    sampled = sampled / networks.latent_scale
    return encoded.coarse + sampled if system.diffusion_target == "residual" else sampled
