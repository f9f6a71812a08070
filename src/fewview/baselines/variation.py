"""Reconstruction that prefers piecewise constant tissue: total variation (TV)."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.baselines.iterative import problem
from fewview.data.volume import Grid, Volume
from fewview.xray.views import Views

DEFAULT_WEIGHT = 8e-4
"""1/mm; chosen on training phantoms (docs/baselines.md)."""


def differences(
    mu: Float[Tensor, "1 1 depth height width"],
) -> Float[Tensor, "3 depth height width"]:
    """Forward differences along depth, height and width; zero at the far faces."""
    inner = mu[0, 0]
    found = torch.zeros(3, *inner.shape)
    found[0, :-1] = inner[1:] - inner[:-1]
    found[1, :, :-1] = inner[:, 1:] - inner[:, :-1]
    found[2, :, :, :-1] = inner[:, :, 1:] - inner[:, :, :-1]
    return found


def differences_transposed(
    field: Float[Tensor, "3 depth height width"],
) -> Float[Tensor, "1 1 depth height width"]:
    """The exact adjoint of `differences`: minus the divergence."""
    found = torch.zeros(field.shape[1:])
    found[1:] += field[0, :-1]
    found[:-1] -= field[0, :-1]
    found[:, 1:] += field[1, :, :-1]
    found[:, :-1] -= field[1, :, :-1]
    found[:, :, 1:] += field[2, :, :, :-1]
    found[:, :, :-1] -= field[2, :, :, :-1]
    return found[None, None]


def total_variation(
    views: Views, grid: Grid, *, weight: float = DEFAULT_WEIGHT, num_steps: int = 100
) -> Volume:
    """Least squares plus isotropic total variation, nonnegative, by a primal-dual method.

    Minimizes sum over rays of (A mu - y)^2 / (2 l c) + weight * sum over voxels of |grad mu|
    for mu >= 0. l is the ray's length in the grid and c the mean of A^T 1, so that the weight
    means the same at any number of views and pixels.

    Args:
        views: The views; uncalibrated ones are ignored.
        grid: Where to reconstruct.
        weight: Weight of the total variation, in 1/mm: about the step that is smoothed away.
        num_steps: Iterations.

    Returns:
        The volume in HU, at least -1000.

    Raises:
        ValueError: If no view is calibrated, `weight` is negative, or `num_steps` is not
            positive.

    References:
        Rudin, Osher and Fatemi 1992 for the penalty; Pock and Chambolle 2011, algorithm of
        section 2 with the diagonal steps of lemma 2 (alpha = 1).
    """
    if weight < 0.0:
        raise ValueError(f"weight must be 0 or more, got {weight}")
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more, got {num_steps}")
    wanted = problem(views, grid, "TV")
    mu = torch.zeros(1, 1, *wanted.shape)
    length_mm = wanted.forward(torch.ones_like(mu))
    crossing = length_mm > 0
    step_rays = torch.where(crossing, 1.0 / length_mm.clamp(min=1e-6), 0.0)
    column_sum = wanted.transposed(torch.ones_like(length_mm))
    # The whole is multiplied by c, and the differences by c / 6, so that both halves of the
    # operator have columns of about c: neither makes the other's steps short.
    mean_column = column_sum[column_sum > 0].mean().clamp(min=1e-6)
    step_voxels = 1.0 / (column_sum + mean_column)
    rays, field, ahead = torch.zeros_like(length_mm), differences(mu), mu
    for _ in range(num_steps):
        rays = 0.5 * (rays + step_rays * (wanted.forward(ahead) - wanted.measured))
        field = field + 0.5 * differences(ahead)
        field = field / (field.norm(dim=0) / max(6.0 * weight, 1e-12)).clamp(min=1.0)
        pull = wanted.transposed(rays) + mean_column / 6.0 * differences_transposed(field)
        new = (mu - step_voxels * pull).clamp(min=0.0)
        mu, ahead = new, 2.0 * new - mu
    return wanted.volume(mu)
