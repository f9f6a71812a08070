"""Score files against files, and write what came out: JSON, CSV, a picture of each case."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fewview.data.files import replacing_file
from fewview.data.images import read_labels, read_volume
from fewview.evaluation.compare import on_one_grid, scanned_share, scores_on_grid
from fewview.evaluation.files import Companions, Doubles, Pairing
from fewview.evaluation.metrics import reprojection_error
from fewview.evaluation.montage import write_montage
from fewview.evaluation.protocols import HEADLINE, NEEDS_WEIGHTS, RETRIEVAL, protocol_names
from fewview.evaluation.retrieval import Thumbnail, retrieval, thumbnail
from fewview.xray.views import read_views

GridOf = Literal["prediction", "truth"]
Scores = dict[str, dict[str, float]]


def score_files(
    pairing: Pairing,
    out: Path,
    *,
    grid: GridOf = "prediction",
    keep_couch: bool = False,
    protocols: Sequence[str] = (HEADLINE,),
    beside: Companions | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    tell: Callable[[str], None] = lambda remark: None,
) -> Scores:
    """Score each pair; writes `metrics.json`, `cases.csv` and a montage `NAME.png` per pair.

    Args:
        pairing: Predictions and truths by name, from `pair_files`.
        out: An existing folder.
        grid: Whose voxels to compare on.
        keep_couch: Leave the couch in the truth.
        protocols: Names out of `protocols.PROTOCOLS`.
        beside: Label maps, for errors by tissue, and views, for the re-projection error.
        progress: Called with pairs done, all pairs, and the last name.
        tell: Called with every remark: a case without a partner, a truth given as its own
            prediction, a case that stands twice. What it raises ends the scoring.

    Returns:
        The numbers of `scores_on_grid`, `scanned_share` and, with views, `reprojection_error`
        by name.

    Raises:
        ValueError: If a file is no CT in HU, or a pair cannot be compared; names the file or
            the case.
    """
    names = protocol_names(protocols)
    beside = beside or Companions()
    remarks: list[str] = []
    scores: Scores = {}
    thumbnails: list[tuple[Thumbnail, Thumbnail]] = []
    doubles = Doubles()

    def remark(sentences: Iterable[str]) -> None:
        for sentence in sentences:
            tell(sentence)
            remarks.append(sentence)

    remark(pairing.remarks())
    for name, (predicted_path, true_path) in pairing.pairs.items():
        predicted, true = read_volume(predicted_path), read_volume(true_path)
        remark(doubles.remarks(name, predicted, true))
        whole = predicted if grid == "prediction" else true
        tissue = read_labels(beside.labels[name]) if beside.labels else None
        try:
            near, far, mask = on_one_grid(predicted, true, grid=grid, keep_couch=keep_couch)
            scores[name] = scores_on_grid(near, far, mask, protocols=names, labels=tissue)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if np.array_equal(predicted.hu, true.hu) or np.array_equal(near.hu, far.hu):
            remark([f"{name}: prediction and truth are identical; is the truth given as both?"])
        scores[name]["scanned_share"] = scanned_share(mask, whole)
        if beside.views:
            views = read_views(beside.views[name])
            scores[name]["reprojection_error"] = reprojection_error(predicted, views)
        if RETRIEVAL in names:
            thumbnails.append((thumbnail(near.hu, mask), thumbnail(far.hu, mask)))
        write_montage(out / f"{name}.png", {"truth": far, "prediction": near})
        if progress is not None:
            progress(len(scores), len(pairing.pairs), name)
    if RETRIEVAL in names:
        remark(_add_retrieval(scores, thumbnails))
    skipped = {name: NEEDS_WEIGHTS[name] for name in names if name in NEEDS_WEIGHTS}
    _write(out, scores, {"protocols": names, "grid": grid, "skipped": skipped, "remarks": remarks})
    return scores


def mean_scores(scores: Scores) -> dict[str, float]:
    """The mean over cases of every number that all of them have.

    A number that is not defined in a case (NaN: no bone, no voxel in a band) is averaged over
    the other cases; it is NaN only if none has it.
    """
    shared = set.intersection(*(set(score) for score in scores.values()))
    return {
        key: _mean([score[key] for score in scores.values()])
        for key in next(iter(scores.values()))
        if key in shared
    }


def _mean(values: list[float]) -> float:
    """The mean of what is not NaN."""
    there = [value for value in values if not math.isnan(value)]
    return float(np.mean(there)) if there else math.nan


def _add_retrieval(scores: Scores, thumbnails: Sequence[tuple[Thumbnail, Thumbnail]]) -> list[str]:
    """Add every case's rank to its scores; says why where there can be none."""
    try:
        ranks = retrieval([one for one, _ in thumbnails], [one for _, one in thumbnails])
    except ValueError as error:
        return [f"skipped {RETRIEVAL}: {error}"]
    for score, rank in zip(scores.values(), ranks, strict=True):
        score |= {f"{RETRIEVAL}_{key}": value for key, value in rank.items()}
    return []


def _write(out: Path, scores: Scores, about: Mapping[str, object]) -> None:
    """Write `metrics.json` and `cases.csv`, one row for each case."""
    result = {**about, "cases": scores, "mean": mean_scores(scores)}
    with replacing_file(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    columns = list(dict.fromkeys(key for score in scores.values() for key in score))
    with (
        replacing_file(out / "cases.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, ["case", *columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"case": name, **score} for name, score in scores.items())
