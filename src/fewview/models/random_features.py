"""Features of a fixed random 3-D network, for a perceptual distance without trained weights.

Nothing here was learned from people's judgment or from CT; the features answer to edges and texture
at three scales, that is all. It is another network than the one `evaluation` measures with, on
purpose: a measure that is trained on measures nothing.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS = (1, 8, 16, 32)
"""Of the input and of the three layers; the grid is halved after each."""

SEED = 20251124
"""Of the weights; a number without meaning."""


class RandomFeatures(nn.Module):
    """Three layers of 3^3 convolution, ReLU and halving by averages, never trained nor stored."""

    def __init__(self) -> None:
        """Draw the weights: normal, with variance 2 / fan-in (He et al. 2015)."""
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        for layer, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
            weight = torch.randn(after, before, 3, 3, 3, generator=generator)
            scaled = weight * (2.0 / (27 * before)) ** 0.5
            self.register_buffer(f"weight_{layer}", scaled, persistent=False)

    def forward(
        self, volume: Float[Tensor, "batch 1 depth height width"]
    ) -> list[Float[Tensor, "batch channel _d _h _w"]]:
        """Features of each layer, those of a position scaled to length one."""
        features, hidden = [], volume
        for weight in self.buffers():
            hidden = F.relu(F.conv3d(F.pad(hidden, (1,) * 6, mode="replicate"), weight))
            features.append(F.normalize(hidden, dim=1, eps=1e-6))
            hidden = F.avg_pool3d(hidden, 2)
        return features
