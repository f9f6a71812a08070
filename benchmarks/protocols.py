"""How much the protocol alone moves a number, and what measuring costs.

Two pairs of 128^3 volumes from `fewview.data.phantom`: a truth, and a "prediction" made from it by
a Gaussian blur and a smooth error, about as wrong as a two-view reconstruction. One pair has air
around the body and six empty slices, the other is filled by the body. Prints the tables of
docs/protocols.md. Time and memory are those of a process of its own that only reads the pair.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/protocols.py
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from fewview.data.body import body_mask
from fewview.data.phantom import phantom
from fewview.data.volume import Volume, cubic_grid
from fewview.evaluation import metrics
from fewview.evaluation.protocols import HU3D_WINDOW, PROTOCOLS, RETRIEVAL, measure

SEED = 1_000_000  # a held-out body
BLUR_VOXELS, ERROR_VOXELS = 1.8, 4.0
ERROR_HU, NOISE_HU = 100.0, 15.0  # standard deviations
EMPTY_SLICES = 6
MARGINS_MM, FULL_MM = 400.0, 240.0

LEGACY = ("hu3d", "x2ct", "clsdm", "perx2ct", "liftxr", "sparc", "unit3d")
"""What the limit of 3 s and 500 MB is about: the headline and every legacy protocol once."""

Pair = tuple[Volume, Volume]


def main() -> None:
    """Print both tables, or time the protocols on one pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--measure", type=Path, help="time the protocols on this pair, for itself")
    options = parser.parse_args()
    if options.measure is not None:
        sys.stdout.write(json.dumps(measured(options.measure)))
        return
    pairs = {"empty margins": with_margins(options.size), "full": full(options.size)}
    sys.stdout.write(moved(pairs))
    sys.stdout.write(f"\n{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}\n\n")
    sys.stdout.write(cost(pairs["empty margins"]))


def with_margins(size: int) -> Pair:
    """A body with air around it; the first slices are empty in both volumes."""
    truth = phantom(SEED, size=size, extent_mm=MARGINS_MM).volume
    prediction = predicted(truth)
    prediction.hu[~body_mask(truth)] = -1000.0
    empty = EMPTY_SLICES * size // 128
    truth.hu[:empty] = prediction.hu[:empty] = -1000.0
    return prediction, truth


def full(size: int) -> Pair:
    """A cube inside the body, with noise in the truth; no slice is empty."""
    truth = phantom(SEED, size=size, extent_mm=FULL_MM).volume
    generator = np.random.default_rng(1)
    truth.hu[:] += generator.normal(0.0, NOISE_HU, truth.shape).astype(np.float32)
    return predicted(truth), truth


