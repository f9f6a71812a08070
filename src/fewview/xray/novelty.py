"""How far a display-style radiograph lies from what the models were trained on.

A model turns any picture into some chest, so it must be said when a picture is none that it
knows. A picture is described by eighteen figures that a change of brightness or contrast leaves
alone; their distance (Mahalanobis) from the radiographs computed for training is the score.

The table beside the bundled models comes from `benchmarks/novelty.py`.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float64
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from fewview.xray.views import Views

SIDE = 64  # pixels a side of the picture that is described
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
BANDS_PX = (0.0, 1.0, 2.0, 4.0)  # a band is the difference of two smoothings
CELLS = 3
NUM_FIGURES = len(QUANTILES) + len(BANDS_PX) - 1 + 1 + CELLS**2
LIMIT_QUANTILE = 0.99
KINDS = ("frontal", "lateral")
VARIANCE_FLOOR = 0.02  # of each figure's own, added: no direction may count without bound

Figures = Float64[np.ndarray, "18"]


@dataclass(frozen=True, eq=False)
class Known:
    """What training radiographs of one kind look like."""

    mean: Figures
    precision: Float64[np.ndarray, "18 18"]
    """Inverse of the covariance of the figures."""

    limit: float
    """The score that 99 % of other training radiographs stay below."""

    def score(self, figures: Figures) -> float:
        """Distance per figure: about 1 for a training radiograph."""
        apart = figures - self.mean
        return math.sqrt(float(apart @ self.precision @ apart) / len(apart))


def describe(image: Float[Tensor, "row col"]) -> Figures:
    """Eighteen figures of a picture, which brightness and contrast do not change.

    Of its exposed part, standardized: quantiles of gray; share of the variance by band of detail
    (logarithms); likeness of its left and right halves; mean gray in a grid of three by three
    cells, in which lungs are dark and the mediastinum and the abdomen bright.

    Args:
        image: Bone bright; what is 0 in whole rows or columns at the edge was not exposed.
    """
    exposed = _exposed(image.detach().cpu().float())
    small = functional.interpolate(
        exposed[None, None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
    )
    gray = small[0, 0].numpy().astype(np.float64)
    gray = (gray - gray.mean()) / max(float(gray.std()), 1e-6)
    smoothed = [ndimage.gaussian_filter(gray, sigma, mode="nearest") for sigma in BANDS_PX]
    bands = [math.log(float((fine - coarse).var()) + 1e-4) for fine, coarse in pairwise(smoothed)]
    edges = np.linspace(0, SIDE, CELLS + 1).round().astype(int)
    cells = np.add.reduceat(np.add.reduceat(gray, edges[:-1], axis=0), edges[:-1], axis=1)
    cells /= np.outer(np.diff(edges), np.diff(edges))
    symmetry = float((gray * gray[:, ::-1]).mean())
    return np.concatenate([np.quantile(gray, QUANTILES), bands, [symmetry], cells.ravel()])


def _exposed(image: Tensor) -> Tensor:
    """The picture without empty rows and columns at its edges."""
    rows, cols = ((image != 0.0).any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        return image
    return image[int(rows[0]) : int(rows[-1]) + 1, int(cols[0]) : int(cols[-1]) + 1]


def kind_of(angle_deg: float) -> tuple[str, bool]:
    """The nearest kind of view, and whether it must be mirrored to look like the others."""
    turned = (angle_deg + 180.0) % 360.0 - 180.0
    if abs(turned) <= 45.0 or abs(turned) >= 135.0:
        return "frontal", abs(turned) >= 135.0
    return "lateral", turned < 0.0


def learn(figures: Float64[np.ndarray, "case 18"]) -> Known:
    """Mean and covariance of one half of training radiographs, the limit of the other half.

    Raises:
        ValueError: If there are too few for a covariance.
    """
    if len(figures) < 4 * NUM_FIGURES:
        raise ValueError(f"need at least {4 * NUM_FIGURES} radiographs, got {len(figures)}")
    one, other = figures[::2], figures[1::2]
    covariance = np.cov(one, rowvar=False)
    covariance += VARIANCE_FLOOR * np.diag(np.diag(covariance))
    known = Known(one.mean(axis=0), np.linalg.inv(covariance), math.inf)
    scores = [known.score(row) for row in other]
    return Known(known.mean, known.precision, float(np.quantile(scores, LIMIT_QUANTILE)))


def to_json(known: dict[str, Known], source: str) -> str:
    """The table as text, with where it comes from."""
    kinds = {
        kind: {
            "limit": round(one.limit, 4),
            "mean": [float(f"{value:.6g}") for value in one.mean],
            "precision": [[float(f"{value:.6g}") for value in row] for row in one.precision],
        }
        for kind, one in known.items()
    }
    return json.dumps({"source": source, "kinds": kinds}, indent=1) + "\n"


@cache
def shipped() -> dict[str, Known]:
    """The table that comes with the package."""
    text = (files("fewview") / "bundled" / "novelty.json").read_text(encoding="utf-8")
    return {
        kind: Known(np.array(one["mean"]), np.array(one["precision"]), float(one["limit"]))
        for kind, one in json.loads(text)["kinds"].items()
    }


@dataclass(frozen=True)
class Novelty:
    """How far one view lies from training."""

    score: float
    """Distance per figure: about 1 for a training radiograph."""

    limit: float
    """The score that 99 % of training radiographs stay below."""

    @property
    def is_far(self) -> bool:
        """Whether a model should not be trusted with it."""
        return self.score > self.limit


def novelties(views: Views) -> list[Novelty | None]:
    """The score of every display-style view; None for line integrals, which have units."""
    return [
        None if calibrated else novelty(image, geometry.primary_angle_deg)
        for image, geometry, calibrated in zip(
            views.images[:, 0], views.geometries, views.calibrated, strict=True
        )
    ]


def novelty(image: Float[Tensor, "row col"], angle_deg: float = 0.0) -> Novelty:
    """The score of one picture in display style, bone bright, in our convention."""
    kind, flip = kind_of(angle_deg)
    known = shipped()[kind]
    return Novelty(known.score(describe(image.flip(-1) if flip else image)), known.limit)
