"""The chest wall: inner surface of the ribs, muscle, fat and skin at every height.

Each horizontal cut of the inner surface is a superellipse with its own front and back half,
notched behind where the spine stands in. `below` is the height in mm below the lung apex.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32
from scipy.interpolate import PchipInterpolator

from fewview.data.phantom.anatomy import Anatomy
from fewview.data.phantom.canvas import Array, Canvas, capsule, ellipsoid, smooth_union

TOP, BOTTOM, PER_MM = -260.0, 420.0, 2
RIB_LAYER_MM = 9.5  # from the inner surface to the outside of the ribs
SKIN_MM = 2.0
POWER = 2.55  # of the superellipse: fuller than an ellipse, not a box


def profile(knots: Mapping[int, int | float]) -> Float32[np.ndarray, " height"]:
    """A smooth curve over `below`, tabulated every half millimeter."""
    heights = np.arange(TOP, BOTTOM, 1.0 / PER_MM)
    where, what = np.array(list(knots)), np.array(list(knots.values()))
    clipped = np.clip(heights, where[0], where[-1])
    return np.asarray(PchipInterpolator(where, what)(clipped), dtype=np.float32)


def look_up(table: Float32[np.ndarray, " height"], below: Array) -> Array:
    """Values of a `profile` at any heights."""
    index = ((below - np.float32(TOP)) * np.float32(PER_MM)).astype(np.int32)
    return np.asarray(table[np.clip(index, 0, len(table) - 1)])


@dataclass(frozen=True, eq=False)
class Trunk:
    """Where the wall and the spine of one body run."""

    anatomy: Anatomy

    @cached_property
    def half_width(self) -> Float32[np.ndarray, " height"]:
        """Inner surface to the side."""
        belly = 14.0 * self.anatomy.belly
        return profile(
            {-120: 30, -40: 31, -12: 38, 0: 58, 15: 80, 40: 101, 80: 117, 120: 125, 160: 130}
            | {200: 132, 250: 133, 300: 130 + belly / 2, 400: 124 + belly}
        )

    @cached_property
    def front(self) -> Float32[np.ndarray, " height"]:
        """Inner surface in front of the centers of the vertebral bodies."""
        belly = 45.0 * self.anatomy.belly
        return profile(
            {-120: 36, -40: 36, -10: 45, 10: 63, 40: 93, 80: 120, 120: 132, 160: 137, 200: 138}
            | {250: 132 + 0.3 * belly, 300: 117 + 0.8 * belly, 400: 96 + belly}
        )

    @cached_property
    def back(self) -> Float32[np.ndarray, " height"]:
        """Inner surface behind the centers of the vertebral bodies, beside the spine."""
        return profile(
            {-120: 16, -40: 16, 0: 26, 40: 37, 80: 43, 150: 47, 220: 46, 300: 40, 400: 33}
        )

    @cached_property
    def spine_y(self) -> Float32[np.ndarray, " height"]:
        """Centers of the vertebral bodies, posterior: thoracic kyphosis, lumbar lordosis."""
        bow = self.anatomy.kyphosis_mm
        return profile(
            {-200: 38 - 2.1 * bow, -100: 40 - 2.0 * bow, -40: 43 - 1.6 * bow, 0: 45 - 1.1 * bow}
            | {50: 45 - 0.45 * bow, 90: 45 - 0.12 * bow, 140: 45, 200: 45 - 0.08 * bow}
            | {270: 45 - 0.45 * bow, 340: 45 - 0.8 * bow, 420: 45 - 0.75 * bow}
        )

    @cached_property
    def spine_x(self) -> Float32[np.ndarray, " height"]:
        """Sideways course of the spine."""
        heights = np.arange(TOP, BOTTOM, 1.0 / PER_MM)
        wave = np.sin(heights / 75.0 + self.anatomy.scoliosis_phase)
        return np.asarray(self.anatomy.scoliosis_mm * wave, dtype=np.float32)

    def at(self, table: Float32[np.ndarray, " height"], below: float) -> float:
        """One value of a profile."""
        return float(look_up(table, np.array(below)))

    def inner_front(self, below: float) -> float:
        """Posterior coordinate of the inner surface behind the sternum."""
        return self.at(self.spine_y, below) - self.at(self.front, below)


@dataclass(frozen=True, eq=False)
class Wall:
    """Every voxel's place relative to the inner surface of the rib cage."""

    distance: Float32[np.ndarray, "depth height width"]
    """Outward distance from the inner surface, mm, along the ray from the middle of the cut."""
    across: Float32[np.ndarray, "depth height width"]
    """0 in the middle plane, 1 where the cut is widest."""
    along: Float32[np.ndarray, "depth height width"]
    """0 at the widest place, 1 at the inner surface straight in front and behind."""
    toward_back: Float32[np.ndarray, "depth height width"]
    """Cosine of the angle to straight back: 1 behind, 0 at the side, -1 in front."""
    below: Float32[np.ndarray, "depth height width"]
    x: Float32[np.ndarray, "depth height width"]
    """Left of the spine's course."""
    y: Float32[np.ndarray, "depth height width"]
    """Behind the centers of the vertebral bodies."""
    front: Float32[np.ndarray, "depth height width"]
    """Distance from those centers to the inner surface in front, mm."""


