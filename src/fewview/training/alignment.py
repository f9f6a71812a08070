"""Stage 2: the view encoder learns the latent of the CT (contrast) and the CT itself."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.view_encoder import Projector, ViewEncoder
from fewview.training.batches import group_places
from fewview.training.config import AlignmentStage
from fewview.training.latents import Latents
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource


def contrastive_loss(
    aligned: Float[Tensor, "batch latent depth height width"],
    latent: Float[Tensor, "batch latent depth height width"],
    log_temperature: Float[Tensor, ""],
    *,
    negatives: Float[Tensor, "negative latent depth height width"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE between views and CT; the positive is the same case.

    The similarity is the cosine over latent channels, mean over positions, so its range does not
    grow with the grid. The latents of other CTs are at hand, so each set of views is also told
    apart from `negatives`, however small the batch.

    References:
        CLS-DM stage 2; van den Oord et al. (2018), equation 4; both directions as in CLIP.
    """
    cts = latent if negatives is None else torch.cat([latent, negatives])
    views, cts = (F.normalize(value, dim=1).flatten(1) for value in (aligned, cts))
    scale = log_temperature.clamp(min=-4.6).exp() * aligned[0, 0].numel()
    similarity = views @ cts.T / scale
    same = torch.arange(len(views), device=views.device)
    among_views = similarity[:, : len(views)].T
    return 0.5 * (F.cross_entropy(similarity, same) + F.cross_entropy(among_views, same))


def match_loss(aligned: Tensor, latent: Tensor) -> Float[Tensor, ""]:
    """Mean squared distance of the normalized latents of matched pairs (CLS-DM stage 2)."""
    return (F.normalize(aligned, dim=1) - F.normalize(latent, dim=1)).square().mean()


def train_alignment(
    config: AlignmentStage,
    view_encoder: ViewEncoder,
    projector: Projector,
    latents: Latents,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit view encoder, both heads and projector together (all trained, unlike published).

    With `projector_only` the view encoder is left as it is.
    """
    validation = source.validation()
    view_encoder.requires_grad_(not config.projector_only)

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        drawn = source.draw(config.batch_size + config.num_negatives, len(latents.keys), 20, step)
        chosen = [drawn[place] for place in places]
        # Latents of other CTs need no network, so also those of other micro-batches are told apart.
        together = [drawn[place] for place in group_places(places, source.processes)]
        others = [index for index in drawn if index not in together]
        bodies = [source.body(latents.keys[index]) for index in chosen]
        target = torch.cat([source.target(body) for body in bodies])
        latent = latents.mean[chosen].float().to(target.device)
        views = source.views(bodies, places, 21, step)
        with source.autocast():
            encoding = view_encoder(views.images, views.rays)
            aligned = projector(encoding.condition)
        contrast = contrastive_loss(
            source.gathered(aligned.float()),
            latents.mean[together].float().to(target.device),
            projector.log_temperature,
            negatives=latents.mean[others].float().to(target.device),
        )
        match = match_loss(aligned.float(), latent)
        error = encoding.estimate - target
        voxel = error.abs().mean() if config.reconstruction == "l1" else error.square().mean()
        loss = voxel + config.contrast_weight * (contrast + config.match_weight * match)
        return loss, {
            "voxel": voxel.item(),
            "contrast": contrast.item(),
            "match": match.item(),
            "train_psnr_db": psnr_db(encoding.estimate.detach(), target),
        }

    def validate() -> dict[str, list[float]]:
        scores = []
        for target, views in validation:
            with source.autocast():
                scores.append(psnr_db(view_encoder(views.images, views.rays).estimate, target))
        return {"val_psnr_db": scores}

    stage = Stage(
        name="alignment",
        config=config,
        module=nn.ModuleDict({"view_encoder": view_encoder, "projector": projector}),
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)
