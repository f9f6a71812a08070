"""From encoded views to latents: the inference path shared by reconstruction and validation."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.diffusion.noise import Schedule, own_estimate
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
    with_estimate: bool = False,
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
        with_estimate: Whether the estimate is wanted, but not coded as a head may have it.
    """
    detailed = system.view_encoder.detail_channels > 0
    needed = system.stands_on_estimate or detailed or for_head or with_estimate
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
    """Latents from noise; encoded views of batch 1 serve any number of noises.

    Args:
        system: The system.
        networks: Its networks.
        encoded: What the denoiser is told.
        noise: Where sampling starts.
        nfe: Calls of the denoiser; with guidance half as many steps.

    Raises:
        ValueError: If an odd number of calls is to be guided.

    References:
        Guidance: Ho and Salimans (2022), equation 6, with 1 + w = `guidance`.
    """
    condition = encoded.condition.expand(len(noise), -1, -1, -1, -1)
    schedule, guidance = Schedule(system.noise), system.sampler.guidance
    guided = guidance != 1.0
    if guided and nfe % 2:
        raise ValueError(f"guidance calls the denoiser twice per step: nfe must be even, got {nfe}")
    shown: tuple[Tensor, ...] = ()  # the last clean estimate, where the denoiser takes one

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        nonlocal shown
        prediction: Tensor = networks.denoiser(noisy, time, condition, *shown)
        if guided:
            without = networks.denoiser(noisy, time, torch.zeros_like(condition), *shown)
            prediction = without + guidance * (prediction - without)
        if system.self_conditioning:
            shown = (own_estimate(schedule, prediction, noisy, time),)
        return prediction

    steps = nfe // 2 if guided else nfe
    sampled = sample(system.sampler, predict, schedule, noise, nfe=steps)
    sampled = sampled / networks.latent_scale
    return encoded.coarse + sampled if system.diffusion_target == "residual" else sampled
