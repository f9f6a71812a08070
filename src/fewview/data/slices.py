"""A stack of parallel slices in patient space: order, gaps, tilt.

DICOM gives each slice its own position. Here slices are ordered along their normal and
told to be a straight, even stack, or brought to one. No DICOM tag is known here.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage

MAX_SHEAR = 1e-3
"""Tangent of the angle between stack and normal that rounded positions may show (0.06 deg)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceStack:
    """Slices of one orientation and pixel spacing, in the order of their position."""

    names: tuple[str, ...]
    """File of each slice, for messages."""

    positions: Float64[np.ndarray, "slice 3"]
    """Center of each slice's first pixel, LPS mm."""

    axes: Float64[np.ndarray, "3 3"]
    """Columns: one pixel along a row, one pixel down a column (mm), the unit normal."""

    @property
    def heights(self) -> Float64[np.ndarray, "slice"]:
        """Position of each slice along the normal, mm."""
        heights: Float64[np.ndarray, slice] = self.positions @ self.axes[:, 2]
        return heights

    @property
    def step(self) -> float:
        """Usual distance between slices along the normal, mm."""
        return float(np.median(np.diff(self.heights)))

    def sorted(self) -> tuple["SliceStack", list[int]]:
        """The stack in the order of its heights, and the old index of each slice."""
        order = np.argsort(self.heights, kind="stable").tolist()
        names = tuple(self.names[index] for index in order)
        return replace(self, names=names, positions=self.positions[order]), order

    def voxel_to_patient(self) -> Float64[np.ndarray, "4 4"]:
        """Where voxel (column, row, slice) of a straight, even stack lies."""
        matrix = np.eye(4)
        matrix[:3, :2] = self.axes[:, :2]
        matrix[:3, 2] = (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        matrix[:3, 3] = self.positions[0]
        return matrix


def refuse_repeated(stack: SliceStack) -> None:
    """Refuse two slices at one place: nobody could tell which is meant.

    Raises:
        ValueError: With the names of both.
    """
    steps = np.diff(stack.heights)
    for index in np.flatnonzero(steps < 0.01).tolist():
        first, second = stack.names[index : index + 2]
        raise ValueError(
            f"slices {first} and {second} lie at the same place "
            f"({_place(stack, index)}): a copy, or two scans under one series UID"
        )


def unevenness(stack: SliceStack) -> str:
    """What keeps the stack from being straight and even, with the slice named; or nothing."""
    steps = np.diff(stack.heights)
    tolerance = max(0.01, 0.01 * stack.step)
    for index in np.flatnonzero(np.abs(steps - stack.step) > 2.0 * tolerance).tolist():
        first, second = stack.names[index : index + 2]
        missing = round(steps[index] / stack.step) - 1
        if missing > 0 and abs(steps[index] - (missing + 1) * stack.step) <= 0.05 * stack.step:
            what = "1 slice is missing" if missing == 1 else f"{missing} slices are missing"
            return f"{what} between {first} and {second} ({_place(stack, index)})"
        return (
            f"slices are uneven: {steps[index]:.3f} mm from {first} to {second} "
            f"({_place(stack, index)}), usually {stack.step:.3f} mm"
        )
    way = stack.positions[-1] - stack.positions[0]
    rise = float(way @ stack.axes[:, 2])
    drift = float(np.linalg.norm(way - rise * stack.axes[:, 2]))
    if drift > MAX_SHEAR * rise:
        angle = np.degrees(np.arctan2(drift, rise))
        return f"slices are tilted by {angle:.2f} degrees against their stack (gantry tilt)"
    even = np.linspace(stack.positions[0], stack.positions[-1], len(stack.positions))
    off = np.linalg.norm(stack.positions - even, axis=1)
    if off.max() > tolerance:
        worst = int(off.argmax())
        return f"slice {stack.names[worst]} is {off[worst]:.3f} mm off an even stack"
    return ""


def straighten(
    hu: Float32[np.ndarray, "slice row col"], stack: SliceStack, *, outside_hu: float
) -> tuple[Float32[np.ndarray, "slice2 row2 col2"], Float64[np.ndarray, "4 4"]]:
    """An uneven or tilted stack as an even one along the normal, by linear interpolation.

    The image grows so that no slice is cut; gaps are filled from the slices on both sides.

    Returns:
        Values, and where voxel (column, row, slice) lies (LPS mm).
    """
    from_first = np.linalg.solve(stack.axes, (stack.positions - stack.positions[0]).T)
    cols, rows, heights = from_first
    corner_col, corner_row = cols.min(), rows.min()
    size = (
        hu.shape[1] + ceil(np.ptp(rows) - 1e-3),
        hu.shape[2] + ceil(np.ptp(cols) - 1e-3),
    )
    shifted = np.stack(
        [
            _shifted(plane, (row - corner_row, col - corner_col), size, outside_hu)
            for plane, row, col in zip(hu, rows, cols, strict=True)
        ]
    )
    wanted = np.arange(0.0, heights[-1] + 1e-3 * stack.step, stack.step)
    above = np.clip(np.searchsorted(heights, wanted - 1e-6), 1, len(heights) - 1)
    gap = heights[above] - heights[above - 1]
    weight = np.clip((wanted - heights[above - 1]) / gap, 0.0, 1.0).astype(np.float32)
    weight = weight[:, None, None]
    even = shifted[above - 1] * (1.0 - weight) + shifted[above] * weight
    matrix = np.eye(4)
    matrix[:3, :3] = stack.axes * [1.0, 1.0, stack.step]
    matrix[:3, 3] = stack.positions[0] + stack.axes[:, :2] @ [corner_col, corner_row]
    return even.astype(np.float32), matrix


def _shifted(
    plane: Float32[np.ndarray, "row col"],
    shift: tuple[float, float],
    size: tuple[int, int],
    outside_hu: float,
) -> Float32[np.ndarray, "row2 col2"]:
    """A slice moved by a part of a pixel into a larger image."""
    moved: Float32[np.ndarray, "row2 col2"] = ndimage.affine_transform(
        plane, np.ones(2), -np.array(shift).round(6), output_shape=size, order=1,
        mode="constant", cval=outside_hu,
    )  # fmt: skip
    return moved


def _place(stack: SliceStack, index: int) -> str:
    """Where two neighbors lie, for a person who looks at the scan."""
    first, second = stack.heights[index : index + 2]
    return f"at {first:.2f} and {second:.2f} mm along the slice normal"
