"""One scan into the store: all that a worker does, wherever it runs.

Read, checked, freed of the couch, brought to the store's voxels without aliasing, written. A
scan that cannot be used comes back as a reason, never as an error.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewview.data.body import remove_couch
from fewview.data.collections import FoundCase, source_files
from fewview.data.images import read_labels, read_volume
from fewview.data.splits import Assignment
from fewview.data.store import (
    AIR_HU,
    CaseInfo,
    StoreSettings,
    central_block,
    read_case,
    store_grid,
    write_case,
)
from fewview.data.volume import Volume, resample
from fewview.data.x2ct import read_x2ct

MAX_LABELS = 128
"""Different values of a label map; TotalSegmentator's, the largest usual one, has 118."""


@dataclass(frozen=True)
class Task:
    """All that a worker needs for one scan."""

    case: FoundCase
    assignment: Assignment
    settings: StoreSettings
    out: Path
    known: CaseInfo | None
    """What the store already holds of it."""


@dataclass(frozen=True)
class Outcome:
    """What a worker hands back: a case that is in the store now, or why it is not."""

    info: CaseInfo | None = None
    kept: bool = False
    reason: str = "the process died over it; was there too little memory?"


def bring_in(task: Task) -> Outcome:
    """Read one scan and write it to the store, unless the store holds it already.

    Raises:
        OSError: If the store cannot be written; then the next scan could not be, either.
    """
    try:
        checksum = checksum_of(task.case.path)
        if task.known is not None and _is_current(task.out, task.known, checksum):
            return Outcome(task.known, kept=True)
        scan = _read(task.case.path, task.settings)
        volume, outside_share = _for_the_store(scan, task.settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a scan is reported
        return Outcome(reason=_reason(error))
    write_case(task.out, task.case.id, volume.hu.astype(np.int16))
    return Outcome(
        CaseInfo(
            id=task.case.id,
            patient=task.assignment.patient,
            split=task.assignment.split,
            source=task.case.source,
            checksum=checksum,
            shape=volume.shape,
            voxel_to_patient=volume.voxel_to_patient,
            outside_share=outside_share,
            collection=task.case.collection,
            license=task.case.license,
        )
    )


def _read(path: Path, settings: StoreSettings) -> Volume:
    """The scan in HU; what is a label map is called one."""
    if settings.stored_offset_hu is not None:
        return read_x2ct(path, settings.stored_offset_hu)
    try:
        return read_volume(path)
    except ValueError:
        if path.is_file() and _is_label_map(path):
            raise ValueError(f"{path}: a label map and no CT, by its few whole numbers") from None
        raise


def _is_label_map(path: Path) -> bool:
    """Whether a file holds few different whole numbers from 0 to 255."""
    try:
        labels, _ = read_labels(path)
    except (ValueError, OSError):
        return False
    return len(np.unique(labels)) <= MAX_LABELS


def _for_the_store(scan: Volume, settings: StoreSettings) -> tuple[Volume, float]:
    """The scan on the store's voxels, in whole HU, and how much of its body is out of sight."""
    grid = store_grid(scan, settings)
    body = resample(remove_couch(scan), grid)
    mass = _mass(body)
    if mass <= 0.0:
        raise ValueError("there is no body in it, only air")
    volume = resample(scan, grid) if settings.keep_couch else body
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(volume.hu), limits.min, limits.max)
    outside_share = 1.0 - _mass(central_block(body, settings.size)) / mass
    return Volume(hu, grid.voxel_to_patient), max(0.0, round(outside_share, 6))


def _mass(volume: Volume) -> float:
    """HU above air, summed: what a scan's X-ray shadow is made of."""
    return float(np.clip(volume.hu - AIR_HU, 0.0, None).sum(dtype=np.float64))


def checksum_of(path: Path) -> str:
    """SHA-256 of the bytes of a scan's files, in the order of their names."""
    digest = hashlib.sha256()
    for file in source_files(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _is_current(out: Path, known: CaseInfo, checksum: str) -> bool:
    """Whether the store holds a scan of these bytes, undamaged."""
    if known.checksum != checksum:
        return False
    try:
        read_case(out, known)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    """One line that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no reason given"
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
