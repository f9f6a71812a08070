"""Line integrals out of pictures for the eye, by what a first reconstruction projects to.

A viewing station cuts a window and bends the gray curve; a collimator covers the sides. None of it
is recorded, and networks guess it from one picture at a time. A first CT knows better: its
computed X-rays say which curve leads from gray to line integrals, and what lies behind a covered
side that another view has seen. The networks are then asked again, with line integrals.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from fewview.data.volume import Volume
from fewview.refine import explainable_rays
from fewview.xray.attenuation import hu_to_attenuation
from fewview.xray.projector import project
from fewview.xray.views import Views

END = 0.004  # of the gray range: a value nearer to black or white may be cut off by the window
LARGEST_EXPONENT = 3.0  # and its inverse the smallest: gray curves beyond are no display's
FEWEST_PIXELS = 64  # for three unknowns; fewer mean that hardly anything of the body is seen
SAME = 1e-4  # of the gray range: lines as like as this repeat each other

Gray = Float[np.ndarray, "pixel"]


@dataclass(frozen=True, kw_only=True)
class GrayCurve:
    """line integral = offset + scale * gray ** exponent, gray in [0, 1]."""

    offset: float
    scale: float
    exponent: float


def fit_curve(gray: Gray, line_integrals: Gray) -> GrayCurve | None:
    """The curve that explains line integrals best by squares; None if there is no rising one.

    Args:
        gray: Pixels of a display in [0, 1], bone bright, none of them cut off.
        line_integrals: What they should mean.
    """
    if len(gray) < FEWEST_PIXELS:
        return None

    def line(log_exponent: float) -> tuple[float, float, float]:
        bent = gray ** math.exp(log_exponent)
        covariance = float(np.mean((bent - bent.mean()) * line_integrals))
        steep = covariance / max(float(bent.var()), 1e-12)
        offset = float(line_integrals.mean() - steep * bent.mean())
        return offset, steep, float(np.mean((offset + steep * bent - line_integrals) ** 2))

    widest = math.log(LARGEST_EXPONENT)
    best = minimize_scalar(lambda log: line(log)[2], bounds=(-widest, widest), method="bounded")
    offset, scale, _ = line(best.x)
    return GrayCurve(offset=offset, scale=scale, exponent=math.exp(best.x)) if scale > 0 else None


def repeated_sides(gray: Float[Tensor, "row col"]) -> Bool[Tensor, "row col"]:
    """Lines from the edges on that repeat the next one: covered sides as cleaning fills them."""
    covered = torch.zeros_like(gray, dtype=torch.bool)
    for turned, mask in ((gray, covered), (gray.T, covered.T)):
        same = (turned[1:] - turned[:-1]).abs().amax(dim=1) < SAME
        first = int(same.long().cumprod(dim=0).sum())
        last = int(same.flip(0).long().cumprod(dim=0).sum())
        if first < len(same):
            mask[:first] = True
            mask[len(mask) - last :] = True
    return covered


def calibrate(views: Views, volume: Volume) -> tuple[Views, tuple[GrayCurve | None, ...]]:
    """Display-style views as line integrals, by the computed X-rays of a first reconstruction.

    Each display gets the curve that explains the computed line integrals best where its window cut
    nothing off and the volume holds the whole body. Covered sides take the computed values if
    there is another view that may have seen what lies there; alone, a view repeats itself.

    Args:
        views: Of any kinds; line integrals stay as they are.
        volume: What was reconstructed from them, in HU.

    Returns:
        The views, and per view its curve: None for line integrals, and where no curve fits (the
        view then stays a display).
    """
    matrix = torch.from_numpy(volume.voxel_to_patient).float()[None]
    mu = hu_to_attenuation(torch.from_numpy(volume.hu))[None, None]
    computed = project(mu, matrix, views.cameras.view(1, -1))[0]
    inside = explainable_rays(volume, views)[0] > 0
    images, curves = [], []
    for index, image in enumerate(views.images[:, 0]):
        curve = None
        if not views.calibrated[index]:
            alone = len(views.images) == 1
            image, curve = _calibrated(image, computed[index], inside[index], alone=alone)
        images.append(image)
        curves.append(curve)
    known = tuple(
        was or curve is not None for was, curve in zip(views.calibrated, curves, strict=True)
    )
    return replace(views, images=torch.stack(images)[:, None], calibrated=known), tuple(curves)


def _calibrated(
    image: Float[Tensor, "row col"],
    computed: Float[Tensor, "row col"],
    inside: Bool[Tensor, "row col"],
    *,
    alone: bool,
) -> tuple[Float[Tensor, "row col"], GrayCurve | None]:
    """One display as line integrals, and its curve."""
    low, high = image.min(), image.max()
    gray = ((image - low) / (high - low).clamp(min=1e-6)).clamp(0.0, 1.0)
    covered = repeated_sides(gray)
    known = inside & ~covered
    black, white = known & (gray < END), known & (gray > 1.0 - END)
    usable = known & ~black & ~white
    curve = fit_curve(gray[usable].double().numpy(), computed[usable].double().numpy())
    if curve is None:
        return image, None
    found = (curve.offset + curve.scale * gray**curve.exponent).clamp(min=0.0)
    # What the window cut off was at least as dark, or as bright, as its end.
    found = torch.where(black, torch.minimum(found, computed), found)
    found = torch.where(white, torch.maximum(found, computed), found)
    return found if alone else torch.where(inside & covered, computed, found), curve
