"""Structural similarity (SSIM) of whole volumes and of their slices.

SSIM as `skimage.metrics.structural_similarity` computes it with its defaults: one uniform
window of 7 voxels along each axis, sample covariance, and only windows that lie wholly inside.
A mean over a uniform window is separable; each axis takes four additions of shifted copies,
slab by slab, so that the intermediate arrays stay in the processor's cache.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from fewview.evaluation.metrics import PLANES, Hu, Mask

SSIM_WINDOW = 7
"""Side of the SSIM window in voxels: the default of scikit-image."""

SSIM_K1, SSIM_K2 = 0.01, 0.03
"""Stabilizing constants; Wang et al. 2004, below equations 7 and 11."""

_BORDER = SSIM_WINDOW - 1  # layers that an axis loses when only whole windows count
_SLAB = 8  # layers worked on at once; 128^3 in float64 is then about 1 MB an array

Array = Float[np.ndarray, "_ _ _"]


def ssim3d(prediction: Hu, truth: Hu, *, data_range: float, mask: Mask | None = None) -> float:
    """Structural similarity with one uniform 7 x 7 x 7 window over the volume.

    SSIM is not invariant to an offset: the caller shifts the window's lower end to zero.

    Args:
        prediction: The predicted volume.
        truth: The true volume, same unit.
        data_range: The fixed range of values, in that unit.
        mask: Only windows that lie wholly inside the mask count, so a box-shaped mask
            gives the SSIM of that box.

    Raises:
        ValueError: If no whole window fits into the volume or the mask.
    """
    axes = (0, 1, 2)
    _check_size(truth.shape, axes)
    total, count = 0.0, 0
    for start in range(0, len(truth) - _BORDER, _SLAB):
        slab = slice(start, start + _SLAB + _BORDER)
        values = _ssim_map(prediction[slab], truth[slab], data_range, axes)
        if mask is not None:
            values = values[_whole_windows(mask[slab], axes)]
        total, count = total + float(values.sum()), count + values.size
    if count == 0:
        raise ValueError(_too_few(truth.shape))
    return total / count


def ssim_planes(
    prediction: Hu, truth: Hu, *, data_range: float, mask: Mask | None = None
) -> dict[str, float]:
    """Slice-averaged SSIM of each plane: 7 x 7 windows in every slice, mean over slices.

    Args:
        prediction: The predicted volume.
        truth: The true volume, same unit.
        data_range: The fixed range of values, in that unit.
        mask: Only windows that lie wholly inside the mask count; a slice without one is
            left out.

    Returns:
        The mean over the axial, coronal and sagittal slices.

    Raises:
        ValueError: If no whole window fits into the slices of a plane.
    """
    result = {}
    for axis, plane in enumerate(PLANES):
        _check_size(truth.shape, tuple(other for other in range(3) if other != axis))
        x, y = np.moveaxis(prediction, axis, 0), np.moveaxis(truth, axis, 0)
        turned = None if mask is None else np.moveaxis(mask, axis, 0)
        means = np.concatenate(list(_slice_means(x, y, data_range, turned)))
        if means.size == 0:
            raise ValueError(_too_few(truth.shape))
        result[plane] = float(means.mean())
    return result


def _slice_means(
    x: Array, y: Array, data_range: float, mask: Bool[np.ndarray, "_ _ _"] | None
) -> Iterator[Float[np.ndarray, " _"]]:
    """Mean SSIM of each slice along the first axis that holds a whole window."""
    for start in range(0, len(x), _SLAB):
        slab = slice(start, start + _SLAB)
        values = _ssim_map(x[slab], y[slab], data_range, (1, 2))
        if mask is None:
            yield values.mean(axis=(1, 2))
            continue
        inside = _whole_windows(mask[slab], (1, 2))
        counts = inside.sum(axis=(1, 2))
        sums = (values * inside).sum(axis=(1, 2))
        yield sums[counts > 0] / counts[counts > 0]


def _ssim_map(x: Array, y: Array, data_range: float, axes: tuple[int, ...]) -> Array:
    """SSIM of every whole window along `axes`."""
    x, y = (np.ascontiguousarray(values, dtype=np.float64) for values in (x, y))
    num_voxels = SSIM_WINDOW ** len(axes)
    unbiased = num_voxels / (num_voxels - 1)  # sample covariance
    mean_x, mean_y, mean_xy, mean_squares = (
        _window_sums(values, axes) / num_voxels for values in (x, y, x * y, x * x + y * y)
    )
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    covariance = unbiased * (mean_xy - product)
    variances = unbiased * (mean_squares - squares)  # of x and of y, which occur as a sum only
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    # Wang et al. 2004, equation 13.
    numerator = (2.0 * product + c1) * (2.0 * covariance + c2)
    ratio: Array = numerator / ((squares + c1) * (variances + c2))
    return ratio


def _window_sums(values: Array, axes: tuple[int, ...]) -> Array:
    """Sums over seven neighbors along each axis, where all seven are there."""
    for axis in axes:
        ones = np.moveaxis(values, axis, 0)
        twos = ones[:-1] + ones[1:]
        fours = twos[:-2] + twos[2:]
        sevens = fours[:-3] + twos[4:-1]
        sevens += ones[6:]
        values = np.moveaxis(sevens, 0, axis)
    return values


def _whole_windows(
    mask: Bool[np.ndarray, "_ _ _"], axes: tuple[int, ...]
) -> Bool[np.ndarray, "_ _ _"]:
    """Which whole windows of the array lie wholly inside the mask."""
    sums = _window_sums(mask.astype(np.float64), axes)
    whole: Bool[np.ndarray, "_ _ _"] = sums > SSIM_WINDOW ** len(axes) - 0.5
    return whole


def _check_size(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Refuse a volume that is thinner than a window."""
    if min(shape[axis] for axis in axes) < SSIM_WINDOW:
        raise ValueError(_too_few(shape))


def _too_few(shape: tuple[int, ...]) -> str:
    """What to say where no window fits."""
    return (
        f"SSIM needs {SSIM_WINDOW} overlapping voxels along each axis, "
        f"got a volume of {shape} voxels; compare larger volumes"
    )
