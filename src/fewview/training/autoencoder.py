"""Stage 1: the autoencoder learns to keep augmented bodies, by a KL latent or by codes."""

from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fewview.models.codebook import code_counts, quantization_loss
from fewview.models.random_features import RandomFeatures
from fewview.models.vgg_features import VggFeatures
from fewview.models.vq_autoencoder import VqAutoencoder
from fewview.system import AnyAutoencoder
from fewview.training.adversarial import Adversary, Losses, Planes, Restored
from fewview.training.batches import shares
from fewview.training.codes import held_out_figures, quantized
from fewview.training.compression import (
    SLAB,
    feature_distance,
    frequency_bands,
    random_plane,
    sharpness_error,
    slabs,
)
from fewview.training.examples import ExampleKey, generator_of
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource
from fewview.training.system_config import AutoencoderStage


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
    adversary = Adversary(config, autoencoder, source)
    perceptual = config.perceptual_weight + config.slab_perceptual_weight > 0.0
    features = RandomFeatures().to(source.device) if perceptual else None
    sliced = None
    if config.slice_perceptual_weight > 0.0:
        sliced = VggFeatures(Path(config.slice_perceptual_file)).to(source.device)
    autoencoder.encoder.requires_grad_(not config.decoder_only)
    if isinstance(autoencoder, VqAutoencoder):
        autoencoder.codebook.requires_grad_(not config.decoder_only)

    @lru_cache(maxsize=config.accumulate)  # `balance` needs them before their turn comes
    def targets(step: int, places: range) -> Tensor:
        chosen = source.draw(config.batch_size, len(keys), 10, step)
        # A seed beyond the cached copies: the autoencoder never sees one body twice.
        seed = len(keys) + step * config.batch_size
        bodies = [
            source.body(ExampleKey(keys[chosen[place]].case, seed + place)) for place in places
        ]
        return torch.cat([source.target(body) for body in bodies])

    def restored(step: int, places: range, *, revives: bool = True) -> tuple[Restored, Losses]:
        target = targets(step, places)
        volume, losses = _restored(
            config, autoencoder, target, source, step, places, revives=revives
        )
        planes = [
            random_plane(target.shape[-1], generator_of(source.training.seed, 13, step, place))
            for place in places
        ]
        return Restored(volume, target, planes), losses

    @lru_cache(maxsize=1)
    def balance(step: int) -> Tensor:
        turns = shares(config, "autoencoder", source.processes)
        return adversary.balance(restored(step, places)[0] for places in turns)

    def step_loss(step: int, places: range) -> Losses:
        judges = adversary.judges(step)
        weight = balance(step) if judges and config.accumulate > 1 else None
        pair, (loss, figures) = restored(step, places, revives=weight is None)
        more, seen = _restoration(config, features, *pair)
        loss, figures = loss + more, figures | seen
        if sliced is not None:
            distance = feature_distance(sliced, *(_slices(one, pair.planes) for one in pair[:2]))
            figures["slice_perceptual"] = distance.item()
            loss = loss + config.slice_perceptual_weight * distance
        if judges:
            more, seen = adversary.losses(pair, weight)
            loss, figures = loss + more, figures | seen
        return loss, figures

    stage = Stage(
        name="autoencoder",
        config=config,
        module=nn.ModuleDict({"autoencoder": autoencoder, **adversary.discriminators}),
        step_loss=step_loss,
        validate=partial(_validate, autoencoder, source),
    )
    fit(stage, out, source.processes, report=report)


def _validate(autoencoder: AnyAutoencoder, source: TrainingSource) -> dict[str, list[float]]:
    """PSNR of each held-out case after the autoencoder, and the use of the codes."""
    scores, counts = [], []
    for target in source.validation_targets():
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


def _restored(
    config: AutoencoderStage,
    autoencoder: AnyAutoencoder,
    target: Tensor,
    source: TrainingSource,
    step: int,
    places: range,
    *,
    revives: bool = True,
) -> tuple[Tensor, Losses]:
    """The restored volume, and what the latent between costs."""
    if isinstance(autoencoder, VqAutoencoder):
        with source.autocast():
            latent = autoencoder.encode(target).mean
            codes, figures = quantized(
                autoencoder.codebook, latent, config, source, places, 12, step, revives=revives
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


def _slices(volume: Tensor, planes: Planes) -> Tensor:
    """The slice of each volume in its plane."""
    return slabs(volume, planes, 1)[:, :, 0]


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
