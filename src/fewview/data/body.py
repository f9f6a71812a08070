"""The patient without the couch.

The couch and its mattress lie in nearly every CT but in no X-ray that is taken standing,
and the mattress touches the skin. Patient and couch are told apart on voxels of about
4 mm, where a thin bridge between them is opened away; the outline is then brought back to
the volume's own voxels.
"""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from fewview.data.volume import Volume

AIR_HU = -1000.0
TISSUE_HU = -300.0
"""Between lung or mattress foam (below) and fat or skin (above)."""
WORKING_MM = 4.0
OPENING_MM = 4.0
MARGIN_MM = 4.0
"""How far the mask reaches beyond the opened body, to keep skin, ears and fingers."""


def body_mask(volume: Volume) -> Bool[np.ndarray, "depth height width"]:
    """Which voxels belong to the patient: tissue and all that it encloses.

    The largest connected piece above -300 HU after an opening of 4 mm, grown back by 4 mm,
    with the holes of each axial slice filled.
    """
    tissue = volume.hu > TISSUE_HU
    steps = [max(1, round(WORKING_MM / spacing)) for spacing in volume.spacing_mm]
    small = _shrink(tissue, steps)
    spacing = np.multiply(volume.spacing_mm, steps)
    opened = _dilate(~_dilate(~small, OPENING_MM / 2, spacing), OPENING_MM / 2, spacing)
    body = _largest_piece(opened if opened.any() else small)
    body = _fill_slices(_dilate(body, MARGIN_MM, spacing))
    return _fill_slices(_grow(body, steps, tissue.shape))


def remove_couch(volume: Volume) -> Volume:
    """The volume with everything outside the body set to air (-1000 HU)."""
    hu = np.where(body_mask(volume), volume.hu, np.float32(AIR_HU))
    return Volume(hu, volume.voxel_to_patient)


def _shrink(mask: np.ndarray, steps: list[int]) -> np.ndarray:
    """Blocks of `steps` voxels in which at least half are set."""
    padded = np.pad(mask, [(0, -n % s) for n, s in zip(mask.shape, steps, strict=True)], "edge")
    d, h, w = (n // s for n, s in zip(padded.shape, steps, strict=True))
    blocks = padded.reshape(d, steps[0], h, steps[1], w, steps[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32) >= 0.5


def _grow(mask: np.ndarray, steps: list[int], shape: tuple[int, ...]) -> np.ndarray:
    for axis, step in enumerate(steps):
        mask = mask.repeat(step, axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _dilate(mask: np.ndarray, radius_mm: float, spacing: np.ndarray) -> np.ndarray:
    if not mask.any():
        return mask
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return distance <= radius_mm


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def _fill_slices(mask: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
