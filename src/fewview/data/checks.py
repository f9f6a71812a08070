"""Is it a CT? What every reader asks of the values and of the matrix.

Refused is only what cannot be HU. CT has air at -1000, fat near -100, water at 0; other
values are told from it by where they lie, not by how many of them there are, for a crop of
the abdomen holds no air and a phantom may be a cube of water.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Shaped

LOWEST_HU = -1024.0
"""What lies below is no attenuation but a vendor's mark for "not reconstructed"."""

HIGHEST_HU = 100_000.0
"""Metal reaches 3,071 on the usual scale, 31,743 to 65,535 on extended ones."""

SMALLEST_RANGE_HU = 20.0
"""Noise alone spans more; normalized values (0 to 1, -1 to 1, z-scores) span less."""


def checked_hu(
    values: Shaped[np.ndarray, "depth height width"], source: str | Path
) -> Float32[np.ndarray, "depth height width"]:
    """The values as float32 HU, padding raised to -1024 HU.

    Raises:
        ValueError: If they are constant, not finite or not in HU, with what was found.
    """
    hu = values.astype(np.float32)
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite([low, high]).all():
        count = int((~np.isfinite(hu)).sum())
        raise ValueError(f"{source}: {count} voxels are NaN or infinite; replace them, e.g. by air")
    if low == high:
        raise ValueError(f"{source}: every voxel is {low:g}; there is no image")
    np.maximum(hu, np.float32(LOWEST_HU), out=hu)
    if why := _why_not_hu(hu, high):
        raise ValueError(
            f"{source}: not in HU: values from {low:g} to {high:g}, {why}; "
            "convert it to HU (air -1000, water 0)"
        )
    return hu


def _why_not_hu(hu: Float32[np.ndarray, "depth height width"], high: float) -> str:
    """What the values look like instead, or nothing."""
    if high > HIGHEST_HU:
        return "more than any metal has"
    if high <= LOWEST_HU:
        return "nothing as dense as air"
    if high - float(hu.min()) < SMALLEST_RANGE_HU:
        return "which looks like a normalized image"
    image = hu[hu > LOWEST_HU]  # without padding, which hides an offset
    low = float(image.min())
    if low >= 0.0:
        if high <= 255.0:
            return "which looks like an 8-bit picture"
        return "without air or fat; are 1024 still to be subtracted, or is it no CT?"
    # Resampling leaves a few values below the zero of an image with offset, but no tissue near
    # HU 0 then: what a true volume has there stands near 1000.
    if low > -200.0 and float((image > 700.0).mean()) > 0.1:
        return "without air but much near 1000; are 1024 still to be subtracted?"
    return ""


def checked_geometry(voxel_to_patient: Float64[np.ndarray, "4 4"], source: str | Path) -> None:
    """Refuse a matrix that places no voxels, or places them on a sheared grid.

    Raises:
        ValueError: With what was found.
    """
    axes = voxel_to_patient[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(voxel_to_patient).all() or not (spacing > 0.0).all():
        raise ValueError(f"{source}: voxel spacing or position is missing: {spacing.tolist()} mm")
    cosines = axes / spacing
    overlap = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if overlap > 1e-3:
        angle = np.degrees(np.arcsin(min(1.0, overlap)))
        raise ValueError(
            f"{source}: its axes are sheared by {angle:.1f} degrees (a tilted gantry?); "
            "resample it to a straight grid first"
        )
