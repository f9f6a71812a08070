"""CT volumes of the X2CT line: `ct_xray_data.h5`, with the data sets `ct`, `xray1`, `xray2`.

Each holds a body of LIDC-IDRI in a cube of 320 mm: resampled to 1 mm, cropped or padded, and
stored with n voxels along each edge, so a voxel is 320 / n mm wide. `ct` is `[z, y, x]` as
SimpleITK hands out an image with patient axes: toward superior, posterior, left, which is
our order. Its conversion is published, the step into HDF5 is not: check one case by eye.
Position in the patient and what lay outside the cube are lost; the center is put at 0.

Stored values are HU plus an offset, and the published code disagrees on it: the X-rays were
made with 1000, other scripts take 1024. It is asked for, never guessed.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from fewview.data.checks import checked_hu
from fewview.data.payload import check_size
from fewview.data.volume import Volume

EXTENT_MM = 320.0
OFFSETS_HU = (1000, 1024)


def require_h5py() -> Any:
    """The library that reads HDF5.

    Raises:
        ValueError: If it is not installed, with how to.
    """
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise ValueError("files of the X2CT line need h5py: pip install 'fewview[x2ct]'") from None


def read_x2ct(path: Path, stored_offset_hu: int) -> Volume:
    """Read the CT of one file.

    Args:
        path: A `ct_xray_data.h5`.
        stored_offset_hu: What the stored values are above HU.

    Raises:
        ValueError: If the file is damaged, holds no such CT, or h5py is not installed.
    """
    h5py = require_h5py()
    try:
        with h5py.File(path, "r") as file:
            check_size(tuple(file["ct"].shape), file["ct"].dtype.itemsize, path)
            stored = np.asarray(file["ct"])
    except KeyError:
        raise ValueError(f"{path}: holds no data set ct") from None
    except (OSError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: truncated or damaged HDF5 file ({error})") from error
    return from_stored(stored, stored_offset_hu, path)


def from_stored(
    stored: Shaped[np.ndarray, "z y x"], stored_offset_hu: int, source: str | Path
) -> Volume:
    """The CT in HU, in patient axes, about 0.

    Raises:
        ValueError: If the values are not a cube, or not in HU without the offset.
    """
    size = len(stored)
    if stored.shape != (size, size, size):
        raise ValueError(f"{source}: {stored.shape} voxels are no cube, so their width is unknown")
    hu = checked_hu(stored.astype(np.float32) - np.float32(stored_offset_hu), source)
    spacing = EXTENT_MM / size
    voxel_to_patient = np.diag([spacing, spacing, spacing, 1.0])
    voxel_to_patient[:3, 3] = -spacing * (size - 1) / 2.0
    return Volume(hu, voxel_to_patient)
