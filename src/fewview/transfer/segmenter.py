"""Segmentation networks out of MONAI, and moving what one learned to another with a new head.

MONAI is an extra (`pip install 'fewview[segmentation]'`) and is imported only where a network is
built, for that takes seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SegResNetConfig:
    """MONAI's SegResNet: a residual encoder and decoder.

    References:
        Myronenko (2018), 3D MRI brain tumor segmentation using autoencoder regularization.
    """

    kind: Literal["segresnet"] = "segresnet"

    width: int = 8
    """Channels at full resolution; they double with every level."""

    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    """Residual blocks of the encoder at each level."""

    blocks_up: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of the decoder at each level."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built; group normalization wants channels in eights."""
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")
        if len(self.blocks_up) != len(self.blocks_down) - 1 or not self.blocks_up:
            raise ValueError("blocks_up must have one level less than blocks_down, and at least 1")

    @property
    def reduction(self) -> int:
        """How much coarser the deepest features are."""
        return int(2 ** len(self.blocks_up))


@dataclass(frozen=True, kw_only=True)
class SwinUnetrConfig:
    """MONAI's SwinUNETR: a transformer of shifted windows as encoder, a residual decoder.

    References:
        Hatamizadeh et al. (2022), arXiv:2201.01266; Tang et al. (2022), arXiv:2111.14791.
    """

    kind: Literal["swinunetr"]

    feature_size: int = 24
    """Channels after the first patches."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.feature_size < 12 or self.feature_size % 12:
            raise ValueError(f"feature_size must be a multiple of 12, got {self.feature_size}")

    @property
    def reduction(self) -> int:
        """How much coarser the deepest features are."""
        return 32


SegmenterConfig = SegResNetConfig | SwinUnetrConfig

_HEADS = {"segresnet": "conv_final.2.", "swinunetr": "out."}
"""How the names of the last layer's weights begin."""


def need_monai() -> None:
    """Find what the extra installs, without importing it.

    Raises:
        ValueError: If MONAI, or einops that its transformer needs, is not installed.
    """
    for name in ("monai", "einops"):
        if find_spec(name) is None:
            raise ValueError(f"segmentation needs {name}: pip install 'fewview[segmentation]'")


def build_segmenter(config: SegmenterConfig, *, out_channels: int) -> nn.Module:
    """A network from one channel to `out_channels`, of the same resolution, with fresh weights.

    Raises:
        ValueError: If MONAI is not installed.
    """
    need_monai()
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.swin_unetr import SwinUNETR

    if isinstance(config, SwinUnetrConfig):
        swin: nn.Module = SwinUNETR(
            in_channels=1, out_channels=out_channels, feature_size=config.feature_size
        )
        return swin
    residual: nn.Module = SegResNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=out_channels,
        init_filters=config.width,
        blocks_down=config.blocks_down,
        blocks_up=config.blocks_up,
    )
    return residual


def replace_head(
    config: SegmenterConfig, network: nn.Module, pretrained: Mapping[str, Tensor]
) -> None:
    """Take all weights but those of the last layer, which stays fresh.

    Args:
        config: What both networks were built from.
        network: Gets the weights.
        pretrained: The weights of a network with another number of output channels.

    Raises:
        ValueError: If they differ in more than the last layer.
    """
    head = _HEADS[config.kind]
    own = network.state_dict()
    body = {name: value for name, value in pretrained.items() if not name.startswith(head)}
    wanted = {name for name in own if not name.startswith(head)}
    differing = wanted ^ set(body)
    differing |= {name for name in wanted & set(body) if own[name].shape != body[name].shape}
    if differing:
        raise ValueError(
            f"the pre-trained weights are of another network: {len(differing)} tensors differ, "
            f"such as {min(differing)}"
        )
    network.load_state_dict(body, strict=False)
