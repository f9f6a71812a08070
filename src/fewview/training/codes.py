"""A codebook in training: which codes are chosen, over all processes, and dead ones revived."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewview.models.codebook import (
    Codebook,
    Quantized,
    code_counts,
    perplexity,
    revival_candidates,
    usage_share,
)
from fewview.training.batches import group_places
from fewview.training.examples import generator_of
from fewview.training.source import TrainingSource
from fewview.training.system_config import AlignmentStage, AutoencoderStage

REVIVED_SHARE = 0.8
"""Of a stage's steps; in those that remain averaged codes and averaged networks come together."""


def quantized(
    codebook: Codebook,
    latent: Float[Tensor, "batch latent depth height width"],
    config: AutoencoderStage | AlignmentStage,
    source: TrainingSource,
    places: range,
    *seeds: int,
    revives: bool = True,
) -> tuple[Quantized, dict[str, float]]:
    """The codes of a micro-batch and figures of their use; dead codes are revived when it is time.

    Revival takes its vectors from the first example of the batch, as the first process finds them,
    so that all processes go on with one codebook, however the batch is divided.

    Args:
        codebook: What the latent is quantized by; a frozen one stays as it is.
        latent: Of the examples at `places`.
        config: The stage.
        source: Gathers, and says who is first.
        places: Of the step's batch.
        seeds: Of the draws; the last is the step.
        revives: Whether this may revive codes; a second time in a step it must not.
    """
    step, every = seeds[-1], config.revive_every
    learns = codebook.vectors.requires_grad
    due = every > 0 and step > 0 and step % every == 0 and step < REVIVED_SHARE * config.num_steps
    if revives and learns and due and group_places(places, source.processes).start == 0:
        _revive(codebook, latent[:1].detach(), source, *seeds)
    found = codebook(latent)
    counts = code_counts(found.indices, len(codebook.vectors))
    if learns and every > 0:
        chosen = source.gathered((counts > 0).float()[None]).amax(dim=0) > 0
        codebook.mark(chosen)
    return found, figures_of(counts)


@torch.no_grad()
def _revive(
    codebook: Codebook,
    latent: Float[Tensor, "1 latent depth height width"],
    source: TrainingSource,
    *seeds: int,
) -> None:
    """Replace the codes not chosen of late by vectors of one latent, the same everywhere."""
    candidates = latent.new_empty(0, latent.shape[1])
    if source.processes.first:
        dead = int((~codebook.used).sum())
        generator = generator_of(source.training.seed, *seeds)
        candidates = revival_candidates(latent, codebook(latent), dead, generator)
    codebook.revive(source.processes.of_first(candidates.cpu()))


def figures_of(counts: Int[Tensor, " code"]) -> dict[str, float]:
    """Share of the codes that were chosen, and their perplexity."""
    return {"code_share": usage_share(counts), "perplexity": perplexity(counts)}


def held_out_figures(
    codebook: Codebook, counts: list[Int[Tensor, " code"]], source: TrainingSource
) -> dict[str, list[float]]:
    """The same over all validation cases of all processes together.

    Args:
        codebook: Whose codes they are.
        counts: Of this process's cases.
        source: Gathers those of the others.
    """
    own = torch.stack(counts).sum(dim=0) if counts else torch.zeros(len(codebook.vectors))
    total = source.gathered(own.float().to(source.device)[None]).sum(dim=0).long()
    if not total.any():
        return {}
    return {f"val_{name}": [value] for name, value in figures_of(total).items()}
