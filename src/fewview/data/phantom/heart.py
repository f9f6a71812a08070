"""Heart and great vessels: shapes that also push the lungs aside."""

from dataclasses import dataclass

import numpy as np

from fewview.data.phantom.canvas import (
    Array,
    Box,
    Canvas,
    bend,
    ellipsoid,
    smooth_union,
    tube_distance,
)
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.trunk import Trunk

# Centers (left, behind the sternum's inner surface, below the apex), half axes and long axis of
# the chambers, mm; a heart of 125 mm across.
CHAMBERS = (
    ((36.0, 52.0, 179.0), (50.0, 31.0, 36.0), (0.78, -0.40, -0.46)),  # left ventricle
    ((8.0, 34.0, 172.0), (48.0, 25.0, 38.0), (0.85, -0.15, -0.50)),  # right ventricle
    ((-22.0, 53.0, 158.0), (25.0, 28.0, 37.0), (0.0, 0.0, 1.0)),  # right atrium
    ((10.0, 76.0, 142.0), (38.0, 19.0, 26.0), (1.0, 0.0, 0.0)),  # left atrium
    ((16.0, 40.0, 134.0), (30.0, 24.0, 34.0), (0.2, 0.3, 0.93)),  # outflow tracts
)
CENTER = np.array([12.0, 58.0, 165.0])


def heart_sink(trunk: Trunk) -> float:
    """How much lower than in `CHAMBERS` the heart lies: it rides on the diaphragm, mm."""
    return 6.0 + 0.8 * trunk.anatomy.inspiration_mm + 0.3 * trunk.anatomy.dome_difference_mm


def fat_pad(canvas: Canvas, trunk: Trunk) -> tuple[Box | None, Array]:
    """Signed distance to the fat that fills the corner between the heart and the diaphragm."""
    scale = trunk.anatomy.heart_scale
    center = (36.0, trunk.inner_front(165.0) + 46.0, -205.0 - heart_sink(trunk))
    where = canvas.box(np.array([center]), 70.0 * scale)
    if where is None:
        return None, np.zeros((0, 0, 0), np.float32)
    semi = (56.0 * scale, 42.0 * scale, 36.0 * scale)
    return where, ellipsoid(canvas, where, center, semi)


@dataclass(frozen=True, eq=False)
class Vessel:
    """A large vessel: course (x, y, z, radius) in body mm and its label."""

    course: Array
    label: int
    contrast: float
    """Share of the contrast agent in it."""


def heart_distance(canvas: Canvas, trunk: Trunk) -> tuple[Box | None, Array]:
    """Signed distance to the outside of the heart, without its fat, on the box around it."""
    body = trunk.anatomy
    front = trunk.inner_front(165.0)
    turn = np.radians(body.heart_turn_deg)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    sink = heart_sink(trunk)
    where = canvas.box(np.array([[15.0, front + 58.0, -165.0 - sink]]), 95.0)
    if where is None:
        return None, np.zeros((0, 0, 0), np.float32)
    total: Array | None = None
    for center, semi, long_axis in CHAMBERS:
        moved = CENTER + (np.array(center) - CENTER) * body.heart_scale
        relative = rotation @ ((moved - CENTER) * np.array([1.0, 1.0, -1.0]))
        place = np.array([CENTER[0], CENTER[1] + front, -CENTER[2] - sink]) + relative
        first = rotation @ np.array(long_axis)
        first /= np.linalg.norm(first)
        second = np.cross([0.0, 0.0, 1.0], first) if abs(first[2]) < 0.9 else np.array([1.0, 0, 0])
        second = second - (second @ first) * first
        second /= np.linalg.norm(second)
        axes = np.stack([first, second, np.cross(first, second)])
        half = (semi[2], semi[0], semi[1]) if abs(first[2]) >= 0.9 else semi
        shape = ellipsoid(canvas, where, place, [h * body.heart_scale for h in half], axes)
        total = shape if total is None else smooth_union(total, shape, 14.0)
    assert total is not None
    return where, total


