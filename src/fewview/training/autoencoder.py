"""Stage 1: the autoencoder learns to keep augmented bodies, by a KL latent or by codes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fewview.models.codebook import code_counts, quantization_loss
from fewview.models.discriminator import PatchDiscriminator
from fewview.models.random_features import RandomFeatures
from fewview.models.vq_autoencoder import VqAutoencoder
from fewview.system import AnyAutoencoder
from fewview.training.codes import held_out_figures, quantized
from fewview.training.compression import (
    SLAB,
    adaptive_weight,
    feature_distance,
    frequency_bands,
    hinge_losses,
    random_plane,
    sharpness_error,
    slabs,
)
from fewview.training.config import AutoencoderStage
from fewview.training.examples import ExampleKey, generator_of
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource

Losses = tuple[Tensor, dict[str, float]]
"""A weighted loss, and the unweighted figures to log."""

Planes = list[tuple[int, int]]
"""For each example a random plane: axis and index."""


def train_autoencoder(
    config: AutoencoderStage,
    autoencoder: AnyAutoencoder,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the autoencoder to fresh augmented bodies (stage 1 of CLS-DM and of XctDiff).

    The loss is L1, what holds the latent together (weighted KL, or the distance of latents and
    codes), and what else the config gives a weight: frequency bands, perceptual features,
    discriminators that learn beside it.
    """
    keys = source.keys()
    validation = source.validation()
    modules: dict[str, nn.Module] = {"autoencoder": autoencoder} | _discriminators(config, source)
    perceptual = config.perceptual_weight + config.slab_perceptual_weight > 0.0
    features = RandomFeatures().to(source.device) if perceptual else None
    autoencoder.encoder.requires_grad_(not config.decoder_only)
    if isinstance(autoencoder, VqAutoencoder):
        autoencoder.codebook.requires_grad_(not config.decoder_only)

    def step_loss(step: int, places: range) -> Losses:
        chosen = source.draw(config.batch_size, len(keys), 10, step)
        # A seed beyond the cached copies: the autoencoder never sees one body twice.
        seed = len(keys) + step * config.batch_size
        bodies = [
            source.body(ExampleKey(keys[chosen[place]].case, seed + place)) for place in places
        ]
        target = torch.cat([source.target(body) for body in bodies])
        restored, (loss, figures) = _restored(config, autoencoder, target, source, step, places)
        planes = [
            random_plane(target.shape[-1], generator_of(source.training.seed, 13, step, place))
            for place in places
        ]
        more, seen = _restoration(config, features, restored, target, planes)
        loss, figures = loss + more, figures | seen
        if config.discriminator_weight > 0.0 and step >= config.discriminator_start:
            more, seen = _adversarial(config, modules, restored, target, planes, source)
            loss, figures = loss + more, figures | seen
        return loss, figures

    def validate() -> dict[str, list[float]]:
        scores, counts = [], []
        for target, _ in validation:
            with source.autocast():
                latent = autoencoder.encode(target).mean
                restored = autoencoder.decode(latent)
            scores.append(psnr_db(restored, target))
            if isinstance(autoencoder, VqAutoencoder):
                codebook = autoencoder.codebook
                counts.append(code_counts(codebook(latent).indices, len(codebook.vectors)))
        figures = {"val_psnr_db": scores}
        if isinstance(autoencoder, VqAutoencoder):
            figures |= held_out_figures(autoencoder.codebook, counts, source)
        return figures

    stage = Stage(
        name="autoencoder",
        config=config,
        module=nn.ModuleDict(modules),
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)


def _discriminators(config: AutoencoderStage, source: TrainingSource) -> dict[str, nn.Module]:
    """The discriminators that learn, by their names in the checkpoint."""
    dims = {"discriminator": 3} if config.discriminator_weight > 0.0 else {}
    dims |= {"slice_discriminator": 2} if config.slice_discriminator else {}
    return {
        name: PatchDiscriminator(config.discriminator, 1, dims=count).to(source.device)
        for name, count in dims.items()
    }


def _restored(
    config: AutoencoderStage,
    autoencoder: AnyAutoencoder,
    target: Tensor,
    source: TrainingSource,
    step: int,
    places: range,
) -> tuple[Tensor, Losses]:
    """The restored volume, and what the latent between costs."""
    if isinstance(autoencoder, VqAutoencoder):
        with source.autocast():
            latent = autoencoder.encode(target).mean
            codes, figures = quantized(
                autoencoder.codebook, latent, config, source, places, 12, step
            )
            restored = autoencoder.decode_codes(codes.latent)
        distance = quantization_loss(latent, codes)
        figures["quantization"] = distance.item()
        return restored, (config.codebook_weight * distance, figures)
    with source.autocast():
        posterior = autoencoder.encode(target)
        noise = source.noise(posterior.mean.shape[1:], places, 11, step)
        latent = posterior.mean + (0.5 * posterior.log_variance).exp() * noise
        restored = autoencoder.decode(latent)
    kl = posterior.kl()
    return restored, (config.kl_weight * kl, {"kl": kl.item()})


def _restoration(
    config: AutoencoderStage,
    features: RandomFeatures | None,
    restored: Tensor,
    target: Tensor,
    planes: Planes,
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
    if features is not None and config.perceptual_weight > 0.0:
        distance = feature_distance(features, restored, target)
        figures["perceptual"] = distance.item()
        loss = loss + config.perceptual_weight * distance
    if features is not None and config.slab_perceptual_weight > 0.0:
        pair = (slabs(volume, planes, SLAB) for volume in (restored, target))
        distance = feature_distance(features, *pair)
        figures["slab_perceptual"] = distance.item()
        loss = loss + config.slab_perceptual_weight * distance
    return loss, figures


def _adversarial(
    config: AutoencoderStage,
    modules: dict[str, nn.Module],
    restored: Tensor,
    target: Tensor,
    planes: Planes,
    source: TrainingSource,
) -> Losses:
    """The hinge losses of all networks, the autoencoder's balanced against its L1."""
    autoencoder = modules["autoencoder"]
    with source.autocast():
        fooling, telling = hinge_losses(modules["discriminator"], restored, target)
        if config.slice_discriminator:
            slices = [slabs(volume, planes, 1)[:, :, 0] for volume in (restored, target)]
            more = hinge_losses(modules["slice_discriminator"], slices[0], slices[1])
            fooling, telling = fooling + more[0], telling + more[1]
    l1 = (restored - target).abs().mean()
    last = autoencoder.decoder[-1].weight  # type: ignore[index,union-attr]
    weight = adaptive_weight(l1, fooling, last, average=source.processes.average)
    figures = {"fooling": fooling, "telling": telling, "fooling_weight": weight}
    loss = config.discriminator_weight * weight * fooling + telling
    return loss, {name: value.item() for name, value in figures.items()}
