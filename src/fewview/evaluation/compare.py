"""Compare a predicted volume to the true CT, wherever both lie in the patient."""

from typing import Literal

import numpy as np

from fewview.data.body import body_mask, remove_couch
from fewview.data.volume import Volume, resample, scanned
from fewview.evaluation.metrics import Mask, bone_dice, power_spectrum_ratio
from fewview.evaluation.protocols import hu3d

AIR_HU = -1000.0


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
) -> dict[str, float]:
    """Numbers of a predicted volume against the true CT.

    Only voxels inside the voxel extent of both volumes count.

    Args:
        prediction: The predicted volume.
        truth: The true CT; see `on_one_grid` for how it is brought to the prediction.
        grid: Whose grid the comparison happens on.
        keep_couch: Leave the patient couch in the truth.

    Returns:
        `psnr`, `ssim`, `mae`, `rmse` and `bias` of `hu3d`; the same inside the true body as
        `body_psnr` and so on; `bone_dice` and `power_spectrum_ratio` for sharpness; and
        `scanned_share`, the share of the grid's voxels that counted.

    Raises:
        ValueError: If the volumes do not overlap or share too few voxels for SSIM.
    """
    predicted, true, mask = on_one_grid(prediction, truth, grid=grid, keep_couch=keep_couch)
    whole = prediction if grid == "prediction" else truth
    result = hu3d(predicted.hu, true.hu, mask)
    result["bone_dice"] = bone_dice(predicted.hu, true.hu, mask)
    result["power_spectrum_ratio"] = power_spectrum_ratio(predicted.hu, true.hu, true.spacing_mm)
    result["scanned_share"] = float(mask.sum()) / float(np.prod(whole.shape))
    inside = body_mask(true) & mask
    if inside.any():
        body = hu3d(predicted.hu, true.hu, inside)
        result |= {f"body_{name}": value for name, value in body.items()}
    return result
