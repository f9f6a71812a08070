"""Stage 1: the KL autoencoder learns to keep augmented bodies."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewview.models.autoencoder import Autoencoder
from fewview.training.config import AutoencoderStage
from fewview.training.examples import ExampleKey
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource

LINEAR_BODIES = 64
"""Bodies whose blocks decide the linear code: a quarter of a million blocks of a 64^3 grid."""


def train_autoencoder(
    config: AutoencoderStage,
    autoencoder: Autoencoder,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the autoencoder to fresh augmented bodies (CLS-DM stage 1).

    The loss is L1 + weighted KL, and the weighted L1 of high frequencies where the config has it.
    """
    keys = source.keys()
    validation = source.validation()
    if autoencoder.linear is not None:
        first = [source.target(source.body(key)) for key in keys[:LINEAR_BODIES]]
        autoencoder.start_linear_path(torch.cat(first))

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
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
        error, kl = restored - target, posterior.kl()
        l1, fine = error.abs().mean(), high_frequencies(error).abs().mean()
        loss = l1 + config.kl_weight * kl + config.high_frequency_weight * fine
        return loss, {"l1": l1.item(), "high_frequency_l1": fine.item(), "kl": kl.item()}

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
        module=autoencoder,
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)


def high_frequencies(
    volume: Float[Tensor, "batch channel depth height width"],
) -> Float[Tensor, "batch channel depth height width"]:
    """What remains when the mean over 3^3 voxels is taken away; of a constant, nothing."""
    return volume - F.avg_pool3d(volume, 3, stride=1, padding=1, count_include_pad=False)
