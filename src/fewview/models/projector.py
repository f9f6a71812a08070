"""From the view encoder's condition to the space of the latent, for the contrast of stage 2."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Module):
    """Condition to the space of the latent, for the contrastive loss only (CLS-DM, stage 2)."""

    def __init__(self, condition_channels: int, latent_channels: int) -> None:
        """Build one convolution and the learned temperature of the contrast."""
        super().__init__()
        self.project = nn.Conv3d(condition_channels, latent_channels, 3, padding=1)
        self.log_temperature = nn.Parameter(torch.tensor(-2.3))

    def forward(
        self, condition: Float[Tensor, "batch condition depth height width"]
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Aligned latent of the views."""
        return self.project(condition)
