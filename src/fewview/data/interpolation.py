"""Blur and linear interpolation of an array: the arithmetic behind `volume.resample`.

Positions are voxel indices of the array and blurs are in its voxels; nothing here knows of
mm or patients. Grids that are parallel to the array (nearly all) take a path of three short
matrix products.
"""

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage, sparse


def interpolate_turned(
    hu: Float32[np.ndarray, "depth height width"],
    shape: tuple[int, int, int],
    index_map: Float64[np.ndarray, "4 4"],
    sigmas: Float64[np.ndarray, "3"],
) -> Float32[np.ndarray, "depth2 height2 width2"]:
    """Blur along the volume's axes, then interpolate at any positions."""
    if sigmas.any():
        hu = ndimage.gaussian_filter(hu, sigmas[::-1], mode="nearest", truncate=3.0)
    steps, shift = index_map[:3, :3][::-1, ::-1], index_map[:3, 3][::-1]
    result: Float32[np.ndarray, "depth2 height2 width2"] = ndimage.affine_transform(
        hu, steps, shift, output_shape=shape, output=np.float32, order=1, mode="nearest"
    )
    return result


def interpolate_parallel(
    hu: Float32[np.ndarray, "depth height width"],
    shape: tuple[int, int, int],
    index_map: Float64[np.ndarray, "4 4"],
    sigmas: Float64[np.ndarray, "3"],
) -> Float32[np.ndarray, "depth2 height2 width2"]:
    """The same with one sparse matrix per axis; slices that nothing needs are not touched."""
    by_width, by_height, by_depth = (
        _axis_weights(hu.shape[2 - axis], shape[2 - axis], index_map[axis], axis, sigmas[axis])
        for axis in range(3)
    )
    needed = np.unique(by_depth.indices)
    in_plane = np.empty((len(needed), shape[1], shape[2]), dtype=np.float32)
    for slot, index in enumerate(needed):
        in_plane[slot] = (by_width @ (by_height @ hu[index]).T).T
    stacked = by_depth[:, needed] @ in_plane.reshape(len(needed), -1)
    return np.asarray(stacked, dtype=np.float32).reshape(shape)


def _axis_weights(
    num_in: int, num_out: int, map_row: Float64[np.ndarray, "4"], axis: int, sigma: float
) -> sparse.csr_array:
    """What each old voxel gives to each new one along one axis; each row sums to one.

    A linear interpolation of the blurred line. Beyond the first and last voxel the line
    goes on with their value.
    """
    position = (map_row[axis] * np.arange(num_out) + map_row[3]).round(6)
    position = np.clip(position, 0.0, num_in - 1.0)
    below = np.minimum(position.astype(int), max(num_in - 2, 0))
    rest = position - below
    reach = int(np.ceil(3.0 * sigma))
    offsets = np.arange(-reach, reach + 1)
    blur = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma else np.ones(1)
    blur /= blur.sum()
    weights = np.zeros((num_out, 2 * reach + 2))
    weights[:, :-1] += (1.0 - rest)[:, None] * blur
    weights[:, 1:] += rest[:, None] * blur
    columns = below[:, None] + np.arange(-reach, reach + 2)
    columns = np.clip(columns, 0, num_in - 1)
    rows = np.broadcast_to(np.arange(num_out)[:, None], columns.shape)
    matrix = sparse.coo_array(
        (weights.ravel().astype(np.float32), (rows.ravel(), columns.ravel())),
        shape=(num_out, num_in),
    ).tocsr()
    matrix.eliminate_zeros()
    return matrix
