"""The CTs to pre-train on, as files: real ones on the model grid, and what X-rays of them give.

Both arms read files of one form, of the same patients, so that they differ in nothing but how
good the CT is.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from fewview.bundle import load_model
from fewview.data.collections import find_cases
from fewview.data.images import write_volume
from fewview.data.labelled import LabelledCase, read_ct
from fewview.data.splits import some
from fewview.data.store import is_store, open_store
from fewview.data.volume import Volume
from fewview.experiment.segmentation_config import ReconstructionConfig
from fewview.reconstruct import reconstruct
from fewview.system import GridConfig
from fewview.training.loop import Report
from fewview.transfer.setting import on_model_grid
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import drr

ReadCt = Callable[[], Volume]


def unlabelled_cts(
    place: Path | None, own: Sequence[LabelledCase], *, count: int, labelled: set[str]
) -> dict[str, ReadCt]:
    """The first `count` CTs to pre-train on by name, and how each is read.

    Args:
        place: A store (its train split is used), or a folder of CT files; None takes `own`.
        own: Cases of the labelled set that nothing else uses.
        count: How many.
        labelled: Patients that are fine-tuned on or held out.

    Raises:
        ValueError: If there are too few, or a patient is in both.
    """
    found: dict[str, tuple[str, ReadCt]]
    if place is None:
        found = {case.id: (case.patient, partial(read_ct, case.ct)) for case in own}
    elif is_store(place):
        store = open_store(place)
        found = {
            one.id: (one.patient, partial(store.read, one.id)) for one in store.of_split("train")
        }
    else:
        cases = find_cases([place]).cases
        found = {case.id: (case.patient, partial(read_ct, case.path)) for case in cases}
    if common := sorted(labelled & {patient for patient, _ in found.values()}):
        raise ValueError(f"patients to pre-train on are also labelled: {some(common)}")
    if len(found) < count:
        raise ValueError(f"num_unlabelled is {count}, but there are {len(found)} CTs")
    return {name: found[name][1] for name in sorted(found)[:count]}


def write_real(
    cts: Mapping[str, ReadCt], folder: Path, grid: GridConfig, *, report: Report
) -> list[Path]:
    """Write the CTs on the model grid, those that are not there yet; returns the files."""

    def made(name: str) -> Volume:
        return on_model_grid(cts[name](), grid)

    return _write_missing(list(cts), folder, made, "real CTs", report)


def write_reconstructed(
    cts: Mapping[str, ReadCt],
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

    def made(name: str) -> Volume:
        xrays = drr(cts[name](), views)
        return reconstruct(xrays, model=model, nfe=config.nfe, device=device).volume

    return _write_missing(list(cts), folder, made, "reconstructed CTs", report)


def _write_missing(
    names: Sequence[str], folder: Path, made: Callable[[str], Volume], what: str, report: Report
) -> list[Path]:
    """Write the volumes that are not there yet; a file appears whole, so those are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.nii.gz" for name in names]
    for index, (name, path) in enumerate(zip(names, paths, strict=True), start=1):
        if not path.is_file():
            write_volume(made(name), path)
            report(what, index, len(paths), name)
    return paths
