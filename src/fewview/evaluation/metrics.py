"""Single measures of a predicted CT volume against the true one.

Each function is one measure with one exact definition; `protocols.py` combines them into
the named sets that papers report. Ranges are fixed arguments, never taken from the data,
and everything is computed in float64.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import minimum_filter, uniform_filter1d

from fewview.data.volume import Volume
from fewview.xray.views import Views, drr

Hu = Float[np.ndarray, "depth height width"]
Mask = Bool[np.ndarray, "depth height width"]

SSIM_WINDOW = 7
"""Side of the SSIM window in voxels: the default of scikit-image."""

SSIM_K1, SSIM_K2 = 0.01, 0.03
"""Stabilizing constants; Wang et al. 2004, below equations 7 and 11."""

BONE_HU = 200.0
"""Voxels above this HU are called bone: above contrast-free soft tissue and most vessels."""


def _selected(values: Hu, mask: Mask | None) -> Float[np.ndarray, " voxel"]:
    """The values that count, as one float64 list."""
    if mask is None:
        return values.astype(np.float64).ravel()
    if not mask.any():
        raise ValueError("the mask holds no voxel: prediction and truth do not overlap")
    return values[mask].astype(np.float64)


def _errors(prediction: Hu, truth: Hu, mask: Mask | None) -> Float[np.ndarray, " voxel"]:
    """Prediction minus truth at the voxels that count."""
    return _selected(prediction, mask) - _selected(truth, mask)


def mae(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Mean absolute error, in the unit of the volumes."""
    return float(np.abs(_errors(prediction, truth, mask)).mean())


