"""Compare a predicted volume to the true CT, wherever both lie in the patient."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fewview.data.body import body_mask, remove_couch
from fewview.data.labelled import LabelMap, labels_on
from fewview.data.volume import Volume, resample, scanned
from fewview.evaluation.metrics import Mask, bone_dice, power_spectrum_ratio
from fewview.evaluation.protocols import HEADLINE, RETRIEVAL, measure, protocol_names
from fewview.evaluation.tissues import error_by_label

AIR_HU = -1000.0

NORMALIZED_LIMIT = 2.0
"""Values that all lie within plus and minus this are an image from 0 to 1 or from -1 to 1."""


def on_one_grid(
    prediction: Volume,
    truth: Volume,
    *,
    grid: Literal["prediction", "truth"] = "prediction",
    keep_couch: bool = False,
) -> tuple[Volume, Volume, Mask]:
    """Bring both volumes to one grid.

    Args:
        prediction: The predicted volume.
        truth: The true CT, at any spacing and orientation.
        grid: Whose grid both are brought to. A coarser grid averages (anti-aliasing).
        keep_couch: Leave the patient couch in the truth. The default removes it, since
            X-rays of this package are made without it.

    Returns:
        Prediction, truth and a mask of the voxels that lie in the voxel extent of both. The
        three are cropped to the mask's bounding box; what the mask leaves out is air in both.

    Raises:
        ValueError: If `grid` is neither word, or the volumes share no voxel.
    """
    if grid not in ("prediction", "truth"):
        raise ValueError(f"grid must be 'prediction' or 'truth', got {grid!r}")
    if not keep_couch:
        truth = remove_couch(truth)
    target = prediction.grid if grid == "prediction" else truth.grid
    both = scanned(truth, target) & scanned(prediction, target)
    if not both.any():
        raise ValueError(
            f"prediction (center {np.round(prediction.center_mm, 1)} mm) and truth (center "
            f"{np.round(truth.center_mm, 1)} mm) do not overlap; are they of one patient?"
        )
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(both))
    mask = both[box]
    moved = target.voxel_to_patient.copy()
    moved[:3, 3] += moved[:3, :3] @ [box[2].start, box[1].start, box[0].start]
    cropped = [
        np.where(mask, resample(volume, target).hu[box], np.float32(AIR_HU))
        for volume in (prediction, truth)
    ]
    return Volume(cropped[0], moved), Volume(cropped[1], moved), mask


def compare(
    prediction: Volume,
    truth: Volume,
    *,
    grid: Literal["prediction", "truth"] = "prediction",
    keep_couch: bool = False,
    protocols: Sequence[str] = (HEADLINE,),
    labels: LabelMap | None = None,
) -> dict[str, float]:
    """Numbers of a predicted volume against the true CT.

    Only voxels inside the voxel extent of both volumes count.

    Args:
        prediction: The predicted volume.
        truth: The true CT; see `on_one_grid` for how it is brought to the prediction.
        grid: Whose grid the comparison happens on.
        keep_couch: Leave the patient couch in the truth.
        protocols: Names out of `protocols.PROTOCOLS`.
        labels: A label map of the truth, anywhere in the patient, for errors by tissue.

    Returns:
        What `scores_on_grid` gives, and `scanned_share`, the share of the grid's voxels that
        counted.

    Raises:
        ValueError: If the volumes hold other than HU, do not overlap, or share too few voxels
            for SSIM; if a protocol is unknown.
    """
    _check_values(prediction, "the prediction")
    _check_values(truth, "the truth")
    predicted, true, mask = on_one_grid(prediction, truth, grid=grid, keep_couch=keep_couch)
    whole = prediction if grid == "prediction" else truth
    result = scores_on_grid(predicted, true, mask, protocols=protocols, labels=labels)
    return result | {"scanned_share": scanned_share(mask, whole)}


def scores_on_grid(
    predicted: Volume,
    true: Volume,
    mask: Mask,
    *,
    protocols: Sequence[str] = (HEADLINE,),
    labels: LabelMap | None = None,
) -> dict[str, float]:
    """Numbers of two volumes that `on_one_grid` has brought together.

    Args:
        predicted: The prediction.
        true: The truth on the same grid.
        mask: The voxels that count.
        protocols: Names out of `protocols.PROTOCOLS`; `retrieval`, which needs many cases, is
            passed over.
        labels: A label map of the truth, anywhere in the patient, for errors by tissue.

    Returns:
        For `hu3d` `psnr`, `ssim`, `mae`, `rmse` and `bias`; the same inside the true body as
        `body_psnr` and so on; `bone_dice` and `power_spectrum_ratio` for sharpness. For the
        other protocols their own numbers after their name: `x2ct_psnr_slices`. For labels
        `label_7_mae` and so on.

    Raises:
        ValueError: If the mask holds too few voxels for SSIM, or a protocol is unknown.
    """
    result: dict[str, float] = {}
    for name in protocol_names(protocols):
        if name == HEADLINE:
            result |= _headline(predicted, true, mask)
        elif name != RETRIEVAL:
            scores = measure(name, predicted, true, mask)
            result |= {f"{name}_{key}": value for key, value in scores.items()}
    if labels is not None:
        result |= error_by_label(predicted.hu, true.hu, labels_on(labels, true.grid), mask)
    return result


def scanned_share(mask: Mask, whole: Volume) -> float:
    """The share of a volume's voxels that counted."""
    return float(mask.sum()) / float(np.prod(whole.shape))


def _headline(predicted: Volume, true: Volume, mask: Mask) -> dict[str, float]:
    """`hu3d`, whole and inside the body, and sharpness."""
    result = measure(HEADLINE, predicted, true, mask)
    result["bone_dice"] = bone_dice(predicted.hu, true.hu, mask)
    result["power_spectrum_ratio"] = power_spectrum_ratio(predicted.hu, true.hu, true.spacing_mm)
    inside = body_mask(true) & mask
    if inside.any():
        body = measure(HEADLINE, predicted, true, inside)
        result |= {f"body_{name}": value for name, value in body.items()}
    return result


def _check_values(volume: Volume, name: str) -> None:
    """Refuse what cannot be compared in HU; constant volumes are a baseline and pass."""
    low, high = float(volume.hu.min()), float(volume.hu.max())
    if not np.isfinite([low, high]).all():
        count = int((~np.isfinite(volume.hu)).sum())
        raise ValueError(f"{name} holds {count} voxels that are NaN or infinite")
    if -NORMALIZED_LIMIT <= low < high <= NORMALIZED_LIMIT:
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}, which looks like a normalized image; "
            "convert it to HU (air -1000, water 0)"
        )
