"""CT scans with label maps: where they lie, what their numbers mean, who is held out.

Three layouts are known, each as its source hands it out:

- `phantom`: `case_0000/{ct.nii.gz, labels.nii.gz}`, as `fewview phantom` writes them.
- `btcv`: the abdomen of "Beyond the Cranial Vault" (BTCV, also called BCV): `img/img0001.nii.gz`
  and `label/label0001.nii.gz`, or `imagesTr` and `labelsTr`.
- `msd`: a CT task of the Medical Segmentation Decathlon, by its `dataset.json`.

Finding looks at names only; voxels are read case by case.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.ndimage import affine_transform

from fewview.data.body import remove_couch
from fewview.data.images import read_labels, read_volume
from fewview.data.phantom.labels import LABELS
from fewview.data.splits import some
from fewview.data.volume import Grid, Volume, cubic_grid, resample

LabelLayout = Literal["phantom", "btcv", "msd"]

LabelMap = tuple[UInt8[np.ndarray, "_ _ _"], Float64[np.ndarray, "4 4"]]
"""Labels toward superior, posterior, left, and where voxel (x, y, z) lies, as files give them."""

BTCV_LABELS: dict[str, int] = {
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior_vena_cava": 9,
    "portal_and_splenic_vein": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}
"""Synapse syn3193789, "Multi-Atlas Labeling Beyond the Cranial Vault", abdomen."""

MISPLACED_VOXELS = 0.05
"""How far corners of a CT and its label map may lie apart: headers round differently."""

_BTCV_PLACES = ("", "Training", "RawData/Training")
_BTCV_FOLDERS = (("img", "label"), ("imagesTr", "labelsTr"))


@dataclass(frozen=True)
class LabelledCase:
    """A CT and its label map that wait to be read."""

    id: str
    """Unique in its set; fit for a file's name."""

    patient: str
    ct: Path
    labels: Path


@dataclass(frozen=True)
class LabelledSet:
    """The labelled cases of one source."""

    name: str
    """What the source is called, such as `Task09_Spleen`."""

    cases: tuple[LabelledCase, ...]
    """In the order of their names."""

    labels: Mapping[str, int]
    """The number of each named label; 0 is what has no label."""


