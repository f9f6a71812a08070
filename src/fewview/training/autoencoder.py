"""Stage 1: the KL autoencoder learns to keep augmented bodies."""

from pathlib import Path

import torch

from fewview.models.autoencoder import Autoencoder
from fewview.training.config import AutoencoderStage
from fewview.training.examples import ExampleKey, generator_of
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource


def train_autoencoder(
    config: AutoencoderStage,
    autoencoder: Autoencoder,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the autoencoder to fresh augmented bodies; loss is L1 + weighted KL (CLS-DM stage 1)."""
    keys = source.keys()
    validation = source.validation()

    def step_loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = source.draw(config.batch_size, len(keys), 10, step)
        # A seed beyond the cached copies: the autoencoder never sees one body twice.
        seed = len(keys) + step * config.batch_size
        bodies = [
            source.body(ExampleKey(keys[index].case, seed + place))
            for place, index in enumerate(chosen)
        ]
        target = torch.cat([source.target(body) for body in bodies])
        generator = generator_of(source.training.seed, 11, step)
        with source.autocast():
            posterior = autoencoder.encode(target)
            noise = torch.randn(posterior.mean.shape, generator=generator).to(target.device)
            latent = posterior.mean + (0.5 * posterior.log_variance).exp() * noise
            restored = autoencoder.decode(latent)
        error, kl = (restored - target).abs().mean(), posterior.kl()
        return error + config.kl_weight * kl, {"l1": error.item(), "kl": kl.item()}

    def validate() -> dict[str, float]:
        scores = []
        for target, _ in validation:
            with source.autocast():
                restored = autoencoder.decode(autoencoder.encode(target).mean)
            scores.append(psnr_db(restored, target))
        return {"val_psnr_db": sum(scores) / len(scores)} if scores else {}

    stage = Stage(
        name="autoencoder",
        config=config,
        module=autoencoder,
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, report=report)
