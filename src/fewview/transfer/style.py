"""Style transfer: a real radiograph in the style of the X-rays that the models were trained on.

Two generators, radiograph to DRR and back, learned from unpaired pictures by two discriminators.
Only the way to the DRR is used afterwards, before a reconstruction. `training/style.py` trains it.

References:
    Zhu et al. (2017), CycleGAN: cycle and identity terms. The generators are ours, begin as the
    identity and change gray curves only.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewview.inputs import GridConfig, ViewRange
from fewview.models.layers import ResidualBlock, group_norm
from fewview.xray.novelty import kind_of
from fewview.xray.views import Views

Pictures = Float[Tensor, "batch 1 row col"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Sizes of each of the two generators."""

    pooling: int = 4
    """Pixels a side of a cell; a cell has one gray curve."""

    width: int = 24
    """Channels of the cells; they double with each halving of the resolution up to `widest`."""

    widest: int = 96
    """Most channels."""

    num_halvings: int = 3
    """How often the resolution of the cells is halved."""

    num_blocks: int = 2
    """Residual blocks at the lowest resolution."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.pooling, self.width, self.widest, self.num_blocks) < 1:
            raise ValueError("pooling, width, widest and num_blocks of a generator start at 1")
        if not 0 <= self.num_halvings <= 4:
            raise ValueError(f"num_halvings must be 0 to 4, got {self.num_halvings}")

    @property
    def multiple(self) -> int:
        """What rows and columns of a picture must be multiples of."""
        return self.pooling * 2**self.num_halvings


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Sizes of each of the two discriminators."""

    width: int = 16
    """Channels of the first convolution; they double with each further one."""

    num_strided: int = 3
    """Convolutions that halve the resolution; with three a patch has 46 pixels a side."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.width, self.num_strided) < 1:
            raise ValueError("discriminator sizes must be at least 1")


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """All that is needed to build and apply a style model, without its weights."""

    kind: Literal["style"]

    name: str
    """What users call it."""

    grid: GridConfig = field(default_factory=GridConfig)
    """Where bodies lie when their X-rays are computed."""

    views: ViewRange = field(default_factory=ViewRange)
    """Geometry and pixels of the pictures."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: PatchConfig = field(default_factory=PatchConfig)


