"""Phantoms as files: a folder per case."""

import json
from dataclasses import dataclass
from pathlib import Path

from fewview.data.files import replacing_folder
from fewview.data.images import write_labels, write_volume
from fewview.data.phantom.build import phantom
from fewview.data.workers import run_tasks

HELD_OUT_SEEDS = range(1_000_000, 1_000_050)
"""Never used in training."""
DEMO_SEED = 2_000_000
"""The body that `fewview demo` reconstructs; not a training seed either."""
NUM_TRAINING_SEEDS = 1_000_000
"""Training draws its seeds below this number."""


@dataclass(frozen=True)
class _CaseTask:
    """One phantom to write."""

    folder: Path
    seed: int
    size: int


def write_cases(
    out: Path,
    count: int,
    size: int = 128,
    seed: int = 0,
    force: bool = False,
    workers: int = 1,
) -> None:
    """Write phantoms as `case_0000/{ct.nii.gz, labels.nii.gz, truth.json}` and so on.

    Args:
        out: The folder of all cases; it appears whole or not at all.
        count: How many; case `i` is the phantom of `seed + i`.
        size: Voxels along each edge.
        seed: Seed of the first case.
        force: Replace a folder that is not empty.
        workers: Processes that make them; the files do not depend on it.

    Raises:
        ValueError: If `count` is not positive, `out` is not empty and `force` is not set, or a
            process died.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    with replacing_folder(out, force=force) as folder:
        tasks = [
            _CaseTask(folder / f"case_{index:04d}", seed + index, size) for index in range(count)
        ]
        for task, done in run_tasks(_write_case, tasks, workers=workers):
            if done is None:
                raise ValueError(
                    f"the process that made the phantom of seed {task.seed} was killed; give fewer "
                    "workers if memory ran out"
                )


def _write_case(task: _CaseTask) -> bool:
    """Write one case; true when it is done."""
    made = phantom(task.seed, size=task.size)
    task.folder.mkdir()
    write_volume(made.volume, task.folder / "ct.nii.gz")
    write_labels(made.labels, made.volume.voxel_to_patient, task.folder / "labels.nii.gz")
    (task.folder / "truth.json").write_text(json.dumps(made.truth, indent=2) + "\n")
    return True
