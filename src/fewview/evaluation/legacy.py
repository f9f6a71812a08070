"""The protocols that other works report, by name, so that their numbers can be compared.

Each is what the published code or paper computes, on volumes in HU, without its defects of
another kind: no truth is blended into a prediction, no case is skipped, no more than the
first cases are read. Ranges are fixed but where a protocol itself takes them from the data.

Works of the X2CT line store CT as HU plus an offset, clipped to 0 to 2500. Whether that
offset is 1000 or 1024 is not settled between them: the drawing of X-rays takes stored 0 for
-1000 HU, a conversion function in the same code subtracts 1024. 1000 is the default here;
the other one has names of its own (`x2ct-1024`).

A mask says which voxels were scanned; published code has none. Volumes are first cut to its
bounding box, so a box gives what the published code gives on the box alone. Where the mask
does not fill its box, a slice's error is the mean over the voxels of the slice inside the
mask, SSIM counts the windows wholly inside, and slices without any are left out. Nothing is
filled with equal values, which would raise a score.
"""

import math
from collections.abc import Mapping

import numpy as np

from fewview.evaluation import metrics
from fewview.evaluation.metrics import EQUAL_SLICE_DB, Hu, Mask, from_zero, in_box
from fewview.evaluation.ssim import ssim3d, ssim_planes

STORED_RANGE = 2500.0
"""Largest stored unit; stored units run from 0 to this."""

STORED_OFFSET_HU, OTHER_OFFSET_HU = 1000.0, 1024.0
"""What is added to HU to make stored units: the default, and the other reading."""

PEAK = 4095.0
"""The PSNR peak of the X2CT line, though values end at 2500: 4.286 dB above the true range."""

LIFTXR_HU = 1024.0
"""`liftxr` and `sparc` clip HU to plus and minus this."""

UNIT_WINDOW = (-1024.0, 1500.0)
"""The HU that `unit3d` scales to the unit interval."""


def stored_units(hu: Hu, offset_hu: float = STORED_OFFSET_HU) -> Hu:
    """CT values as the X2CT line stores them: HU plus an offset, clipped to 0 to 2500."""
    return from_zero(hu, -offset_hu, STORED_RANGE - offset_hu)


