"""Training of regressors: views to a CT in one network, with or without a discriminator."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fewview.models.discriminator import PatchDiscriminator
from fewview.models.implicit import Implicit
from fewview.models.lifting import RayGrid, fuse, lift
from fewview.models.replication import central_images, replicate
from fewview.models.x2ct import ExampleDropout, X2ct, X2ctConfig
from fewview.training.examples import ExampleKey, generator_of
from fewview.training.loop import Report, Stage, fit, psnr_db
from fewview.training.regression_config import RegressionStage
from fewview.training.source import TrainingSource
from fewview.training.views import ViewBatch, usual_view_count

Volume = Float[Tensor, "batch 1 depth height width"]


def projection_loss(prediction: Volume, truth: Volume) -> Float[Tensor, ""]:
    """Mean absolute error of the means along each of the three axes, for volumes in [0, 1].

    References:
        X2CT-GAN, Ying et al. (2019), the projection loss of section 3.3: parallel means, not
        X-rays.
    """
    errors = [
        (prediction.abs().mean(dim=axis) - truth.abs().mean(dim=axis)).abs().mean()
        for axis in (2, 3, 4)
    ]
    return torch.stack(errors).mean()


def adversarial_losses(
    discriminator: nn.Module, prediction: Volume, truth: Volume, condition: Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Least-squares losses of the generator and of the discriminator, from one made volume.

    The generator's loss holds the discriminator's weights fixed, the discriminator's holds the
    made volume fixed: their sum gives both networks their own gradients in one backward pass.

    References:
        Mao et al. (2017), LSGAN, equation 9, with labels 1 and 0.
    """
    fixed = discriminator.state_dict()  # detached from the weights
    fooled = functional_call(discriminator, fixed, (prediction, condition))
    true = discriminator(truth, condition)
    made = discriminator(prediction.detach(), condition)
    generator_loss = (fooled - 1.0).square().mean()
    return generator_loss, (true - 1.0).square().mean() + made.square().mean()


def lifted_views(network: X2ct | Implicit, images: Tensor, rays: RayGrid) -> Tensor:
    """The views in the model grid, as the discriminator is shown them.

    A generator that replicates has one channel per view, any other the mean and the maximum.
    """
    values = images[:, :, :1]
    if isinstance(network, X2ct) and network.config.lifting == "replicate":
        planes, axes = central_images(values, rays, network.config.num_views)
        lifted = [replicate(planes[:, view], axis) for view, axis in enumerate(axes)]
        return torch.cat(lifted, dim=1)
    return fuse(lift(values, rays), rays, "max")


def discriminator_of(config: RegressionStage, network: X2ct | Implicit) -> PatchDiscriminator:
    """A fresh discriminator for a network's volumes."""
    replicates = isinstance(network.config, X2ctConfig) and network.config.lifting == "replicate"
    shown = network.config.num_views if replicates else 2  # type: ignore[union-attr]
    return PatchDiscriminator(config.discriminator, 1 + shown)


def train_regression(
    config: RegressionStage,
    network: X2ct | Implicit,
    source: TrainingSource,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit a regressor to fresh augmented bodies; losses are those of volumes in [0, 1]."""
    keys = source.keys()
    modules: dict[str, nn.Module] = {"network": network}
    if config.adversarial_weight > 0.0:
        modules["discriminator"] = discriminator_of(config, network).to(source.device)

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        chosen = source.draw(config.batch_size, len(keys), 40, step)
        seed = len(keys) + step * config.batch_size
        bodies = [
            source.body(ExampleKey(keys[chosen[place]].case, seed + place)) for place in places
        ]
        target = torch.cat([source.target(body) for body in bodies])
        views = source.views(bodies, places, 41, step)
        if config.voxels_per_step:
            return _sparse_loss(config, network, target, views, source, step)
        drop_links(
            network, [generator_of(source.training.seed, 42, step, place) for place in places]
        )
        return _dense_loss(config, modules, target, views, source)

    def validate() -> dict[str, list[float]]:
        scores = []
        for target, views in source.validation(usual_view_count(source.system.views)):
            with source.autocast():
                scores.append(psnr_db(network(views.images, views.rays), target))
        return {"val_psnr_db": scores}

    stage = Stage(
        name="regression",
        config=config,
        module=nn.ModuleDict(modules),
        step_loss=step_loss,
        validate=validate,
    )
    fit(stage, out, source.processes, report=report)


def drop_links(network: nn.Module, generators: list[torch.Generator]) -> None:
    """Give a network's dropout one generator per example of the next batch."""
    for part in network.modules():
        if isinstance(part, ExampleDropout):
            part.generators = generators


def _sparse_loss(
    config: RegressionStage,
    network: X2ct | Implicit,
    target: Tensor,
    views: ViewBatch,
    source: TrainingSource,
    step: int,
) -> tuple[Tensor, dict[str, float]]:
    """Squared error of randomly chosen voxels, for a network that can be asked for some."""
    assert isinstance(network, Implicit), "checked when the config was read"
    generator = generator_of(source.training.seed, 43, step)
    voxels = torch.randperm(target[0].numel(), generator=generator)[: config.voxels_per_step]
    voxels = voxels.to(target.device)
    with source.autocast():
        found = network.at(views.images, views.rays, voxels)
    error = (found - target.flatten(1)[:, voxels]).square().mean() / 4.0  # of values in [0, 1]
    return config.mse_weight * error, {"mse": error.item()}


def _dense_loss(
    config: RegressionStage,
    modules: dict[str, nn.Module],
    target: Tensor,
    views: ViewBatch,
    source: TrainingSource,
) -> tuple[Tensor, dict[str, float]]:
    """Weighted squared error, projection loss and adversarial losses of whole volumes."""
    with source.autocast():
        unit = modules["network"](views.images, views.rays)
    prediction, truth = (unit + 1.0) / 2.0, (target + 1.0) / 2.0
    mse = (prediction - truth).square().mean()
    figures = {"mse": mse.item(), "train_psnr_db": psnr_db(unit.detach(), target)}
    loss = config.mse_weight * mse
    if config.projection_weight > 0.0:
        projection = projection_loss(prediction, truth)
        loss = loss + config.projection_weight * projection
        figures["projection"] = projection.item()
    if "discriminator" in modules:
        network = modules["network"]
        assert isinstance(network, X2ct | Implicit), "built by build_regressor"
        condition = lifted_views(network, views.images, views.rays)
        with source.autocast():
            generator_loss, discriminator_loss = adversarial_losses(
                modules["discriminator"], prediction, truth, condition
            )
        loss = loss + config.adversarial_weight * (generator_loss + discriminator_loss)
        figures |= {"fooling": generator_loss.item(), "telling": discriminator_loss.item()}
    return loss, figures
