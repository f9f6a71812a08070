"""The X2CT generator: dense 2-D encoders, lifted skips, and 3-D decoders fused over views.

X2CT-CNN and X2CT-GAN are this network, trained without and with a discriminator. It works on
tensors in [-1, 1] outside and in [0, 1] inside, as published.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.lifting import RayGrid, coarser, lift
from fewview.models.replication import central_images, replicate


@dataclass(frozen=True, kw_only=True)
class X2ctConfig:
    """Sizes of the X2CT generator; the defaults are the published ones for 128^3."""

    kind: Literal["x2ct"] = "x2ct"

    num_views: Literal[1, 2] = 2
    """Views of a `replicate` generator: one frontal, or a frontal and a lateral one."""

    lifting: Literal["replicate", "rays"] = "replicate"
    """`replicate` copies features along an axis of the grid, with weights of their own for
    either view (published); `rays` samples them where each voxel projects, with shared weights
    and any number of views."""

    stem: int = 64
    """Channels of the first convolution."""

    growth: int = 32
    """Channels that each dense layer adds."""

    layers: tuple[int, ...] = (6, 12, 24, 16, 6)
    """Dense layers at each resolution below the first."""

    channels: tuple[int, ...] = (16, 16, 32, 64, 128, 256)
    """Decoder channels, fine to coarse; the last are those of the seed."""

    dropout: float = 0.5
    """Of the link from image to seed."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if len(self.channels) != len(self.layers) + 1:
            raise ValueError(
                f"channels needs one entry more than layers, got {len(self.channels)} and "
                f"{len(self.layers)}"
            )


def _norm_act(num_channels: int, dims: int) -> list[nn.Module]:
    norm: type[nn.Module] = nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d
    return [norm(num_channels), nn.ReLU()]


def _conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolution, instance norm and ReLU in 3-D."""
    conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
    return nn.Sequential(conv, *_norm_act(out_channels, 3))


def _up_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed convolution that doubles the resolution, instance norm and ReLU."""
    conv = nn.ConvTranspose3d(in_channels, out_channels, 3, 2, padding=1, output_padding=1)
    return nn.Sequential(conv, *_norm_act(out_channels, 3))


