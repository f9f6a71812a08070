"""What a detector makes of line integrals: counts with noise, and images for the eye.

Line integrals are clean; a detector counts photons. `expose` goes from line integrals to
noisy ones through intensity and back; `display_style` makes what a viewing station shows.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

DISPLAY_LEVELS = 255  # 8 bits


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """A flat panel detector."""

    photons: float = 1e5
    """Photons per pixel without an object; about 1e5 in a chest radiograph."""

    electronic_noise: float = 10.0
    """Standard deviation of the readout, in photons."""

    gain: float = 1.0
    """Detector units per photon; cancels in the logarithm, but for `floor`."""

    floor: float = 0.5
    """Smallest signal that the logarithm sees, in detector units."""

    def __post_init__(self) -> None:
        """Refuse a detector that cannot exist."""
        for name in ("photons", "gain", "floor"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0.0 <= self.electronic_noise < math.inf:
            raise ValueError(f"electronic_noise must not be negative, got {self.electronic_noise}")


def intensity(line_integrals: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """I / I0 by the law of Beer and Lambert."""
    return (-line_integrals).exp()


def expose(
    line_integrals: Float[Tensor, "*shape"], config: DetectorConfig, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Line integrals as a real detector would give them: Poisson counts, readout noise, log.

    Args:
        line_integrals: Noise-free line integrals, without unit.
        config: The detector.
        generator: Source of the noise; on the device of the images.

    Returns:
        Noisy line integrals; where hardly a photon arrives they end at log(I0 / floor).
    """
    expected = config.photons * intensity(line_integrals)
    counts = torch.poisson(expected, generator=generator)
    readout = torch.empty_like(counts).normal_(generator=generator) * config.electronic_noise
    signal = (config.gain * (counts + readout)).clamp(min=config.floor)
    return torch.log(config.gain * config.photons / signal)


def display_style(
    line_integrals: Float[Tensor, "*lead row col"],
    *,
    gamma: float = 1.0,
    window: tuple[float, float] = (0.01, 0.99),
) -> Float[Tensor, "*lead row col"]:
    """An 8-bit image for the eye, bone bright, in [0, 1]: own window, gamma, 256 levels.

    Each image is scaled by its own values, so attenuation is lost.

    Args:
        line_integrals: Line integrals, or any values that are larger behind bone.
        gamma: Exponent of the gray curve; above 1 darkens the middle.
        window: Shares of each image's pixels that are black, and that are not white.

    Raises:
        ValueError: If gamma or window cannot be.
    """
    if gamma <= 0.0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    if not 0.0 <= window[0] < window[1] <= 1.0:
        raise ValueError(f"window must be two rising shares from 0 to 1, got {window}")
    flat = line_integrals.flatten(-2)
    low, high = _quantiles(flat, window)
    spread = (high - low).clamp(min=1e-6)[..., None, None]
    scaled = ((line_integrals - low[..., None, None]) / spread).clamp(0.0, 1.0) ** gamma
    return (scaled * DISPLAY_LEVELS).round() / DISPLAY_LEVELS


def _quantiles(
    flat: Float[Tensor, "*lead pixel"], shares: tuple[float, float]
) -> Float[Tensor, "2 *lead"]:
    """What so large shares of the pixels do not exceed, between two pixels by a straight line.

    To the bit what `torch.quantile` gives, which takes no more than 16 million pixels.
    """
    assert flat.dtype in (torch.float32, torch.float64), "the rank of a pixel needs the digits"
    ordered = flat.sort(dim=-1).values
    last = flat.shape[-1] - 1
    ranks = torch.tensor(shares, dtype=flat.dtype, device=flat.device) * last
    # Past 2^24 pixels the last rank may be rounded up to one that is none.
    below, above = ranks.long().clamp(max=last), ranks.ceil().long().clamp(max=last)
    found = torch.lerp(ordered[..., below], ordered[..., above], ranks - below)
    found = found.masked_fill(ordered[..., -1:].isnan(), math.nan)  # NaN is sorted to the end
    return found.movedim(-1, 0)
