"""Twelve pairs of ribs on the chest wall, their cartilage, and the sternum.

A rib is a flattened tube in the wall's own coordinates: a fixed distance outside the inner
surface, at a height that depends on the angle around the chest. So ribs follow every chest wall.
"""

from dataclasses import dataclass

import numpy as np

from fewview.data.phantom.anatomy import Anatomy
from fewview.data.phantom.canvas import Array, Canvas, ellipsoid
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.spine import FIRST_THORACIC, paint_bone, vertebra_tops
from fewview.data.phantom.trunk import Trunk, Wall

MIDDLE_MM = 4.8  # of the rib's thickness, outside the inner surface
HALF_THICKNESS_MM, HALF_HEIGHT_MM = 3.6, 6.1
# Fall from the head to the front end of the bony rib, mm below the head, ribs 1 to 12.
FALL = (34, 48, 62, 74, 84, 91, 95, 95, 90, 78, 58, 34)
# Where the bony rib ends, degrees around the chest from straight back.
END_DEG = (152, 153, 152, 150, 148, 145, 139, 130, 121, 111, 84, 58)
# Where the cartilage of ribs 1 to 7 meets the sternum, mm below the apex.
STERNAL = (46, 80, 102, 121, 139, 155, 168)


@dataclass(frozen=True)
class Rib:
    """One rib's course: height below the lung apex over the angle in whole degrees."""

    below: Array
    bone_end_deg: float
    cartilage_end_deg: float


def rib_courses() -> list[Rib]:
    """The twelve ribs, the same on both sides."""
    angle = np.arange(181.0)
    heads = vertebra_tops()[FIRST_THORACIC : FIRST_THORACIC + 12] + 3.0
    courses: list[Rib] = []
    for i, (head, fall, end) in enumerate(zip(heads, FALL, END_DEG, strict=True)):
        share = np.clip((angle - 12.0) / (end - 12.0), 0.0, 1.0)
        # Steepest at the side, flat at the neck and toward the front.
        below = head + fall * (0.55 * share + 0.45 * share * share * (3 - 2 * share))
        last = float(end)
        if i < 10:
            last = 180.0 if i < 7 else end + 24.0
            goal = STERNAL[i] if i < 7 else courses[i - 1].below[int(last)] + 9.0
            up = np.clip((angle - end) / (min(last, 172.0) - end), 0.0, 1.0)
            below = below + (goal - head - fall) * up**1.15
        courses.append(Rib(below.astype(np.float32), float(end), last))
    return courses


def paint_ribs(canvas: Canvas, wall: Wall, body: Anatomy) -> None:
    """Draw ribs and cartilage in the layer outside the inner surface."""
    layer = np.nonzero(
        (wall.distance > -2.5) & (wall.distance < 13.0) & (wall.below > -35) & (wall.below < 330)
    )
    distance, below, x = wall.distance[layer], wall.below[layer], wall.x[layer]
    radius = np.hypot(wall.y[layer] + 0.32 * wall.front[layer], x)
    angle = np.degrees(np.arccos(np.clip(wall.toward_back[layer], -1.0, 1.0)))
    degree = angle.astype(np.int32)
    # The sides differ more the farther a rib is from the spine.
    below = below - np.sign(x) * np.float32(0.5 * body.rib_difference_mm / 140.0) * angle
    across = (distance - np.float32(MIDDLE_MM)) / np.float32(HALF_THICKNESS_MM)
    bone = np.full(len(distance), 1e3, np.float32)
    cartilage = bone.copy()
    for number, rib in enumerate(rib_courses()):
        scale = np.float32(0.8 if number in (0, 10, 11) else 1.0)
        # The height is read across the rib, which falls at about 20 degrees to the horizontal.
        up = (below - rib.below[degree]) * np.float32(0.94 / HALF_HEIGHT_MM) / scale
        level = np.sqrt(across * across + up * up)
        near = (level - 1) * np.float32(0.5 * (HALF_THICKNESS_MM + HALF_HEIGHT_MM))
        per_degree = radius * np.float32(np.pi / 180)
        past_bone = (angle - rib.bone_end_deg) * per_degree
        past_end = (angle - rib.cartilage_end_deg) * per_degree
        bone = np.minimum(bone, np.maximum(near, past_bone))
        tail = np.maximum(np.maximum(near, -past_bone), past_end)
        cartilage = np.minimum(cartilage, tail)
    head = np.float32(15.0) - np.abs(x)  # the head stops at the vertebra
    bone = np.maximum(bone, head)
    canvas.paint(cartilage, 95.0, LABELS["costal_cartilage"], layer)
    paint_bone(canvas, bone, body.cortical_hu, body.cancellous_hu, LABELS["rib"], layer, 1.0)


def paint_sternum(canvas: Canvas, trunk: Trunk) -> None:
    """Manubrium, body and xiphoid of the sternum: flat plates on the front of the wall."""
    body = trunk.anatomy
    plates = ((40.0, 84.0, 26.0), (86.0, 172.0, 17.0), (172.0, 196.0, 7.0))
    for top, bottom, half_width in plates:
        middle = 0.5 * (top + bottom)
        front = [trunk.inner_front(b) for b in (top, middle, bottom)]
        center = (0.5 * trunk.at(trunk.spine_x, middle), front[1] - 5.5, -middle)
        lean = np.array([0.0, front[2] - front[0], top - bottom])
        lean /= np.linalg.norm(lean)
        axes = np.array([[1.0, 0.0, 0.0], np.cross(lean, [1.0, 0.0, 0.0]), lean])
        half_length = 0.5 * (bottom - top) * 1.12
        where = canvas.box(np.array([center]), half_length + 12.0)
        if where is None:
            continue
        plate = ellipsoid(canvas, where, center, (half_width, 6.0, half_length), axes)
        hu = (body.cortical_hu * 0.55, body.cancellous_hu * 0.8)
        paint_bone(canvas, plate, hu[0], hu[1], LABELS["sternum"], where, 1.2)
