"""The patient without the couch.

Couch and mattress lie in nearly every CT, but not in an X-ray of a standing patient; and
the mattress touches the skin. What is thin is opened away on voxels of about 2 mm, so that
patient and couch fall apart; the outline is then drawn again on the volume's own voxels.
"""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from fewview.data.volume import Volume

AIR_HU = -1000.0

TISSUE_HU = -300.0
"""Between mattress foam and lung below, and fat and skin above."""

WORKING_MM = 2.0
"""Voxels on which patient and couch are told apart; finer ones are joined to blocks."""

OPENING_MM = 4.0
"""What is thinner falls away: sheets and the couch's shell, but no finger and no chest wall."""

MARGIN_MM = 4.0
"""How far around the opened body tissue is looked for that the opening has cut away."""

PART_MM = 12.0
"""Thickness from which a piece apart from the trunk may be an arm or the chin, not a shell."""

Mask = Bool[np.ndarray, "_depth _height _width"]  # of voxels or of blocks of them


def body_mask(volume: Volume) -> Mask:
    """Which voxels belong to the patient: tissue, and all that it encloses in axial slices.

    The largest connected piece above -300 HU after an opening of 4 mm, and thick pieces that
    do not lie behind it: arms and chin may hang together with it only outside the scan. Of
    what lies within 4 mm of these, the tissue that touches them, and one voxel of skin.
    """
    tissue = volume.hu > TISSUE_HU
    steps = [max(1, round(WORKING_MM / spacing)) for spacing in volume.spacing_mm]
    blocks = _joined(tissue, steps)
    spacing = [step * mm for step, mm in zip(steps, volume.spacing_mm, strict=True)]
    radii = _radii(OPENING_MM / 2.0, spacing)
    opened = _grown(_shrunk(blocks, radii), radii)
    body = _body_pieces(opened if opened.any() else blocks, spacing)
    near = _grown(body, [max(1, radius) for radius in _radii(MARGIN_MM, spacing)])
    near = _split(near, steps, volume.shape) & tissue
    outline = _touching(near, _split(body, steps, volume.shape))
    return _filled(_grown(outline, [1, 1, 1]))


def remove_couch(volume: Volume) -> Volume:
    """The volume with everything outside the body set to air (-1000 HU)."""
    hu = np.where(body_mask(volume), volume.hu, np.float32(AIR_HU))
    return Volume(hu, volume.voxel_to_patient)


def _joined(mask: Mask, steps: list[int]) -> Mask:
    """Blocks of `steps` voxels of which at least half are set."""
    rest = [(0, -count % step) for count, step in zip(mask.shape, steps, strict=True)]
    counts = np.pad(mask, rest, "edge").astype(np.uint16)
    for axis, step in enumerate(steps):
        if step > 1:
            starts = range(0, counts.shape[axis], step)
            counts = np.add.reduceat(counts, starts, axis, dtype=np.uint16)
    return 2 * counts >= np.prod(steps)


def _split(mask: Mask, steps: list[int], shape: tuple[int, int, int]) -> Mask:
    """Blocks of `steps` voxels back to single ones."""
    for axis, step in enumerate(steps):
        mask = mask.repeat(step, axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _grown(mask: Mask, radii: list[int]) -> Mask:
    """Voxels with a set one in the box of these radii around them."""
    for axis, radius in enumerate(radii):
        for _ in range(radius):
            lines = np.moveaxis(mask, axis, 0)
            mask = mask.copy()
            grown = np.moveaxis(mask, axis, 0)
            grown[1:] |= lines[:-1]
            grown[:-1] |= lines[1:]
    return mask


def _shrunk(mask: Mask, radii: list[int]) -> Mask:
    """Voxels with only set ones around them; the body goes on beyond the borders."""
    return ~_grown(~mask, radii)


def _radii(distance_mm: float, spacing: list[float]) -> list[int]:
    """A distance in voxels along each axis."""
    return [round(distance_mm / mm) for mm in spacing]


def _body_pieces(mask: Mask, spacing: list[float]) -> Mask:
    """The largest piece, and thick ones whose middle is not behind it, as the couch's is."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    trunk = int(sizes.argmax())
    rear = int(np.flatnonzero((pieces == trunk).any(axis=(0, 2)))[-1])
    core = _shrunk(mask, _radii(PART_MM / 2.0, spacing))
    kept = np.zeros(count + 1, dtype=bool)
    for piece in np.unique(pieces[core & (pieces != trunk)]):
        per_row = (pieces == piece).sum(axis=(0, 2))
        kept[piece] = np.average(np.arange(len(per_row)), weights=per_row) < rear
    kept[trunk] = True
    body: Mask = kept[pieces]
    return body


def _touching(mask: Mask, seed: Mask) -> Mask:
    """The pieces of the mask that share a voxel with the seed."""
    pieces, count = ndimage.label(mask)
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(pieces[seed & mask])] = True
    touching: Mask = kept[pieces]
    return touching


def _filled(mask: Mask) -> Mask:
    """The mask with the holes of each axial slice filled."""
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    framed = np.pad(~mask, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    pieces, count = ndimage.label(framed, in_plane)
    outside = np.zeros(count + 1, dtype=bool)
    outside[pieces[:, 0, 0]] = True  # what hangs together with the frame of its slice
    filled: Mask = ~outside[pieces[:, 1:-1, 1:-1]]
    return filled