def x2ct(
    prediction: Hu, truth: Hu, mask: Mask | None = None, *, offset_hu: float = STORED_OFFSET_HU
) -> dict[str, float]:
    """The measures of X2CT-GAN's test code, which most of its successors report.

    With u = stored units / 2500, both clipped to [0, 1] (a truth in a file is so already):
    MAE, MSE, cosine and slice-averaged SSIM with range 1. With t = the stored units truncated
    to whole numbers: MAE, MSE, PSNR of slices and of the volume with peak 4095. Exactly equal
    slices, and an exactly equal volume, count as 100 dB.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.
        offset_hu: What stored units add to HU.

    Returns:
        `mae0`, `mse0`, `cosine`, `ssim_slices` on u; `mae`, `mse`, `psnr_slices`, `psnr_3d`
        (dB) on t. `_slices` is the mean of `_axial`, `_coronal` and `_sagittal`, given too.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.

    References:
        Ying et al. 2019; kylekma/X2CT, commit a9f0473, the evaluation metrics.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    p, t = stored_units(prediction, offset_hu), stored_units(truth, offset_hu)
    result = {
        "mae0": metrics.mae(p, t, mask) / STORED_RANGE,
        "mse0": metrics.mse(p, t, mask) / STORED_RANGE**2,
        "cosine": metrics.cosine(p, t, mask),
    }
    # SSIM of u with range 1 is SSIM of 2500 u with range 2500.
    result |= _averaged("ssim", ssim_planes(p, t, data_range=STORED_RANGE, mask=mask))
    np.trunc(p, out=p)
    np.trunc(t, out=t)
    result |= {"mae": metrics.mae(p, t, mask), "mse": metrics.mse(p, t, mask)}
    result |= _averaged("psnr", metrics.psnr_planes(p, t, data_range=PEAK, mask=mask))
    return result | {"psnr_3d": _psnr_or_100(result["mse"])}


def clsdm(
    prediction: Hu, truth: Hu, mask: Mask | None = None, *, offset_hu: float = STORED_OFFSET_HU
) -> dict[str, float]:
    """The offline measures of CLS-DM's published code.

    Volumes are first cut to 8 bits, as its files are: v = trunc(255 u), t = v / 255 * 2500.
    PSNR and SSIM of slices and of the volume take the range 4095, though t ends at 2500.
    The published files hold one third of truth, which this never does; blending divides
    the error by 1.5 and so adds 3.52 dB. What the code calls MMD is the MSE.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.
        offset_hu: What stored units add to HU.

    Returns:
        `mae`, `mse`, `cosine`, `psnr_slices`, `psnr_3d`, `ssim_slices`, `ssim_3d` on t;
        `mae0` and `mse0` after each volume is scaled from its own least to its own greatest
        counted value (the protocol's own choice; NaN for a constant volume). `_slices` is the
        mean of `_axial`, `_coronal` and `_sagittal`, given too.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.

    References:
        arXiv 2507.11152; Chandery/CLS-DM, commit fc84c13, with scikit-image 0.20 or later.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    p, t = stored_units(prediction, offset_hu), stored_units(truth, offset_hu)
    for stored in (p, t):
        stored *= 255.0
        stored /= STORED_RANGE
        np.trunc(stored, out=stored)
        stored *= STORED_RANGE / 255.0
    result = {"mae": metrics.mae(p, t, mask), "mse": metrics.mse(p, t, mask)}
    result["cosine"] = metrics.cosine(p, t, mask)
    result |= _averaged("psnr", metrics.psnr_planes(p, t, data_range=PEAK, mask=mask))
    result["psnr_3d"] = _psnr_or_100(result["mse"])
    result |= _averaged("ssim", ssim_planes(p, t, data_range=PEAK, mask=mask))
    result["ssim_3d"] = ssim3d(p, t, data_range=PEAK, mask=mask)
    _scale_to_own_range(p, mask)
    _scale_to_own_range(t, mask)
    return result | {"mae0": metrics.mae(p, t, mask), "mse0": metrics.mse(p, t, mask)}


def perx2ct(
    prediction: Hu, truth: Hu, mask: Mask | None = None, *, offset_hu: float = STORED_OFFSET_HU
) -> dict[str, float]:
    """The measures of PerX2CT's code but its LPIPS, which needs VGG weights.

    The truth is clipped to stored units, the prediction is not. On t, stored units truncated
    to whole numbers: PSNR of slices with peak 4095. On u = stored units / 2500: SSIM of the
    volume with range 2, which is what scikit-image assumes for floats from -1 to 1. (The call
    means slices, but `channel_axis=False` makes one volume of the stack.)

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.
        offset_hu: What stored units add to HU.

    Returns:
        `psnr_slices` in dB with its `_axial`, `_coronal` and `_sagittal`, and `ssim_3d`.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.

    References:
        Kyung et al. 2023; dek924/PerX2CT with scikit-image 0.19.1.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    p, t = np.add(prediction, offset_hu, dtype=np.float64), stored_units(truth, offset_hu)
    ssim = ssim3d(p, t, data_range=2.0 * STORED_RANGE, mask=mask)
    np.trunc(p, out=p)
    np.trunc(t, out=t)
    planes = metrics.psnr_planes(p, t, data_range=PEAK, mask=mask)
    return _averaged("psnr", planes) | {"ssim_3d": ssim}


def liftxr(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """LiftXR's PSNR and SSIM: HU clipped to [-1024, 1024], scaled to the unit interval.

    The paper does not say whether slices or volumes are meant: these are of the volume.
    Its Dice and HD95 of 20 organs need a segmentation network.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.

    Returns:
        `psnr` in dB, infinite for equal volumes, and `ssim`.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.

    References:
        arXiv 2608.17255.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    p, t = (from_zero(hu, -LIFTXR_HU, LIFTXR_HU) for hu in (prediction, truth))
    return _psnr_and_ssim(p, t, 2.0 * LIFTXR_HU, mask)


def sparc(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """SPARC's PSNR and SSIM, on the grid given: HU in whole numbers within [-1024, 1024].

    Its code brings both to 256^3 voxels of 1.6 mm first, which is the caller's choice here.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.

    Returns:
        `psnr` in dB, at most 120, and `ssim`, both of the volume.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.

    References:
        HORIZONHealthcare/SPARC.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    p, t = (from_zero(np.trunc(hu), -LIFTXR_HU, LIFTXR_HU) for hu in (prediction, truth))
    result = _psnr_and_ssim(p, t, 2.0 * LIFTXR_HU, mask)
    return result | {"psnr": min(result["psnr"], 120.0)}  # its MSE ends at 1e-12


def unit3d(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """Measures of bjy12/XctDiff: HU from -1024 to 1500 scaled to the unit interval.

    That code keeps its truth in 8 bits; volumes are not rounded here.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; see the module.

    Returns:
        `psnr` in dB, infinite for equal volumes, `ssim`, and `mae` on the scale [-1, 1].

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.
    """
    prediction, truth, mask = in_box(prediction, truth, mask)
    low, high = UNIT_WINDOW
    p, t = (from_zero(hu, low, high) for hu in (prediction, truth))
    result = _psnr_and_ssim(p, t, high - low, mask)
    return result | {"mae": 2.0 * metrics.mae(p, t, mask) / (high - low)}


def _psnr_and_ssim(p: Hu, t: Hu, data_range: float, mask: Mask | None) -> dict[str, float]:
    """PSNR and SSIM of the volume; both are the same for values and range divided alike."""
    return {
        "psnr": metrics.psnr(p, t, data_range=data_range, mask=mask),
        "ssim": ssim3d(p, t, data_range=data_range, mask=mask),
    }


def _averaged(name: str, planes: Mapping[str, float]) -> dict[str, float]:
    """A measure of each plane and the mean of the three."""
    mean = {f"{name}_slices": float(np.mean(list(planes.values())))}
    return mean | {f"{name}_{plane}": value for plane, value in planes.items()}


def _psnr_or_100(mse: float) -> float:
    """PSNR of a volume with the legacy peak, and the legacy value for equal ones, in dB."""
    return 10.0 * math.log10(PEAK**2 / mse) if mse > 0.0 else EQUAL_SLICE_DB


def _scale_to_own_range(values: Hu, mask: Mask | None) -> None:
    """Scale, in place, from the least to the greatest of the values that count."""
    counted = values if mask is None else values[mask]
    low, high = float(counted.min()), float(counted.max())
    values -= low
    values /= high - low if high > low else math.nan
