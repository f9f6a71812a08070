"""Samplers as functions: noise to a latent in a chosen number of denoiser calls.

Both start from pure noise at time 1 and end at time 0 exactly, so the last step returns the clean
estimate itself. `nfe` is the number of denoiser calls.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.diffusion.noise import Schedule, Split, per_volume

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latent, time) to the network's prediction; the condition is already inside."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Which sampler and how many denoiser calls."""

    kind: Literal["ddim", "dpmpp"] = "dpmpp"
    """DDIM (Song et al. 2021) or DPM-Solver++(2M) (Lu et al. 2022)."""

    nfe: int = 10
    """Denoiser calls per sample; with guidance two per step."""

    guidance: float = 1.0
    """How far to go from the prediction without condition toward and beyond that with it: 1 is the
    latter alone, more follows the views more closely. Anything but 1 needs `condition_dropout` in
    training and calls the denoiser twice per step."""

    num_samples: int = 0
    """Samples whose mean is returned when nothing else is asked for; 0 is the deterministic
    head alone."""

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if not self.guidance >= 0.0:
            raise ValueError(f"guidance must be 0 or more, got {self.guidance}")
        if self.guidance != 1.0 and self.nfe % 2:
            raise ValueError(f"guidance needs an even nfe, two calls per step; got {self.nfe}")
        if self.nfe < 1 or self.num_samples < 0:
            raise ValueError(
                f"nfe must be at least 1 and num_samples 0 or more, got {self.nfe} and "
                f"{self.num_samples}"
            )


def sample(
    config: SamplerConfig,
    predict: Predict,
    schedule: Schedule,
    noise: Float[Tensor, "batch latent depth height width"],
    *,
    nfe: int,
) -> Float[Tensor, "batch latent depth height width"]:
    """Run the configured sampler."""
    match config.kind:
        case "ddim":
            return ddim(predict, schedule, noise, nfe=nfe)
        case "dpmpp":
            return dpmpp_2m(predict, schedule, noise, nfe=nfe)


def _denoise(predict: Predict, schedule: Schedule, noisy: Tensor, time: Tensor) -> Split:
    times = time.expand(len(noisy)).to(noisy.device)
    return schedule.split(predict(noisy, times), noisy, times)


def _levels(schedule: Schedule, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = schedule.alpha_sigma(time.reshape(1).to(like.device))
    return per_volume(alpha, like), per_volume(sigma, like)


def ddim(
    predict: Predict, schedule: Schedule, noise: Tensor, *, nfe: int
) -> Float[Tensor, "batch latent depth height width"]:
    """Deterministic DDIM on the schedule's sampling times.

    References:
        Song, Meng, Ermon (2021), equation 12 with eta 0.
    """
    times = schedule.sampling_times(nfe)
    noisy = noise
    for now, after in itertools.pairwise(times):
        split = _denoise(predict, schedule, noisy, now)
        alpha, sigma = _levels(schedule, after, noisy)
        noisy = alpha * split.denoised + sigma * split.noise
    return noisy


def dpmpp_2m(
    predict: Predict, schedule: Schedule, noise: Tensor, *, nfe: int
) -> Float[Tensor, "batch latent depth height width"]:
    """DPM-Solver++, second order, multistep, on the schedule's sampling times.

    The first step is first order, and so is the last, which goes to sigma 0.

    References:
        Lu et al. (2022), DPM-Solver++, algorithm 2.
    """
    times = schedule.sampling_times(nfe)
    noisy, previous, step_before = noise, None, None
    for now, after in itertools.pairwise(times):
        denoised = _denoise(predict, schedule, noisy, now).denoised
        (alpha, sigma), (alpha_next, sigma_next) = (
            _levels(schedule, moment, noisy) for moment in (now, after)
        )
        if after == 0:
            return denoised
        step = (alpha_next / sigma_next).log() - (alpha / sigma).log()
        corrected = denoised
        if previous is not None and step_before is not None:
            ratio = step_before / step
            corrected = denoised + (denoised - previous) / (2.0 * ratio)
        noisy = (sigma_next / sigma) * noisy - alpha_next * torch.expm1(-step) * corrected
        previous, step_before = denoised, step
    return noisy
