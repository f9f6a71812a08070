"""Collections of CT scans into a prepared store.

Each scan is read, checked, freed of the couch, brought to isotropic voxels without aliasing
and written; the index names it only then. So a run that was stopped, however hard, goes on
where it was. A scan that cannot be used is reported with its reason and stops nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fewview.data.cluster import run_on_cluster
from fewview.data.collections import FoundCase, find_cases
from fewview.data.licenses import one_line
from fewview.data.one_scan import Outcome, Task, bring_in
from fewview.data.splits import DEFAULT_RULE, SPLITS, Assignment, SplitRule, assign_splits
from fewview.data.splits import split_hash as hash_of
from fewview.data.store import (
    CaseInfo,
    StoreSettings,
    is_store,
    open_store,
    remove_unlisted,
    write_index,
)
from fewview.data.workers import run_tasks
from fewview.data.x2ct import EXTENT_MM, require_h5py

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

    left_out: tuple[tuple[str, str], ...]
    """What is no scan by its name or header: where it lies below the source, and what it is."""

    num_patients: dict[str, int]
    """Patients in the store, by split."""

    split_hash: str
    """What names this split; see `splits`."""

    reading: str
    """What was assumed about files that do not say it themselves; empty if nothing was."""

    outside_shares: dict[str, float]
    """Per case in the store, the share of the body's mass outside the model grid. It is
    stored and projected, but no reconstruction will show it."""

    def summary(self) -> list[str]:
        """What a user should know, in lines."""
        lines = [self.reading] if self.reading else []
        places: dict[str, list[str]] = defaultdict(list)
        for place, kind in self.left_out:
            places[kind].append(place)
        lines += [
            f"{len(where)} left out, such as {where[0]}: {kind}" for kind, where in places.items()
        ]
        cut = {case: share for case, share in self.outside_shares.items() if share > 0.0}
        if cut:
            worst = max(cut, key=lambda case: cut[case])
            lines.append(
                f"{len(cut)} bodies reach beyond the model grid, {worst} the most "
                f"({cut[worst]:.0%} of it)"
            )
        patients = ", ".join(f"{self.num_patients[split]} {split}" for split in SPLITS)
        lines.append(
            f"{len(self.outside_shares)} scans of {sum(self.num_patients.values())} patients "
            f"({patients}; split {self.split_hash[:12]})"
        )
        counts = f"{self.num_prepared} prepared, {self.num_kept} kept"
        lines.append(f"{counts}, {len(self.failures)} left out")
        return lines


def prepare(  # noqa: PLR0913 - one for each flag of the command
    sources: Sequence[Path],
    out: Path,
    *,
    layout: str = "folder",
    stored_offset_hu: int | None = None,
    size: int = 128,
    extent_mm: float = 400.0,
    workers: int = 1,
    dask: str | None = None,
    split_file: Path | None = None,
    patients_file: Path | None = None,
    split_rule: SplitRule = DEFAULT_RULE,
    keep_couch: bool = False,
    license: str = "",
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
        stored_offset_hu: What values of the `x2ct` layout are above HU, 1000 or 1024; see
            `x2ct`. Without meaning for others.
        size: Voxels along each edge of the model grid; even.
        extent_mm: Edge length of the model grid in mm.
        workers: Processes to work in. With 1, all is done in this one.
        dask: Address of a Dask scheduler whose workers are used instead; see `cluster`.
        split_file: CSV with `case,patient,split`; see `splits`.
        patients_file: CSV with `case,patient`, where the layout does not tell the patients.
        split_rule: How patients are split where no file says it.
        keep_couch: Leave the table in.
        license: Of the scans whose files do not say theirs; see `licenses`.
        force: Start anew, whatever `out` holds, if it is a store.
        progress: Called after each scan.

    Raises:
        ValueError: If sources, splits or settings make no sense, `out` holds anything but a
            store of these settings and scans, or a library that is needed is not installed.
        OSError: If the store cannot be written, or the Dask cluster goes away. What is done
            stays; a later call goes on.
    """
    settings = StoreSettings(
        size=size,
        extent_mm=extent_mm,
        keep_couch=keep_couch,
        layout=layout,
        stored_offset_hu=stored_offset_hu,
    )
    if layout == "x2ct":
        require_h5py()
    found = find_cases(sources, layout)
    assigned = assign_splits(
        {case.id: case.patient for case in found.cases},
        split_file,
        patients_file=patients_file,
        rule=split_rule,
    )
    cases = [replace(case, license=case.license or one_line(license)) for case in found.cases]
    stored = _start(out, settings, cases, assigned, force=force)
    tasks = [
        Task(case, assigned[case.id], settings, out.absolute(), stored.get(case.id))
        for case in cases
    ]
    if dask is None:
        results = run_tasks(bring_in, tasks, workers=workers)
    else:
        results = run_on_cluster(bring_in, tasks, address=dask)
    failures: list[tuple[str, str]] = []
    num_kept = num_prepared = 0
    for task, result in results:
        outcome = result or Outcome()
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
    pairs = {(case.patient, case.split) for case in stored.values()}
    counts = Counter(split for _, split in pairs)
    return PrepareReport(
        num_prepared=num_prepared,
        num_kept=num_kept,
        failures=tuple(sorted(failures)),
        left_out=found.left_out,
        num_patients={split: counts[split] for split in SPLITS},
        split_hash=hash_of(pairs),
        reading=_reading(settings),
        outside_shares={name: stored[name].outside_share for name in sorted(stored)},
    )


def _start(
    out: Path,
    settings: StoreSettings,
    found: Sequence[FoundCase],
    assigned: dict[str, Assignment],
    *,
    force: bool,
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
    by_name = {case.id: case for case in found}
    stored = {
        name: replace(
            case,
            **vars(assigned[name]),
            collection=by_name[name].collection,
            license=by_name[name].license or case.license,
        )
        for name, case in stored.items()
    }
    write_index(out, settings, list(stored.values()))
    return stored


def _known_cases(
    out: Path, settings: StoreSettings, assigned: dict[str, Assignment]
) -> dict[str, CaseInfo]:
    """The cases of an earlier run, if this run is about the same store."""
    store = open_store(out, check_splits=False)  # they are set anew
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
    text = f"{settings.size} voxels over {settings.extent_mm:g} mm {couch} couch"
    if settings.layout != "folder":
        text += f" from the layout {settings.layout}"
    if settings.stored_offset_hu is not None:
        text += f" with an offset of {settings.stored_offset_hu} HU"
    return text


def _reading(settings: StoreSettings) -> str:
    """What was assumed about files that do not say it themselves."""
    if settings.stored_offset_hu is None:
        return ""
    return (
        f"stored values were taken as HU + {settings.stored_offset_hu}, in cubes of "
        f"{EXTENT_MM:g} mm whose axes run toward superior, posterior, left"
    )


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
