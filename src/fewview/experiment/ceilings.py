"""What sees the truth and bounds the others; written as volumes like any method's result."""

import torch

from fewview.bundle import Bundle
from fewview.data.volume import Grid, Volume, cubic_grid, resample
from fewview.experiment.methods import AutoencoderCeiling, Ceiling, GridCeiling, model_of
from fewview.experiment.prediction import loaded


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
