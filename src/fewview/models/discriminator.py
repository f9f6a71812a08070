"""Patch discriminators: is this volume, patch by patch, a CT (of these views)?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of a patch discriminator."""

    width: int = 64
    """Channels of the first convolution; they double up to eight times that."""

    num_strided: int = 3
    """Convolutions that halve the resolution."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.width, self.num_strided) < 1:
            raise ValueError("discriminator sizes must be at least 1")


class PatchDiscriminator(nn.Module):
    """A CT, or a slice of one, alone or beside its lifted views, to a logit per patch.

    With three strided layers a patch has 70 voxels along each axis. Instance norm instead of the
    batch norm that CLS-DM has: its batches are small, and what a volume is told must not depend on
    the volumes beside it.

    References:
        Isola et al. (2017), section 3.2.2, in 3-D as X2CT-GAN has it (Ying et al. 2019).
    """

    def __init__(self, config: DiscriminatorConfig, in_channels: int, *, dims: int = 3) -> None:
        """Build for volumes, or slices (`dims=2`), of `in_channels`.

        The channels are those of the CT and of what it is conditioned on, if anything.
        """
        super().__init__()
        conv: type[nn.Conv2d | nn.Conv3d] = nn.Conv2d if dims == 2 else nn.Conv3d
        norm: type[nn.Module] = nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d
        layers: list[nn.Module] = [
            conv(in_channels, config.width, 4, stride=2, padding=2),
            nn.LeakyReLU(0.2),
        ]
        channels = config.width
        for index in range(1, config.num_strided + 1):
            after = config.width * min(2**index, 8)
            stride = 2 if index < config.num_strided else 1
            layers += [
                conv(channels, after, 4, stride=stride, padding=2, bias=False),
                norm(after),
                nn.LeakyReLU(0.2),
            ]
            channels = after
        layers.append(conv(channels, 1, 4, padding=2))
        self.layers = nn.Sequential(*layers)

    def forward(
        self,
        volume: Float[Tensor, "batch 1 *size"],
        condition: Float[Tensor, "batch condition *size"] | None = None,
    ) -> Float[Tensor, "batch 1 *patch"]:
        """Logits, the higher the likelier a true CT."""
        shown = volume if condition is None else torch.cat([volume, condition], dim=1)
        logits: Tensor = self.layers(shown)
        return logits.float()
