"""Where body, lungs and bone lie, by HU threshold: overlap and distance of their surfaces.

The same rules find the regions of prediction and truth, so no network and no label map is
needed. Thresholds lie between tissues: body above -300 HU (foam and lung below, fat above), lung
below -500 HU (the upper end of the lung band of `tissues.py`), bone above 200 HU.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

from fewview.data.body import TISSUE_HU
from fewview.evaluation.metrics import BONE_HU, Hu, Mask

LUNG_HU = -500.0
"""Below it, inside the body, is lung or airway."""

Spacing = tuple[float, float, float]


def region_masks(hu: Hu) -> dict[str, Mask]:
    """The regions of a CT by threshold.

    Args:
        hu: CT values in HU, couch removed.

    Returns:
        `body`: the largest connected piece above -300 HU, holes of axial slices filled.
        `lung`: what is below -500 HU inside the body, so airways and gas in the bowel too.
        `bone`: what is above 200 HU, so metal and contrast agent too.
    """
    pieces, count = ndimage.label(hu > TISSUE_HU)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    tissue = pieces == int(sizes.argmax()) if count else np.zeros(hu.shape, dtype=bool)
    body = np.stack([ndimage.binary_fill_holes(one) for one in tissue])
    return {"body": body, "lung": body & (hu < LUNG_HU), "bone": hu > BONE_HU}


def regions(
    prediction: Hu, truth: Hu, spacing_mm: Spacing, mask: Mask | None = None
) -> dict[str, float]:
    """Dice and 95 % Hausdorff distance of body, lungs and bone.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        spacing_mm: Voxel spacing along depth, height and width.
        mask: The voxels that count; all of them by default.

    Returns:
        `body_dice`, `body_hd95_mm` and so on; see `dice` and `hd95_mm` for empty regions.
    """
    predicted, true = region_masks(prediction), region_masks(truth)
    result: dict[str, float] = {}
    for name, region in true.items():
        other = predicted[name]
        if mask is not None:
            region, other = region & mask, other & mask
        result[f"{name}_dice"] = dice(other, region)
        result[f"{name}_hd95_mm"] = hd95_mm(other, region, spacing_mm)
    return result


def dice(prediction: Mask, truth: Mask) -> float:
    """Overlap of two regions: 2 |P and T| / (|P| + |T|); NaN where both are empty."""
    total = int(prediction.sum()) + int(truth.sum())
    return 2.0 * int((prediction & truth).sum()) / total if total else math.nan


def hd95_mm(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """95 % Hausdorff distance of two regions' surfaces, in mm.

    The surface is made of the region's voxels with a face neighbor outside it; where the
    region leaves the volume there is no surface. The 95th percentile (linear between ranks)
    of the distances from the one's voxels to the nearest of the other's, in each direction;
    the larger of the two.

    Args:
        prediction: The predicted region.
        truth: The true region.
        spacing_mm: Voxel spacing along depth, height and width.

    Returns:
        The distance; NaN where one of the two has no surface (the Dice says which).
    """
    points = [_surface(region) * np.array(spacing_mm) for region in (prediction, truth)]
    if not all(len(one) for one in points):
        return math.nan
    trees = [KDTree(one) for one in points]
    there, back = trees[1].query(points[0])[0], trees[0].query(points[1])[0]
    return max(float(np.percentile(there, 95.0)), float(np.percentile(back, 95.0)))


def _surface(region: Bool[np.ndarray, "_ _ _"]) -> Float[np.ndarray, "point 3"]:
    """Indices of the voxels of a region with a face neighbor outside it."""
    inner = ndimage.binary_erosion(region, border_value=1)
    return np.argwhere(region & ~inner).astype(np.float64)