def vessels(trunk: Trunk) -> dict[str, Vessel]:
    """Courses of aorta, pulmonary trunk and branches, caval veins and neck vessels."""
    body = trunk.anatomy
    r, unfold = body.aorta_radius_mm, body.aorta_unfold_mm
    front = trunk.inner_front(110.0)

    def behind(below: float) -> float:
        return trunk.at(trunk.spine_y, below)

    def side(below: float) -> float:
        return trunk.at(trunk.spine_x, below)

    arch_top = 68.0 - 0.5 * unfold
    arch_y = behind(arch_top)
    aorta = [
        (2.0, trunk.inner_front(135.0) + 48.0, -142.0, r * 1.05),
        (-14.0 - unfold, front + 38.0, -112.0, r * 1.12),
        (-10.0 - unfold, front + 42.0, -88.0, r * 1.05),
        (6.0, 0.5 * (front + 44.0 + arch_y - 30.0) - 6.0, -arch_top, r),
        (23.0 + unfold, arch_y - 22.0, -arch_top - 9.0, r),
        (27.0 + unfold, behind(105.0) - 14.0, -105.0, r * 0.93),
        (23.0 + side(160.0) + 0.6 * unfold, behind(160.0) - 19.0, -160.0, r * 0.88),
        (16.0 + side(220.0), behind(220.0) - 25.0, -220.0, r * 0.84),
        (9.0 + side(290.0), behind(290.0) - 28.0, -290.0, r * 0.78),
        (5.0 + side(400.0), behind(400.0) - 29.0, -400.0, r * 0.66),
    ]
    pulmonary = [
        (20.0, trunk.inner_front(130.0) + 26.0, -134.0, 13.0),
        (24.0, front + 34.0, -112.0, 13.5),
        (20.0, front + 50.0, -103.0, 12.0),
    ]
    fork = pulmonary[-1]
    right = [
        (*fork[:3], 10.0),
        (-12.0, front + 62.0, -108.0, 9.5),
        (-38.0, front + 68.0, -114.0, 8.0),
    ]
    right += [(-50.0, front + 74.0, -132.0, 6.5)]
    left = [(*fork[:3], 10.5), (34.0, front + 64.0, -101.0, 9.5), (46.0, front + 78.0, -112.0, 8.0)]
    left += [(50.0, front + 84.0, -130.0, 6.5)]
    upper_cava = [(-22.0, front + 38.0, -48.0, 7.5), (-25.0, front + 50.0, -90.0, 9.5)]
    upper_cava += [(-26.0, trunk.inner_front(140.0) + 56.0, -140.0, 10.0)]
    lower_cava = [(-22.0, trunk.inner_front(190.0) + 72.0, -185.0, 12.0)]
    lower_cava += [
        (-24.0, behind(240.0) - 34.0, -240.0, 11.5),
        (-22.0, behind(390.0) - 24.0, -390.0, 10.0),
    ]
    neck = trunk.inner_front(20.0)
    stem = (arch_y + front) * 0.5
    branches = {
        "brachiocephalic": [
            (-6.0, front + 46.0, -76.0, 6.5),
            (-20.0, neck + 28.0, -36.0, 6.0),
            (-30.0, neck + 26.0, 60.0, 4.0),
        ],
        "left_carotid": [
            (6.0, stem - 4.0, -68.0, 4.5),
            (18.0, neck + 30.0, -30.0, 4.2),
            (30.0, neck + 26.0, 60.0, 4.0),
        ],
        "left_subclavian": [
            (18.0, stem + 14.0, -68.0, 5.5),
            (21.0, neck + 34.0, -22.0, 5.2),
            (30.0, neck + 22.0, 9.0, 4.8),
            (90.0, neck + 18.0, 10.0, 4.5),
        ],
        "left_brachiocephalic_vein": [
            (44.0, neck + 16.0, -32.0, 6.5),
            (10.0, front + 26.0, -52.0, 6.8),
            (-22.0, front + 38.0, -58.0, 7.0),
        ],
    }
    great = LABELS["great_vessel"]
    found = {name: Vessel(bend(knots, 8), great, 1.0) for name, knots in branches.items()}
    for name, knots, contrast in (
        ("pulmonary_trunk", pulmonary, 0.9),
        ("right_pulmonary", right, 0.9),
        ("left_pulmonary", left, 0.9),
        ("superior_cava", upper_cava, 0.8),
        ("inferior_cava", lower_cava, 0.3),
    ):
        found[name] = Vessel(bend(knots, 10), great, contrast)
    found["aorta"] = Vessel(bend(aorta, 40), LABELS["aorta"], 1.0)
    return found


def paint_heart(canvas: Canvas, trunk: Trunk, heart: Array, where: Box, above: Array) -> None:
    """Muscle and blood of the heart above the diaphragm."""
    body = trunk.anatomy
    cut = np.maximum(heart, -above[where])
    canvas.paint(cut, 48.0, LABELS["heart"], where)
    canvas.paint(cut + np.float32(9.0), 42.0 + 0.85 * body.contrast_hu, None, where)


def paint_vessels(canvas: Canvas, trunk: Trunk, found: dict[str, Vessel]) -> None:
    """Blood in the great vessels."""
    for vessel in found.values():
        where, distance = tube_distance(
            canvas, vessel.course[:, :3], [float(r) for r in vessel.course[:, 3]]
        )
        if where is not None:
            blood = 42.0 + vessel.contrast * trunk.anatomy.contrast_hu
            distance = np.maximum(distance, canvas.skin[where] + np.float32(8.0))
            canvas.paint(distance, blood, vessel.label, where)
