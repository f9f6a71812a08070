"""The noise schedule: how much of the latent and how much noise at each time.

Variance-preserving: noisy = alpha * clean + sigma * noise, alpha^2 + sigma^2 = 1, time from 0
(clean) to 1 (noise).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """The schedule and what the network predicts."""

    beta_start: float = 0.0015
    """First beta of the 1000-step chain (CLS-DM)."""

    beta_end: float = 0.0155
    """Last beta of the 1000-step chain (CLS-DM)."""

    num_steps: int = 1000
    """Steps of the chain that the betas belong to."""

    prediction: Literal["epsilon", "v"] = "v"
    """What the network predicts: the noise (CLS-DM) or v = alpha noise - sigma clean."""

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot exist."""
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ValueError(
                f"need 0 < beta_start <= beta_end < 1, got {self.beta_start} and {self.beta_end}"
            )
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, got {self.num_steps}")


class Schedule:
    """alpha and sigma at any time in [0, 1], log alpha interpolated between the chain's steps.

    References:
        Rombach et al. (2022), "scaled linear" betas: the square roots are equally spaced.
        Time t of step i is (i + 1) / num_steps; time 0 is clean.
    """

    def __init__(self, config: NoiseConfig) -> None:
        """Tabulate log alpha of the chain in double precision."""
        self.prediction = config.prediction
        root = torch.linspace(
            math.sqrt(config.beta_start),
            math.sqrt(config.beta_end),
            config.num_steps,
            dtype=torch.float64,
        )
        log_alpha = 0.5 * torch.log1p(-(root**2)).cumsum(0)
        self._log_alpha = torch.cat([torch.zeros(1, dtype=torch.float64), log_alpha])

    def alpha_sigma(
        self, time: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Shares of the clean latent and of the noise at `time` in [0, 1]."""
        table = self._log_alpha.to(time.device)
        position = time.double().clamp(0.0, 1.0) * (len(table) - 1)
        lower = position.floor().long().clamp(max=len(table) - 2)
        weight = position - lower
        log_alpha = torch.lerp(table[lower], table[lower + 1], weight)
        alpha = log_alpha.exp()
        sigma = (-torch.expm1(2.0 * log_alpha)).clamp(min=0.0).sqrt()
        return alpha.to(time.dtype), sigma.to(time.dtype)

    def time_of(self, ratio: Float[Tensor, " level"]) -> Float[Tensor, " level"]:
        """Time at which sigma / alpha has a given value; the inverse of `alpha_sigma`."""
        log_alpha = -0.5 * torch.log1p(ratio.double() ** 2)
        table = self._log_alpha.flip(0)  # ascending, from noise to clean
        upper = torch.searchsorted(table, log_alpha).clamp(1, len(table) - 1)
        below, above = table[upper - 1], table[upper]
        weight = ((log_alpha - below) / (above - below)).clamp(0.0, 1.0)
        return 1.0 - (upper - 1 + weight) / (len(table) - 1)

    def sampling_times(self, nfe: int) -> Float[Tensor, " level"]:
        """`nfe` falling times from 1 to the chain's first step, then 0.

        Equally spaced in (sigma / alpha)^(1/7), which puts most steps where detail is decided.

        References:
            Karras et al. (2022), EDM, equation 5 with rho 7.
        """
        ends = torch.tensor([1.0, 1.0 / (len(self._log_alpha) - 1)], dtype=torch.float64)
        alpha, sigma = self.alpha_sigma(ends)
        largest, smallest = ((sigma / alpha) ** (1 / 7)).tolist()
        levels = torch.linspace(largest, smallest, nfe, dtype=torch.float64) ** 7
        times = self.time_of(levels)
        times[0] = 1.0
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)]).float()

    def split(self, output: Tensor, noisy: Tensor, time: Float[Tensor, " batch"]) -> "Split":
        """Clean latent and noise that a network's output stands for."""
        alpha, sigma = (per_volume(value, noisy) for value in self.alpha_sigma(time))
        if self.prediction == "epsilon":
            return Split((noisy - sigma * output) / alpha, output)
        return Split(alpha * noisy - sigma * output, sigma * noisy + alpha * output)


@dataclass(frozen=True, eq=False)
class Split:
    """A noisy latent taken apart: clean estimate and noise estimate."""

    denoised: Tensor
    noise: Tensor


LARGEST_ESTIMATE = 5.0
"""In standard deviations of what is sampled: at the noisy end a network that predicts noise says
little of the clean part, and divides its errors by a small alpha."""


def own_estimate(
    schedule: Schedule, output: Tensor, noisy: Tensor, time: Float[Tensor, " batch"]
) -> Tensor:
    """The clean estimate of a network's output, as the network is shown it in its next call."""
    denoised = schedule.split(output, noisy, time).denoised
    return denoised.clamp(-LARGEST_ESTIMATE, LARGEST_ESTIMATE)


def per_volume(value: Shaped[Tensor, " batch"], like: Tensor) -> Tensor:
    """One value per sample, shaped to multiply a batch of volumes."""
    return value.reshape(-1, *(1,) * (like.ndim - 1))