def find_labelled(source: str | Path, layout: LabelLayout) -> LabelledSet:
    """The labelled cases below a folder.

    Args:
        source: The folder that the archive becomes when it is unpacked.
        layout: How it is laid out; scans that come without labels are not looked for.

    Raises:
        ValueError: If there are none, one of a pair is missing, or `dataset.json` is no CT task's.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder")
    match layout:
        case "phantom":
            tissues = {name: number for name, number in LABELS.items() if number}
            found = LabelledSet("phantoms", tuple(_phantoms(source)), tissues)
        case "btcv":
            found = LabelledSet("BTCV", tuple(_btcv(source)), BTCV_LABELS)
        case "msd":
            found = _decathlon(source)
    for case in found.cases:
        for path in (case.ct, case.labels):
            if not path.is_file():
                raise ValueError(f"case {case.id}: {path} is missing")
    return found


def _phantoms(source: Path) -> Iterable[LabelledCase]:
    """The cases of `fewview phantom`."""
    folders = sorted(path for path in source.glob("case_*") if path.is_dir())
    if not folders:
        raise ValueError(f"no phantom in {source}: looked for case_*/ct.nii.gz")
    for one in folders:
        yield LabelledCase(one.name, one.name, one / "ct.nii.gz", one / "labels.nii.gz")


def _btcv(source: Path) -> Iterable[LabelledCase]:
    """The training cases of BTCV; one scan a patient."""
    for place in _BTCV_PLACES:
        for images, maps in _BTCV_FOLDERS:
            folder = source / place
            numbers = [
                (found[1], path)
                for path in sorted(folder.glob(f"{images}/img*.nii*"))
                if (found := re.fullmatch(r"img(\d{4})\.nii(\.gz)?", path.name))
            ]
            if numbers:
                return [
                    LabelledCase(
                        f"img{number}",
                        number,
                        path,
                        folder / maps / path.name.replace("img", "label"),
                    )
                    for number, path in numbers
                ]
    raise ValueError(f"no BTCV case in {source}: looked for img or imagesTr/img0001.nii.gz")


def _decathlon(source: Path) -> LabelledSet:
    """The training cases of a task, by its description; one scan a patient as far as it tells."""
    path = source / "dataset.json"
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        modalities = list(told["modality"].values())
        labels = {str(name): int(number) for number, name in told["labels"].items()}
        pairs = [(str(pair["image"]), str(pair["label"])) for pair in told["training"]]
        name = str(told["name"])
    except FileNotFoundError:
        raise ValueError(f"{source} has no dataset.json, so is no task of the Decathlon") from None
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} does not describe a task of the Decathlon: {error!r}") from None
    if modalities != ["CT"]:
        raise ValueError(f"{path}: modality must be CT alone, it is {', '.join(modalities)}")
    if not pairs:
        raise ValueError(f"{path} lists no training case")
    paths = [PurePosixPath(one) for pair in pairs for one in pair]
    if outside := [str(one) for one in paths if one.is_absolute() or ".." in one.parts]:
        raise ValueError(f"{path} names files outside its folder: {some(outside)}")
    if strange := [name for name, number in labels.items() if not 0 <= number <= 255]:
        raise ValueError(f"{path}: labels must be numbered 0 to 255, which {some(strange)} is not")
    cases = {}
    for image, label in pairs:
        stem = PurePosixPath(image).name.removesuffix(".gz").removesuffix(".nii")
        cases[stem] = LabelledCase(stem, stem, source / image, source / label)
    named = {word.lower(): number for word, number in labels.items() if number}
    return LabelledSet(name, tuple(cases[stem] for stem in sorted(cases)), named)


def divide(
    cases: Sequence[LabelledCase], counts: Mapping[str, int], *, seed: int = 0
) -> dict[str, tuple[LabelledCase, ...]]:
    """Groups of patients without a common one, by a hash of seed and patient.

    Args:
        cases: All cases.
        counts: How many patients each group gets, in this order; groups keep their members
            when a later one grows.
        seed: Another seed is another division.

    Raises:
        ValueError: If there are too few patients.
    """
    patients = sorted(
        {case.patient for case in cases},
        key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest(),
    )
    if sum(counts.values()) > len(patients):
        wanted = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{len(patients)} patients are too few for {wanted}")
    groups, start = {}, 0
    for name, count in counts.items():
        chosen = set(patients[start : start + count])
        groups[name] = tuple(case for case in cases if case.patient in chosen)
        start += count
    return groups


def class_table(
    labels: Mapping[str, int], classes: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], UInt8[np.ndarray, "256"]]:
    """What a network tells apart, and the class of every label number.

    Args:
        labels: Numbers of the labels by name.
        classes: The labels that make each class; empty makes a class of each label. Labels in
            no class are background, class 0.

    Returns:
        The names of classes 1, 2, ..., and the class of each label number 0 to 255.

    Raises:
        ValueError: If a class names an unknown label or none, or a label is in two classes.
    """
    wanted = {name: tuple(members) for name, members in classes.items()}
    wanted = wanted or {name: (name,) for name in labels}
    table = np.zeros(256, dtype=np.uint8)
    for index, (name, members) in enumerate(wanted.items(), start=1):
        unknown = [member for member in members if member not in labels]
        if unknown or not members:
            raise ValueError(
                f"class {name} needs labels out of {', '.join(labels)}; got {', '.join(members)}"
            )
        for member in members:
            if table[labels[member]]:
                raise ValueError(f"the label {member} is in two classes")
            table[labels[member]] = index
    return tuple(wanted), table


def read_ct(path: Path) -> Volume:
    """A CT without couch, as `prepare` keeps it."""
    return remove_couch(read_volume(path))


def read_labelled(
    case: LabelledCase, labels: Mapping[str, int]
) -> tuple[Volume, UInt8[np.ndarray, "depth height width"]]:
    """A CT without couch and its label numbers, on the scan's own voxels.

    Raises:
        ValueError: If their grids differ, or the map holds a number that has no name.
    """
    volume = read_ct(case.ct)
    numbers, voxel_to_patient = read_labels(case.labels)
    if numbers.shape != volume.shape:
        raise ValueError(f"case {case.id}: CT has {volume.shape} voxels, labels {numbers.shape}")
    if (apart := _corners_apart(volume.grid, voxel_to_patient)) > MISPLACED_VOXELS:
        raise ValueError(f"case {case.id}: labels lie {apart:.2f} voxels away from their CT")
    unknown = set(np.unique(numbers).tolist()) - {0, *labels.values()}
    if unknown:
        raise ValueError(f"{case.labels}: labels without a name: {some(sorted(map(str, unknown)))}")
    return volume, numbers


def on_cube(
    volume: Volume, labels: UInt8[np.ndarray, "_ _ _"], *, size: int, extent_mm: float
) -> tuple[Volume, UInt8[np.ndarray, "size size size"]]:
    """A CT and its labels on the isotropic cube about the scan's center."""
    grid = cubic_grid(volume.center_mm, size=size, extent_mm=extent_mm)
    return resample(volume, grid), labels_on((labels, volume.voxel_to_patient), grid)


def labels_on(labels: LabelMap, grid: Grid) -> UInt8[np.ndarray, "_ _ _"]:
    """A label map on another grid: each voxel takes the label nearest to it, 0 outside."""
    values, voxel_to_patient = labels
    index_map = np.linalg.inv(voxel_to_patient) @ grid.voxel_to_patient  # (x, y, z)
    moved: UInt8[np.ndarray, "_ _ _"] = affine_transform(
        values,
        index_map[2::-1, 2::-1],  # (z, y, x)
        index_map[2::-1, 3],
        output_shape=grid.shape,
        output=np.uint8,
        order=0,
        mode="grid-constant",
    )
    return moved


def _corners_apart(grid: Grid, voxel_to_patient: Float64[np.ndarray, "4 4"]) -> float:
    """The largest distance between the same corner on both grids, in voxels of the first."""
    ends = [(0.0, count - 1.0) for count in grid.shape[::-1]]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))]).reshape(4, 8)
    there = np.linalg.inv(grid.voxel_to_patient) @ voxel_to_patient @ corners
    return float(np.linalg.norm((there - corners)[:3], axis=0).max())
