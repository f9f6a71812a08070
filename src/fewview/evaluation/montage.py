"""A picture of a reconstruction: three planes of the truth, the reconstruction, their difference.

Radiological display: axial slices are seen from the feet and coronal ones from the front,
so the patient's right is on the picture's left; sagittal slices are seen from the left, so
anterior is on the left. Every plane is drawn in mm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fewview.data.files import replacing_file
from fewview.data.volume import Volume

HU_WINDOW = (-1000.0, 600.0)
"""Shown from black to white, in HU: lung, soft tissue and most of the bone at once."""

DIFFERENCE_HU = 500.0
"""Differences from minus to plus this run from blue over white to red."""

CELL_INCHES = 2.7
"""Width of a column."""

Plane = Literal["axial", "coronal", "sagittal"]


class PlaneView(NamedTuple):
    """How one plane of a `[depth, height, width]` array becomes a picture."""

    axis: int
    """The array axis a slice is taken along."""

    flip_rows: bool
    """Superior is the last index along depth and has to come first."""

    edges: tuple[str, str, str, str]
    """Letters at the left, right, top and bottom edges."""


PLANES: dict[Plane, PlaneView] = {
    "axial": PlaneView(0, False, ("R", "L", "A", "P")),
    "coronal": PlaneView(1, True, ("R", "L", "S", "I")),
    "sagittal": PlaneView(2, True, ("A", "P", "S", "I")),
}


def plane_image(
    hu: Float[np.ndarray, "depth height width"], plane: Plane, index: int | None = None
) -> Float[np.ndarray, "row col"]:
    """One slice as it is displayed, row 0 on top.

    Args:
        hu: The volume, axes toward superior, posterior, left.
        plane: Which plane.
        index: Slice along the plane's axis; the middle one by default.
    """
    view = PLANES[plane]
    middle = hu.shape[view.axis] // 2
    image = np.take(hu, middle if index is None else index, axis=view.axis)
    return image[::-1] if view.flip_rows else image


class _Column(NamedTuple):
    """One column of the montage."""

    title: str
    hu: Float[np.ndarray, "depth height width"]
    is_difference: bool


def _columns(volumes: Mapping[str, Volume], truth: str) -> list[_Column]:
    """Every volume, and after each but the truth its difference from the truth."""
    columns = []
    for name, volume in volumes.items():
        columns.append(_Column(name, volume.hu, False))
        if truth in volumes and name != truth:
            columns.append(
                _Column(f"{name} \N{MINUS SIGN} {truth}", volume.hu - volumes[truth].hu, True)
            )
    return columns


def _label_edges(axes: Axes, edges: tuple[str, str, str, str]) -> None:
    """Write which side of the patient each edge of a slice is."""
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    aligned = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    box = {"facecolor": "#000000a0", "edgecolor": "none", "pad": 1.0}
    style: dict[str, Any] = {
        "transform": axes.transAxes,
        "fontsize": 9,
        "color": "#ffd54a",
        "bbox": box,
    }
    for letter, (x, y), (horizontal, vertical) in zip(edges, places, aligned, strict=True):
        axes.text(x, y, letter, ha=horizontal, va=vertical, **style)


def _draw_slice(
    axes: Axes, column: _Column, plane: Plane, spacing_mm: tuple[float, float, float]
) -> AxesImage:
    """Draw one slice in mm."""
    view = PLANES[plane]
    image = plane_image(column.hu, plane)
    pitch_v, pitch_u = (s for axis, s in enumerate(spacing_mm) if axis != view.axis)
    low, high = (-DIFFERENCE_HU, DIFFERENCE_HU) if column.is_difference else HU_WINDOW
    axes.set_xticks([])
    axes.set_yticks([])
    _label_edges(axes, view.edges)
    return axes.imshow(
        image,
        cmap="RdBu_r" if column.is_difference else "gray",
        vmin=low,
        vmax=high,
        extent=(0.0, image.shape[1] * pitch_u, image.shape[0] * pitch_v, 0.0),
        interpolation="nearest",
    )


def _figure(columns: list[_Column], volume: Volume) -> Figure:
    """The whole picture, laid out in inches so that every plane has the same scale."""
    depth_mm, height_mm, width_mm = (
        count * spacing for count, spacing in zip(volume.shape, volume.spacing_mm, strict=True)
    )
    scale = CELL_INCHES / max(height_mm, width_mm)
    heights = [scale * mm for mm in (height_mm, depth_mm, depth_mm)]
    left, top, gap, bottom = 0.3, 0.35, 0.08, 0.7
    width = left + len(columns) * (CELL_INCHES + gap)
    height = top + sum(heights) + 2 * gap + bottom
    figure = Figure(figsize=(width, height))

    def place(x: float, y_from_top: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, 1.0 - (y_from_top + h) / height, w / width, h / height))

    for number, column in enumerate(columns):
        x, y = left + number * (CELL_INCHES + gap), top
        for plane, row_height in zip(PLANES, heights, strict=True):
            axes = place(x, y, CELL_INCHES, row_height)
            drawn = _draw_slice(axes, column, plane, volume.spacing_mm)
            if y == top:
                axes.set_title(column.title, fontsize=11)
            if number == 0:
                axes.set_ylabel(plane)
            y += row_height + gap
        bar = place(x + 0.15, height - bottom + 0.05, CELL_INCHES - 0.3, 0.1)
        label = "difference in HU" if column.is_difference else "HU"
        figure.colorbar(drawn, cax=bar, orientation="horizontal", label=label)
    return figure


def write_montage(path: str | Path, volumes: Mapping[str, Volume], *, truth: str = "truth") -> None:
    """Write a PNG of middle slices: a row per plane, a column per volume and difference.

    Args:
        path: The picture, ending in `.png`.
        volumes: Volumes on one grid by the name to show, in the order to show.
        truth: The name of the true one among them; every other volume is followed by its
            difference from it. If it is not there, no difference is shown.

    Raises:
        ValueError: If there is no volume, the shapes differ, or the suffix is not `.png`.
    """
    shapes = {volume.shape for volume in volumes.values()}
    if len(shapes) != 1:
        raise ValueError(f"a montage needs volumes of one shape, got {sorted(shapes)}")
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"a montage is a .png file, got {path}")
    figure = _figure(_columns(volumes, truth), next(iter(volumes.values())))
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="white", format="png")
