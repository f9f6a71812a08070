"""The canvas a phantom is painted on: body coordinates, signed distances, coverage.

Every structure is a signed distance (mm, negative inside) on the voxels or on a box of them.
Painting turns a distance into the share of a voxel that the structure fills, so thin structures
keep their mean CT value at any voxel size. Body coordinates are LPS-like millimeters of a
reference body: x toward the left, y posterior, z superior; z = 0 is the apex of the lungs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[slice, slice, slice]
WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(eq=False)
class Canvas:
    """CT values and labels being painted, with the body coordinates of every voxel."""

    x: Float32[np.ndarray, "depth height width"]
    y: Float32[np.ndarray, "depth height width"]
    z: Float32[np.ndarray, "depth height width"]
    hu: Float32[np.ndarray, "depth height width"]
    labels: UInt8[np.ndarray, "depth height width"]
    skin: Float32[np.ndarray, "depth height width"]
    """Distance to the skin once it is known, mm, negative inside."""

    voxel_mm: float
    """Voxel edge in body millimeters."""
    extent_mm: float
    """Edge of the whole canvas in patient millimeters."""
    body_to_voxel: Float[np.ndarray, "4 4"]
    """Body (x, y, z) to voxel (x, y, z) without the warp; good to `WARP_MM`."""

    def box(self, points: Float[np.ndarray, "point 3"], margin_mm: float) -> Box | None:
        """The voxels around some body points; None when they all lie outside the canvas."""
        mapped = points @ self.body_to_voxel[:3, :3].T + self.body_to_voxel[:3, 3]
        margin = (margin_mm + WARP_MM) / self.voxel_mm
        low = np.floor(mapped.min(axis=0) - margin).astype(int)
        high = np.ceil(mapped.max(axis=0) + margin).astype(int) + 1
        shape = np.array(self.hu.shape[::-1])
        low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        if np.any(high <= low):
            return None
        return (slice(low[2], high[2]), slice(low[1], high[1]), slice(low[0], high[0]))

    def paint(
        self,
        distance: Float[np.ndarray, "*shape"],
        value: float | Float[np.ndarray, "*shape"],
        label: int | None,
        where: Box | tuple[Shaped[np.ndarray, " voxel"], ...] = WHOLE,
    ) -> None:
        """Lay a structure over what is there; `where` is a box or an index of single voxels."""
        share = np.clip(0.5 - distance / np.float32(self.voxel_mm), 0.0, 1.0)
        old = self.hu[where]
        self.hu[where] = old + share * (value - old)
        if label is not None:
            region = self.labels[where]
            region[distance < 0] = label
            self.labels[where] = region

    def sample(
        self, field: Float32[np.ndarray, "depth height width"], points: Float[np.ndarray, "point 3"]
    ) -> Float[np.ndarray, " point"]:
        """A field of the canvas at body points, linear; the border value outside."""
        mapped = points @ self.body_to_voxel[:3, :3].T + self.body_to_voxel[:3, 3]
        return np.asarray(map_coordinates(field, mapped.T[::-1], order=1, mode="nearest"))


WARP_MM = 6.0  # bound on the smooth random displacement of `random_warp`


def ellipsoid(
    canvas: Canvas,
    where: Box,
    center: Sequence[float] | Float[np.ndarray, "3"],
    semi: Sequence[float],
    axes: Float[np.ndarray, "3 3"] | None = None,
) -> Float32[np.ndarray, "*shape"]:
    """Approximate signed distance of an ellipsoid; rows of `axes` are its unit axes."""
    rotation = np.eye(3) if axes is None else axes
    offset = [
        f[where] - np.float32(c)
        for f, c in zip((canvas.x, canvas.y, canvas.z), center, strict=True)
    ]
    scaled = np.zeros_like(offset[0])
    steep = np.zeros_like(offset[0])
    for direction, radius in zip(rotation, semi, strict=True):
        along = sum(
            (np.float32(c) * o for c, o in zip(direction, offset, strict=True) if abs(c) > 1e-9),
            start=np.zeros_like(offset[0]),
        )
        square = (along / np.float32(radius)) ** 2
        scaled += square
        steep += square / np.float32(radius) ** 2
    level = np.sqrt(scaled)
    # First order: (level - 1) over the length of its gradient.
    near = np.maximum(np.sqrt(steep), np.float32(1e-4))
    return np.asarray((level - 1) * np.maximum(level, np.float32(1e-3)) / near, dtype=np.float32)


def capsule(
    canvas: Canvas,
    where: Box,
    start: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    radii: tuple[float, float],
) -> Float32[np.ndarray, "*shape"]:
    """Signed distance of a straight tube whose radius runs linearly from one end to the other."""
    axis = (end - start).astype(np.float32)
    length = np.float32(max(float(axis @ axis), 1e-6))
    dx = canvas.x[where] - np.float32(start[0])
    dy = canvas.y[where] - np.float32(start[1])
    dz = canvas.z[where] - np.float32(start[2])
    along = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length, 0.0, 1.0)
    dx -= along * axis[0]
    dy -= along * axis[1]
    dz -= along * axis[2]
    radius = np.float32(radii[0]) + along * np.float32(radii[1] - radii[0])
    return np.asarray(np.sqrt(dx * dx + dy * dy + dz * dz) - radius, dtype=np.float32)


def tube_distance(
    canvas: Canvas,
    points: Float[np.ndarray, "point 3"],
    radii: Sequence[float],
    margin_mm: float = 8.0,
) -> tuple[Box | None, Float32[np.ndarray, "*shape"]]:
    """Signed distance of a bent tube on the box around it."""
    where = canvas.box(points, max(radii) + margin_mm)
    if where is None:
        return None, np.zeros((0, 0, 0), np.float32)
    distance = np.full(canvas.hu[where].shape, 1e3, np.float32)
    for i in range(len(points) - 1):
        part = canvas.box(points[i : i + 2], max(radii) + margin_mm)
        if part is None:
            continue
        local = tuple(
            slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, where, strict=True)
        )
        near = capsule(canvas, part, points[i], points[i + 1], (radii[i], radii[i + 1]))
        distance[local] = np.minimum(distance[local], near)
    return where, distance


def bend(knots: Sequence[Sequence[float]], num_points: int = 24) -> Float[np.ndarray, "point 4"]:
    """A smooth curve through knots (x, y, z, radius), as that many points."""
    table = np.asarray(knots, dtype=float)
    chord = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(table[:, :3], axis=0), axis=1))]
    return np.asarray(PchipInterpolator(chord, table)(np.linspace(0.0, chord[-1], num_points)))


def smooth_union(a: Array, b: Array, blend_mm: float) -> Array:
    """Minimum of two distances with a fillet (polynomial smooth minimum, Quilez 2013)."""
    share = np.clip(0.5 + 0.5 * (b - a) / blend_mm, 0.0, 1.0)
    return np.asarray(b + (a - b) * share - blend_mm * share * (1.0 - share), dtype=np.float32)


def smooth_step(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, a cubic between."""
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), dtype=np.float32)
