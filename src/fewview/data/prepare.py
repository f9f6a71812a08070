"""Collections of CT scans into a prepared store.

Each scan is read, checked, freed of the couch, brought to isotropic voxels without aliasing
and written; the index names it only then. So a run that was stopped, however hard, goes on
where it was. A scan that cannot be used is reported with its reason and stops nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewview.data.body import remove_couch
from fewview.data.collections import FoundCase, find_cases, source_files
from fewview.data.images import read_volume
from fewview.data.splits import Assignment, assign_splits
from fewview.data.store import (
    AIR_HU,
    CaseInfo,
    StoreSettings,
    central_block,
    is_store,
    open_store,
    read_case,
    remove_unlisted,
    store_grid,
    write_case,
    write_index,
)
from fewview.data.volume import Volume, resample
from fewview.data.workers import run_tasks

Progress = Callable[[int, int, str], None]
"""Called with the number of scans done, the number of all, and the name of the last one."""


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What became of the scans that were found."""

    num_prepared: int
    """Scans read and written in this run."""

    num_kept: int
    """Scans that the store already held, from the same bytes."""

    failures: tuple[tuple[str, str], ...]
    """Scans that could not be used: name below the source, and the reason in one line."""

    outside_shares: dict[str, float]
    """Per case in the store, the share of the body's mass outside the model grid. It is
    stored and projected, but no reconstruction will show it."""

    def summary(self) -> list[str]:
        """What a user should know, in lines."""
        lines = []
        cut = {case: share for case, share in self.outside_shares.items() if share > 0.0}
        if cut:
            worst = max(cut, key=lambda case: cut[case])
            lines.append(
                f"{len(cut)} bodies reach beyond the model grid, {worst} the most "
                f"({cut[worst]:.0%} of it)"
            )
        counts = f"{self.num_prepared} prepared, {self.num_kept} kept"
        lines.append(f"{counts}, {len(self.failures)} left out")
        return lines


@dataclass(frozen=True)
class _Task:
    """All that a worker process needs for one scan."""

    case: FoundCase
    assignment: Assignment
    settings: StoreSettings
    out: Path
    known: CaseInfo | None
    """What the store already holds of it."""


@dataclass(frozen=True)
class _Outcome:
    """What a worker hands back: a case that is in the store now, or why it is not."""

    info: CaseInfo | None = None
    kept: bool = False
    reason: str = "the process died over it; was there too little memory?"


