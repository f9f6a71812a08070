"""The denoising loss, one function for every prediction."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewview.diffusion.noise import Schedule, own_estimate, per_volume

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy latent, time, condition) to the prediction."""


def denoising_loss(
    network: Network,
    schedule: Schedule,
    latent: Float[Tensor, "batch latent depth height width"],
    condition: Float[Tensor, "batch condition depth height width"],
    *,
    time: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch latent depth height width"],
    error: Literal["l1", "mse"] = "l1",
) -> Float[Tensor, ""]:
    """Mean error of the network's prediction at given times and noise.

    The squared error is what makes the samples follow the data's distribution; the absolute error
    aims at the median and narrows it.

    References:
        Ho et al. (2020), equation 14; L1 as in CLS-DM; v as in Salimans and Ho (2022).
    """
    alpha, sigma = (per_volume(value, latent) for value in schedule.alpha_sigma(time))
    noisy = alpha * latent + sigma * noise
    target = noise if schedule.prediction == "epsilon" else alpha * noise - sigma * latent
    difference = network(noisy, time, condition) - target
    return difference.abs().mean() if error == "l1" else difference.square().mean()


def self_conditioned(network: Callable[..., Tensor], schedule: Schedule) -> Network:
    """A network that is shown its own clean estimate, made by a first call without gradient.

    For half of the training steps; in the others the network sees zeros.

    Args:
        network: (noisy latent, time, condition, last clean estimate or none) to the prediction.
        schedule: Tells the clean estimate of a prediction.

    References:
        Chen et al. (2022), Analog Bits, algorithm 1.
    """

    def predict(noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        with torch.no_grad():
            first = network(noisy, time, condition, None)
        return network(noisy, time, condition, own_estimate(schedule, first, noisy, time))

    return predict


def dropped(condition: Tensor, drop: Bool[Tensor, " batch"]) -> Tensor:
    """Conditions of which some are zeros, which stand for none.

    References:
        Ho and Salimans (2022), classifier-free guidance, algorithm 1.
    """
    return condition * per_volume(~drop, condition).to(condition.dtype)


def stratified_times(batch: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
    """Times spread evenly over (0, 1] with one random shift, for a steadier gradient.

    References:
        Kingma et al. (2021), appendix I.1, low-discrepancy sampler.
    """
    shift = torch.rand(1, generator=generator)
    spread = (torch.arange(batch) / batch + shift) % 1.0
    return spread[torch.randperm(batch, generator=generator)].clamp(min=1e-3)
