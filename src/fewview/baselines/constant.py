"""The same HU everywhere: the least a volume can say."""

import numpy as np

from fewview.baselines.mean_volume import bundled_mean
from fewview.data.volume import Grid, Volume


def constant_hu(grid: Grid, *, hu: float | None = None) -> Volume:
    """One value for all voxels.

    Args:
        grid: Where it is wanted.
        hu: The value; by default the mean of the bundled mean volume, the constant that has
            the least squared error over its phantoms.

    Raises:
        ValueError: If `hu` is not finite.
    """
    value = float(bundled_mean().hu.mean()) if hu is None else hu
    if not np.isfinite(value):
        raise ValueError(f"hu must be finite, got {hu}")
    return Volume(np.full(grid.shape, value, dtype=np.float32), grid.voxel_to_patient)