def predicted(truth: Volume) -> Volume:
    """The truth blurred, plus a smooth error field, within the window of a model."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=truth.shape), ERROR_VOXELS)
    hu = gaussian_filter(truth.hu, BLUR_VOXELS) + ERROR_HU * noise / noise.std()
    return Volume(np.clip(hu, *HU3D_WINDOW).astype(np.float32), truth.voxel_to_patient)


def moved(pairs: dict[str, Pair]) -> str:
    """The table of one pair's numbers by protocol."""
    scores = {name: numbers(*pair) for name, pair in pairs.items()}
    lines = [f"| protocol | {' | '.join(pairs)} |", "|---|" + "---|" * len(pairs)]
    for row in next(iter(scores.values())):
        values = [scores[name][row] for name in pairs]
        digits = 3 if any(word in row for word in ("SSIM", "Dice", "features")) else 2
        lines.append(f"| {row} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def numbers(prediction: Volume, truth: Volume) -> dict[str, float]:
    """What each protocol says of a pair, by the row's name."""
    found = {name: measure(name, prediction, truth) for name in PROTOCOLS if name != RETRIEVAL}
    lung = [np.clip(volume.hu, -1000.0, 400.0) for volume in (prediction, truth)]
    own = [
        (volume.hu - volume.hu.min()) / (volume.hu.max() - volume.hu.min())
        for volume in (prediction, truth)
    ]
    rows = {
        "`hu3d` PSNR, dB": found["hu3d"]["psnr"],
        "`hu3d` SSIM": found["hu3d"]["ssim"],
        "`hu3d` MAE, HU": found["hu3d"]["mae"],
        "`x2ct` PSNR of the volume": found["x2ct"]["psnr_3d"],
    }
    for name in ("x2ct", "clsdm", "perx2ct"):
        for plane in ("slices", "axial", "coronal", "sagittal"):
            rows[f"`{name}` PSNR, {plane}"] = found[name][f"psnr_{plane}"]
    rows |= {
        "`x2ct` SSIM, slices": found["x2ct"]["ssim_slices"],
        "`x2ct-1024` SSIM, slices": found["x2ct-1024"]["ssim_slices"],
        "`clsdm` PSNR of the volume": found["clsdm"]["psnr_3d"],
        "`clsdm` SSIM, slices": found["clsdm"]["ssim_slices"],
        "`clsdm` SSIM of the volume": found["clsdm"]["ssim_3d"],
        "`perx2ct` SSIM of the volume": found["perx2ct"]["ssim_3d"],
    }
    for name in ("liftxr", "sparc", "unit3d"):
        rows[f"`{name}` PSNR, dB"] = found[name]["psnr"]
        rows[f"`{name}` SSIM"] = found[name]["ssim"]
    return rows | {
        "PSNR over [-1000, 400] HU, dB": metrics.psnr(*lung, data_range=1400.0),
        "PSNR after each volume's own min-max, dB": metrics.psnr(*own, data_range=1.0),
        "`tfprdit_hu` MAE in lung, HU": found["tfprdit_hu"]["lung_mae"],
        "`tfprdit_hu` MAE in soft tissue, HU": found["tfprdit_hu"]["soft_mae"],
        "`tfprdit_hu` MAE in bone, HU": found["tfprdit_hu"]["bone_mae"],
        "`regions` Dice of bone": found["regions"]["bone_dice"],
        "`regions` HD95 of bone, mm": found["regions"]["bone_hd95_mm"],
        "`features` distance": found["features"]["random_features_distance"],
    }


def cost(pair: Pair) -> str:
    """The table of seconds by protocol and the peak memory of all legacy ones together."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.npz"
        np.savez(path, prediction=pair[0].hu, truth=pair[1].hu)
        words = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    lines = ["| protocol | seconds |", "|---|---|"]
    lines += [f"| `{name}` | {seconds:.2f} |" for name, seconds in found["seconds"].items()]
    lines.append(f"| **headline and legacy together** | **{found['together']:.2f}** |")
    lines += ["", f"Peak memory: {found['peak_mb']:.0f} MB, of which {found['before_mb']:.0f} MB"]
    return "\n".join(lines) + " for Python, its libraries and the pair.\n"


def measured(path: Path) -> dict[str, object]:
    """Seconds by protocol on a pair, and peak memory before and after the legacy ones, in MB."""
    with np.load(path) as file:
        values = file["prediction"], file["truth"]
    grid = cubic_grid(np.zeros(3), size=len(values[0]), extent_mm=MARGINS_MM)
    pair = [Volume(hu, grid.voxel_to_patient) for hu in values]
    before = peak_mb()
    seconds = {name: timed(name, pair) for name in LEGACY}
    together, peak = sum(seconds.values()), peak_mb()
    others = [name for name in PROTOCOLS if name not in LEGACY and name != RETRIEVAL]
    seconds |= {name: timed(name, pair) for name in others if "-1024" not in name}
    return {"seconds": seconds, "together": together, "peak_mb": peak, "before_mb": before}


def timed(name: str, pair: list[Volume]) -> float:
    """Wall time of one protocol, in seconds."""
    start = time.perf_counter()
    measure(name, *pair)
    return time.perf_counter() - start


def peak_mb() -> float:
    """The most memory this program has held, in MB of 1e6 bytes (Linux).

    `getrusage` would also count what the process held before it became this program.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