def prepare(  # noqa: PLR0913 - one for each flag of the command
    sources: Sequence[Path],
    out: Path,
    *,
    layout: str = "folder",
    size: int = 128,
    extent_mm: float = 400.0,
    workers: int = 1,
    split_file: Path | None = None,
    keep_couch: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Bring CT scans into a store, or go on where an earlier run stopped.

    Scans that the store already holds from the same bytes are kept; patients and splits are
    always those of this call.

    Args:
        sources: Folders with scans, or CT files.
        out: The store; made if it is not there.
        layout: How the sources lay out their cases; see `find_cases`.
        size: Voxels along each edge of the model grid; even.
        extent_mm: Edge length of the model grid in mm.
        workers: Processes to work in. With 1, all is done in this one.
        split_file: CSV with `case,patient,split`; see `splits`.
        keep_couch: Leave the table in.
        force: Start anew, whatever `out` holds, if it is a store.
        progress: Called after each scan.

    Raises:
        ValueError: If sources, splits or settings make no sense, or `out` holds anything
            but a store of these settings and scans.
        OSError: If the store cannot be written. What is done stays; a later call goes on.
    """
    settings = StoreSettings(size=size, extent_mm=extent_mm, keep_couch=keep_couch)
    found = find_cases(sources, layout)
    assigned = assign_splits([case.id for case in found], split_file)
    stored = _start(out, settings, assigned, force=force)
    tasks = [_Task(case, assigned[case.id], settings, out, stored.get(case.id)) for case in found]
    failures: list[tuple[str, str]] = []
    num_kept = num_prepared = 0
    for task, result in run_tasks(_bring_in, tasks, workers=workers):
        outcome = result or _Outcome()
        if outcome.info is None:
            failures.append((task.case.source, outcome.reason))
        else:
            num_kept, num_prepared = num_kept + outcome.kept, num_prepared + (not outcome.kept)
            stored[task.case.id] = outcome.info
            write_index(out, settings, list(stored.values()))
        if progress is not None:
            progress(num_kept + num_prepared + len(failures), len(tasks), task.case.id)
    failures += _drop_twins(stored)
    write_index(out, settings, list(stored.values()))
    remove_unlisted(out, list(stored.values()))
    return PrepareReport(
        num_prepared=num_prepared,
        num_kept=num_kept,
        failures=tuple(sorted(failures)),
        outside_shares={name: stored[name].outside_share for name in sorted(stored)},
    )


def _start(
    out: Path, settings: StoreSettings, assigned: dict[str, Assignment], *, force: bool
) -> dict[str, CaseInfo]:
    """Make the store, or check the one that is there; returns the cases it holds."""
    stored: dict[str, CaseInfo] = {}
    if is_store(out):
        stored = {} if force else _known_cases(out, settings, assigned)
    elif out.exists() and not out.is_dir():
        raise ValueError(f"cannot make a store at {out}: a file is there")
    elif out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise ValueError(f"{out} is neither empty nor a prepared store; choose another folder")
    # The splits of all at once: a store whose run is stopped must not mix old and new ones.
    stored = {name: replace(stored[name], **vars(assigned[name])) for name in stored}
    write_index(out, settings, list(stored.values()))
    return stored


def _known_cases(
    out: Path, settings: StoreSettings, assigned: dict[str, Assignment]
) -> dict[str, CaseInfo]:
    """The cases of an earlier run, if this run is about the same store."""
    store = open_store(out)
    if store.settings != settings:
        raise ValueError(
            f"{out} was prepared with {_in_words(store.settings)}, not with "
            f"{_in_words(settings)}; use another folder, or --force to start it anew"
        )
    others = [case.id for case in store.cases if case.id not in assigned]
    if others:
        raise ValueError(
            f"{out} holds {len(others)} cases that the sources do not have (such as {others[0]}); "
            "name all sources together, or use --force to start it anew"
        )
    return {case.id: case for case in store.cases}


def _in_words(settings: StoreSettings) -> str:
    couch = "with" if settings.keep_couch else "without"
    return f"{settings.size} voxels over {settings.extent_mm:g} mm {couch} couch"


def _bring_in(task: _Task) -> _Outcome:
    """Read one scan and write it to the store. Runs in a worker process.

    Raises:
        OSError: If the store cannot be written; then the next scan could not be, either.
    """
    try:
        checksum = _checksum(task.case.path)
        if task.known is not None and _is_current(task.out, task.known, checksum):
            return _Outcome(task.known, kept=True)
        scan = read_volume(task.case.path)
        volume, outside_share = _for_the_store(scan, task.settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a scan is reported
        return _Outcome(reason=_reason(error))
    write_case(task.out, task.case.id, volume.hu.astype(np.int16))
    return _Outcome(
        CaseInfo(
            id=task.case.id,
            patient=task.assignment.patient,
            split=task.assignment.split,
            source=task.case.source,
            checksum=checksum,
            shape=volume.shape,
            voxel_to_patient=volume.voxel_to_patient,
            outside_share=outside_share,
        )
    )


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


def _checksum(path: Path) -> str:
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


def _drop_twins(stored: dict[str, CaseInfo]) -> list[tuple[str, str]]:
    """Take copies of one scan out of training when they are in several splits."""
    strictest_first = sorted(
        stored.values(), key=lambda case: (("test", "val", "train").index(case.split), case.id)
    )
    first: dict[str, CaseInfo] = {}
    dropped = []
    for case in strictest_first:
        twin = first.setdefault(case.checksum, case)
        if twin.split != case.split:
            del stored[case.id]
            dropped.append((case.source, f"left out: the same scan is {twin.id} in {twin.split}"))
    return dropped