class DenseBlock(nn.Module):
    """Layers that each add `growth` channels to all before (DenseNet, with instance norm)."""

    def __init__(self, in_channels: int, num_layers: int, growth: int) -> None:
        """Build; the output has `in_channels + num_layers * growth` channels."""
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(num_layers):
            channels = in_channels + index * growth
            self.layers.append(
                nn.Sequential(
                    *_norm_act(channels, 2),
                    nn.Conv2d(channels, 4 * growth, 1),
                    *_norm_act(4 * growth, 2),
                    nn.Conv2d(4 * growth, growth, 3, padding=1),
                )
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """Append each layer's output to its input."""
        for layer in self.layers:
            hidden = torch.cat([hidden, layer(hidden)], dim=1)
        return hidden


class DenseEncoder(nn.Module):
    """An image to features at every resolution but the last, and a vector from that."""

    def __init__(self, config: X2ctConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(1, config.stem, 7), *_norm_act(config.stem, 2)
        )
        self.stages, self.compress = nn.ModuleList(), nn.ModuleList()
        self.widths, channels = [config.stem], config.stem
        for index, num_layers in enumerate(config.layers):
            down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
            block = DenseBlock(channels, num_layers, config.growth)
            self.stages.append(nn.Sequential(*_norm_act(channels, 2), down, block))
            channels += num_layers * config.growth
            if index + 1 < len(config.layers):
                half = nn.Conv2d(channels, channels // 2, 1)
                self.compress.append(nn.Sequential(*_norm_act(channels, 2), half))
                channels //= 2
                self.widths.append(channels)
        self.vector_size = channels

    def forward(self, image: Float[Tensor, "image 1 row col"]) -> tuple[list[Tensor], Tensor]:
        """Features from fine to coarse, and the vector."""
        features = [self.stem(image)]
        for stage, compress in zip(self.stages, self.compress, strict=False):
            features.append(compress(stage(features[-1])))
        return features, self.stages[-1](features[-1]).mean(dim=(2, 3))


class ExampleDropout(nn.Module):
    """Dropout whose numbers for an example do not depend on what else is in its batch.

    In training each example needs a generator; those that are in `generators` go on from call to
    call, so that the views of an example lose different values.
    """

    def __init__(self, share: float) -> None:
        """Drop this share of the values."""
        super().__init__()
        self.share = share
        self.generators: list[torch.Generator] = []

    def forward(self, values: Float[Tensor, "example value"]) -> Float[Tensor, "example value"]:
        """Drop values in training; the rest grows, so that the mean stays."""
        if not self.training or self.share == 0.0:
            return values
        kept = torch.stack(
            [
                torch.rand(values.shape[1:], generator=generator) >= self.share
                for generator in self.generators
            ]
        )
        return values * kept.to(values) / (1.0 - self.share)


class ViewBranch(nn.Module):
    """Encoder, links and decoder of one view (or, with shared weights, of any view)."""

    def __init__(self, config: X2ctConfig, seed_size: int, *, alone: bool) -> None:
        """Build; a branch that stands `alone` also refines the finest stage."""
        super().__init__()
        channels = config.channels
        self.seed_shape = (channels[-1], seed_size, seed_size, seed_size)
        self.encoder = DenseEncoder(config)
        # With shared weights the seed must be told from where the view was taken.
        told = 4 if config.lifting == "rays" else 0
        self.link = nn.Sequential(
            nn.Linear(self.encoder.vector_size + told, channels[-1] * seed_size**3),
            ExampleDropout(config.dropout),
            nn.ReLU(),
        )
        self.to_skip, self.in_skip = nn.ModuleList(), nn.ModuleList()
        self.compress, self.extra, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage, width in enumerate(channels[:-1]):
            self.to_skip.append(
                nn.Sequential(nn.Conv2d(self.encoder.widths[stage], width, 1), *_norm_act(width, 2))
            )
            self.in_skip.append(_conv_block(width, width))
            self.compress.append(_conv_block(2 * width, width))
            count = 2 if stage else int(alone)
            self.extra.append(nn.Sequential(*[_conv_block(width, width) for _ in range(count)]))
            self.up.append(_up_block(channels[stage + 1], width))


class X2ct(nn.Module):
    """Views to a CT estimate.

    References:
        Ying et al. (2019), X2CT-GAN, arXiv 1905.06902, section 3: connections A (link), B
        (skips) and C (fusion). The heads and last blocks of the single views, which get no
        gradient in the published code, are left out.
    """

    def __init__(self, config: X2ctConfig, size: int) -> None:
        """Build for a model grid of `size` voxels along each axis."""
        super().__init__()
        self.config = config
        seed_size = size >> len(config.layers)
        if seed_size < 1 or seed_size << len(config.layers) != size:
            raise ValueError(
                f"size {size} cannot be halved {len(config.layers)} times; give fewer layers"
            )
        alone = config.lifting == "replicate" and config.num_views == 1
        shared = config.lifting == "rays"
        self.views = nn.ModuleList(
            ViewBranch(config, seed_size, alone=alone)
            for _ in range(1 if shared else config.num_views)
        )
        channels = config.channels
        self.main_compress, self.main_extra, self.main_up = (nn.ModuleList() for _ in "abc")
        for stage, width in enumerate([] if alone else channels[:-1]):
            self.main_compress.append(_conv_block(2 * width, width))
            self.main_extra.append(_conv_block(width, width))
            self.main_up.append(_up_block(channels[stage + 1], width))
        self.head = nn.Conv3d(channels[0], 1, 7, padding=3)
        # A ReLU's output that starts below zero would never learn; start at soft tissue's half.
        nn.init.constant_(self.head.bias, 0.2)  # type: ignore[arg-type]

    def forward(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Estimate the CT in [-1, 1].

        Args:
            images: Normalized views and their kind; the kind is not used.
            rays: Where the voxels of the model grid project.

        Raises:
            ValueError: If a `replicate` generator gets views it was not built for.
        """
        hidden = self._fused(*self._prepared(images, rays))
        return 2.0 * F.relu(self.head(hidden)).float() - 1.0

    def _branch(self, view: int) -> ViewBranch:
        """The weights that serve a view."""
        branch = self.views[min(view, len(self.views) - 1)]
        assert isinstance(branch, ViewBranch), "nothing else is put there"
        return branch

    def _prepared(self, images: Tensor, rays: RayGrid) -> tuple[list[Tensor], list[list[Tensor]]]:
        """For each view its seed, and its lifted skips from fine to coarse."""
        seeds, skips = [], []
        shared = self.config.lifting == "rays"
        if shared:
            planes, axes = images[:, :, :1], [0] * images.shape[1]
        else:
            planes, axes = central_images(images[:, :, :1], rays, self.config.num_views)
        for view, axis in enumerate(axes):
            branch = self._branch(view)
            features, vector = branch.encoder(planes[:, view])
            if shared:
                vector = torch.cat([vector, rays.ray[:, view].mean(dim=(2, 3, 4))], dim=1)
            seeds.append(branch.link(vector).unflatten(1, branch.seed_shape))
            lifted = []
            for stage, flat in enumerate(features):
                flat = branch.to_skip[stage](flat)
                if shared:
                    one = lift(flat[:, None], coarser(rays.view(view), 2**stage))[:, 0]
                else:
                    one = replicate(flat, axis)
                lifted.append(branch.in_skip[stage](one))
            skips.append(lifted)
        return seeds, skips

    def _fused(self, seeds: list[Tensor], skips: list[list[Tensor]]) -> Tensor:
        """Decode all views side by side; after each stage their mean replaces each of them."""
        hidden = list(seeds)
        mean = torch.stack(hidden).mean(0)
        main: Tensor | None = None
        if len(self.views) > 1 or self.config.lifting == "rays":
            hidden, main = [mean] * len(hidden), mean
        for stage in range(len(self.config.channels) - 2, -1, -1):
            branches = [self._branch(view) for view in range(len(hidden))]
            hidden = [
                branch.compress[stage](torch.cat([branch.up[stage](one), lifted[stage]], dim=1))
                for branch, one, lifted in zip(branches, hidden, skips, strict=True)
            ]
            if main is None:
                hidden = [branches[0].extra[stage](hidden[0])]
                continue
            mean = torch.stack(hidden).mean(0)
            main = self.main_compress[stage](torch.cat([mean, self.main_up[stage](main)], dim=1))
            main = self.main_extra[stage](main)
            hidden = [branch.extra[stage](mean) for branch in branches]
        return hidden[0] if main is None else main
