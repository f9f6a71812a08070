"""Which prediction meets which truth: files, or folders of them by name.

Nothing is left out or compared with itself in silence: what has no partner is told, and so
are a truth given as its own prediction and a case that stands twice.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewview.data.volume import Volume
from fewview.xray.views import VIEWS_FILE

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class Pairing:
    """Predictions and truths matched by name."""

    pairs: dict[str, tuple[Path, Path]]
    """(prediction, truth) by name."""

    without_truth: list[str]
    """Names of predictions that no truth has."""

    without_prediction: list[str]
    """Names of truths that no prediction has."""

    def remarks(self) -> list[str]:
        """A sentence for every volume without a partner."""
        return [
            *(f"left out {name}: no truth of that name" for name in self.without_truth),
            *(f"missing {name}: no prediction of that truth" for name in self.without_prediction),
        ]


def pair_files(prediction: Path, truth: Path) -> Pairing:
    """Match predictions to truths.

    Args:
        prediction: A volume (file or DICOM folder), or a folder of volume files.
        truth: The same; in a folder, the truth of a prediction has its name.

    Raises:
        ValueError: If one is a folder of volumes and the other a single volume, if a folder
            has a name twice, or if no names match.
    """
    predictions, truths = volumes_in(prediction), volumes_in(truth)
    if predictions is None and truths is None:
        return Pairing({_stem(prediction): (prediction, truth)}, [], [])
    if predictions is None or truths is None:
        raise ValueError(f"{prediction} and {truth}: give two volumes, or two folders of volumes")
    shared = sorted(predictions.keys() & truths.keys())
    if not shared:
        raise ValueError(f"no volume in {prediction} has the name of one in {truth}")
    return Pairing(
        {name: (predictions[name], truths[name]) for name in shared},
        sorted(predictions.keys() - truths.keys()),
        sorted(truths.keys() - predictions.keys()),
    )


@dataclass(frozen=True)
class Companions:
    """What may stand beside the two volumes of each case, by the cases' names; empty for none."""

    labels: Mapping[str, Path] = field(default_factory=dict)
    """Label maps of the truths, for errors by tissue."""

    views: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the X-rays that the predictions were made from, for the re-projection error."""


def companions(names: list[str], *, labels: Path | None, views: Path | None) -> Companions:
    """Find the label map and the views of each case.

    Args:
        names: The cases.
        labels: One label map for a single case, or a folder of them by the cases' names.
        views: One folder of views for a single case, or a folder of such folders by the names.

    Raises:
        ValueError: If a case lacks what others have.
    """
    return Companions(
        {} if labels is None else _of_each(names, labels, volumes_in(labels), "label map"),
        {} if views is None else _of_each(names, views, _views_in(views), "folder of views"),
    )


def _of_each(
    names: list[str], path: Path, found: dict[str, Path] | None, what: str
) -> dict[str, Path]:
    """One path for each case, from what a folder holds; None is a single thing."""
    if found is None:
        if len(names) > 1:
            raise ValueError(f"{path} is one {what} for {len(names)} cases; give a folder of them")
        return {names[0]: path}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"no {what} in {path} for {', '.join(missing)}")
    return {name: found[name] for name in names}


def _views_in(path: Path) -> dict[str, Path] | None:
    """The folders of views in a folder by name; None for a single folder of views."""
    if (path / VIEWS_FILE).exists() or not path.is_dir():
        return None
    return {one.name: one for one in sorted(path.iterdir()) if (one / VIEWS_FILE).is_file()}


@dataclass
class Doubles:
    """Remembers the voxels of all cases so far, as digests, to find what stands twice."""

    _seen: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def remarks(self, name: str, prediction: Volume, truth: Volume) -> list[str]:
        """A sentence for each of the two that an earlier case had too."""
        told = []
        for role, volume in (("prediction", prediction), ("truth", truth)):
            earlier = self._seen.setdefault((role, _digest(volume)), name)
            if earlier != name:
                told.append(f"{name}: its {role} is identical to that of {earlier}")
        return told


def _digest(volume: Volume) -> bytes:
    """A digest of a volume's values and shape; where it lies does not matter."""
    values = np.ascontiguousarray(volume.hu)
    return hashlib.blake2b(repr(volume.shape).encode() + values.tobytes()).digest()


def volumes_in(path: Path) -> dict[str, Path] | None:
    """The volume files of a folder by name; None for a single volume or a DICOM folder.

    Raises:
        ValueError: If a name is there twice, in two formats.
    """
    if not path.is_dir():
        return None
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if not file.name.lower().endswith(VOLUME_SUFFIXES):
            continue
        if _stem(file) in found:
            raise ValueError(f"{path}: {_stem(file)} is there twice, in two formats")
        found[_stem(file)] = file
    return found or None


def _stem(path: Path) -> str:
    """A file's name without its volume suffix."""
    name = path.name
    suffix = next((one for one in VOLUME_SUFFIXES if name.lower().endswith(one)), "")
    return name[: len(name) - len(suffix)]
