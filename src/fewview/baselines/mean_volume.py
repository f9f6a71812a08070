"""The mean of many training phantoms: what one knows before seeing an X-ray.

The file that comes with the package is made by
`python -m fewview.baselines.mean_volume OUT --count 200`.
"""

import argparse
from collections.abc import Iterable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from fewview.data.images import read_volume, write_volume
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.volume import Grid, Volume, cubic_grid, resample

MEAN_SIZE = 64
MEAN_EXTENT_MM = 400.0
"""The grid of the bundled file: the default model grid."""


def bundled_mean() -> Volume:
    """The mean volume that comes with the package, centered on the origin."""
    with as_file(files("fewview") / "bundled" / "mean_volume.nii.gz") as path:
        return read_volume(path)


def mean_volume(grid: Grid, center_mm: Sequence[float]) -> Volume:
    """The bundled mean volume on a grid.

    Args:
        grid: Where it is wanted.
        center_mm: Where its center is put, in patient mm: the isocenter of the views.

    Returns:
        The mean in HU; air outside its 400 mm.
    """
    bundled = bundled_mean()
    moved = bundled.voxel_to_patient.copy()
    moved[:3, 3] += np.asarray(center_mm, dtype=np.float64) - bundled.center_mm
    return resample(Volume(hu=bundled.hu, voxel_to_patient=moved), grid)


def build_mean_volume(seeds: Iterable[int], size: int, extent_mm: float) -> Volume:
    """Average phantoms on one grid about their centers.

    Args:
        seeds: Seeds of the phantoms; held-out ones are refused.
        size: Voxels along each edge.
        extent_mm: Edge of the grid.

    Returns:
        The mean in HU, centered on the origin.

    Raises:
        ValueError: If there is no seed, or one is held out for testing.
    """
    total, count = np.zeros((size, size, size)), 0
    for seed in seeds:
        if seed in HELD_OUT_SEEDS:
            raise ValueError(f"seed {seed} is held out for testing and must not shape the mean")
        volume = phantom(seed, size=size, extent_mm=extent_mm).volume
        grid = cubic_grid(volume.center_mm, size=size, extent_mm=extent_mm)
        total += resample(volume, grid).hu
        count += 1
    if count == 0:
        raise ValueError("a mean volume needs at least one seed")
    grid = cubic_grid(np.zeros(3), size=size, extent_mm=extent_mm)
    return Volume(hu=(total / count).astype(np.float32), voxel_to_patient=grid.voxel_to_patient)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the mean of phantoms 0 to COUNT - 1."""
    parser = argparse.ArgumentParser(prog="python -m fewview.baselines.mean_volume")
    parser.add_argument("out", type=Path, help="the file to write, such as mean_volume.nii.gz")
    parser.add_argument("--count", type=int, default=200, help="how many phantoms")
    chosen = parser.parse_args(arguments)
    write_volume(build_mean_volume(range(chosen.count), MEAN_SIZE, MEAN_EXTENT_MM), chosen.out)


if __name__ == "__main__":
    main()
