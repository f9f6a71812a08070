"""Stage 3: the denoiser learns latents given the encoded views."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fewview.diffusion.loss import denoising_loss, stratified_times
from fewview.diffusion.noise import Schedule
from fewview.sampling import condition_of, lost_in_coding, sample_latents
from fewview.system import Networks, SystemConfig
from fewview.training.config import DiffusionStage
from fewview.training.examples import generator_of
from fewview.training.latents import Latents
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.source import TrainingSource

SCALE_EXAMPLES = 32  # copies from which the spread of the residual is measured


def train_diffusion(
    config: DiffusionStage,
    system: SystemConfig,
    networks: Networks,
    latents: Latents,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the denoiser; the scale of what it samples is measured first and kept in `networks`.

    A system without an estimate has had no stage 2: its view encoder learns here as well. Of
    one with an estimate only the head of the detail does.
    """
    parts: dict[str, nn.Module] = {"denoiser": networks.denoiser}
    if not system.estimate:
        parts["view_encoder"] = networks.view_encoder
    elif networks.view_encoder.detail_head is not None:
        parts["detail_head"] = networks.view_encoder.detail_head.requires_grad_(True)
    schedule = Schedule(system.noise)
    validation = source.validation()
    scale = measured_scale(system, networks, latents, source)
    networks.latent_scale = source.processes.of_first(scale)  # machines may round differently

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        drawn = source.draw(config.batch_size, len(latents.keys), 30, step)
        chosen = [drawn[place] for place in places]
        bodies = [source.body(latents.keys[index]) for index in chosen]
        views = source.views(bodies, places, 31, step)
        latent = latents.mean[chosen].float().to(views.images.device)
        with source.autocast():
            encoded = condition_of(system, networks, views.images, views.rays)
        clean = latent - encoded.coarse if system.diffusion_target == "residual" else latent
        clean, condition = noise_draws(
            clean * networks.latent_scale, encoded.condition, config.num_noise_draws
        )
        count = config.num_noise_draws
        generator = generator_of(source.training.seed, 32, step)
        times = stratified_times(config.batch_size * count, generator)
        time = times[places.start * count : places.stop * count].to(clean.device)
        noise = source.noise((count, *clean.shape[1:]), places, 32, step).flatten(0, 1)
        with source.autocast():
            loss = denoising_loss(
                networks.denoiser,
                schedule,
                clean,
                condition,
                time=time,
                noise=noise,
                error=config.error,
            )
        return loss, {}

    def validate() -> dict[str, list[float]]:
        scores = []
        for target, views in validation:
            noise = torch.randn(
                (1, *latents.mean.shape[1:]), generator=generator_of(source.training.seed, 33)
            ).to(target.device)
            with source.autocast():
                encoded = condition_of(system, networks, views.images, views.rays)
                latent = sample_latents(system, networks, encoded, noise, nfe=10)
                volume = networks.autoencoder.decode(latent)
                volume = volume + lost_in_coding(system, networks, encoded)
            scores.append(psnr_db(volume, target))
        return {"val_psnr_db": scores}

    stage = Stage(
        name="diffusion",
        config=config,
        module=nn.ModuleDict(parts),
        step_loss=step_loss,
        validate=validate,
        metadata=lambda: {"latent_scale": repr(networks.latent_scale)},
    )
    fit(stage, out, source.processes, report=report)


def noise_draws(clean: Tensor, condition: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each example `count` times, and its own condition beside each."""
    return clean.repeat_interleave(count, dim=0), condition.repeat_interleave(count, dim=0)


@torch.no_grad()
def measured_scale(
    system: SystemConfig, networks: Networks, latents: Latents, source: TrainingSource
) -> float:
    """1 / standard deviation of what diffusion samples, over copies of the training set."""
    if system.diffusion_target == "latent":
        return latents.scale
    squares = []
    for index in range(min(SCALE_EXAMPLES, len(latents.keys))):
        views = source.views([source.body(latents.keys[index])], range(1), 34, index)
        with source.autocast():
            coarse = condition_of(system, networks, views.images, views.rays).coarse
        squares.append((latents.mean[index].float().to(coarse.device) - coarse).square().mean())
    return 1.0 / torch.stack(squares).mean().sqrt().item()
