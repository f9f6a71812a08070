"""The CTs to pre-train on, as files: real ones on the model grid, and what X-rays of them give.

Both arms read files of one form, of the same patients, so that they differ in nothing but how
good the CT is.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fewview.bundle import load_model
from fewview.data.collections import find_cases
from fewview.data.images import write_volume
from fewview.data.labelled import LabelledCase, read_ct
from fewview.data.one_scan import checksum_of
from fewview.data.store import is_store, open_store
from fewview.data.volume import Volume
from fewview.experiment.segmentation_config import ReconstructionConfig
from fewview.inputs import GridConfig
from fewview.reconstruct import reconstruct
from fewview.training.loop import Report
from fewview.transfer.setting import on_model_grid
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import drr


class UnlabelledCt(NamedTuple):
    """A CT to pre-train on that waits to be read."""

    id: str
    patient: str
    read: Callable[[], Volume]
    checksum: Callable[[], str]
    """SHA-256 of the bytes of the scan's files."""


def unlabelled_cts(
    place: Path | None, own: Sequence[LabelledCase], *, count: int
) -> tuple[UnlabelledCt, ...]:
    """The first `count` CTs to pre-train on, by name.

    Args:
        place: A store (its train split is used), or a folder of CT files; None takes `own`.
        own: Cases of the labelled set that nothing else uses.
        count: How many.

    Raises:
        ValueError: If there are too few.
    """
    if place is None:
        found = [_of_file(case.id, case.patient, case.ct) for case in own]
    elif is_store(place):
        store = open_store(place)
        found = [
            UnlabelledCt(
                one.id, one.patient, partial(store.read, one.id), partial(str, one.checksum)
            )
            for one in store.of_split("train")
        ]
    else:
        found = [_of_file(case.id, case.patient, case.path) for case in find_cases([place]).cases]
    if len(found) < count:
        raise ValueError(f"num_unlabelled is {count}, but there are {len(found)} CTs")
    return tuple(sorted(found, key=lambda one: one.id)[:count])


def _of_file(name: str, patient: str, path: Path) -> UnlabelledCt:
    return UnlabelledCt(name, patient, partial(read_ct, path), partial(checksum_of, path))


def roles_of(
    labelled: Mapping[str, Sequence[LabelledCase]], unlabelled: Sequence[UnlabelledCt]
) -> dict[str, dict[str, str]]:
    """Who has which role, and the checksum of every scan.

    Names are not enough to keep roles apart, for folders are named in many ways: a scan in two
    roles is known by its bytes.

    Args:
        labelled: The cases that are held out and those to learn from, by role.
        unlabelled: The CTs to pre-train on.

    Raises:
        ValueError: If a patient or a scan has two roles.
    """
    scans = [
        (role, case.id, case.patient, checksum_of(case.ct))
        for role, cases in labelled.items()
        for case in cases
    ]
    scans += [("unlabelled", one.id, one.patient, one.checksum()) for one in unlabelled]
    roles: dict[str, dict[str, str]] = {}
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for role, name, patient, checksum in scans:
        roles.setdefault(role, {})[name] = checksum
        for what in (("patient", patient), ("scan", checksum)):
            other_role, other = first.setdefault(what, (role, name))
            if other_role != role:
                raise ValueError(
                    f"one {what[0]} has two roles: {other} is {other_role}, {name} is {role}"
                )
    return roles


def write_real(
    cts: Sequence[UnlabelledCt], folder: Path, grid: GridConfig, *, report: Report
) -> list[Path]:
    """Write the CTs on the model grid, those that are not there yet; returns the files."""

    def made(ct: UnlabelledCt) -> Volume:
        return on_model_grid(ct.read(), grid)

    return _write_missing(cts, folder, made, "real CTs", report)


def write_reconstructed(
    cts: Sequence[UnlabelledCt],
    folder: Path,
    config: ReconstructionConfig,
    *,
    device: str,
    report: Report,
) -> list[Path]:
    """Write what X-rays of the CTs are turned into, those not there yet; returns the files."""
    model = load_model(config.model, device=device)
    angles = spread_angles(config.num_views)
    views = [preset(config.geometry, angle_deg=a, size=config.num_pixels) for a in angles]

    def made(ct: UnlabelledCt) -> Volume:
        xrays = drr(ct.read(), views)
        return reconstruct(xrays, model=model, nfe=config.nfe, device=device).volume

    return _write_missing(cts, folder, made, "reconstructed CTs", report)


def _write_missing(
    cts: Sequence[UnlabelledCt],
    folder: Path,
    made: Callable[[UnlabelledCt], Volume],
    what: str,
    report: Report,
) -> list[Path]:
    """Write the volumes that are not there yet; a file appears whole, so those are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{ct.id}.nii.gz" for ct in cts]
    for index, (ct, path) in enumerate(zip(cts, paths, strict=True), start=1):
        if not path.is_file():
            write_volume(made(ct), path)
            report(what, index, len(paths), ct.id)
    return paths
