"""Draws `docs/conventions.svg` from the program's own geometry.

python docs/draw_conventions.py [FILE]
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Rectangle

from fewview.xray.geometry import ViewGeometry, cameras

NUM_PIXELS = 8
PATIENT = "0.8"
COLORS = ("tab:blue", "tab:orange")


def main() -> None:
    """Draw the three panels."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("conventions.svg")
    mpl.rcParams.update({"svg.hashsalt": "fewview", "svg.fonttype": "path", "font.size": 9})
    figure, (above, beside, detector) = plt.subplots(1, 3, figsize=(13.5, 4.8))
    draw_plane(above, (0, 1), ((0.0, 0.0), (90.0, 0.0)))
    above.set_title("seen from the feet: primary angle")
    label_axes(above, "x: patient's left", "← y: posterior")
    above.invert_yaxis()
    draw_plane(beside, (1, 2), ((0.0, 0.0), (0.0, 25.0)))
    beside.set_title("seen from the left side: secondary angle")
    label_axes(beside, "y: posterior", "z: superior")
    draw_detector(detector)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_plane(axes: Axes, plane: tuple[int, int], angles: tuple[tuple[float, float], ...]) -> None:
    """Source, detector and u or v of two views in two of the patient axes."""
    axes.add_patch(Ellipse((0, 0), 330, 230 if plane == (0, 1) else 480, color=PATIENT))
    if plane == (1, 2):
        axes.patches[-1].set_width(230)
    axes.plot(0, 0, "k+")
    axes.annotate("isocenter", (0, 0), (8, 10), textcoords="offset points")
    for (primary, secondary), color in zip(angles, COLORS, strict=True):
        one = cameras([geometry(primary, secondary)], (0.0, 0.0, 0.0))
        source = one.source[0].numpy()[list(plane)]
        across = one.step_u[0] if plane == (0, 1) else one.step_v[0]
        step = across.numpy()[list(plane)]
        other = (one.step_v[0] if plane == (0, 1) else one.step_u[0]).numpy()[list(plane)]
        first = one.origin[0].numpy()[list(plane)] + 0.5 * (NUM_PIXELS - 1) * other
        ends = np.stack((first - 0.5 * step, first + (NUM_PIXELS - 0.5) * step))
        middle = ends.mean(0)
        axes.plot(*source, "o", color=color)
        axes.plot(*ends.T, color=color, linewidth=3)
        for end in (*ends, middle):
            axes.plot(*np.stack((source, end)).T, color=color, linewidth=0.6)
        away = (middle - source) / np.linalg.norm(middle - source)
        start = ends[0] + 25 * away
        axes.annotate("", start + 4 * step, start, arrowprops={"arrowstyle": "->", "color": color})
        name = "u" if plane == (0, 1) else "v"
        axes.text(*(start + 4 * step + 22 * away), name, color=color, ha="center", va="center")
        angle = f"{primary:g}°" if plane == (0, 1) else f"{secondary:g}°"
        axes.annotate(
            f"source, {angle}", source, (0, 8), textcoords="offset points", color=color, ha="center"
        )
    axes.set_aspect("equal")
    axes.margins(0.2)


def geometry(primary: float, secondary: float) -> ViewGeometry:
    """A view whose proportions fit a drawing."""
    return ViewGeometry(
        beam="cone",
        primary_angle_deg=primary,
        secondary_angle_deg=secondary,
        sdd_mm=700.0,
        sod_mm=420.0,
        num_rows=NUM_PIXELS,
        num_cols=NUM_PIXELS,
        pixel_pitch_mm=(55.0, 55.0),
    )


def draw_detector(axes: Axes) -> None:
    """Pixels, v and u, the center and the foot of the source's perpendicular."""
    rows, cols, offset = 6, 8, (1.0, 1.8)
    for row in range(rows):
        for col in range(cols):
            axes.add_patch(Rectangle((col, row), 1, 1, fill=False, edgecolor="0.75"))
    axes.add_patch(Rectangle((0, 0), cols, rows, fill=False))
    for (row, col), text in {(0, 0): "0, 0", (0, 1): "0, 1", (1, 0): "1, 0"}.items():
        axes.text(col + 0.5, row + 0.5, text, ha="center", va="center")
    axes.annotate("", (3, -0.35), (0, -0.35), arrowprops={"arrowstyle": "->"})
    axes.text(3.2, -0.35, "u, column", va="center")
    axes.annotate("", (-0.35, 3), (-0.35, 0), arrowprops={"arrowstyle": "->"})
    axes.text(-0.35, 3.2, "v, row", ha="center", va="top", rotation=90)
    center = (cols / 2, rows / 2)
    foot = (center[0] + offset[1], center[1] + offset[0])
    axes.plot(*center, "k+")
    axes.plot(*foot, "o", color=COLORS[0])
    axes.annotate("", foot, center, arrowprops={"arrowstyle": "->", "color": COLORS[0]})
    axes.text(center[0], center[1] - 0.3, "center", ha="center")
    axes.text(foot[0], foot[1] + 0.3, "foot of the source's\nperpendicular", ha="center", va="top")
    axes.text(center[0] - 0.1, center[1] + 0.75, "detector_offset_mm", color=COLORS[0], ha="right")
    axes.text(center[0], rows + 0.35, "feet", ha="center", va="top")
    axes.text(cols / 2 + 2.2, -0.35, "head", ha="center", va="center")
    right = "at 0°: patient's left\nat +90°: posterior"
    axes.text(cols + 0.25, rows / 2, right, rotation=270, va="center")
    axes.set_xlim(-1, cols + 1.4)
    axes.set_ylim(rows + 1, -1)
    axes.set_aspect("equal")
    axes.set_title("the image, seen from the detector toward the source")
    axes.axis("off")


def label_axes(axes: Axes, horizontal: str, vertical: str) -> None:
    """Name the patient axes, without ticks."""
    axes.set_xlabel(f"{horizontal} →")
    axes.set_ylabel(vertical if "←" in vertical else f"{vertical} →")
    axes.set_xticks([])
    axes.set_yticks([])


if __name__ == "__main__":
    main()
