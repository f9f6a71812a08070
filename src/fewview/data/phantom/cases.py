"""Phantoms as files: a folder per case."""

import json
from pathlib import Path

from fewview.data.files import replacing_folder
from fewview.data.images import write_labels, write_volume
from fewview.data.phantom.build import phantom

HELD_OUT_SEEDS = range(1_000_000, 1_000_050)
"""Never used in training."""
DEMO_SEED = 2_000_000
"""The body that `fewview demo` reconstructs; not a training seed either."""
NUM_TRAINING_SEEDS = 1_000_000
"""Training draws its seeds below this number."""


def write_cases(out: Path, count: int, size: int = 128, seed: int = 0, force: bool = False) -> None:
    """Write phantoms as `case_0000/{ct.nii.gz, labels.nii.gz, truth.json}` and so on.

    Args:
        out: The folder of all cases; it appears whole or not at all.
        count: How many; case `i` is the phantom of `seed + i`.
        size: Voxels along each edge.
        seed: Seed of the first case.
        force: Replace a folder that is not empty.

    Raises:
        ValueError: If `count` is not positive, or `out` is not empty and `force` is not set.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    with replacing_folder(out, force=force) as folder:
        for index in range(count):
            made = phantom(seed + index, size=size)
            case = folder / f"case_{index:04d}"
            case.mkdir()
            write_volume(made.volume, case / "ct.nii.gz")
            write_labels(made.labels, made.volume.voxel_to_patient, case / "labels.nii.gz")
            (case / "truth.json").write_text(json.dumps(made.truth, indent=2) + "\n")
