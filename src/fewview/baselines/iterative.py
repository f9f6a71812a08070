"""Simultaneous iterative reconstruction (SIRT) from X-rays alone."""

import torch

from fewview.data.volume import Grid, Volume
from fewview.refine import calibrated_views, sirt_steps
from fewview.xray.attenuation import attenuation_to_hu
from fewview.xray.views import Views


def sirt(views: Views, grid: Grid, *, num_steps: int = 40) -> Volume:
    """Reconstruct from an empty volume with `refine.sirt_steps`.

    The grid has to explain every ray by itself, so tissue outside it is smeared into it.

    Args:
        views: The views; uncalibrated ones are ignored.
        grid: Where to reconstruct.
        num_steps: SIRT steps over all views. With few views more steps change little but
            the noise.

    Returns:
        The volume in HU; what no ray crosses is air.

    Raises:
        ValueError: If no view is calibrated, or `num_steps` is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more, got {num_steps}")
    usable = calibrated_views(views)
    if usable is None:
        raise ValueError("SIRT needs line integrals, but no view is calibrated")
    matrix = torch.from_numpy(grid.voxel_to_patient).float()[None]
    mu = sirt_steps(torch.zeros(1, 1, *grid.shape), matrix, usable, num_steps=num_steps)
    return Volume(hu=attenuation_to_hu(mu)[0, 0].numpy(), voxel_to_patient=grid.voxel_to_patient)
