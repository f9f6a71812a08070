"""What `prepare` costs beside its own steps, and whether its memory stays flat.

Cost: the same generated scans (half NIfTI, half DICOM) are brought into a store, and read, freed
of the couch, resampled and compressed by themselves, in turns in one process. Figures are
medians over the rounds, the ratio is the median of paired ratios.

    python benchmarks/prepare.py cost --scans 4 --matrix 384 --slices 160 --rounds 5

Memory: resident memory of this process and its workers while many small scans come in.

    python benchmarks/prepare.py memory --scans 1000 --workers 2
"""

import argparse
import multiprocessing
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from fewview.data.body import remove_couch
from fewview.data.collections import find_cases
from fewview.data.images import read_volume, write_volume
from fewview.data.prepare import prepare
from fewview.data.store import StoreSettings, store_grid
from fewview.data.volume import Volume, resample

STEPS = ("reading", "couch removal", "resampling", "compression")
SETTINGS = StoreSettings(size=128, extent_mm=400.0)
_CHUNK = 128

Seconds = tuple[float, float]
"""CPU and wall time."""


def main() -> None:
    """Measure what is asked for and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "memory"))
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--matrix", type=int, default=384, help="pixels along a slice's edge")
    parser.add_argument("--slices", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.what == "cost":
            shape = (options.slices, options.matrix, options.matrix)
            write_large(folder / "scans", options.scans, shape)
            show_cost(folder, options.rounds)
        else:
            write_small(folder / "scans", options.scans)
            show_memory(folder, options.workers)


def patient(seed: int, shape: tuple[int, int, int]) -> Volume:
    """A noisy trunk with lungs and spine on a couch, 400 mm wide."""
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    y = np.linspace(-1.0, 1.0, height)[:, None]
    x = np.linspace(-1.0, 1.0, width)
    plane = np.full((height, width), -1000.0)
    plane[np.hypot(x / 0.8, y / 0.55) < 1.0] = -90.0 + seed
    plane[np.hypot(x / 0.74, y / 0.49) < 1.0] = 40.0
    for side in (-1.0, 1.0):
        plane[np.hypot((x - 0.35 * side) / 0.28, y / 0.36) < 1.0] = -850.0
    plane[np.hypot(x / 0.1, (y - 0.35) / 0.1) < 1.0] = 500.0
    plane[(np.abs(y - 0.68) < 0.02) & (np.abs(x) < 0.6)] = -200.0
    hu = np.repeat(plane[None], depth, axis=0).astype(np.float32)
    hu += rng.normal(0.0, 25.0, shape).astype(np.float32)
    matrix = np.diag([400.0 / width, 400.0 / height, 300.0 / depth, 1.0])
    return Volume(np.maximum(hu, -1024.0), matrix)


def write_large(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Scans of a usual size, every second one as DICOM."""
    for seed in range(count):
        name = f"{folder}/{seed:04d}" + ("/" if seed % 2 else ".nii.gz")
        write_volume(patient(seed, shape), name)


def write_small(folder: Path, count: int) -> None:
    """Many small scans, no two alike."""
    body = patient(0, (40, 48, 48))
    for number in range(count):
        body.hu[20, 24, 24] = float(number)
        write_volume(body, folder / f"{number:05d}.nii")


def show_cost(folder: Path, num_rounds: int) -> None:
    """Time both ways in turns."""
    paths = [case.path for case in find_cases([folder / "scans"]).cases]
    by_themselves(paths[:1])  # imports and caches
    steps: list[dict[str, Seconds]] = []
    whole: list[Seconds] = []
    for number in range(num_rounds):
        steps.append(by_themselves(paths))
        out = folder / f"store_{number}"
        with clock(whole.append):
            report = prepare([folder / "scans"], out, size=SETTINGS.size)
        assert report.num_prepared == len(paths), report.failures
        shutil.rmtree(out)
    say("| step | CPU, s a scan | wall, s a scan |\n|---|---|---|\n")
    for step in STEPS:
        say(f"| {step} | {row([one[step] for one in steps], len(paths))} |\n")
    sums = [(total(one, 0), total(one, 1)) for one in steps]
    say(f"| by themselves | {row(sums, len(paths))} |\n")
    say(f"| **prepare** | {row(whole, len(paths))} |\n")
    ratios = [
        statistics.median(all_[kind] / own[kind] for all_, own in zip(whole, sums, strict=True))
        for kind in (0, 1)
    ]
    say(f"| ratio | {ratios[0]:.3f} | {ratios[1]:.3f} |\n")


def by_themselves(paths: list[Path]) -> dict[str, Seconds]:
    """CPU and wall time of each step over all scans, without a store."""
    spent = dict.fromkeys(STEPS, (0.0, 0.0))
    for path in paths:
        for step, seconds in zip(STEPS, steps_of(path), strict=True):
            spent[step] = (spent[step][0] + seconds[0], spent[step][1] + seconds[1])
    return spent


def steps_of(path: Path) -> list[Seconds]:
    """The steps for one scan; a function, so that no scan waits in memory for the next."""
    spent: list[Seconds] = []
    with clock(spent.append):
        scan = read_volume(path)
    with clock(spent.append):
        body = remove_couch(scan)
    with clock(spent.append):
        volume = resample(body, store_grid(scan, SETTINGS))
    with clock(spent.append):
        compress(np.rint(volume.hu).astype(np.int16))
    return spent


def compress(hu: np.ndarray) -> None:
    """What the store does to voxels, in memory."""
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=hu.shape,
        dtype="int16",
        chunks=tuple(min(count, _CHUNK) for count in hu.shape),
        compressors=ZstdCodec(level=3, checksum=True),
    )
    array[:] = hu


def show_memory(folder: Path, workers: int) -> None:
    """Resident memory at tenths of the way."""
    seen: list[float] = []

    def measure(num_done: int, num_all: int, name: str) -> None:
        children = [process.pid for process in multiprocessing.active_children()]
        seen.append(sum(map(resident_mb, ["self", *children])))

    began = time.perf_counter()
    report = prepare([folder / "scans"], folder / "out", workers=workers, progress=measure)
    seconds = time.perf_counter() - began
    count = report.num_prepared
    say(f"{count} scans in {seconds:.0f} s, {workers} worker(s)\n\n")
    say("| scans done | highest resident memory of the last tenth, MB |\n|---|---|\n")
    for tenth in range(10):
        part = seen[tenth * count // 10 : (tenth + 1) * count // 10]
        say(f"| {(tenth + 1) * count // 10} | {max(part):.1f} |\n")


def resident_mb(process: str | int | None) -> float:
    """Memory of a process in MB; 0 when it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(pages) * resource.getpagesize() / 2**20


@contextmanager
def clock(hand_over: Callable[[Seconds], None]) -> Iterator[None]:
    """Hand over the CPU and wall time of the body."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    hand_over((time.process_time() - cpu, time.perf_counter() - wall))


def total(steps: dict[str, Seconds], kind: int) -> float:
    """All steps together; `kind` 0 is CPU, 1 is wall time."""
    return sum(seconds[kind] for seconds in steps.values())


def row(rounds: list[Seconds], num_scans: int) -> str:
    """Medians a scan, CPU and wall."""
    medians = [statistics.median(one[kind] for one in rounds) / num_scans for kind in (0, 1)]
    return " | ".join(f"{median:.2f}" for median in medians)


def say(text: str) -> None:
    """Write a part of the table."""
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
