"""Stage 3: the denoiser learns latents given the encoded views."""

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from fewview.diffusion.loss import (
    denoising_loss,
    dropped,
    self_conditioned,
    stratified_times,
)
from fewview.diffusion.noise import Schedule
from fewview.sampling import EncodedViews, condition_of, sample_latents
from fewview.system import Networks, SystemConfig
from fewview.training.conditions import cached_conditions
from fewview.training.examples import generator_of, uniform
from fewview.training.latents import Latents
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.memory import explained
from fewview.training.source import TrainingSource
from fewview.training.system_config import AlignmentStage, DiffusionStage
from fewview.training.views import usual_view_count

VALIDATION_NFE = 10  # denoiser calls for a sample of each validation case

SCALE_EXAMPLES = 32  # copies from which the spread of the residual is measured


def train_diffusion(
    config: DiffusionStage,
    system: SystemConfig,
    networks: Networks,
    learned: dict[str, nn.Module],
    latents: Latents,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the denoiser and what else is `learned`, such as `parts_to_learn` names it.

    The scale of what the denoiser samples is measured first and kept in `networks`.
    """
    schedule = Schedule(system.noise)
    fixed = None
    if config.fixed_views:
        path = out / "conditions.safetensors"
        fixed = cached_conditions(path, system, networks, latents, source, report)
    scale = 1.0
    if source.processes.first:  # machines may round differently
        with explained(None, "diffusion", source.processes):
            scale = measured_scale(system, networks, latents, source)
    networks.latent_scale = source.processes.of_first(scale)

    def encoded_views(chosen: list[int], places: range, step: int) -> EncodedViews:
        if fixed is not None:
            return fixed.of(chosen, source.device)
        bodies = [source.body(latents.keys[index]) for index in chosen]
        views = source.views(bodies, places, 31, step)
        with source.autocast():
            return condition_of(system, networks, views.images, views.rays)

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        drawn = source.draw(config.batch_size, len(latents.keys), 30, step)
        chosen = [drawn[place] for place in places]
        latent = latents.mean[chosen].float().to(source.device)
        encoded = encoded_views(chosen, places, step)
        clean = latent - encoded.coarse if system.diffusion_target == "residual" else latent
        told = encoded.condition
        if config.condition_dropout > 0.0:
            without = left_out(config, source.training.seed, step, places)
            told = dropped(told, without.to(told.device))
        clean, condition = noise_draws(clean * networks.latent_scale, told, config.num_noise_draws)
        count = config.num_noise_draws
        generator = generator_of(source.training.seed, 32, step)
        times = stratified_times(config.batch_size * count, generator)
        time = times[places.start * count : places.stop * count].to(clean.device)
        noise = source.noise((count, *clean.shape[1:]), places, 32, step).flatten(0, 1)
        shown = system.self_conditioning and shows_itself(source.training.seed, step)
        with source.autocast():
            loss = denoising_loss(
                self_conditioned(networks.denoiser, schedule) if shown else networks.denoiser,
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
        for target, views in source.validation(usual_view_count(system.views)):
            noise = torch.randn(
                (1, *latents.mean.shape[1:]), generator=generator_of(source.training.seed, 33)
            ).to(target.device)
            with source.autocast():
                encoded = condition_of(system, networks, views.images, views.rays)
                latent = sample_latents(system, networks, encoded, noise, nfe=VALIDATION_NFE)
                volume = networks.autoencoder.decode(latent)
            scores.append(psnr_db(volume, target))
        return {"val_psnr_db": scores}

    stage = Stage(
        name="diffusion",
        config=config,
        module=nn.ModuleDict(learned),
        step_loss=step_loss,
        validate=validate,
        metadata=lambda: {"latent_scale": repr(networks.latent_scale)},
    )
    fit(stage, out, source.processes, report=report)


def parts_to_learn(
    system: SystemConfig, networks: Networks, alignment: AlignmentStage | None
) -> dict[str, nn.Module]:
    """The denoiser, and what stage 2 has left untrained of what the denoiser is told.

    Without stage 2 that is the whole view encoder. After it, it is the head of the detail, and
    without contrast that of the condition, where no other loss reaches it.
    """
    parts: dict[str, nn.Module] = {"denoiser": networks.denoiser}
    encoder = networks.view_encoder
    if alignment is None:
        return parts | {"view_encoder": encoder}
    if encoder.detail_head is not None:
        parts["detail_head"] = encoder.detail_head.requires_grad_(True)
    taught = alignment.contrasts or system.estimate_is_of_condition
    if not taught and system.condition != "coarse":
        parts["condition_head"] = without_first_norm(encoder.condition_head).requires_grad_(True)
    return parts


def without_first_norm(head: nn.Sequential) -> nn.Module:
    """What of a head learns: its last layer where it begins with a group norm, else all of it.

    torch 2.13 crashes on a CPU in the gradient of a group norm in channels-last memory whose input
    needs none.
    """
    return head[-1] if isinstance(head[0], nn.GroupNorm) else head


def left_out(config: DiffusionStage, seed: int, step: int, places: range) -> Bool[Tensor, " place"]:
    """Which examples of some places of a step's batch go without condition."""
    drawn = [uniform(generator_of(seed, 36, step, place), 0.0, 1.0) for place in places]
    return torch.tensor(drawn) < config.condition_dropout


def shows_itself(seed: int, step: int) -> bool:
    """Whether the denoiser sees its own estimate in a step: in half of them."""
    return uniform(generator_of(seed, 37, step), 0.0, 1.0) < 0.5


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
