"""Finished files to numbers and a picture. Knows no method: it reads what one has written."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from fewview.data.files import replacing_file
from fewview.data.images import read_volume
from fewview.data.volume import Volume, cubic_grid, resample
from fewview.evaluation.compare import on_one_grid, scanned_share, scores_on_grid
from fewview.evaluation.metrics import reprojection_error
from fewview.evaluation.montage import DIFFERENCE_HU, HU_WINDOW, PLANES, plane_image
from fewview.evaluation.protocols import HEADLINE, RETRIEVAL, measure
from fewview.evaluation.retrieval import retrieval, thumbnail
from fewview.experiment.config import CubeConfig
from fewview.experiment.results import Result
from fewview.xray.views import Views

Pixels = np.ndarray


def score(
    prediction: Path,
    truth: Path,
    views: Views,
    cube: CubeConfig,
    protocols: Sequence[str],
    picture: Path,
) -> tuple[dict[str, float], list[str]]:
    """Score one finished volume file against its truth.

    Args:
        prediction: The predicted volume's file.
        truth: The true CT's file, without couch.
        views: The X-rays that the prediction was made from.
        cube: The scored grid, about the isocenter.
        protocols: Names of protocols; the headline `hu3d` is always computed.
        picture: PNG to write: truth, prediction and difference below each other, the middle
            axial, coronal and sagittal slice side by side, a pixel per scored voxel.

    Returns:
        The numbers of `scores_on_grid`, `scanned_share`, `reprojection_error`, and those of
        other protocols as `PROTOCOL_MEASURE`; and why a protocol could not be computed.

    Raises:
        ValueError: If a file cannot be read, or the two do not overlap.
    """
    predicted, true = read_volume(prediction, known_hu=True), read_volume(truth)
    on_scored = _on_scored(predicted, views, cube)
    near, far, mask = on_one_grid(on_scored, true, keep_couch=True)
    scores = scores_on_grid(near, far, mask)
    scores["scanned_share"] = scanned_share(mask, on_scored)
    scores["reprojection_error"] = reprojection_error(predicted, views)
    notes = []
    for name in protocols:
        if name in (HEADLINE, RETRIEVAL):
            continue
        try:
            found = measure(name, near, far, mask)
        except ValueError as error:
            notes.append(f"{name}: {error}")
            continue
        scores |= {f"{name}_{key}": float(value) for key, value in found.items()}
    true = _on_scored(true, views, cube)
    if RETRIEVAL in protocols:
        _write_thumbnails(picture.with_suffix(".npz"), on_scored.hu, true.hu)
    _write_picture(picture, on_scored.hu, true.hu)
    return scores, notes


def _write_thumbnails(path: Path, predicted: np.ndarray, true: np.ndarray) -> None:
    """Write what `retrieval` compares across cases, since the volumes do not stay."""
    with replacing_file(path) as temporary:
        np.savez(temporary, prediction=thumbnail(predicted), truth=thumbnail(true))


def add_retrieval(folder: Path, results: Sequence[Result]) -> list[Result]:
    """Results with the rank of their own truth among the truths of all cases.

    Args:
        folder: Where the thumbnails lie.
        results: The results of one method at one view count with one seed, a case each.

    Returns:
        Results with `retrieval_rank`, `retrieval_top1` and `retrieval_top5`; unchanged where
        there are less than two cases or a thumbnail is missing.
    """
    predictions, truths = [], []
    for result in results:
        try:
            with np.load(folder / f"{result.key}.npz") as stored:
                predictions.append(stored["prediction"])
                truths.append(stored["truth"])
        except (OSError, ValueError, KeyError):
            return list(results)
    if len(results) < 2:
        return list(results)
    return [
        replace(one, scores=one.scores | {f"{RETRIEVAL}_{key}": v for key, v in ranks.items()})
        for one, ranks in zip(results, retrieval(predictions, truths), strict=True)
    ]


def _on_scored(volume: Volume, views: Views, cube: CubeConfig) -> Volume:
    """A volume on the scored grid."""
    center = np.array(views.isocenter_mm)
    return resample(volume, cubic_grid(center, size=cube.size, extent_mm=cube.extent_mm))


def _write_picture(path: Path, predicted: np.ndarray, true: np.ndarray) -> None:
    """Write truth, prediction and difference; HU and differences as in `montage`."""
    rows = [_row(_gray, true), _row(_gray, predicted), _row(_signed, predicted - true)]
    with replacing_file(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")


def _row(paint: Callable[[np.ndarray], Pixels], hu: np.ndarray) -> Pixels:
    """The middle axial, coronal and sagittal slice side by side."""
    return np.concatenate([paint(plane_image(hu, plane)) for plane in PLANES], axis=1)


def _gray(hu: np.ndarray) -> Pixels:
    """A slice from black to white."""
    low, high = HU_WINDOW
    shade = np.clip(255.0 * (hu - low) / (high - low), 0.0, 255.0).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=-1)


def _signed(difference: np.ndarray) -> Pixels:
    """A difference from blue over white to red."""
    share = np.clip(0.5 + 0.5 * difference / DIFFERENCE_HU, 0.0, 1.0)
    return np.asarray(colormaps["RdBu_r"](share, bytes=True)[..., :3])
