"""Shoulder girdle: clavicles, shoulder blades and the upper ends of the arms."""

import numpy as np

from fewview.data.phantom.canvas import Canvas, bend, tube_distance
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.spine import paint_bone
from fewview.data.phantom.trunk import (
    RIB_LAYER_MM,
    Trunk,
    Wall,
    arm_end,
    look_up,
    profile,
    shoulder_joint,
)

GAP_MM = 6.0  # muscle between ribs and shoulder blade
HALF_PLATE_MM = 1.7


def paint_shoulders(canvas: Canvas, trunk: Trunk, wall: Wall) -> None:
    """Draw the bones of both shoulders."""
    paint_blades(canvas, trunk, wall)
    body = trunk.anatomy
    for flip in (-1.0, 1.0):
        joint = shoulder_joint(trunk, flip)
        tip = joint + np.array([-8.0 * flip, 2.0, 26.0])
        front = trunk.inner_front(42.0)
        clavicle = bend(
            [
                (flip * 20.0, front - 7.0, -41.0, 8.0),
                (
                    flip * 62.0,
                    front - 9.0 + 0.18 * (tip[1] - front),
                    -40.0 + 0.3 * (tip[2] + 40.0),
                    6.0,
                ),
                (
                    flip * 105.0,
                    front + 0.66 * (tip[1] - front),
                    -40.0 + 0.75 * (tip[2] + 40.0),
                    5.5,
                ),
                (tip[0], tip[1], tip[2], 6.5),
            ],
            12,
        )
        paint_tube_bone(
            canvas, clavicle, LABELS["clavicle"], body.cortical_hu, body.cancellous_hu + 60.0, 2.0
        )
        back = trunk.at(trunk.spine_y, 45.0)
        ridge = bend(
            [
                (flip * 68.0, back + 52.0, -42.0, 4.0),
                (flip * 110.0, back + 40.0, joint[2] - 10.0, 5.0),
                (joint[0] - 4.0 * flip, joint[1] + 14.0, joint[2] + 22.0, 6.5),
                (tip[0], tip[1], tip[2], 6.0),
            ],
            10,
        )
        neck = bend(
            [
                (joint[0] - 38.0 * flip, joint[1] + 18.0, joint[2] - 14.0, 8.0),
                (joint[0] - 24.0 * flip, joint[1] + 6.0, joint[2] - 4.0, 13.0),
            ],
            3,
        )
        for part in (ridge, neck):
            paint_tube_bone(
                canvas,
                part,
                LABELS["scapula"],
                body.cortical_hu * 0.8,
                body.cancellous_hu + 60.0,
                1.6,
            )
        if body.arms_up:
            arm = arm_end(trunk, flip)
            along = (arm - joint) / np.linalg.norm(arm - joint)
            shaft = [
                (*(joint + along * d), r)
                for d, r in ((0.0, 22.0), (25.0, 18.0), (55.0, 12.0), (150.0, 11.0))
            ]
        else:
            shaft = [(*joint, 22.0), (*(joint + np.array([flip * 3.0, 0.0, -10.0])), 21.0)]
        paint_tube_bone(
            canvas, bend(shaft, 8), LABELS["humerus"], body.cortical_hu, body.cancellous_hu, 2.4
        )


def paint_tube_bone(
    canvas: Canvas,
    points: np.ndarray,
    label: int,
    cortical_hu: float,
    cancellous_hu: float,
    shell_mm: float,
) -> None:
    """A bent tube of bone."""
    where, distance = tube_distance(canvas, points[:, :3], [float(r) for r in points[:, 3]])
    if where is not None:
        paint_bone(canvas, distance, cortical_hu, cancellous_hu, label, where, shell_mm)


def paint_blades(canvas: Canvas, trunk: Trunk, wall: Wall) -> None:
    """The plates of the shoulder blades: triangles in a layer over the ribs of the back."""
    shift = 12.0 if trunk.anatomy.arms_up else 0.0
    outside = wall.distance - np.float32(RIB_LAYER_MM + GAP_MM)
    layer = np.nonzero(
        (np.abs(outside) < 8) & (wall.below > 5) & (wall.below < 190) & (wall.y > -60)
    )
    below, angle = wall.below[layer], np.degrees(np.arccos(np.clip(wall.toward_back[layer], -1, 1)))
    radius = np.hypot(wall.y[layer] + 0.32 * wall.front[layer], wall.x[layer])
    # Inner border near the spine, outer border from the lower tip up to the joint.
    inner = look_up(profile({20: 46 + shift, 60: 38 + shift, 165: 50 + 1.6 * shift}), below)
    outer = look_up(profile({20: 84 + shift, 60: 88 + shift, 165: 54 + 1.6 * shift}), below)
    sides = np.maximum(inner - angle, angle - outer) * radius * np.float32(np.pi / 180)
    ends = np.maximum(24 - below, below - 160)
    plate = np.maximum(np.maximum(sides, ends), np.abs(outside[layer]) - HALF_PLATE_MM)
    canvas.paint(plate, 0.75 * trunk.anatomy.cortical_hu, LABELS["scapula"], layer)
