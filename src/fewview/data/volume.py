"""A CT volume in patient space, and the grids it is brought to.

Everything is in DICOM patient axes (LPS: x toward the patient's left, y posterior,
z superior) and mm. An array is `[depth, height, width]`, its matrix maps the voxel
index (x, y, z) = (width, height, depth index) to mm; voxel centers have integer
indices. How files name these things is known to the readers only.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from fewview.data.interpolation import interpolate_parallel, interpolate_turned

Matrix = Float64[np.ndarray, "4 4"]

# Standard deviation of a Gaussian whose full width at half maximum is one voxel. A voxel is
# taken for such a Gaussian; variances add, so going from voxels of 1 to voxels of r adds
# (r^2 - 1) of it (Cardoso et al. 2015, "Scale factor point spread function matching").
SIGMA_PER_VOXEL = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie, without their values."""

    shape: tuple[int, int, int]
    """Number of voxels along (depth, height, width)."""

    voxel_to_patient: Matrix
    """Voxel (x, y, z) index to LPS mm."""

    def __post_init__(self) -> None:
        """Refuse a grid that cannot exist."""
        if min(self.shape) < 1:
            raise ValueError(f"a grid needs at least one voxel along each axis, got {self.shape}")
        object.__setattr__(self, "voxel_to_patient", _checked_matrix(self.voxel_to_patient))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along (depth, height, width)."""
        x, y, z = np.linalg.norm(self.voxel_to_patient[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def center_mm(self) -> Float64[np.ndarray, "3"]:
        """Patient position (LPS) of the center of the voxel extent."""
        middle = (np.array(self.shape[::-1], dtype=np.float64) - 1.0) / 2.0
        center: Float64[np.ndarray, 3] = self.voxel_to_patient[:3] @ np.append(middle, 1.0)
        return center


@dataclass(frozen=True, eq=False)
class Volume:
    """CT values and where they lie in the patient."""

    hu: Float32[np.ndarray, "depth height width"]
    """CT values in HU, toward superior, posterior, left."""

    voxel_to_patient: Matrix
    """Voxel (x, y, z) index to LPS mm."""

    def __post_init__(self) -> None:
        """Refuse what is not a volume; other number types become float32."""
        hu = np.asarray(self.hu, dtype=np.float32)
        if hu.ndim != 3 or hu.size == 0:
            raise ValueError(f"a volume has three axes with voxels, got shape {hu.shape}")
        object.__setattr__(self, "hu", hu)
        object.__setattr__(self, "voxel_to_patient", _checked_matrix(self.voxel_to_patient))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (depth, height, width)."""
        depth, height, width = self.hu.shape
        return depth, height, width

    @property
    def grid(self) -> Grid:
        """The volume's voxels without their values."""
        return Grid(self.shape, self.voxel_to_patient)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along (depth, height, width)."""
        return self.grid.spacing_mm

    @property
    def center_mm(self) -> Float64[np.ndarray, "3"]:
        """Patient position (LPS) of the center of the voxel extent."""
        return self.grid.center_mm


def cubic_grid(center_mm: Float64[np.ndarray, "3"], *, size: int, extent_mm: float) -> Grid:
    """The cube of isotropic, axis-aligned voxels around a point of the patient.

    Args:
        center_mm: LPS position of the center of the cube.
        size: Number of voxels along each edge.
        extent_mm: Edge length of the cube, from voxel border to voxel border, in mm.

    Raises:
        ValueError: If the cube has no voxels or no extent.
    """
    if size < 1 or not 0.0 < extent_mm < np.inf:
        raise ValueError(f"need size >= 1 and extent_mm > 0, got {size} and {extent_mm}")
    spacing = extent_mm / size
    voxel_to_patient = np.diag([spacing, spacing, spacing, 1.0])
    voxel_to_patient[:3, 3] = np.asarray(center_mm, dtype=np.float64) - spacing * (size - 1) / 2.0
    return Grid((size, size, size), voxel_to_patient)


def scanned(volume: Volume, grid: Grid) -> Bool[np.ndarray, "depth height width"]:
    """Which voxels of `grid` have their center inside the voxel extent of `volume`."""
    index_map = np.linalg.inv(volume.voxel_to_patient) @ grid.voxel_to_patient
    inside = np.ones(grid.shape, dtype=bool)
    x, y, z = (np.arange(count, dtype=np.float64) for count in grid.shape[::-1])
    for axis, count in enumerate(volume.shape[::-1]):
        by_x, by_y, by_z, shift = index_map[axis]
        index = by_z * z[:, None, None] + by_y * y[:, None] + (by_x * x + shift)
        index = index.round(6)  # a center on the border does not depend on rounding
        inside &= (index >= -0.5) & (index <= count - 0.5)
    return inside


def resample(volume: Volume, grid: Grid, *, outside_hu: float = -1000.0) -> Volume:
    """The volume on another grid, each value at its place in the patient.

    Blurs along each axis of the volume where the grid is coarser, then interpolates
    linearly. Exact on the volume's own grid and on crops of it.

    Args:
        volume: What to resample.
        grid: Where the new voxels lie; may be turned against the volume.
        outside_hu: Value of voxels whose center lies outside the volume's voxel extent.
    """
    index_map = np.linalg.inv(volume.voxel_to_patient) @ grid.voxel_to_patient
    steps = index_map[:3, :3]  # column: one voxel of the grid, in voxels of the volume
    sigmas = SIGMA_PER_VOXEL * np.sqrt(np.clip((steps**2).sum(axis=1) - 1.0, 0.0, None))
    sigmas[sigmas < 1e-3] = 0.0  # equal spacing but for rounding
    off_axis = np.abs(steps - np.diag(np.diag(steps))).sum(axis=1) * max(grid.shape)
    if (np.diag(steps) > 0.0).all() and off_axis.max() < 1e-3:
        hu = interpolate_parallel(volume.hu, grid.shape, index_map, sigmas)
    else:
        hu = interpolate_turned(volume.hu, grid.shape, index_map, sigmas)
    hu[~scanned(volume, grid)] = outside_hu
    return Volume(hu, grid.voxel_to_patient)


def to_patient_axes(
    array: Shaped[np.ndarray, "depth height width"], voxel_to_patient: Matrix
) -> tuple[Shaped[np.ndarray, "depth2 height2 width2"], Matrix]:
    """Turn an array of any of the 48 orientations the closest way to patient axes.

    Axes are only swapped and reversed, so no value changes and every voxel stays at its
    position; what is oblique stays in the matrix.

    Args:
        array: Values, indexed `[z, y, x]`.
        voxel_to_patient: Where voxel (x, y, z) lies, LPS mm.

    Returns:
        The array with axes toward superior, posterior, left, and its matrix.
    """
    cosines = voxel_to_patient[:3, :3] / np.linalg.norm(voxel_to_patient[:3, :3], axis=0)
    # The axes as a whole are matched: taken one by one, two of an oblique scan could claim
    # the same patient axis.
    order = max(permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3)))
    turned = np.eye(4)
    turned[:, :3] = voxel_to_patient[:, :3][:, order]
    turned[:, 3] = voxel_to_patient[:, 3]
    array = array.transpose([2 - order[2 - axis] for axis in range(3)])
    for axis in range(3):
        if turned[axis, axis] < 0.0:
            turned[:3, 3] += turned[:3, axis] * (array.shape[2 - axis] - 1)
            turned[:3, axis] *= -1.0
            array = np.flip(array, 2 - axis)
    return np.ascontiguousarray(array), turned


def _checked_matrix(voxel_to_patient: Matrix) -> Matrix:
    """The matrix as float64, or an error that says why it places no voxels."""
    matrix = np.array(voxel_to_patient, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"voxel_to_patient must be 4 x 4 and finite, got {matrix.tolist()}")
    if not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
        raise ValueError(f"the last row of voxel_to_patient must be 0 0 0 1, got {matrix[3]}")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-6 * lengths.prod():
        raise ValueError("voxel_to_patient is flat: two axes are parallel or a spacing is zero")
    return matrix
