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
from fewview.training.alignment import voxel_error
from fewview.training.conditions import cached_conditions
from fewview.training.examples import Body, generator_of, uniform
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
    alignment: AlignmentStage | None,
    latents: Latents,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit the denoiser and what else `parts_to_learn` names after this stage 2.

    The scale of what the denoiser samples is measured first and kept in `networks`.
    """
    schedule = Schedule(system.noise)
    reconstructs = alignment is not None and config.reconstruction_weight > 0.0
    fixed = None
    if config.fixed_views:
        path = out / "conditions.safetensors"
        fixed = cached_conditions(path, system, networks, latents, source, report)
    scale = 1.0
    if source.processes.first:  # machines may round differently
        with explained(None, "diffusion", source.processes):
            scale = measured_scale(system, networks, latents, source)
    networks.latent_scale = source.processes.of_first(scale)

    def encoded_views(bodies: list[Body], places: range, step: int) -> EncodedViews:
        views = source.views(bodies, places, 31, step)
        with source.autocast():
            return condition_of(
                system, networks, views.images, views.rays, with_estimate=reconstructs
            )

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        drawn = source.draw(config.batch_size, len(latents.keys), 30, step)
        chosen = [drawn[place] for place in places]
        latent = latents.mean[chosen].float().to(source.device)
        bodies = [] if fixed else [source.body(latents.keys[index]) for index in chosen]
        encoded = fixed.of(chosen, source.device) if fixed else encoded_views(bodies, places, step)
        # What the denoiser aims at is no way for the view encoder to make its work easier.
        clean = (
            latent - encoded.coarse.detach() if system.diffusion_target == "residual" else latent
        )
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
        if alignment is None or not reconstructs:
            return loss, {}
        target = torch.cat([source.target(body) for body in bodies])
        voxel = voxel_error(alignment, encoded.estimate, target)
        figures = {"denoising": loss.item(), "voxel": voxel.item()}
        return loss + config.reconstruction_weight * voxel, figures

    def validate() -> dict[str, list[float]]:
        scores, estimates = [], []
        for target, views in source.validation(usual_view_count(system.views)):
            noise = torch.randn(
                (1, *latents.mean.shape[1:]), generator=generator_of(source.training.seed, 33)
            ).to(target.device)
            with source.autocast():
                encoded = condition_of(
                    system, networks, views.images, views.rays, with_estimate=reconstructs
                )
                latent = sample_latents(system, networks, encoded, noise, nfe=VALIDATION_NFE)
                volume = networks.autoencoder.decode(latent)
            scores.append(psnr_db(volume, target))
            if reconstructs:
                estimates.append(psnr_db(encoded.estimate, target))
        return {"val_psnr_db": scores} | ({"val_estimate_db": estimates} if reconstructs else {})

    stage = Stage(
        name="diffusion",
        config=config,
        module=nn.ModuleDict(parts_to_learn(config, system, networks, alignment)),
        step_loss=step_loss,
        validate=validate,
        metadata=lambda: {"latent_scale": repr(networks.latent_scale)},
    )
    fit(stage, out, source.processes, report=report)


def parts_to_learn(
    config: DiffusionStage,
    system: SystemConfig,
    networks: Networks,
    alignment: AlignmentStage | None,
) -> dict[str, nn.Module]:
    """The denoiser, and what stage 2 has left untrained of what the denoiser is told.

    Without stage 2 that is the whole view encoder, and with `learns_views` it is so after it.
    Otherwise it is the head of the detail, and without contrast that of the condition, where no
    other loss reaches it.
    """
    parts: dict[str, nn.Module] = {"denoiser": networks.denoiser}
    encoder = networks.view_encoder
    if alignment is None or config.learns_views:
        return parts | {"view_encoder": encoder.requires_grad_(True)}
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
