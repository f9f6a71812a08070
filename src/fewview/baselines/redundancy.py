"""How often a ray is measured: weights for scans of half a circle and more."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.xray.geometry import Cameras

RAMP_DEG = 10.0
"""Over this part of the scan, at either end, trust in a view rises smoothly from zero to one."""


class Arc(NamedTuple):
    """The part of the circle that the source passes, in degrees."""

    start: float
    length: float
    widths: tuple[float, ...]
    """What each view stands for, in the order the views were given; they sum to `length`."""


def scan_arc(azimuths_deg: Sequence[float]) -> Arc | None:
    """The arc of half a circle or more on which the sources lie, or None if there is none.

    The widest gap between neighbors lies outside, unless it is no wider than one and a half
    of the others: then the circle is full. A view stands for half the gap on either side; at the
    ends of an open arc, for the one gap there is. Views at one place share what it stands for.
    """
    folded = [round(azimuth % 360.0, 6) % 360.0 for azimuth in azimuths_deg]
    places = sorted(set(folded))
    if len(places) < 2:
        return None
    gaps = [
        (after - this) % 360.0 for this, after in zip(places, places[1:] + places[:1], strict=True)
    ]
    widest = max(range(len(gaps)), key=gaps.__getitem__)
    inner = gaps[widest + 1 :] + gaps[:widest]  # in order, from behind the widest gap
    places = places[widest + 1 :] + places[: widest + 1]
    if gaps[widest] <= 1.5 * max(inner):
        around = [gaps[widest], *inner, gaps[widest]]
        length = 360.0
    else:
        around = [inner[0], *inner, inner[-1]]
        length = sum(inner) + 0.5 * (inner[0] + inner[-1])
    if length < 180.0 - 1e-3:
        return None
    width = {
        place: 0.5 * (before + after) / folded.count(place)
        for place, before, after in zip(places, around[:-1], around[1:], strict=True)
    }
    return Arc(places[0] - 0.5 * around[0], length, tuple(width[place] for place in folded))


def half_scan_weights(
    cameras: Cameras, isocenter_mm: Sequence[float]
) -> Float[Tensor, "view col"] | None:
    """What each column of each view counts in an integral over half a circle, in radians.

    A ray that comes again from the other side is shared out between the two views by how far
    each lies inside the scan; a ray that comes once counts in full. For any direction of rays
    the shares sum to the angle the views stand for. Seen in the plane across the patient's axis.

    Args:
        cameras: All views of a scan.
        isocenter_mm: Point the views turn about.

    Returns:
        The weights, or None where the scan is shorter than half a circle.

    References:
        Parker 1982 (half scan); Noo, Defrise, Clackdoyle and Kudo 2002, equation 28, whose
        smooth window also serves other lengths.
    """
    center = torch.tensor(isocenter_mm, dtype=torch.float64)[:2]
    source, ray = _source_and_rays(cameras, center)
    arc = scan_arc(torch.rad2deg(torch.atan2(source[:, 0, 1], source[:, 0, 0])).tolist())
    if arc is None:
        return None
    # Where the ray leaves the circle of the sources, the source that sees it from behind stands.
    behind = source - 2.0 * (source * ray).sum(-1, keepdim=True) * ray
    own, other = (
        _trust(torch.rad2deg(torch.atan2(place[..., 1], place[..., 0])), arc)
        for place in (source, behind)
    )
    widths = torch.deg2rad(torch.tensor(arc.widths, dtype=torch.float64))[:, None]
    return (widths * own / (own + other)).float()


def _source_and_rays(
    cameras: Cameras, center: Float[Tensor, "2"]
) -> tuple[Float[Tensor, "view #col 2"], Float[Tensor, "view col 2"]]:
    """Source about the center and unit direction of the middle row's rays, across the patient.

    A parallel view has no source; its rays stand for ones from the direction they come from.
    """
    col = torch.arange(cameras.num_cols, dtype=torch.float64)[:, None]
    middle = cameras.origin.double() + 0.5 * (cameras.num_rows - 1) * cameras.step_v.double()
    pixel = middle[:, None, :] + col * cameras.step_u.double()[:, None, :]
    parallel = cameras.parallel[:, None, None]
    along = cameras.direction.double()[:, None, :]
    ray = torch.where(parallel, along, pixel - cameras.source.double()[:, None, :])[..., :2]
    place = torch.where(parallel[..., 0], -along[:, 0, :2], cameras.source.double()[:, :2] - center)
    return place[:, None, :], ray / ray.norm(dim=-1, keepdim=True)


def _trust(azimuth_deg: Tensor, arc: Arc) -> Tensor:
    """1 inside the scan, 0 outside, with smooth ends; 1 all around a full circle."""
    if arc.length >= 360.0:
        return torch.ones_like(azimuth_deg)
    along = torch.remainder(azimuth_deg - arc.start, 360.0)
    inside = torch.minimum(along, arc.length - along) / min(RAMP_DEG, 0.5 * arc.length)
    return torch.sin(0.5 * math.pi * inside.clamp(0.0, 1.0)).square()
