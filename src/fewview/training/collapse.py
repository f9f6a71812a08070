"""Whether stage 2 still tells patients apart: figures of its batches, and one warning.

A view encoder can collapse in two ways. It may say the same of every patient (an average chest);
then the aligned latents of a batch do not differ where the CTs' do. Or its vectors may all lie
along one direction; then their effective rank is one.
"""

import logging
from collections import deque

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

log = logging.getLogger("fewview.training")

Latent = Float[Tensor, "batch latent depth height width"]

COLLAPSED_SHARE = 0.01
"""Below this share of the CTs' own spread, or of their rank beyond one, views have collapsed: a
tenth of the CTs' differences. Ours: of 8 held-out phantoms the bundled view encoder has a spread of
0.95, one that has learned nothing 0.003."""

NUM_STEPS = 20
"""Steps whose mean decides; a batch of two alone says little."""

NUM_KEPT = 2
"""Cases told apart where each comes alone: the last two, since the encoder moves meanwhile."""


def matched_cosine(aligned: Latent, latent: Latent) -> float:
    """Mean cosine of matched latent vectors: 1 where views say all that the latent says.

    References:
        1 - d/2 for the alignment d of Wang and Isola (2020), section 4.2, with exponent 2.
    """
    return F.cosine_similarity(aligned, latent, dim=1).mean().item()


def spread(latent: Float[Tensor, "batch latent depth height width"]) -> float:
    """Mean squared distance of normalized latents from their mean over the batch; 0 for one."""
    unit = F.normalize(latent, dim=1)
    return (unit - unit.mean(dim=0)).square().sum(dim=1).mean().item()


def effective_rank(latent: Float[Tensor, "batch latent depth height width"]) -> float:
    """Effective rank of the latent vectors of all positions about their mean; 0 if all are one.

    With p the singular values over their sum, exp(-sum p log p).

    References:
        Roy and Vetterli (2007), definition 1; as a sign of collapse: Garrido et al. (2023),
        RankMe, equation 1. Both without taking away the mean, which would hide a constant.
    """
    vectors = F.normalize(latent, dim=1).transpose(0, 1).flatten(1).double()
    centered = vectors - vectors.mean(dim=1, keepdim=True)
    covariance = centered @ centered.T / centered.shape[1]
    values = torch.linalg.eigvalsh(covariance).clamp(min=0.0).sqrt()
    if values.max() < 1e-6:
        return 0.0
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


Steps = deque[tuple[int, list[float]]]
"""The last steps, each with a value of every turn."""


class Watch:
    """Follows a stage's turns (micro-batches) and warns once when the views have collapsed."""

    def __init__(self, first_step: int, *, tells: bool = True) -> None:
        """Judge from `first_step` on: a fresh encoder has learned no differences yet.

        Args:
            first_step: The first step of which a warning may be.
            tells: Whether this process is the one that warns; all have the same figures.
        """
        self.first_step = first_step
        self.tells = tells
        self.has_warned = False
        self._spreads: Steps = deque(maxlen=NUM_STEPS)
        self._ranks: Steps = deque(maxlen=NUM_STEPS)
        self._kept: deque[tuple[Latent, Latent]] = deque(maxlen=NUM_KEPT)

    @torch.no_grad()
    def see(self, step: int, aligned: Latent, latent: Latent) -> dict[str, float]:
        """Figures of one turn: `alignment`, `spread` (of the CTs' is 1), `effective_rank`.

        Where a turn has one case, the spread is that of the last two. Nothing is said of latents
        that are not finite: the loop does, of the loss.
        """
        if not (aligned.isfinite().all() and latent.isfinite().all()):
            return {}
        rank, rank_of_cts = effective_rank(aligned), effective_rank(latent)
        figures = {"alignment": matched_cosine(aligned, latent), "effective_rank": rank}
        if rank_of_cts > 1.0:
            _note(self._ranks, step, (rank - 1.0) / (rank_of_cts - 1.0))
        if len(aligned) < 2:
            self._kept.append((aligned, latent))
            aligned, latent = (torch.cat(some) for some in zip(*self._kept, strict=True))
        if (spread_of_cts := spread(latent)) > 0.0:
            figures["spread"] = spread(aligned) / spread_of_cts
            _note(self._spreads, step, figures["spread"])
        if step >= self.first_step:
            self._warn(step)
        return figures

    def _warn(self, step: int) -> None:
        """Warn if the last steps say so and nothing was said before."""
        for shares, meaning in (
            (self._spreads, "the views of different patients are encoded alike"),
            (self._ranks, "the encoded views lie along one direction"),
        ):
            values = [value for _, of_step in shares for value in of_step]
            collapsed = len(shares) == NUM_STEPS and sum(values) / len(values) < COLLAPSED_SHARE
            if collapsed and not self.has_warned:
                self.has_warned = True
                if self.tells:
                    log.warning(
                        "alignment: the representation has collapsed at step %d: %s; raise "
                        "contrast_weight or lower learning_rate",
                        step,
                        meaning,
                    )


def _note(shares: Steps, step: int, value: float) -> None:
    """Add the value of one more turn of a step."""
    if not shares or shares[-1][0] != step:
        shares.append((step, []))
    shares[-1][1].append(value)
