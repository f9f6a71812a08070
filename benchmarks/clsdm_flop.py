"""Work of CLS-DM's stages and of inference, counted and not run, beside the published code's.

    python benchmarks/clsdm_flop.py

Networks and tensors have shapes but no values (torch's meta device), and go through the functions
that training and `reconstruct` use, so the 128^3 of the paper cost seconds here. Counted as in
`fewview.experiment.cost`: 2 FLOP per multiplication and addition of convolutions, products and
attention, 8 per bilinear sample. Forward passes of one sample with two views; the projector, which
the published training has not, is left out (8 FLOP per voxel and view: 0.03 GFLOP at 128^3).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from fewview.diffusion.loss import denoising_loss
from fewview.diffusion.noise import Schedule
from fewview.experiment.cost import count_flop
from fewview.models.discriminator import PatchDiscriminator
from fewview.models.lifting import RayGrid
from fewview.models.replication import RayAxis
from fewview.sampling import EncodedViews, condition_of, sample_latents
from fewview.system import Networks, build_networks
from fewview.training.config import RunConfig, load_run

CONFIGS = Path(__file__).parents[1] / "configs"
DENOISER = 25.15
"""GFLOP of one call of the published denoiser, as the figures below (counted on its code)."""

PUBLISHED = {
    "stage 1 step": 927.6 + 2415.5 + 3 * 743.4,
    "stage 2 step": 927.6 + 2415.5 + 3.7 + 182.0,
    "stage 3 step, fresh views": 927.6 + 3.7 + 182.0 + DENOISER,
    "stage 3 step, fixed views": 927.6 + 3.7 + 182.0 + DENOISER,
    "inference, 10 steps": 3.7 + 182.0 + 10 * DENOISER + 2415.5,
    "inference, 20 steps": 3.7 + 182.0 + 20 * DENOISER + 2415.5,
    "inference, 50 steps": 3.7 + 182.0 + 50 * DENOISER + 2415.5,
}
WANTED = {
    "stage 2 step": 3500 / 3,
    "stage 3 step, fresh views": 1140 / 8,
    "stage 3 step, fixed views": 1140 / 30,
    "inference, 10 steps": 2800.0,
}
"""At most so many GFLOP at the paper's sizes."""


@dataclass(frozen=True, eq=False)
class Case:
    """A system without values, and all that goes into it."""

    run: RunConfig
    networks: Networks
    images: Tensor
    rays: RayGrid
    volume: Tensor
    latent: Tensor


def case_of(run: RunConfig, num_views: int = 2) -> Case:
    """A system of a config with one sample, on the meta device."""
    system = run.system
    size, pixels = system.grid.size, system.views.num_pixels
    low = size // system.autoencoder.reduction
    with torch.device("meta"):
        return Case(
            run,
            build_networks(system),
            images=torch.empty(1, num_views, 2, pixels, pixels),
            rays=RayGrid(
                torch.empty(1, num_views, size, size, size, 2),
                torch.empty(1, num_views, 4, size, size, size),
            ),
            volume=torch.empty(1, 1, size, size, size),
            latent=torch.empty(1, system.autoencoder.latent_channels, low, low, low),
        )


def gflop(run: Callable[[], object]) -> float:
    """Counted work, with the axes given that cannot be read from rays without values."""
    axes = [RayAxis(1, True), RayAxis(2, False)]

    def known(rays: RayGrid) -> list[RayAxis]:
        return axes[: rays.ray.shape[1]]

    with patch("fewview.models.replication.ray_axes", known), torch.no_grad():
        return (count_flop(run) or 0.0) / 1e9


def compression(case: Case) -> None:
    """Forward passes of a step of stage 1."""
    networks, stage = case.networks, case.run.training.autoencoder
    networks.autoencoder.decode(networks.autoencoder.encode(case.volume).mean)
    if stage.discriminator_weight > 0.0:
        with torch.device("meta"):
            discriminator = PatchDiscriminator(stage.discriminator, 1)
            of_slices = PatchDiscriminator(stage.discriminator, 1, dims=2)
        for _ in ("fooling", "true", "made"):
            discriminator(case.volume)
            if stage.slice_discriminator:
                of_slices(case.volume[:, :, 0])


def alignment(case: Case) -> None:
    """Forward passes of a step of stage 2."""
    encoding = case.networks.view_encoder(case.images, case.rays)
    case.networks.projector(encoding.condition)


def denoising(case: Case, condition: Tensor) -> None:
    """Forward pass of a step of stage 3."""
    denoising_loss(
        case.networks.denoiser,
        Schedule(case.run.system.noise),
        case.latent,
        condition,
        time=case.latent.new_empty(1),
        noise=case.latent,
    )


def _encoded(case: Case) -> EncodedViews:
    return condition_of(case.run.system, case.networks, case.images, case.rays)


def inference(case: Case, nfe: int) -> None:
    """Views to a volume in `nfe` calls of the denoiser."""
    system, networks, encoded = case.run.system, case.networks, _encoded(case)
    latent = sample_latents(system, networks, encoded, case.latent, nfe=nfe)
    networks.autoencoder.decode(latent)


def work(run: RunConfig) -> dict[str, float]:
    """GFLOP of each stage's step and of inference, by name; the decoder's beside them."""
    case = case_of(run)
    low = case.latent.shape[2]
    kept = case.latent.new_empty(1, run.system.told_channels, low, low, low)
    found = {
        "stage 1 step": gflop(lambda: compression(case)),
        "stage 2 step": gflop(lambda: alignment(case)),
        "stage 3 step, fresh views": gflop(lambda: denoising(case, _encoded(case).condition)),
        "stage 3 step, fixed views": gflop(lambda: denoising(case, kept)),
        "decoder": gflop(lambda: case.networks.autoencoder.decode(case.latent)),
    }
    one, two = gflop(lambda: inference(case, 1)), gflop(lambda: inference(case, 2))
    for nfe in (10, 20, 50):  # every call of the denoiser is like the other
        found[f"inference, {nfe} steps"] = one + (nfe - 1) * (two - one)
    return found


def read(name: str) -> RunConfig:
    """A config of a system in `configs/`."""
    run = load_run(CONFIGS / f"{name}.toml")
    assert isinstance(run, RunConfig), "a system, not a regressor"
    return run


def table() -> str:
    """The figures as a table in Markdown."""
    paper, lean = work(read("clsdm-paper")), work(read("clsdm"))
    lines = [
        "| GFLOP, one sample | published | clsdm-paper | ratio | wanted | clsdm | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, published in PUBLISHED.items():
        bound = f"at most {WANTED[name]:.0f}" if name in WANTED else ""
        cells = [name, f"{published:.0f}", f"{paper[name]:.1f}", f"1/{published / paper[name]:.2f}"]
        cells += [bound, f"{lean[name]:.1f}", f"1/{published / lean[name]:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    share = paper["decoder"] / paper["inference, 10 steps"]
    return "\n".join([*lines, "", f"The decoder's share of 10 steps in clsdm-paper: {share:.1%}."])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
