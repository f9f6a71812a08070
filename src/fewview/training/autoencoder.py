"""Stage 1: the KL autoencoder learns to keep augmented bodies."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fewview.models.discriminator import PatchDiscriminator
from fewview.models.random_features import RandomFeatures
from fewview.system import AnyAutoencoder
from fewview.training.compression import (
    adaptive_weight,
    feature_distance,
    frequency_bands,
    hinge_losses,
    sharpness_error,
)
from fewview.training.config import AutoencoderStage
from fewview.training.examples import ExampleKey
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource

Losses = tuple[Tensor, dict[str, float]]
"""A weighted loss, and the unweighted figures to log."""


def train_autoencoder(
    config: AutoencoderStage,
    autoencoder: AnyAutoencoder,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the autoencoder to fresh augmented bodies (CLS-DM stage 1).

    The loss is L1 + weighted KL, and what else the config gives a weight: frequency bands,
    perceptual features, a discriminator that learns beside it.
    """
    keys = source.keys()
    validation = source.validation()
    modules: dict[str, nn.Module] = {"autoencoder": autoencoder}
    if config.discriminator_weight > 0.0:
        modules["discriminator"] = PatchDiscriminator(config.discriminator, 1).to(source.device)
    features = RandomFeatures().to(source.device) if config.perceptual_weight > 0.0 else None
    autoencoder.encoder.requires_grad_(not config.decoder_only)

    def step_loss(step: int, places: range) -> Losses:
        chosen = source.draw(config.batch_size, len(keys), 10, step)
        # A seed beyond the cached copies: the autoencoder never sees one body twice.
        seed = len(keys) + step * config.batch_size
        bodies = [
            source.body(ExampleKey(keys[chosen[place]].case, seed + place)) for place in places
        ]
        target = torch.cat([source.target(body) for body in bodies])
        with source.autocast():
            posterior = autoencoder.encode(target)
            noise = source.noise(posterior.mean.shape[1:], places, 11, step)
            latent = posterior.mean + (0.5 * posterior.log_variance).exp() * noise
            restored = autoencoder.decode(latent)
        kl = posterior.kl()
        loss, figures = _restoration(config, features, restored, target)
        loss, figures = loss + config.kl_weight * kl, figures | {"kl": kl.item()}
        if config.discriminator_weight > 0.0 and step >= config.discriminator_start:
            more, seen = _adversarial(config, modules, restored, target, source)
            loss, figures = loss + more, figures | seen
        return loss, figures

    def validate() -> dict[str, list[float]]:
        scores = []
        for target, _ in validation:
            with source.autocast():
                restored = autoencoder.decode(autoencoder.encode(target).mean)
            scores.append(psnr_db(restored, target))
        return {"val_psnr_db": scores}

    stage = Stage(
        name="autoencoder",
        config=config,
        module=nn.ModuleDict(modules),
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)


def _restoration(
    config: AutoencoderStage, features: RandomFeatures | None, restored: Tensor, target: Tensor
) -> Losses:
    """L1, and frequency bands and perceptual distance where they have a weight."""
    error = restored - target
    loss = error.abs().mean()
    figures = {"l1": loss.item()}
    weights = {"low": config.low_frequency_weight, "high": config.high_frequency_weight}
    if any(weights.values()):
        bands = frequency_bands(error, config.frequency_cutoff)
        for (name, weight), band in zip(weights.items(), bands, strict=True):
            figures[f"{name}_frequency_l1"] = band.abs().mean().item()
            loss = loss + weight * band.abs().mean()
    if config.sharpness_weight > 0.0:
        sharpness = sharpness_error(restored, target)
        figures["sharpness"] = sharpness.item()
        loss = loss + config.sharpness_weight * sharpness
    if features is not None:
        distance = feature_distance(features, restored, target)
        figures["perceptual"] = distance.item()
        loss = loss + config.perceptual_weight * distance
    return loss, figures


def _adversarial(
    config: AutoencoderStage,
    modules: dict[str, nn.Module],
    restored: Tensor,
    target: Tensor,
    source: TrainingSource,
) -> Losses:
    """The hinge losses of both networks, the autoencoder's balanced against its L1."""
    autoencoder = modules["autoencoder"]
    with source.autocast():
        fooling, telling = hinge_losses(modules["discriminator"], restored, target)
    l1 = (restored - target).abs().mean()
    last = autoencoder.decoder[-1].weight  # type: ignore[index,union-attr]
    weight = adaptive_weight(l1, fooling, last, average=source.processes.average)
    figures = {"fooling": fooling, "telling": telling, "fooling_weight": weight}
    loss = config.discriminator_weight * weight * fooling + telling
    return loss, {name: value.item() for name, value in figures.items()}
