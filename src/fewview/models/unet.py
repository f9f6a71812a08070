"""The denoiser with levels of its own choice, down-sampled along all three axes.

It knows tensors at the latent's grid only; schedule, loss and sampling are in `diffusion`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import ResidualBlock, SelfAttention, group_norm, sinusoidal_code
from fewview.models.prior import CrossAttention, PriorConfig, PriorTokens


@dataclass(frozen=True, kw_only=True)
class UnetDenoiserConfig(PriorConfig):
    """Sizes of the denoising U-Net with levels; the defaults are the published ones."""

    kind: Literal["unet"]

    width: int = 32
    """Channels of the first level, which has the latent's resolution."""

    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Channels of each level in units of `width`; each level has half the resolution of the one
    before."""

    num_blocks: int = 2
    """Residual blocks of a level on the way down; there is one more on the way up."""

    attention_levels: tuple[int, ...] = (0, 1, 2, 3)
    """Levels whose voxels attend to each other after every block; 0 is the first."""

    head_channels: int = 8
    """Channels of one head of the attention."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        super().__post_init__()
        if min(self.width, self.num_blocks, self.head_channels, *self.multipliers, 1) < 1:
            raise ValueError("denoiser sizes must be at least 1")
        if not self.multipliers:
            raise ValueError("multipliers needs at least one level")
        if not set(self.attention_levels) <= set(range(len(self.multipliers))):
            raise ValueError(
                f"attention_levels {list(self.attention_levels)} must be 0 to "
                f"{len(self.multipliers) - 1}, one for each of the multipliers"
            )
        attending = {len(self.multipliers) - 1, *self.attention_levels}
        for width in (self.width * self.multipliers[level] for level in sorted(attending)):
            if width % self.head_channels:
                raise ValueError(
                    f"the {width} channels of a level with attention must be divisible by "
                    f"head_channels {self.head_channels}"
                )

    @property
    def coarsest(self) -> int:
        """Voxels of the latent per voxel of the coarsest features, along one axis."""
        return int(2 ** (len(self.multipliers) - 1))


class UnetStep(nn.Module):
    """A residual block, attention to itself and to tokens if any, and a further block if any."""

    def __init__(
        self,
        block: ResidualBlock,
        attention: SelfAttention | None,
        prior: CrossAttention | None,
        after: ResidualBlock | None,
    ) -> None:
        """Put together what has been built."""
        super().__init__()
        self.block, self.attention, self.prior, self.after = block, attention, prior, after

    def forward(self, hidden: Tensor, code: Tensor, tokens: Tensor | None) -> Tensor:
        """Apply one after the other."""
        hidden = self.block(hidden, code)
        if self.attention is not None:
            hidden = self.attention(hidden)
        if self.prior is not None:
            hidden = self.prior(hidden, tokens)
        return hidden if self.after is None else self.after(hidden, code)


