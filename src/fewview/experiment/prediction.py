"""Views to a volume by any method. Receives X-rays only; no truth is within reach here.

Methods are imported when they are used, so that one broken method cannot stop the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewview.bundle import Bundle, RegressorBundle, load_model
from fewview.data.volume import Grid, Volume, cubic_grid
from fewview.experiment.config import CubeConfig
from fewview.experiment.methods import (
    BackprojectionMethod,
    CglsMethod,
    ConstantMethod,
    FdkMethod,
    MeanMethod,
    ModelMethod,
    Predictor,
    SirtMethod,
    TvMethod,
    model_of,
)
from fewview.xray.views import Views


def predict(
    method: Predictor, views: Views, cube: CubeConfig, *, seed: int, device: str
) -> tuple[Volume, int]:
    """A method's volume.

    Args:
        method: The method.
        views: The X-rays.
        cube: Grid about the isocenter of methods that have none of their own.
        seed: Seed of the samples, if it draws any.
        device: Where a model computes; classical methods use the processor.

    Returns:
        The volume, and how often the denoiser was called for one volume.

    Raises:
        ValueError: If the method cannot use these views.
    """
    if isinstance(method, ModelMethod):
        return _predict_by_model(method, views, seed=seed, device=device)
    return _predict_without_model(method, views, grid_about(views, cube)), 0


def grid_about(views: Views, cube: CubeConfig) -> Grid:
    """The cube centered on the isocenter."""
    return cubic_grid(np.array(views.isocenter_mm), size=cube.size, extent_mm=cube.extent_mm)


def _predict_without_model(method: Predictor, views: Views, grid: Grid) -> Volume:
    """A baseline's volume."""
    match method:
        case MeanMethod():
            from fewview.baselines.mean_volume import mean_volume

            return mean_volume(grid, views.isocenter_mm)
        case ConstantMethod(hu=hu):
            from fewview.baselines.constant import constant_hu

            return constant_hu(grid, hu=hu)
        case BackprojectionMethod():
            from fewview.baselines.iterative import backproject

            return backproject(views, grid)
        case FdkMethod():
            from fewview.baselines.analytic import fdk

            return fdk(views, grid)
        case SirtMethod(num_steps=num_steps):
            from fewview.baselines.iterative import sirt

            return sirt(views, grid, num_steps=num_steps)
        case CglsMethod(num_steps=num_steps):
            from fewview.baselines.iterative import cgls

            return cgls(views, grid, num_steps=num_steps)
        case TvMethod(weight=weight, num_steps=num_steps):
            from fewview.baselines.variation import total_variation

            return total_variation(views, grid, weight=weight, num_steps=num_steps)
    raise ValueError(f"{method.kind} is no baseline")


def _predict_by_model(
    method: ModelMethod, views: Views, *, seed: int, device: str
) -> tuple[Volume, int]:
    """A model's volume, its denoiser calls counted by the denoiser itself."""
    from fewview.reconstruct import reconstruct

    bundle = loaded(str(model_of(method, seed)), device)
    if method.consistency_steps is not None:
        bundle = _with_consistency(bundle, method.consistency_steps)
    with _counted_calls(bundle) as calls:
        result = reconstruct(
            views,
            model=bundle,
            nfe=method.nfe,
            samples=method.samples,
            guidance=method.guidance,
            seed=seed,
            device=device,
        )
    return result.volume, sum(calls)


def _with_consistency(bundle: Bundle | RegressorBundle, num_steps: int) -> Bundle | RegressorBundle:
    """The same model with another number of consistency steps."""
    if isinstance(bundle, Bundle):
        return replace(bundle, config=replace(bundle.config, consistency_steps=num_steps))
    return replace(bundle, config=replace(bundle.config, consistency_steps=num_steps))


@lru_cache(maxsize=8)
def loaded(model: str | Path, device: str) -> Bundle | RegressorBundle:
    """A model, kept in this process for the next case."""
    return load_model(model, device=device)


@contextmanager
def _counted_calls(bundle: Bundle | RegressorBundle) -> Iterator[list[int]]:
    """Collects the batch size of every denoiser call."""
    calls: list[int] = []
    denoiser = getattr(bundle.networks, "denoiser", None)
    if not isinstance(denoiser, torch.nn.Module):
        yield calls
        return

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        calls.append(len(inputs[0]))

    hook = denoiser.register_forward_pre_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


def why_not(method: Predictor, num_views: int, seed: int) -> str | None:
    """Why a method cannot do a number of views; None if it can.

    Raises:
        ValueError: If its model cannot be read.
    """
    if not isinstance(method, ModelMethod) or method.beyond_training:
        return None
    known = loaded(str(model_of(method, seed)), "cpu").config.views.num_views
    if num_views in known:
        return None
    return f"trained on {', '.join(map(str, known))} views"


def draws_samples(method: Predictor, seed: int) -> bool:
    """Whether a method's volume depends on the seed of its samples.

    Raises:
        ValueError: If its model cannot be read.
    """
    if not isinstance(method, ModelMethod) or method.nfe == 0:
        return False
    bundle = loaded(str(model_of(method, seed)), "cpu")
    if not isinstance(bundle, Bundle):
        return False
    asked = method.nfe is not None or method.samples is not None
    return asked or bundle.config.sampler.num_samples > 0


def is_decoded(method: Predictor, seed: int) -> bool:
    """Whether a method's volume comes out of an autoencoder: samples, and the coded head.

    Raises:
        ValueError: If its model cannot be read.
    """
    if not isinstance(method, ModelMethod):
        return False
    bundle = loaded(str(model_of(method, seed)), "cpu")
    if not isinstance(bundle, Bundle):
        return False
    return bundle.config.head == "coded" or draws_samples(method, seed)
