"""How good the bundled model is: `python benchmarks/quality.py --out docs/quality.json [...]`.

Scores every method on held-out phantoms and, with `--data`, on the validation CT: `hu3d` on the
64^3 grid of 5 mm about the CT's center, truth without couch, voxels inside the scanned extent.
With `--store`, says how near the outputs come to single training volumes. Writes one JSON file
and prints the tables of docs/results.md.
"""

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fewview.baselines.analytic import fdk
from fewview.baselines.iterative import sirt
from fewview.baselines.mean_volume import mean_volume
from fewview.bundle import Bundle, load_bundle
from fewview.data.body import remove_couch
from fewview.data.images import read_volume, write_volume
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.store import central_block, open_store
from fewview.data.volume import Volume, cubic_grid, resample
from fewview.demo import autoencoded
from fewview.evaluation.compare import compare
from fewview.evaluation.metrics import reprojection_error
from fewview.evaluation.protocols import hu3d
from fewview.reconstruct import reconstruct
from fewview.refine import make_consistent
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr

SCORES = ("psnr", "ssim", "mae", "bone_dice", "power_spectrum_ratio", "reprojection_error")
COLUMNS = ("PSNR dB", "SSIM", "MAE HU", "bone Dice", "power ratio", "re-projection %", "seconds")
SCORED_SIZE, SCORED_EXTENT_MM = 64, 320.0


def methods(truth: Volume, views: Views, bundle: Bundle) -> dict[str, Callable[[], Volume]]:
    """Every method as a function of the views; the last two are ceilings and see the truth."""
    grid_config = bundle.config.grid
    grid = cubic_grid(
        np.array(views.isocenter_mm), size=grid_config.size, extent_mm=grid_config.extent_mm
    )

    def model(nfe: int, samples: int) -> Callable[[], Volume]:
        return lambda: (
            reconstruct(views, model=bundle, nfe=nfe, samples=samples, consistency=False).volume
        )

    def consistent(run: Callable[[], Volume], num_steps: int) -> Callable[[], Volume]:
        return lambda: make_consistent(run(), views, num_steps=num_steps)

    nfe, steps = bundle.config.sampler.nfe, bundle.config.consistency_steps
    plain = replace(bundle, config=replace(bundle.config, head="estimate"))
    return {
        "mean volume": lambda: mean_volume(grid, views.isocenter_mm),
        "FDK": lambda: fdk(views, grid),
        "SIRT": lambda: sirt(views, grid),
        "CT estimate": lambda: (
            reconstruct(views, model=plain, nfe=0, samples=1, consistency=False).volume
        ),
        "head": model(0, 1),
        "one sample": model(nfe, 1),
        "mean of eight": model(nfe, 8),
        "head, consistent": consistent(model(0, 1), steps),
        "head, 10 consistency steps": consistent(model(0, 1), 10),
        "one sample, 10 consistency steps": consistent(model(nfe, 1), 10),
        "autoencoder ceiling": lambda: autoencoded(truth, grid, bundle),
        "truth on the model grid": lambda: resample(truth, grid),
    }


def score_case(
    name: str,
    truth: Volume,
    bundle: Bundle,
    out: Path | None,
    num_views: int,
    chosen: tuple[str, ...] = (),
) -> list[dict[str, float | str]]:
    """All methods on one CT, or the chosen ones."""
    views = drr(truth, [preset("chest", angle_deg=angle) for angle in spread_angles(num_views)])
    scored = cubic_grid(truth.center_mm, size=SCORED_SIZE, extent_mm=SCORED_EXTENT_MM)
    whole_truth = resample(truth, scored).hu
    rows: list[dict[str, float | str]] = []
    for method, run in methods(truth, views, bundle).items():
        if chosen and method not in chosen:
            continue
        started = time.monotonic()
        volume = run()
        seconds = time.monotonic() - started
        on_scored = resample(volume, scored)
        scores = compare(on_scored, truth, keep_couch=True)
        scores["whole_grid_psnr"] = hu3d(on_scored.hu, whole_truth)["psnr"]
        scores["reprojection_error"] = reprojection_error(volume, views)
        rows.append({"case": name, "method": method, "seconds": seconds, **scores})
        if out is not None:
            write_volume(
                volume, out / f"{name}_{method.replace(', ', ' ').replace(' ', '_')}.nii.gz"
            )
    return rows