class UnetDenoiser(nn.Module):
    """U-Net on the noisy latent beside the condition, or with attention to it.

    Differs from CLS-DM's network by halving all three axes (published: the last two, a
    leftover of video code), by one width for all attention heads, by fused attention, and by groups
    of about eight channels that are normalized together instead of a thirty-second of them. The
    number of weights is the same.

    References:
        Dhariwal and Nichol (2021), section 3 and appendix: residual resampling, scale-shift norm.
        Self-conditioning: Chen et al. (2022), Analog Bits, section 3.2. Cross-attention: Rombach
        et al. (2022), section 3.3.
    """

    def __init__(
        self, config: UnetDenoiserConfig, *, latent_channels: int, condition_channels: int
    ) -> None:
        """Build for latents and conditions of these channel counts."""
        super().__init__()
        self.config = config
        first, code = config.width, 4 * config.width
        self.to_code = nn.Sequential(nn.Linear(first, code), nn.SiLU(), nn.Linear(code, code))
        channels = config.num_channels(latent_channels, condition_channels)
        self.start = nn.Conv3d(channels, first, 3, padding=1)
        self.to_tokens = (
            PriorTokens(condition_channels, code, config.prior_block) if config.attends else None
        )
        skips = self._build_down()
        deep = config.width * config.multipliers[-1]
        self.middle = UnetStep(
            ResidualBlock(deep, deep, code=code),
            SelfAttention(deep, deep // config.head_channels),
            self._prior(deep),
            ResidualBlock(deep, deep, code=code),
        )
        self._build_up(skips)
        last = nn.Conv3d(config.width * config.multipliers[0], latent_channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.end = nn.Sequential(group_norm(last.in_channels), nn.SiLU(), last)

    def _attention(self, level: int, width: int) -> SelfAttention | None:
        if level not in self.config.attention_levels:
            return None
        return SelfAttention(width, width // self.config.head_channels)

    def _prior(self, width: int) -> CrossAttention | None:
        if not self.config.attends:
            return None
        heads = width // self.config.head_channels
        return CrossAttention(width, heads, 4 * self.config.width)

    def _step(
        self, block: ResidualBlock, level: int, width: int, after: ResidualBlock | None = None
    ) -> UnetStep:
        attends = level in self.config.attention_levels
        prior = self._prior(width) if attends else None
        return UnetStep(block, self._attention(level, width), prior, after)

    def _build_down(self) -> list[int]:
        """Steps on the way down; returns the channels of all that is handed across."""
        config, code = self.config, 4 * self.config.width
        steps, before = [], config.width
        skips = [before]
        for level, multiplier in enumerate(config.multipliers):
            width = config.width * multiplier
            for _ in range(config.num_blocks):
                block = ResidualBlock(before, width, code=code)
                steps.append(self._step(block, level, width))
                before = width
                skips.append(width)
            if level + 1 < len(config.multipliers):
                down = ResidualBlock(width, width, code=code, resample=nn.AvgPool3d(2))
                steps.append(UnetStep(down, None, None, None))
                skips.append(width)
        self.down = nn.ModuleList(steps)
        return skips

    def _build_up(self, skips: list[int]) -> None:
        """Steps on the way up; each takes what one step on the way down made beside its input."""
        config, code = self.config, 4 * self.config.width
        steps, left = [], list(skips)
        before = config.width * config.multipliers[-1]
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            width = config.width * multiplier
            for index in range(config.num_blocks + 1):
                block = ResidualBlock(before + left.pop(), width, code=code)
                up = None
                if level and index == config.num_blocks:
                    nearest = nn.Upsample(scale_factor=2)
                    up = ResidualBlock(width, width, code=code, resample=nearest)
                steps.append(self._step(block, level, width, up))
                before = width
        self.up = nn.ModuleList(steps)

    def forward(
        self,
        noisy: Float[Tensor, "batch latent depth height width"],
        time: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch condition depth height width"],
        previous: Float[Tensor, "batch latent depth height width"] | None = None,
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Predict what the process asks for (`prediction` in `NoiseConfig`).

        Args:
            noisy: Scaled latent with noise; sides are multiples of the config's `coarsest`.
            time: Time of the process in [0, 1].
            condition: Condition at the latent's grid.
            previous: The last clean estimate, for a network with self-conditioning.
        """
        code = F.silu(self.to_code(sinusoidal_code(1000.0 * time, self.config.width)))
        tokens = None if self.to_tokens is None else self.to_tokens(condition)
        hidden = self.start(self.config.beside(noisy, condition, previous))
        skips = [hidden]
        for step in self.down:
            hidden = step(hidden, code, tokens)
            skips.append(hidden)
        hidden = self.middle(hidden, code, tokens)
        for step in self.up:
            hidden = step(torch.cat([hidden, skips.pop()], dim=1), code, tokens)
        output: Tensor = self.end(hidden)
        return output.float()
