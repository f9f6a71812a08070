"""A codebook: every latent vector is replaced by the nearest of a finite set (XctDiff, stage 1).

One bounded space for all that is quantized: no component of a code leaves [-1, 1]. CT and X-ray
latents may share one codebook or have one each. The search compares with some vectors at a time, so
its memory does not grow with the latent's grid.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

BOUND = 1.0
"""Largest magnitude of a code's components (XctDiff)."""

COMMITMENT_WEIGHT, CODE_WEIGHT = 1.0, 0.25
"""Of the latent's way to its code and of the code's way to its latents, as XctDiff publishes them;
van den Oord et al. (2017) have them the other way round."""

SEARCH_VALUES = 2**23
"""Distances held at once: 34 MB in single precision."""


class Quantized(NamedTuple):
    """A latent and the codes nearest to it."""

    latent: Float[Tensor, "batch latent depth height width"]
    """The codes; gradients pass to the latent as if nothing had been replaced."""

    codes: Float[Tensor, "batch latent depth height width"]
    """The codes; gradients pass to the codebook."""

    indices: Int[Tensor, "batch depth height width"]


class Codebook(nn.Module):
    """Vectors with components in [-1, 1], and which of them were chosen of late.

    Differs from the published rule, by which one code that leaves the range stops the gradient of
    the whole codebook: here every code is held in the range by itself, and the others go on.

    References:
        van den Oord et al. (2017), VQ-VAE, section 3; XctDiff (arXiv 2406.04679).
    """

    used: Bool[Tensor, " code"]

    def __init__(self, num_codes: int, num_channels: int) -> None:
        """Build `num_codes` codes, drawn evenly from +-1 / num_codes as published."""
        super().__init__()
        start = torch.empty(num_codes, num_channels).uniform_(-1.0 / num_codes, 1.0 / num_codes)
        self.vectors = nn.Parameter(start)
        self.register_buffer("used", torch.zeros(num_codes, dtype=torch.bool))

    def bounded(self) -> Float[Tensor, "code latent"]:
        """The codes; while they learn, what an optimizer's step moved out is put back first."""
        if self.training and self.vectors.requires_grad:
            with torch.no_grad():
                self.vectors.clamp_(-BOUND, BOUND)
        return self.vectors.clamp(-BOUND, BOUND)

    def forward(self, latent: Float[Tensor, "batch latent depth height width"]) -> Quantized:
        """Replace every vector of a latent by its nearest code, in single precision."""
        latent, codes = latent.float(), self.bounded()
        rows = latent.detach().movedim(1, -1)
        indices = nearest(rows.reshape(-1, rows.shape[-1]), codes).reshape(rows.shape[:-1])
        chosen = F.embedding(indices, codes).movedim(-1, 1)
        return Quantized(latent + (chosen - latent).detach(), chosen, indices)

    @torch.no_grad()
    def mark(self, chosen: Bool[Tensor, " code"]) -> None:
        """Remember that codes were chosen."""
        self.used.logical_or_(chosen)

    @torch.no_grad()
    def revive(self, candidates: Float[Tensor, "candidate latent"]) -> int:
        """Replace codes not chosen since the last call; returns how many.

        With fewer candidates than such codes, the first codes get them.
        """
        dead = (~self.used).nonzero()[:, 0][: len(candidates)]
        self.vectors[dead] = candidates[: len(dead)].to(self.vectors).clamp(-BOUND, BOUND)
        self.used.zero_()
        return len(dead)


@torch.no_grad()
def nearest(
    rows: Float[Tensor, "row latent"], codes: Float[Tensor, "code latent"]
) -> Int[Tensor, " row"]:
    """Index of the code at the least Euclidean distance from each row.

    The distance to all codes is held for so many rows at once as `SEARCH_VALUES` allows.
    """
    # |row - code|^2 is |row|^2 - 2 (row . code - |code|^2 / 2), and |row|^2 is the same for all.
    offset, turned = -0.5 * codes.square().sum(dim=1), codes.T.contiguous()
    kind = "cpu" if rows.is_meta else rows.device.type  # tensors without values have no autocast
    with torch.autocast(kind, enabled=False):
        found = [
            torch.addmm(offset, some, turned).argmax(dim=1)
            for some in rows.split(max(1, SEARCH_VALUES // len(codes)))
        ]
    return torch.cat(found)


def quantization_loss(
    latent: Float[Tensor, "batch latent depth height width"], quantized: Quantized
) -> Float[Tensor, ""]:
    """Mean squared distance of latents and codes, pulling each toward the other by its weight.

    References:
        van den Oord et al. (2017), equation 3, with the weights of XctDiff.
    """
    latent = latent.float()
    commitment = F.mse_loss(latent, quantized.codes.detach())
    pulled = F.mse_loss(quantized.codes, latent.detach())
    return COMMITMENT_WEIGHT * commitment + CODE_WEIGHT * pulled


@torch.no_grad()
def revival_candidates(
    latent: Float[Tensor, "batch latent depth height width"],
    quantized: Quantized,
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "candidate latent"]:
    """Vectors of a latent, drawn in proportion to their squared distance from their codes.

    So codes go where the codebook is poor, and not to the air that most of a CT is.

    Args:
        latent: What was quantized.
        quantized: Its codes.
        count: Vectors wanted; there are no more than the latent has off their codes.
        generator: Draws them.

    References:
        Arthur and Vassilvitskii (2007), k-means++, section 2.2.
    """
    rows = latent.float().movedim(1, -1).flatten(0, -2).cpu()
    codes = quantized.codes.movedim(1, -1).flatten(0, -2).cpu()
    distance = (rows - codes).square().sum(dim=1)
    count = min(count, int((distance > 0.0).sum()))
    if count == 0:
        return rows[:0]
    return rows[torch.multinomial(distance, count, generator=generator)]


def code_counts(
    indices: Int[Tensor, "batch depth height width"], num_codes: int
) -> Int[Tensor, " code"]:
    """How often each code was chosen."""
    return torch.bincount(indices.flatten(), minlength=num_codes)


def usage_share(counts: Int[Tensor, " code"]) -> float:
    """Share of the codes that were chosen at all."""
    return (counts > 0).float().mean().item()


def perplexity(counts: Int[Tensor, " code"]) -> float:
    """How many equally frequent codes would say as much: exp of the entropy of the choices."""
    share = counts.double() / counts.sum().clamp(min=1)
    return torch.special.entr(share).sum().exp().item()