def nearest_training(volume: Volume, store: Path, bundle: Bundle) -> dict[str, float | str]:
    """PSNR between an output and the training volume most like it, both on the model grid."""
    opened, grid = open_store(store), bundle.config.grid
    best: dict[str, float | str] = {"psnr": -1.0, "training_case": ""}
    for case in opened.of_split("train"):
        block = central_block(opened.read(case.id), opened.size)
        target = cubic_grid(block.center_mm, size=grid.size, extent_mm=grid.extent_mm)
        psnr = hu3d(volume.hu, resample(block, target).hu)["psnr"]
        if psnr > float(best["psnr"]):
            best = {"psnr": psnr, "training_case": case.id}
    return best


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over cases."""
    generator = np.random.default_rng(0)
    draws = generator.choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def table(rows: list[dict[str, float | str]]) -> str:
    """Mean over cases per method, as Markdown; the interval of PSNR where there are several."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        mine = [row for row in rows if row["method"] == method]
        mean = {key: np.array([float(row[key]) for row in mine]) for key in (*SCORES, "seconds")}
        psnr = f"{mean['psnr'].mean():.2f}"
        if len(mine) > 1:
            psnr += " ({:.2f} to {:.2f})".format(*interval(mean["psnr"]))
        lines.append(
            f"| {method} | {psnr} | {mean['ssim'].mean():.3f} | {mean['mae'].mean():.1f} | "
            f"{mean['bone_dice'].mean():.3f} | {mean['power_spectrum_ratio'].mean():.3f} | "
            f"{100 * mean['reprojection_error'].mean():.2f} | {mean['seconds'].mean():.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Score, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="fewview-64")
    parser.add_argument("--phantoms", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="first of the held-out phantoms")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--method", action="append", default=[], help="only this; repeatable")
    parser.add_argument("--data", type=Path, help="folder of the development data")
    parser.add_argument("--store", type=Path, help="the store the model was trained on")
    parser.add_argument("--volumes", type=Path, help="also write the volumes of real CT here")
    options = parser.parse_args()
    bundle = load_bundle(options.model)
    found: dict[str, object] = {
        "command": "python benchmarks/quality.py",
        "model": bundle.config.name,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, CPU only",
    }
    if options.data is not None:
        truth = remove_couch(read_volume(options.data / "ct" / "covidctmd_P001.nii.gz"))
        if options.volumes is not None:
            options.volumes.mkdir(parents=True, exist_ok=True)
        real = score_case(
            "covidctmd_P001", truth, bundle, options.volumes, options.views, tuple(options.method)
        )
        found["real"] = real
        show("Validation CT `covidctmd_P001` (one case, so no interval)", real)
    rows: list[dict[str, float | str]] = []
    chosen = tuple(options.method)
    for seed in HELD_OUT_SEEDS[options.first : options.first + options.phantoms]:
        truth = phantom(seed).volume
        rows += score_case(f"phantom {seed}", truth, bundle, None, options.views, chosen)
    if rows:
        found["phantoms"] = rows
        show(f"{options.phantoms} held-out phantoms (mean; 95 % bootstrap interval)", rows)
    if options.store is not None:
        found["nearest_training"] = memory(options.store, bundle, options.data)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def show(title: str, rows: list[dict[str, float | str]]) -> None:
    """Print one table."""
    print(f"\n### {title}\n\n{table(rows)}\n", flush=True)  # noqa: T201


def memory(store: Path, bundle: Bundle, data: Path | None) -> list[dict[str, float | str]]:
    """The nearest training volume of outputs on the validation CT and on four phantoms."""
    truths = {f"phantom {seed}": phantom(seed).volume for seed in HELD_OUT_SEEDS[:4]}
    if data is not None:
        truths["covidctmd_P001"] = remove_couch(read_volume(data / "ct" / "covidctmd_P001.nii.gz"))
    rows: list[dict[str, float | str]] = []
    nfe = bundle.config.sampler.nfe
    for name, truth in truths.items():
        views = drr(truth, [preset("chest", angle_deg=angle) for angle in (0.0, 90.0)])
        output = reconstruct(views, model=bundle, nfe=nfe, samples=1).volume
        near = nearest_training(output, store, bundle)
        own = hu3d(output.hu, resample(truth, output.grid).hu)["psnr"]
        rows.append({"case": name, "truth_psnr": own, **near})
        print(  # noqa: T201
            f"{name}: one sample is {own:.2f} dB from its truth and {near['psnr']:.2f} dB from "
            f"the nearest training volume, {near['training_case']}"
        )
    return rows


if __name__ == "__main__":
    main()