def rmse(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Root of the mean squared error, in the unit of the volumes."""
    return math.sqrt(float(np.square(_errors(prediction, truth, mask)).mean()))


def bias(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Mean of prediction minus truth, in the unit of the volumes."""
    return float(_errors(prediction, truth, mask).mean())


def psnr(prediction: Hu, truth: Hu, *, data_range: float, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio over all voxels that count, in dB.

    PSNR = 10 log10(data_range^2 / MSE); infinite for equal volumes.

    Args:
        prediction: The predicted volume.
        truth: The true volume, same unit.
        data_range: The fixed peak value, in that unit.
        mask: The voxels that count; all of them by default.
    """
    error = rmse(prediction, truth, mask)
    return math.inf if error == 0.0 else 20.0 * math.log10(data_range / error)


def _window_mean(values: Hu) -> Hu:
    """Mean over the cubic SSIM window around every voxel, one axis after the other."""
    for axis in range(3):
        values = uniform_filter1d(values, SSIM_WINDOW, axis=axis)
    return values


def _ssim_map(prediction: Hu, truth: Hu, data_range: float) -> Hu:
    """Structural similarity at every voxel; its three outermost layers mean nothing."""
    x, y = prediction.astype(np.float64), truth.astype(np.float64)
    num_voxels = SSIM_WINDOW**3
    unbiased = num_voxels / (num_voxels - 1)  # sample covariance
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = unbiased * (_window_mean(x * x) - mean_x * mean_x)
    var_y = unbiased * (_window_mean(y * y) - mean_y * mean_y)
    cov = unbiased * (_window_mean(x * y) - mean_x * mean_y)
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    # Wang et al. 2004, equation 13.
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2.0 * cov + c2) / (var_x + var_y + c2)


def ssim3d(prediction: Hu, truth: Hu, *, data_range: float, mask: Mask | None = None) -> float:
    """Structural similarity with one uniform 7 x 7 x 7 window over the volume.

    Equals `skimage.metrics.structural_similarity` with its defaults (sample covariance,
    three border voxels cropped). SSIM is not invariant to an offset: the caller shifts the
    window's lower end to zero.

    Args:
        prediction: The predicted volume.
        truth: The true volume, same unit.
        data_range: The fixed range of values, in that unit.
        mask: Only windows that lie wholly inside the mask count, so a box-shaped mask
            gives the SSIM of that box.

    Raises:
        ValueError: If no whole window fits into the volume or the mask.
    """
    border = SSIM_WINDOW // 2
    counts = np.zeros(truth.shape, dtype=bool)
    counts[border:-border, border:-border, border:-border] = True
    if mask is not None:
        counts &= minimum_filter(mask, SSIM_WINDOW)
    if min(truth.shape) < SSIM_WINDOW or not counts.any():
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} overlapping voxels along each axis, "
            f"got a volume of {truth.shape} voxels; compare larger volumes"
        )
    return float(_ssim_map(prediction, truth, data_range)[counts].mean())


def bone_dice(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Overlap of bone, the voxels above 200 HU: 2 |P and T| / (|P| + |T|).

    Returns:
        1 for equal bones, 0 for none in common, NaN where neither volume has bone.
    """
    predicted, true = (_selected(hu, mask) > BONE_HU for hu in (prediction, truth))
    total = int(predicted.sum()) + int(true.sum())
    return 2.0 * int((predicted & true).sum()) / total if total else math.nan


def radial_power_spectrum(
    hu: Hu, spacing_mm: tuple[float, float, float]
) -> tuple[Float[np.ndarray, " shell"], Float[np.ndarray, " shell"]]:
    """Power of a volume by spatial frequency, averaged over all directions.

    The mean is removed and a Hann window brings the borders to zero, so that a step
    between opposite faces does not pose as fine structure.

    Args:
        hu: CT values.
        spacing_mm: Voxel spacing along depth, height and width.

    Returns:
        The upper edges of frequency shells in cycles per mm, from zero to the Nyquist
        frequency of the coarsest axis, and the mean power in each shell.
    """
    values = hu.astype(np.float64) - hu.mean(dtype=np.float64)
    squared_frequency = np.zeros(values.shape)
    for axis, (count, spacing) in enumerate(zip(values.shape, spacing_mm, strict=True)):
        along = [1, 1, 1]
        along[axis] = count
        hann = np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 2
        values = values * hann.reshape(along)
        squared_frequency += (np.fft.fftfreq(count, spacing) ** 2).reshape(along)
    power = np.abs(np.fft.fftn(values)) ** 2
    num_shells = min(values.shape) // 2
    edges = np.linspace(0.0, 0.5 / max(spacing_mm), num_shells + 1)[1:]
    shell = np.searchsorted(edges, np.sqrt(squared_frequency).ravel())
    sums = np.bincount(shell, power.ravel(), num_shells + 1)[:num_shells]
    counts = np.bincount(shell, minlength=num_shells + 1)[:num_shells]
    return edges, sums / np.maximum(counts, 1)


def power_spectrum_ratio(
    prediction: Hu,
    truth: Hu,
    spacing_mm: tuple[float, float, float],
    *,
    band: tuple[float, float] = (0.5, 1.0),
) -> float:
    """How much fine structure the prediction has, as a share of the truth's.

    The radially averaged power of the prediction over that of the truth, both summed over
    a band of high frequencies. 1: as sharp (or as noisy) as the truth; near 0: blurred. It
    says nothing about whether the structure is in the right place.

    Args:
        prediction: CT values of the prediction.
        truth: CT values of the truth on the same grid.
        spacing_mm: Voxel spacing along depth, height and width.
        band: Lower (excluded) and upper end as shares of the Nyquist frequency of the
            coarsest axis. The default holds structures of about one to two voxels.

    Returns:
        The ratio, NaN where the truth has no power in the band.
    """
    frequency, predicted = radial_power_spectrum(prediction, spacing_mm)
    _, true = radial_power_spectrum(truth, spacing_mm)
    share = frequency / frequency[-1]
    inside = (share > band[0]) & (share <= band[1] + 1e-9)
    total = float(true[inside].sum())
    return float(predicted[inside].sum()) / total if total > 0.0 else math.nan


def reprojection_error(volume: Volume, views: Views) -> float:
    """Relative error of the volume's own X-rays: RMS(A p - y) / RMS(y).

    Line integrals of the volume are compared to the measured ones over the whole detector
    of all calibrated views. Tissue outside the volume is missing in A p, so even the true
    CT, cut to a grid smaller than the body, does not reach zero.

    Returns:
        The ratio; NaN without a calibrated view, as display-style images are no integrals.
    """
    chosen = [i for i, calibrated in enumerate(views.calibrated) if calibrated]
    if not chosen:
        return math.nan
    geometries = tuple(views.geometries[i] for i in chosen)
    predicted = drr(volume, geometries, isocenter_mm=views.isocenter_mm).images.double()
    measured = views.images[chosen].to(predicted)
    difference = torch.linalg.vector_norm(predicted - measured)
    return float(difference / torch.linalg.vector_norm(measured))
