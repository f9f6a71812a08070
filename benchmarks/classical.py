"""Settings of the classical baselines: `python benchmarks/classical.py [--phantoms 4] [--views 2]`.

Sweeps each setting over training phantoms (seeds 0 and up, never held-out ones) and prints PSNR by
`hu3d` on the 64^3 grid of 6.25 mm. The defaults of `fewview.baselines` are the best of these.
"""

import argparse
import time

import numpy as np

from fewview.baselines.iterative import cgls, sirt
from fewview.baselines.variation import total_variation
from fewview.data.phantom import phantom
from fewview.data.volume import cubic_grid, resample
from fewview.evaluation.protocols import hu3d
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import drr

SWEEPS = {
    "SIRT, steps": (lambda views, grid, n: sirt(views, grid, num_steps=n), (10, 40, 100)),
    "CGLS, steps": (lambda views, grid, n: cgls(views, grid, num_steps=n), (3, 5, 10, 20)),
    "TV, weight (1/mm)": (
        lambda views, grid, weight: total_variation(views, grid, weight=weight),
        (5e-5, 2e-4, 8e-4, 3e-3),
    ),
}


def main() -> None:
    """Sweep and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=4)
    parser.add_argument("--views", type=int, default=2)
    options = parser.parse_args()
    cases = []
    for seed in range(options.phantoms):
        truth = phantom(seed, size=128, extent_mm=400.0).volume
        angles = spread_angles(options.views)
        views = drr(truth, [preset("chest", angle_deg=angle, size=128) for angle in angles])
        grid = cubic_grid(np.array(views.isocenter_mm), size=64, extent_mm=400.0)
        cases.append((views, grid, resample(truth, grid).hu))
    print("| setting | value | PSNR dB | seconds |\n|---|---|---|---|")  # noqa: T201
    for name, (run, values) in SWEEPS.items():
        for value in values:
            started = time.monotonic()
            scores = [
                hu3d(run(views, grid, value).hu, truth)["psnr"] for views, grid, truth in cases
            ]
            seconds = (time.monotonic() - started) / len(cases)
            print(f"| {name} | {value:g} | {np.mean(scores):.2f} | {seconds:.1f} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
