"""What of given views lies outside a model's training: said once, in one line, never refused."""

import logging
from collections.abc import Sequence

from fewview.bundle import DEFAULT_MODEL
from fewview.inputs import ViewRange
from fewview.regressor import AnySystem
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.novelty import Novelty
from fewview.xray.views import Views

log = logging.getLogger("fewview")

CROSSING_DEG = 20.0
"""Views whose directions all lie within this, forth or back, hardly tell depth along them."""


def _unknown_angles(views: Views, known: ViewRange) -> list[str]:
    """Why the angles are none of training, if they are not: the standard set alone was seen."""
    if known.any_angle_share > 0.0:
        return []
    standard = spread_angles(len(views.geometries))
    reach = known.angle_jitter_deg + 0.5  # degrees; half a degree is nobody's mistake
    far = [
        geometry.primary_angle_deg
        for geometry in views.geometries
        if min(abs((geometry.primary_angle_deg - one + 180.0) % 360.0 - 180.0) for one in standard)
        > reach
    ]
    if not far:
        return []
    shown, seen = (", ".join(f"{angle:g}" for angle in angles) for angles in (far, standard))
    return [f"angles {shown} degrees (trained on {seen})"]


def warn_novel(found: Sequence[Novelty | None]) -> None:
    """Say once which views are unlike those of the bundled model's training, whatever the model."""
    far = [
        f"view {index} (score {one.score:.1f}; {one.limit:.1f} holds 99 % of training)"
        for index, one in enumerate(found)
        if one is not None and one.is_far
    ]
    if far:
        log.warning(
            "far from the radiographs that %s was trained on, do not trust it: %s",
            DEFAULT_MODEL,
            ", ".join(far),
        )


def warn_depth(views: Views) -> None:
    """Say once where all views look along one direction, so that depth along it is a guess."""
    first, *others = (geometry.primary_angle_deg for geometry in views.geometries)
    turns = [abs((angle - first + 90.0) % 180.0 - 90.0) for angle in others]
    if max(turns, default=0.0) < CROSSING_DEG:
        log.warning(
            "%s along about %g degrees: what lies in front and what behind, and where the body "
            "stands along the rays, is the model's guess; a view across would tell",
            f"{len(views.geometries)} views" if others else "one view",
            first,
        )


def warn_outside(views: Views, config: AnySystem, *, displays: bool = True) -> None:
    """Say once what of the views lies outside the range the model was trained for.

    Args:
        views: Of one patient.
        config: The model's.
        displays: Whether pictures for the eye may have been among the views of its training.
    """
    known, reasons = config.views, []
    if len(views.geometries) not in known.num_views:
        reasons.append(f"{len(views.geometries)} views (trained on {known.num_views})")
    if not (displays or all(views.calibrated)):
        reasons.append("pictures for the eye (trained on line integrals alone)")
    reasons += _unknown_angles(views, known)
    beam = preset(known.preset).beam
    for geometry in views.geometries:
        if geometry.beam != beam:
            reasons.append(f"{geometry.beam} beam (trained on {beam})")
        elif geometry.sod_mm is not None and geometry.sdd_mm is not None:
            low, high = known.sod_mm
            if not low <= geometry.sod_mm <= high:
                reasons.append(f"sod_mm {geometry.sod_mm:g} (trained on {low:g} to {high:g})")
            low, high = known.detector_mm
            gap = geometry.sdd_mm - geometry.sod_mm
            if not low <= gap <= high:
                reasons.append(
                    f"{gap:g} mm from isocenter to detector (trained on {low:g} to {high:g})"
                )
        if geometry.secondary_angle_deg or geometry.roll_deg:
            reasons.append("tilted or rolled views (trained on upright ones)")
    if reasons:
        log.warning(
            "the views lie outside what model %s was trained for: %s",
            config.name,
            "; ".join(dict.fromkeys(reasons)),
        )
