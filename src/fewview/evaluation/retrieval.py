"""Is a reconstruction nearer to its own patient than to any other?

A model that returns an average chest scores well by error, and fails here.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from fewview.evaluation.metrics import Hu, Mask

WINDOW_HU = (-1000.0, 1500.0)
"""The range of `hu3d`: metal and padding do not decide."""

THUMBNAIL_SIZE = 32
"""Most blocks along an axis; a thousand cases then take about a quarter of a GB."""

Thumbnail = Float32[np.ndarray, "_ _ _"]


def thumbnail(hu: Hu, mask: Mask | None = None) -> Thumbnail:
    """The volume, clipped to [-1000, 1500] HU, averaged over blocks to at most 32 a side.

    Args:
        hu: CT values in HU.
        mask: The voxels that count; the others are made air.

    Returns:
        The means of equal blocks; rest voxels at the upper ends fall away.
    """
    clipped = np.clip(hu, *WINDOW_HU)
    if mask is not None:
        clipped = np.where(mask, clipped, WINDOW_HU[0])
    steps = [-(-count // THUMBNAIL_SIZE) for count in hu.shape]
    counts = [count // step for count, step in zip(hu.shape, steps, strict=True)]
    kept = clipped[tuple(slice(n * step) for n, step in zip(counts, steps, strict=True))]
    blocks = kept.reshape([size for pair in zip(counts, steps, strict=True) for size in pair])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)


def own_truth_ranks(
    predictions: Sequence[Thumbnail], truths: Sequence[Thumbnail]
) -> Int[np.ndarray, " case"]:
    """Rank of each prediction's own truth among all truths by mean squared error.

    Args:
        predictions: One of each case, `thumbnail`s or whole volumes, all of one shape.
        truths: Theirs, in the same order.

    Returns:
        1 where the own truth is nearest. A truth that is not farther counts as nearer: one that
        is exactly as near, so that a case that stands twice cannot be told, and all of them where
        a prediction is no number.

    Raises:
        ValueError: If shapes differ or there are less than two cases.
    """
    if len(predictions) != len(truths) or len(truths) < 2:
        raise ValueError(
            "retrieval needs two or more cases with prediction and truth, "
            f"got {len(predictions)} and {len(truths)}"
        )
    shapes = {volume.shape for volume in (*predictions, *truths)}
    if len(shapes) > 1:
        raise ValueError(f"retrieval needs cases on grids of one shape, got {sorted(shapes)}")
    true = np.stack([volume.ravel() for volume in truths])
    ranks = np.empty(len(truths), dtype=np.int64)
    for index, prediction in enumerate(predictions):
        differences = true - prediction.ravel()
        errors = np.square(differences, dtype=np.float64).mean(axis=1)
        ranks[index] = (~(errors > errors[index])).sum()  # its own counts once
    return ranks


def retrieval(
    predictions: Sequence[Thumbnail], truths: Sequence[Thumbnail]
) -> list[dict[str, float]]:
    """Of each case: `rank` of its own truth, and whether that is the first, among the first five.

    Args:
        predictions: See `own_truth_ranks`.
        truths: See `own_truth_ranks`.

    Returns:
        By case `rank`, `top1` and `top5`; their means over cases are the mean rank and the
        shares.
    """
    return [
        {"rank": float(rank), "top1": float(rank <= 1), "top5": float(rank <= 5)}
        for rank in own_truth_ranks(predictions, truths)
    ]
