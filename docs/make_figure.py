"""Draw the README's figure: X-rays in, slices out, true slices beside. Phantom only.

Run from the repository root: `python docs/make_figure.py`, or `make figure`.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fewview.data.files import replacing_file
from fewview.data.phantom import DEMO_SEED, phantom
from fewview.data.volume import Volume, resample
from fewview.evaluation.montage import HU_WINDOW, PLANES, plane_image
from fewview.reconstruct import reconstruct
from fewview.xray.geometry import preset
from fewview.xray.views import Views, drr

OUT = Path(__file__).parent / "figure.png"
ANGLES_DEG = (0.0, 90.0)


def draw(views: Views, volume: Volume, truth: Volume) -> Figure:
    """Two X-rays on the left, then a column of slices per plane: prediction above truth."""
    figure = Figure(figsize=(11.0, 5.6), layout="constrained")
    grid = figure.subplots(2, 4, width_ratios=[1, 1, 1, 1])
    for row, angle in enumerate(ANGLES_DEG):
        grid[row, 0].imshow(views.images[row, 0].numpy(), cmap="gray")
        grid[row, 0].set_title(f"X-ray at {angle:g}°", fontsize=11)
    for row, (name, shown) in enumerate({"reconstructed": volume, "true": truth}.items()):
        for column, plane in enumerate(PLANES, start=1):
            image = np.asarray(plane_image(shown.hu, plane))
            low, high = HU_WINDOW
            grid[row, column].imshow(
                image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear"
            )
            grid[row, column].set_title(f"{plane}, {name}", fontsize=11)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure


def main() -> None:
    """Reconstruct the demo's phantom from two of its X-rays and draw it."""
    scan = phantom(DEMO_SEED).volume
    views = drr(scan, [preset("chest", angle_deg=angle) for angle in ANGLES_DEG])
    volume = reconstruct(views).volume
    figure = draw(views, volume, resample(scan, volume.grid))
    with replacing_file(OUT) as temporary:
        figure.savefig(temporary, dpi=90, facecolor="white", format="png")


if __name__ == "__main__":
    main()