def wall_of(trunk: Trunk, x: Array, y: Array, z: Array) -> Wall:
    """The wall's coordinates at any body points."""
    below = -z
    # Organs and ribs follow half of the spine's sideways course.
    side = x - 0.5 * look_up(trunk.spine_x, below)
    behind = y - look_up(trunk.spine_y, below)
    front, back = look_up(trunk.front, below), look_up(trunk.back, below)
    half_width = look_up(trunk.half_width, below)
    middle = np.float32(-0.32) * front
    notch = np.float32(20.0) * np.exp(-((side / np.float32(24.0)) ** 2))
    offset = behind - middle
    half_depth = np.where(offset < 0, front + middle, back - middle - notch)
    power = np.float32(POWER)
    across, along = np.abs(side) / half_width, np.abs(offset) / half_depth
    level = (across**power + along**power) ** (1 / power)
    level = np.maximum(level, np.float32(1e-3))
    radius = np.sqrt(side * side + offset * offset)
    return Wall(
        distance=radius - radius / level,
        across=across,
        along=along,
        toward_back=offset / np.maximum(radius, np.float32(1e-3)),
        below=below,
        x=side,
        y=behind,
        front=front,
    )


def soft_layers(canvas: Canvas, trunk: Trunk, wall: Wall) -> tuple[Array, Array]:
    """Signed distances of the muscle wall and of the skin.

    Returns:
        Distance to the outside of the muscles and to the outside of the skin, mm.
    """
    body = trunk.anatomy
    back = np.clip(wall.toward_back, 0, 1) ** 4
    front = np.clip(-wall.toward_back, 0, 1) ** 2
    side = 1 - wall.toward_back**2
    beside_sternum = 1 - np.float32(0.75) * np.exp(-((wall.x / 28) ** 2))
    # Latissimus, serratus and the muscles of the shoulder blade: over the upper ribs, to the back.
    blade = np.clip(0.82 * np.sqrt(side) + 0.57 * wall.toward_back, 0, 1) ** 6
    muscle = (
        look_up(profile({-60: 16, 0: 15, 60: 9, 200: 6, 300: 15, 400: 24}), wall.below) * back
        + look_up(profile({-60: 10, 20: 8, 50: 11, 90: 11, 140: 5, 200: 3, 400: 6}), wall.below)
        * front
        * beside_sternum
        + look_up(profile({-60: 16, 0: 14, 60: 12, 110: 8, 180: 4, 300: 4, 400: 8}), wall.below)
        * side
        + look_up(profile({-60: 0, 0: 12, 40: 16, 120: 12, 180: 4, 230: 0}), wall.below) * blade
    ) * np.float32(body.muscle)
    fat = np.float32(body.fat_mm) * (
        look_up(profile({-60: 0.5, 40: 0.7, 150: 0.7, 400: 1.0}), wall.below) * back
        + look_up(profile({-60: 0.4, 40: 0.5, 120: 0.7, 200: 0.8, 400: 1.5}), wall.below) * front
        + look_up(profile({-60: 0.4, 40: 0.9, 150: 1.0, 250: 1.0, 400: 1.5}), wall.below) * side
    )
    muscle_distance = wall.distance - RIB_LAYER_MM - muscle
    skin_distance = muscle_distance - fat - SKIN_MM
    for flip in (-1.0, 1.0):
        joint = shoulder_joint(trunk, flip)
        neck = np.array([flip * 42.0, joint[1] + 18.0, -22.0])
        arm = arm_end(trunk, flip) if body.arms_up else joint
        fold = np.array([flip * 128.0, joint[1] + 18.0, -165.0])
        stout = 0.5 + 0.5 * body.muscle
        for start, end, radii in (
            (neck, joint, (50.0, 50.0)),
            (joint, arm, (48.0, 38.0)),
            (joint, fold, (38.0, 10.0)),
        ):
            where = canvas.box(np.stack([start, end]), 50.0 * stout + body.fat_mm + 30.0)
            if where is None:
                continue
            limb = capsule(canvas, where, start, end, (radii[0] * stout, radii[1] * stout))

            muscle_distance[where] = smooth_union(muscle_distance[where], limb, 30.0)
            cover = limb - 0.7 * body.fat_mm - SKIN_MM
            skin_distance[where] = smooth_union(skin_distance[where], cover, 35.0)
        if body.breast_mm > 0:
            add_breast(canvas, trunk, flip, skin_distance)
    # The patient lies on a flat couch.
    couch = 100.0 + 0.6 * body.fat_mm
    skin_distance = -smooth_union(-skin_distance, couch - canvas.y, 16.0)
    rest = couch - 0.5 * body.fat_mm - 2 * SKIN_MM
    muscle_distance = -smooth_union(-muscle_distance, rest - canvas.y, 16.0)
    return muscle_distance, skin_distance


def shoulder_joint(trunk: Trunk, flip: float) -> Array:
    """Center of the head of the upper arm, on the side of the sign `flip`."""
    body = trunk.anatomy
    rise = -12.0 if body.arms_up else 30.0
    drop = rise + body.shoulder_drop_mm
    out = 150.0 if body.arms_up else 158.0
    return np.array([flip * out, trunk.at(trunk.spine_y, 40.0) - 6.0, -drop])


def arm_end(trunk: Trunk, flip: float) -> Array:
    """Where the axis of a raised upper arm leaves."""
    return shoulder_joint(trunk, flip) + np.array([flip * 55.0, -30.0, 140.0])


def add_breast(canvas: Canvas, trunk: Trunk, flip: float, skin_distance: Array) -> None:
    """Join one breast to the skin, flattened to the side as in a patient lying down."""
    size = trunk.anatomy.breast_mm
    center = (flip * 78.0, trunk.inner_front(150.0) + 2.0, -150.0)
    semi = (46.0 + 0.35 * size, 14.0 + size, 52.0 + 0.4 * size)
    where = canvas.box(np.array([center]), max(semi) + 30.0)
    if where is not None:
        shape = ellipsoid(canvas, where, center, semi)
        skin_distance[where] = smooth_union(skin_distance[where], shape, 25.0)