class Generator(nn.Module):
    """A picture to the same with another gray curve at each place; begins by changing nothing.

    A U-Net that sees the whole picture in coarse cells gives each cell three numbers a, b and c,
    which are interpolated to the pixels: gray g becomes g + a + b g + c g^2. Thus it can lift and
    bend the curve and continue a body into borders, but draw nothing smaller than a cell.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        """Build for one channel."""
        super().__init__()
        self.pooling = config.pooling
        widths = [
            min(config.widest, config.width * 2**level) for level in range(config.num_halvings + 1)
        ]
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(widths):
            halve = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
            self.down.append(nn.Sequential(group_norm(fine), nn.SiLU(), halve))
            smooth = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
            narrow = nn.Conv2d(coarse, fine, 3, padding=1)
            self.up.append(nn.Sequential(group_norm(coarse), nn.SiLU(), narrow, smooth))
        self.deepest = nn.Sequential(
            *(ResidualBlock(widths[-1], widths[-1], dims=2) for _ in range(config.num_blocks))
        )
        self.last = nn.Sequential(
            group_norm(widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], widths[0], 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(widths[0], 3, 3, padding=1),
        )
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]

    def forward(self, pictures: Pictures) -> Pictures:
        """Pictures, standardized, in the other style; sides are multiples of `config.multiple`."""
        cells = functional.avg_pool2d(pictures, self.pooling)
        hidden = self.first(torch.cat([cells, _places(cells)], dim=1))
        kept = []
        for down in self.down:
            kept.append(hidden)
            hidden = down(hidden)
        hidden = self.deepest(hidden)
        for up in reversed(self.up):
            hidden = up(hidden) + kept.pop()
        curves = functional.interpolate(
            self.last(hidden), scale_factor=self.pooling, mode="bilinear", align_corners=False
        )
        added, times, bent = curves.split(1, dim=1)
        return pictures + added + times * pictures + bent * pictures.square()


def _places(cells: Float[Tensor, "batch 1 row col"]) -> Float[Tensor, "batch 2 row col"]:
    """Where each cell lies, from -1 to 1 down and across: a chest has an upper and a left side."""
    rows, cols = cells.shape[-2:]
    down = torch.linspace(-1.0, 1.0, rows).to(cells)
    across = torch.linspace(-1.0, 1.0, cols).to(cells)
    return torch.stack(torch.meshgrid(down, across, indexing="ij")).expand(len(cells), -1, -1, -1)


class Patches(nn.Module):
    """A picture to a logit per patch, the higher the likelier of this side."""

    def __init__(self, config: PatchConfig) -> None:
        """Build for one channel."""
        super().__init__()
        width = config.width
        parts: list[nn.Module] = [nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(config.num_strided - 1):
            parts += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), group_norm(2 * width)]
            parts.append(nn.LeakyReLU(0.2))
            width *= 2
        parts.append(nn.Conv2d(width, 1, 3, padding=1))
        self.layers = nn.Sequential(*parts)

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch 1 patch_row patch_col"]:
        """Logits."""
        logits: Tensor = self.layers(pictures)
        return logits.float()


@dataclass(eq=False)
class StyleNetworks:
    """The generators of a style model, with the interface of `system.Networks`."""

    to_drr: Generator
    to_radiograph: Generator

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name, as they are stored."""
        return {"to_drr": self.to_drr, "to_radiograph": self.to_radiograph}

    def to(self, device: str) -> "StyleNetworks":
        """Move both to a device."""
        for module in self.modules().values():
            module.to(device)
        return self


@dataclass(frozen=True, eq=False)
class StyleBundle:
    """A trained style model, ready to run."""

    config: StyleConfig
    networks: StyleNetworks
    card: str


def build_style(config: StyleConfig) -> StyleNetworks:
    """Fresh generators, which change nothing."""
    return StyleNetworks(Generator(config.generator), Generator(config.generator))


def standardized(pictures: Float[Tensor, "*lead row col"]) -> Float[Tensor, "*lead row col"]:
    """Zero mean and unit spread per picture, as models take display-style views."""
    mean = pictures.mean(dim=(-2, -1), keepdim=True)
    spread = pictures.std(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return (pictures - mean) / spread


@torch.no_grad()
def in_drr_style(views: Views, style: StyleBundle) -> Views:
    """The display-style views as the style model would have them; line integrals stay.

    Args:
        views: Views with about the pixel pitch of the style model.
        style: The model.
    """
    device = next(style.networks.to_drr.parameters()).device
    multiple = style.config.generator.multiple
    rows, cols = views.images.shape[-2:]
    mirrored = [kind_of(one.primary_angle_deg)[1] for one in views.geometries]
    hung = _flipped(standardized(views.images), mirrored)
    padded = functional.pad(hung, (0, -cols % multiple, 0, -rows % multiple), mode="replicate")
    changed = style.networks.to_drr(padded.to(device)).to(views.images)[..., :rows, :cols]
    changed = _flipped(changed, mirrored)
    known = torch.tensor(views.calibrated, device=views.images.device)[:, None, None, None]
    return replace(views, images=torch.where(known, views.images, changed))


def _flipped(
    images: Float[Tensor, "view 1 row col"], chosen: list[bool]
) -> Float[Tensor, "view 1 row col"]:
    """The images, the chosen ones mirrored: a style model knows radiographs hung like PA ones."""
    marks = torch.tensor(chosen, device=images.device)[:, None, None, None]
    return torch.where(marks, images.flip(-1), images)
