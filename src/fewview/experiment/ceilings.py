"""What sees the truth and bounds the others; written as volumes like any method's result.

The ceiling of an autoencoder is reported wherever it decodes a method's volumes, named or not.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fewview.bundle import Bundle
from fewview.data.volume import Grid, Volume, cubic_grid, resample
from fewview.experiment.config import ExperimentConfig, slug
from fewview.experiment.methods import (
    AutoencoderCeiling,
    Ceiling,
    GridCeiling,
    Method,
    ModelMethod,
    model_of,
)
from fewview.experiment.prediction import is_decoded, loaded
from fewview.models.digest import weights_digest


def ceiling(method: Ceiling, truth: Volume, grid: Grid, *, seed: int, device: str) -> Volume:
    """The best volume that a grid or an autoencoder can hold.

    Args:
        method: Which ceiling.
        truth: The CT without couch.
        grid: The experiment's model grid about the isocenter; an autoencoder has its own.
        seed: Stands for `{seed}` in the model's folder.
        device: Where the autoencoder computes.

    Raises:
        ValueError: If the model has no autoencoder.
    """
    match method:
        case GridCeiling():
            return resample(truth, grid)
        case AutoencoderCeiling():
            model = str(model_of(method, seed))
            bundle = loaded(model, device)
            if not isinstance(bundle, Bundle):
                raise ValueError(f"{model} has no autoencoder, so it has no ceiling of this kind")
            own = bundle.config.grid
            grid = cubic_grid(grid.center_mm, size=own.size, extent_mm=own.extent_mm)
            hu = torch.from_numpy(resample(truth, grid).hu)[None, None]
            return Volume(bundle.autoencode(hu)[0, 0].float().cpu().numpy(), grid.voxel_to_patient)


def with_ceilings(config: ExperimentConfig) -> ExperimentConfig:
    """An experiment with the ceiling of every autoencoder that decodes the volumes of a method.

    It stands after the first such method, over the autoencoders of all its seeds. One that several
    models share, and one whose ceiling is named, have one alone. A model that cannot be read fails
    as a method, not here.
    """
    named = [one for one in config.methods.values() if isinstance(one, AutoencoderCeiling)]
    known = [set(_autoencoders(one, one.seeds or config.seeds)) for one in named]
    methods: dict[str, Method] = {}
    for name, method in config.methods.items():
        methods[name] = method
        seeds = method.seeds or config.seeds
        own = _autoencoders(method, seeds)
        if isinstance(method, ModelMethod) and own and not any(own.keys() <= one for one in known):
            known.append(set(own))
            model = method.model if len(own) > 1 else next(iter(own.values()))
            methods[_free_name(name, config)] = AutoencoderCeiling(model=model, seeds=method.seeds)
    return replace(config, methods=methods)


def _autoencoders(method: Method, seeds: Sequence[int]) -> dict[str, str]:
    """Models of a method by the fingerprints of the autoencoders that bound it, over its seeds."""
    found: dict[str, str] = {}
    if not isinstance(method, ModelMethod | AutoencoderCeiling):
        return found
    for seed in seeds:
        model = str(model_of(method, seed))
        try:
            bounds = isinstance(method, AutoencoderCeiling) or is_decoded(method, seed)
            bundle = loaded(model, "cpu")
            if bounds and isinstance(bundle, Bundle):
                found.setdefault(_fingerprint(bundle), model)
        except (ValueError, OSError, RuntimeError):
            continue
    return found


def _fingerprint(bundle: Bundle) -> str:
    """What decides what an autoencoder makes of a volume: grid, sizes and weights."""
    config = bundle.config
    sizes = repr((config.grid, config.autoencoder))
    return f"{sizes} {weights_digest(bundle.networks.autoencoder)}"


def _free_name(name: str, config: ExperimentConfig) -> str:
    """What to call the ceiling of a method, unlike any method of the experiment."""
    taken = {slug(one) for one in config.methods}
    free = f"{name} autoencoder"
    while slug(free) in taken:
        free += " ceiling"
    return free
