"""Make a volume agree with its X-rays, and summarize posterior samples.

Algebraic reconstruction on the package's own projector. The same steps serve two ends:
from zero they are the classical baseline SIRT; from a model's volume they pull it toward
the measured line integrals without touching what no X-ray sees. Only calibrated views are
used: a display-style image holds no line integrals.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from fewview.data.volume import Volume
from fewview.xray.attenuation import attenuation_to_hu, hu_to_attenuation
from fewview.xray.projector import backproject, project
from fewview.xray.views import Views

TISSUE_HU = -300.0
"""Body against air and lung; used to see where the body runs out of the grid."""

MIN_LENGTH_SHARE = 0.05
"""A ray counts only with this share of the grid's edge inside the grid: shorter ones cut a
corner, and dividing by their length would turn noise into attenuation."""


def calibrated_views(views: Views) -> Views | None:
    """The views that hold line integrals, or None if there is none."""
    chosen = [index for index, calibrated in enumerate(views.calibrated) if calibrated]
    if not chosen:
        return None
    return replace(
        views,
        images=views.images[chosen],
        geometries=tuple(views.geometries[i] for i in chosen),
        calibrated=tuple(views.calibrated[i] for i in chosen),
        source=tuple(views.source[i] for i in chosen),
        geometry_source=tuple(views.geometry_source[i] for i in chosen),
    )


def sirt_steps(
    mu: Float[Tensor, "1 1 depth height width"],
    voxel_to_patient: Float[Tensor, "1 4 4"],
    views: Views,
    *,
    num_steps: int,
    ray_weight: Float[Tensor, "1 view row col"] | None = None,
) -> Float[Tensor, "1 1 depth height width"]:
    """Simultaneous iterative reconstruction with nonnegative attenuation.

    Repeats mu <- max(0, mu + C A^T W R (y - A mu)), where A is the projector, R and C divide
    by the row sums of A and the column sums of W A, and W holds the weights of the rays.

    Args:
        mu: Attenuation to start from, in 1/mm.
        voxel_to_patient: Where its voxels lie, in mm.
        views: Calibrated views.
        num_steps: How many times all views are used at once.
        ray_weight: 0 to 1, how far each ray is trusted; all of them by default.

    Returns:
        Attenuation in 1/mm; voxels that no trusted ray crosses are as they were.

    References:
        Gregor and Benson 2008, IEEE TMI 27(7), equation 3.
    """
    cameras = views.cameras.view(1, -1)
    measured = views.images[:, 0].unsqueeze(0).to(mu)
    size = (mu.shape[2], mu.shape[3], mu.shape[4])
    row_sum = project(torch.ones_like(mu), voxel_to_patient, cameras)
    edges = torch.linalg.vector_norm(voxel_to_patient[0, :3, :3], dim=0) * mu.new_tensor(size[::-1])
    trusted = row_sum > MIN_LENGTH_SHARE * edges.min()
    weight = trusted.to(mu) if ray_weight is None else trusted * ray_weight.to(mu)
    column_sum = backproject(weight, voxel_to_patient, cameras, size)
    # A voxel that rays only graze has a tiny column sum; it keeps its value.
    seen = column_sum > 1e-3 * column_sum.max()
    column_weight = torch.where(seen, column_sum, math.inf).reciprocal()
    row_weight = weight / row_sum.clamp(min=float(edges.min()) * MIN_LENGTH_SHARE)
    for _ in range(num_steps):
        residual = measured - project(mu, voxel_to_patient, cameras)
        update = backproject(row_weight * residual, voxel_to_patient, cameras, size)
        mu = (mu + column_weight * update).clamp(min=0.0)
    return mu


def _body_around(volume: Volume) -> Volume:
    """Where the body goes on outside a volume (1) by a first guess, on a larger grid.

    The outermost voxels are repeated outward by an eighth of the grid's edge. Lungs and
    bowel gas inside the outline of a slice belong to the body. The inside is 0.
    """
    body = np.stack([binary_fill_holes(tissue) for tissue in volume.hu > TISSUE_HU])
    margin = [-(-count // 8) for count in volume.shape]
    around = np.pad(body, [(m, m) for m in margin], mode="edge").astype(np.float32)
    around[tuple(slice(m, -m) for m in margin)] = 0.0
    matrix = volume.voxel_to_patient.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.array(margin[::-1], dtype=np.float64)
    return Volume(around, matrix)


def explainable_rays(volume: Volume, views: Views) -> Float[Tensor, "1 view row col"]:
    """Which measured rays the grid can account for: 1 or 0.

    An X-ray sees the whole body, the grid only its central part. A ray that crosses the
    body also outside the grid (beyond its upper or lower end, or at a shoulder or arm that
    reaches past its side) measures more than the grid holds; asking the grid for the full
    integral would smear that tissue over it. Such rays are left out. What lies outside is
    not known: the body at the volume's faces is taken to go on as it is.

    Args:
        volume: The volume to be refined.
        views: Views of it.
    """
    around = _body_around(volume)
    matrix = torch.from_numpy(around.voxel_to_patient).float()[None]
    outside_mm = project(torch.from_numpy(around.hu)[None, None], matrix, views.cameras.view(1, -1))
    return (outside_mm < max(volume.spacing_mm)).float()


def make_consistent(volume: Volume, views: Views, *, num_steps: int) -> Volume:
    """Pull a volume toward its X-rays, keeping what they do not see.

    Args:
        volume: The volume to refine, such as a model's output.
        views: Its views; uncalibrated ones are ignored.
        num_steps: SIRT steps (see `sirt_steps`) over the rays that the grid can explain
            (see `explainable_rays`). Few steps keep the texture of the volume.

    Returns:
        A volume on the same grid; unchanged, value by value, where no such ray passes, and
        everywhere if no view is calibrated.

    Raises:
        ValueError: If `num_steps` is negative.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be 0 or more, got {num_steps}")
    usable = calibrated_views(views)
    if usable is None or num_steps == 0:
        return volume
    matrix = torch.from_numpy(volume.voxel_to_patient).float()[None]
    before = hu_to_attenuation(torch.from_numpy(volume.hu))[None, None]
    after = sirt_steps(
        before, matrix, usable, num_steps=num_steps, ray_weight=explainable_rays(volume, usable)
    )
    hu = attenuation_to_hu(after)[0, 0].numpy()
    changed = (after != before)[0, 0].numpy()
    return replace(volume, hu=np.where(changed, hu, volume.hu).astype(np.float32))


def posterior_mean_std(samples: Sequence[Volume]) -> tuple[Volume, Volume]:
    """Mean and spread of posterior samples, voxel by voxel.

    Args:
        samples: Two or more volumes on one grid.

    Returns:
        The mean in HU, and the standard deviation in HU with the factor N/(N-1), as a
        volume on the same grid.

    Raises:
        ValueError: If there are fewer than two samples, or they differ in their grid.
    """
    if len(samples) < 2:
        raise ValueError(f"a spread needs at least 2 samples, got {len(samples)}")
    first = samples[0]
    for index, sample in enumerate(samples):
        same = sample.shape == first.shape and np.allclose(
            sample.voxel_to_patient, first.voxel_to_patient, atol=1e-6
        )
        if not same:
            raise ValueError(f"sample {index} lies on another grid than sample 0")
    stack = np.stack([sample.hu for sample in samples]).astype(np.float64)
    mean, std = stack.mean(axis=0), stack.std(axis=0, ddof=1)
    return (
        replace(first, hu=mean.astype(np.float32)),
        replace(first, hu=std.astype(np.float32)),
    )
