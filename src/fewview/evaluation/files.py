"""Score files against files: one volume, or a folder of them by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from fewview.data.files import replacing_file
from fewview.data.images import read_volume
from fewview.evaluation.compare import compare, on_one_grid
from fewview.evaluation.montage import write_montage

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")

Scores = dict[str, dict[str, float]]


def pair_files(prediction: Path, truth: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Match predictions to truths.

    Args:
        prediction: A volume (file or DICOM folder), or a folder of volume files.
        truth: The same; in a folder, the truth of a prediction has its name.

    Returns:
        (prediction, truth) by name, and the names of predictions without a truth.

    Raises:
        ValueError: If one is a folder of volumes and the other a single volume, if a folder
            has a name twice, or if no names match.
    """
    predictions, truths = _volumes_in(prediction), _volumes_in(truth)
    if predictions is None and truths is None:
        return {_stem(prediction): (prediction, truth)}, []
    if predictions is None or truths is None:
        raise ValueError(f"{prediction} and {truth}: give two volumes, or two folders of volumes")
    pairs = {
        name: (path, truths[name]) for name, path in sorted(predictions.items()) if name in truths
    }
    if not pairs:
        raise ValueError(f"no volume in {prediction} has the name of one in {truth}")
    return pairs, sorted(predictions.keys() - truths.keys())


def score_files(
    pairs: dict[str, tuple[Path, Path]],
    out: Path,
    *,
    grid: Literal["prediction", "truth"] = "prediction",
    keep_couch: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Scores:
    """Score each pair; writes `metrics.json` and a montage `NAME.png` per pair to a folder.

    Args:
        pairs: (prediction, truth) files by name.
        out: An existing folder.
        grid: Whose voxels to compare on.
        keep_couch: Leave the couch in the truth.
        progress: Called with pairs done, all pairs, and the last name.

    Returns:
        The numbers of `compare` by name.
    """
    scores: Scores = {}
    for name, (predicted_path, true_path) in pairs.items():
        predicted, true = read_volume(predicted_path), read_volume(true_path)
        scores[name] = compare(predicted, true, grid=grid, keep_couch=keep_couch)
        near, far, _ = on_one_grid(predicted, true, grid=grid, keep_couch=keep_couch)
        write_montage(out / f"{name}.png", {"truth": far, "prediction": near})
        if progress is not None:
            progress(len(scores), len(pairs), name)
    result = {"protocol": "hu3d", "grid": grid, "cases": scores, "mean": mean_scores(scores)}
    with replacing_file(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return scores


def mean_scores(scores: Scores) -> dict[str, float]:
    """The mean over cases of every number that all of them have."""
    shared = set.intersection(*(set(score) for score in scores.values()))
    return {
        key: float(np.mean([score[key] for score in scores.values()]))
        for key in next(iter(scores.values()))
        if key in shared
    }


def _volumes_in(path: Path) -> dict[str, Path] | None:
    """The volume files of a folder by name; None for a single volume or a DICOM folder."""
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
