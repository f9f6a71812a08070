"""Single measures of a predicted CT volume against the true one.

Each function is one measure with one exact definition; `protocols.py` and `legacy.py` combine
them into the named sets that papers report. Ranges are fixed arguments, never taken from the
data, and everything is computed in float64. Structural similarity lies in `ssim.py`.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float

from fewview.data.volume import Volume
from fewview.xray.views import Views, drr

Hu = Float[np.ndarray, "depth height width"]
Mask = Bool[np.ndarray, "depth height width"]

PLANES = ("axial", "coronal", "sagittal")
"""The planes of slices, by the array axis that a slice is taken along."""

EQUAL_SLICE_DB = 100.0
"""What the legacy code of this field gives a slice without any error; kylekma/X2CT."""

BONE_HU = 200.0
"""Voxels above this HU are called bone: above contrast-free soft tissue and most vessels."""


def in_box(
    prediction: Hu, truth: Hu, mask: Mask | None
) -> tuple[
    Float[np.ndarray, "_ _ _"], Float[np.ndarray, "_ _ _"], Bool[np.ndarray, "_ _ _"] | None
]:
    """Both volumes cut to the bounding box of a mask, and the mask where it does not fill it.

    Measures of slices and windows have an edge: cutting first makes a box-shaped mask give
    what the box alone would give.

    Raises:
        ValueError: If the mask holds no voxel.
    """
    assert prediction.shape == truth.shape, "bring both to one grid first"
    if mask is None or mask.all():
        return prediction, truth, None
    if not mask.any():
        raise ValueError("the mask holds no voxel: prediction and truth do not overlap")
    axes = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
    box = tuple(slice(int(there[0]), int(there[-1]) + 1) for there in axes)
    inside = mask[box]
    return prediction[box], truth[box], None if inside.all() else inside


def from_zero(hu: Hu, low: float, high: float) -> Hu:
    """HU clipped to a fixed window and shifted so that its lower end is zero; float64."""
    values = hu.astype(np.float64)
    np.clip(values, low, high, out=values)
    values -= low
    return values


def _selected(values: Hu, mask: Mask | None) -> Float[np.ndarray, " voxel"]:
    """The values that count, as one float64 list."""
    if mask is None:
        return values.astype(np.float64, copy=False).ravel()
    if not mask.any():
        raise ValueError("the mask holds no voxel: prediction and truth do not overlap")
    return values[mask].astype(np.float64)


def _errors(prediction: Hu, truth: Hu, mask: Mask | None) -> Float[np.ndarray, " voxel"]:
    """Prediction minus truth at the voxels that count."""
    if mask is None:
        return np.subtract(prediction, truth, dtype=np.float64).ravel()
    return _selected(prediction, mask) - _selected(truth, mask)


def mae(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Mean absolute error, in the unit of the volumes."""
    errors = _errors(prediction, truth, mask)
    return float(np.abs(errors, out=errors).mean())


def mse(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Mean squared error, in the square of the volumes' unit."""
    errors = _errors(prediction, truth, mask)
    return float(np.square(errors, out=errors).mean())


def rmse(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Root of the mean squared error, in the unit of the volumes."""
    return math.sqrt(mse(prediction, truth, mask))


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


def psnr_planes(
    prediction: Hu, truth: Hu, *, data_range: float, mask: Mask | None = None
) -> dict[str, float]:
    """Slice-averaged PSNR of each plane, in dB.

    The PSNR of every slice from that slice's own mean squared error, 100 dB where that is
    exactly 0, and the mean over slices. Empty slices so raise the mean by a lot.

    Args:
        prediction: The predicted volume.
        truth: The true volume, same unit.
        data_range: The fixed peak value, in that unit.
        mask: The voxels that count; all of them by default. A slice without one is left out.

    Returns:
        The mean over the axial, coronal and sagittal slices.
    """
    squares = np.subtract(prediction, truth, dtype=np.float64)
    squares *= squares
    if mask is not None:
        squares *= mask
    result = {}
    for axis, plane in enumerate(PLANES):
        others = tuple(other for other in range(3) if other != axis)
        if mask is None:
            errors = squares.mean(axis=others)
        else:
            counts = mask.sum(axis=others)
            errors = squares.sum(axis=others)[counts > 0] / counts[counts > 0]
        decibels = np.full(errors.shape, EQUAL_SLICE_DB)
        wrong = errors > 0.0
        decibels[wrong] = 10.0 * np.log10(data_range**2 / errors[wrong])
        result[plane] = float(decibels.mean())
    return result


def cosine(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Cosine of the angle between two volumes taken as vectors; NaN if one is zero throughout."""
    p, t = _selected(prediction, mask), _selected(truth, mask)
    lengths = math.sqrt(float(p @ p) * float(t @ t))
    return float(p @ t) / lengths if lengths > 0.0 else math.nan


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
