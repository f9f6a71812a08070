"""Stage 2: the view encoder learns the latent of the CT (contrast) and the CT itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewview.models.codebook import quantization_loss
from fewview.models.projector import Projector
from fewview.system import Networks
from fewview.training.batches import group_places
from fewview.training.codes import quantized
from fewview.training.collapse import Watch, matched_cosine
from fewview.training.contrast import (
    Memory,
    case_contrast,
    flat_unit,
    local_contrast,
    match_loss,
)
from fewview.training.examples import generator_of
from fewview.training.latents import Latents
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.memory import explained
from fewview.training.source import TrainingSource
from fewview.training.system_config import AlignmentStage
from fewview.training.views import usual_view_count


class Pairs(NamedTuple):
    """A whole batch of views and CTs, as the contrast needs it."""

    aligned: list[Float[Tensor, "batch latent _ _ _"]]
    """Of the views, by level."""

    latent: Float[Tensor, "batch latent depth height width"]
    cases: Int[Tensor, " batch"]
    """Which copy each is."""

    negatives: Float[Tensor, "negative latent depth height width"]
    """Latents of other copies."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """What stage 2 needs beside the view encoder: a projector per level, and the memory.

    Level k averages condition and latent over blocks of 2^k voxels and has a projector and a
    temperature of its own: what CLS-DM names as future work, as a feature pyramid (Lin et al.
    2017). The memory holds latents of the first level and serves there.
    """

    config: AlignmentStage
    projector: Projector
    coarser: nn.ModuleList
    """Projectors of the levels beyond the first; they serve training only."""

    memory: Memory | None

    def modules(self) -> dict[str, nn.Module]:
        """The parts by name, as the checkpoint has them."""
        parts: dict[str, nn.Module] = {"projector": self.projector}
        if len(self.coarser):
            parts["coarser"] = self.coarser
        if self.memory is not None:
            parts["memory"] = self.memory
        return parts

    def project(self, condition: Tensor) -> list[Tensor]:
        """Aligned latents of all levels."""
        return [
            projector(_pooled(condition, level)).float()
            for level, projector in enumerate([self.projector, *self.coarser])
        ]

    def loss(self, pairs: Pairs, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The weighted terms, mean over levels, and their figures; the memory takes the batch.

        Args:
            pairs: The batch.
            generator: Draws the positions of the local term.
        """
        config = self.config
        terms = [self._level(level, pairs, generator) for level in range(config.levels)]
        weights = {
            "contrast": config.case_weight,
            "match": config.match_weight,
            "local": config.local_weight,
        }
        means = {name: torch.stack([of[name] for of in terms]).mean() for name in terms[0]}
        total = torch.stack([weights[name] * value for name, value in means.items()]).sum()
        if self.memory is not None:
            self.memory.push(pairs.aligned[0].detach(), pairs.cases)
        return total, {name: value.item() for name, value in means.items()}

    def _level(
        self, level: int, pairs: Pairs, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of one level that have a weight."""
        config, aligned, latent = self.config, pairs.aligned[level], _pooled(pairs.latent, level)
        log_temperature = [self.projector, *self.coarser][level].log_temperature
        memory = self.memory if level == 0 else None
        terms = {}
        if config.case_weight > 0.0:
            terms["contrast"] = case_contrast(
                aligned,
                latent,
                log_temperature,
                negatives=_pooled(pairs.negatives, level),
                past=None if memory is None else memory.aligned,
                is_own=None if memory is None else memory.is_own(pairs.cases),
            )
        if config.match_weight > 0.0:
            terms["match"] = match_loss(aligned, latent)
        if config.local_weight > 0.0:
            places = torch.randperm(latent[0, 0].numel(), generator=generator)
            terms["local"] = local_contrast(
                aligned,
                latent,
                log_temperature,
                places[: config.local_positions].to(aligned.device),
                against=config.local_negatives,
            )
        return terms


def _pooled(volume: Tensor, level: int) -> Tensor:
    """Averaged over blocks of 2^level voxels along each axis."""
    return F.avg_pool3d(volume, 2**level) if level else volume


def new_contrast(
    config: AlignmentStage, projector: Projector, latent_size: int, seed: int = 0
) -> Contrast:
    """The contrast about a projector; fresh projectors of coarser levels, an empty memory.

    Args:
        config: The stage.
        projector: The system's own.
        latent_size: Voxels of the latent along each axis.
        seed: Of the fresh weights.
    """
    convolution = projector.project
    num_channels = convolution.out_channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_of(seed, 23).initial_seed())
        coarser = nn.ModuleList(
            Projector(convolution.in_channels, num_channels) for _ in range(config.levels - 1)
        )
    memory = None
    if config.queue_size:
        memory = Memory(config.queue_size, num_channels * latent_size**3)
        memory.to(convolution.weight.device)
    return Contrast(config, projector, coarser.to(convolution.weight.device), memory)


def train_alignment(
    config: AlignmentStage,
    networks: Networks,
    latents: Latents,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit view encoder, its heads and projector together (all trained, unlike published).

    A term without weight is neither computed nor trained.
    """
    view_encoder = networks.view_encoder
    codebook = view_encoder.codebook
    seed = source.training.seed
    contrast = new_contrast(config, networks.projector, latents.mean.shape[-1], seed)
    with explained(None, "alignment", source.processes):
        true = true_latents(networks, source)
    first_judged = config.warmup_steps + config.num_steps // 10
    watch = Watch(first_judged, tells=source.processes.first)

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        drawn = source.draw(config.batch_size + config.num_negatives, len(latents.keys), 20, step)
        chosen = [drawn[place] for place in places]
        # Latents of other CTs need no network, so also those of other micro-batches are told apart.
        together = [drawn[place] for place in group_places(places, source.processes)]
        others = [index for index in drawn if index not in together]
        bodies = [source.body(latents.keys[index]) for index in chosen]
        views = source.views(bodies, places, 21, step)
        with source.autocast():
            encoding = view_encoder(views.images, views.rays, with_estimate=config.reconstructs)
        figures: dict[str, float] = {}
        losses = []
        if config.reconstructs:
            target = torch.cat([source.target(body) for body in bodies])
            voxel = voxel_error(config, encoding.estimate, target)
            losses.append(config.reconstruction_weight * voxel)
            figures["voxel"] = voxel.item()
            figures["train_psnr_db"] = psnr_db(encoding.estimate.detach(), target)
        if codebook is not None and config.codebook_weight > 0.0:
            codes, used = quantized(codebook, encoding.condition, config, source, places, 24, step)
            distance = quantization_loss(encoding.condition, codes)
            losses.append(config.codebook_weight * distance)
            figures |= {"quantization": distance.item(), **used}
        if config.contrasts:
            with source.autocast():
                aligned = contrast.project(encoding.condition)
            aligned = [source.gathered(level) for level in aligned]
            device = encoding.condition.device
            latent, negatives = (latents.mean[n].float().to(device) for n in (together, others))
            pairs = Pairs(aligned, latent, torch.tensor(together).to(device), negatives)
            total, terms = contrast.loss(pairs, generator_of(seed, 22, step))
            losses.append(config.contrast_weight * total)
            figures |= terms | watch.see(step, aligned[0].detach(), latent)
        return torch.stack(losses).sum(), figures

    def validate() -> dict[str, list[float]]:
        scores, found = [], []
        for target, views in source.validation(usual_view_count(source.system.views)):
            with source.autocast():
                encoding = view_encoder(views.images, views.rays, with_estimate=config.reconstructs)
                if config.contrasts:
                    found.append(networks.projector(encoding.condition).float())
            if config.reconstructs:
                scores.append(psnr_db(encoding.estimate, target))
        figures = {"val_psnr_db": scores} if config.reconstructs else {}
        return figures | (matched_figures(found, true) if config.contrasts else {})

    stage = Stage(
        name="alignment",
        config=config,
        module=nn.ModuleDict({"view_encoder": view_encoder, **contrast.modules()}),
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)


def voxel_error(config: AlignmentStage, estimate: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """The reconstruction ("autoregressive") constraint of CLS-DM: the CT from its views.

    Where the truth is at an end of the HU window, an estimate beyond it is no error: it is clipped
    to that end when it becomes HU.
    """
    error = estimate - target
    beyond = ((target <= -1.0) & (error < 0.0)) | ((target >= 1.0) & (error > 0.0))
    error = error.masked_fill(beyond, 0.0)
    return error.abs().mean() if config.reconstruction == "l1" else error.square().mean()


@torch.no_grad()
def true_latents(networks: Networks, source: TrainingSource) -> Tensor:
    """Latents of this process's validation CTs; empty without any."""
    with source.autocast():
        found = [
            networks.autoencoder.encode(target).mean.float()
            for target in source.validation_targets()
        ]
    return torch.cat(found) if found else torch.empty(0)


def matched_figures(
    aligned: list[Float[Tensor, "1 latent depth height width"]],
    latent: Float[Tensor, "case latent depth height width"],
) -> dict[str, list[float]]:
    """Of each held-out case the cosine, and whether its CT is the nearest to its views.

    The nearest is sought among the cases given: with several processes, among each one's share,
    which may be empty. What is not farther counts as nearer: ties, and cosines that are no number.
    """
    nearest: list[float] = []
    if len(aligned) > 1:
        cosines = flat_unit(torch.cat(aligned)) @ flat_unit(latent).T
        ranks = (~(cosines < cosines.diag()[:, None])).sum(dim=1)  # its own counts once
        nearest = (ranks == 1).float().tolist()
    pairs = zip(aligned, latent.split(1), strict=True) if aligned else ()
    return {"val_alignment": [matched_cosine(*pair) for pair in pairs], "val_top1": nearest}
