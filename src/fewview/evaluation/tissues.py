"""Errors by what the truth holds: bands of HU, and labelled tissues.

A chest is mostly air and soft tissue; what is rare or hard disappears in a mean over all
voxels. Every group comes with its share, so that its error can be weighed.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, UInt8

from fewview.evaluation.metrics import Hu, Mask

STORED_WINDOW = (-1000.0, 1500.0)
"""What stored units can hold, in HU; `tfprdit_hu` clips to it."""

BANDS = {
    "air": (-1024.0, -900.0),
    "lung": (-900.0, -500.0),
    "fat": (-150.0, -50.0),
    "soft": (-50.0, 100.0),
    "bone": (300.0, 1500.0),
}
"""Bands of the truth in HU, the upper end excluded: Fredy-Zhang/TF-PRDiT."""


def tfprdit_hu(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """Errors in HU by band of the truth, as TF-PRDiT reports them.

    Both volumes are clipped to [-1000, 1500] HU, as its files are. Voxels between the bands,
    and those at 1500 HU or above, count in the global errors only.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; all of them by default.

    Returns:
        `mae` and `rmse` in HU over all voxels; `air_mae`, `air_rmse`, `air_share` and so on
        for each of `BANDS`, NaN (with the share 0) for a band that the truth does not have.

    Raises:
        ValueError: If the mask is empty.
    """
    p, t = (np.clip(hu.astype(np.float64), *STORED_WINDOW) for hu in (prediction, truth))
    everything = np.ones(t.shape, dtype=bool) if mask is None else mask
    if not everything.any():
        raise ValueError("the mask holds no voxel: prediction and truth do not overlap")
    errors, true = (p - t)[everything], t[everything]
    result = _errors_of(errors)
    for name, (low, high) in BANDS.items():
        inside = (true >= low) & (true < high)
        result |= {f"{name}_{key}": value for key, value in _errors_of(errors[inside]).items()}
        result[f"{name}_share"] = float(inside.mean())
    return result


def error_by_label(
    prediction: Hu,
    truth: Hu,
    labels: UInt8[np.ndarray, "depth height width"],
    mask: Mask | None = None,
    *,
    names: Mapping[int, str] | None = None,
) -> dict[str, float]:
    """Errors in HU by label of a label map of the truth.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        labels: What lies in each voxel, on the same grid.
        mask: The voxels that count; all of them by default.
        names: What labels are called in the result; `label_7` and so on where it says nothing.

    Returns:
        `NAME_mae`, `NAME_bias` and `NAME_share` for every label that occurs, by number.
    """
    there = np.ones(truth.shape, dtype=bool) if mask is None else mask
    errors = prediction[there].astype(np.float64) - truth[there]
    found = labels[there]
    counts = np.bincount(found)
    absolute = np.bincount(found, np.abs(errors))
    signed = np.bincount(found, errors)
    result: dict[str, float] = {}
    for label in np.flatnonzero(counts).tolist():
        name = (names or {}).get(label, f"label_{label}")
        result[f"{name}_mae"] = float(absolute[label] / counts[label])
        result[f"{name}_bias"] = float(signed[label] / counts[label])
        result[f"{name}_share"] = float(counts[label] / len(errors))
    return result


def _errors_of(errors: Float64[np.ndarray, " _"]) -> dict[str, float]:
    """MAE and RMSE of a group of errors; NaN for an empty one."""
    if errors.size == 0:
        return {"mae": math.nan, "rmse": math.nan}
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": math.sqrt(float(np.square(errors).mean())),
    }
