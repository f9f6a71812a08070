"""The contrastive losses of stage 2: views and CTs told apart as cases and place by place.

Pure functions of whole batches. Where a batch is spread over processes, gather aligned latents,
latents and cases first: what one process sees is then what it would see alone.

Similarities are cosines over latent channels, whose range does not grow with the grid (the
published ones are sums over 16,384 values, up to 40,960, and saturate every softmax).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

LOWEST_LOG_TEMPERATURE = -4.6
"""The temperature is at least 0.01, as in CLIP (Radford et al. 2021, section 2.5)."""

LocalNegatives = Literal["positions", "cases", "both"]
"""What a position is told apart from: others of its case, the same of other cases, or both."""


def case_contrast(
    aligned: Float[Tensor, "batch latent depth height width"],
    latent: Float[Tensor, "batch latent depth height width"],
    log_temperature: Float[Tensor, ""],
    *,
    negatives: Float[Tensor, "negative latent depth height width"] | None = None,
    past: Float[Tensor, "past value"] | None = None,
    is_own: Bool[Tensor, "batch past"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE between views and CT; the positive is the same case.

    With S_ij the mean over positions of the cosine of views i and CT j, and temperature T, it is
    the mean over i of -log(exp(S_ii/T) / sum_j exp(S_ij/T)), and the same of the transposed S.

    Args:
        aligned: Projected condition of each case's views.
        latent: Latent of each case's CT.
        log_temperature: Natural logarithm of T.
        negatives: Latents of further CTs, which each set of views is also told apart from.
        past: Aligned latents of earlier batches as `Memory` keeps them, which each CT is also
            told apart from.
        is_own: Which of `past` are views of the same case, or are not there at all: no negatives.

    References:
        CLS-DM stage 2; van den Oord et al. (2018), equation 4; both directions as in CLIP. Past
        batches: He et al. (2020), MoCo, section 3.2, and Wang et al. (2020), cross-batch memory,
        section 3.2. No slow copy of an encoder is needed: a CT's latent never changes.
    """
    others = latent if negatives is None else torch.cat([latent, negatives])
    views, cts = flat_unit(aligned), flat_unit(others)
    scale = temperature(log_temperature) * aligned[0, 0].numel()
    similarity = views @ cts.T / scale
    same = torch.arange(len(views), device=views.device)
    of_cts = similarity[:, : len(views)].T
    if past is not None:
        further = cts[: len(views)] @ past.T / scale
        if is_own is not None:
            further = further.masked_fill(is_own, -torch.inf)
        of_cts = torch.cat([of_cts, further], dim=1)
    return 0.5 * (F.cross_entropy(similarity, same) + F.cross_entropy(of_cts, same))


def match_loss(aligned: Tensor, latent: Tensor) -> Float[Tensor, ""]:
    """Mean squared distance of the normalized latents of matched pairs (CLS-DM stage 2)."""
    return (F.normalize(aligned, dim=1) - F.normalize(latent, dim=1)).square().mean()


def local_contrast(
    aligned: Float[Tensor, "batch latent depth height width"],
    latent: Float[Tensor, "batch latent depth height width"],
    log_temperature: Float[Tensor, ""],
    positions: Int[Tensor, " position"],
    *,
    against: LocalNegatives = "both",
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of latent vectors; the positive is the same place of the same case.

    Memory grows with batch x positions x (positions + batch), not with the grid. Places that look
    alike (air, lung) are told apart as well, so the loss does not reach 0.

    Args:
        aligned: Projected condition of each case's views.
        latent: Latent of each case's CT.
        log_temperature: Natural logarithm of the temperature.
        positions: Indices into the flattened grid that take part, the same in all cases.
        against: What a position is told apart from.

    References:
        Wang et al. (2021), DenseCL, equation 2, with the correspondence known instead of
        sought; Chaitanya et al. (2020), local contrast in medical volumes, equation 2.
    """
    views, cts = (
        F.normalize(value, dim=1).flatten(2)[:, :, positions] for value in (aligned, latent)
    )
    scale = temperature(log_temperature)
    forth = _local_cross_entropy(views, cts, scale, against)
    return 0.5 * (forth + _local_cross_entropy(cts, views, scale, against))


def _local_cross_entropy(
    anchors: Float[Tensor, "batch latent position"],
    keys: Float[Tensor, "batch latent position"],
    scale: Float[Tensor, ""],
    against: LocalNegatives,
) -> Float[Tensor, ""]:
    """One direction of the local contrast, mean over cases and positions."""
    batch, _, count = anchors.shape
    case = torch.arange(batch, device=anchors.device)
    place = torch.arange(count, device=anchors.device)
    of_cases = torch.einsum("bcp,kcp->bpk", anchors, keys) / scale
    if against == "cases":
        return F.cross_entropy(of_cases.flatten(0, 1), case.repeat_interleave(count))
    of_places = torch.einsum("bcp,bcq->bpq", anchors, keys) / scale
    if against == "both":
        itself = (case[:, None] == case)[:, None]  # stands among the places already
        of_places = torch.cat([of_places, of_cases.masked_fill(itself, -torch.inf)], dim=2)
    return F.cross_entropy(of_places.flatten(0, 1), place.repeat(batch))


def temperature(log_temperature: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The learned temperature, not below 0.01."""
    return log_temperature.clamp(min=LOWEST_LOG_TEMPERATURE).exp()


def flat_unit(
    latent: Float[Tensor, "batch latent depth height width"],
) -> Float[Tensor, "batch value"]:
    """Each position's vector at length 1, all in one row: a product is a sum of cosines."""
    return F.normalize(latent, dim=1).flatten(1)


class Memory(nn.Module):
    """The aligned latents of the last sets of views, and of which cases they are.

    Its buffers are part of the checkpoint: a resumed run remembers what an unbroken one would.
    """

    aligned: Float[Tensor, "past value"]
    case: Int[Tensor, " past"]
    next: Int[Tensor, ""]

    def __init__(self, size: int, num_values: int) -> None:
        """An empty memory of `size` latents of `num_values` values each."""
        super().__init__()
        self.register_buffer("aligned", torch.zeros(size, num_values))
        self.register_buffer("case", torch.full((size,), -1))
        self.register_buffer("next", torch.tensor(0))

    @torch.no_grad()
    def push(
        self,
        aligned: Float[Tensor, "batch latent depth height width"],
        cases: Int[Tensor, " batch"],
    ) -> None:
        """Remember a batch in place of the oldest latents."""
        size = len(self.case)
        rows, cases = flat_unit(aligned)[-size:], cases[-size:]
        places = (self.next + torch.arange(len(rows), device=rows.device)) % size
        self.aligned[places] = rows
        self.case[places] = cases
        self.next.copy_((self.next + len(rows)) % size)

    def is_own(self, cases: Int[Tensor, " batch"]) -> Bool[Tensor, "batch past"]:
        """What is no negative of each case: its own views, and places not yet filled."""
        return (cases[:, None] == self.case) | (self.case < 0)
