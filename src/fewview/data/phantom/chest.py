"""What divides the chest: diaphragm, mediastinum, lungs; as signed distances."""

import numpy as np
from scipy.ndimage import gaussian_filter

from fewview.data.phantom.canvas import Array, Box, Canvas, smooth_step, smooth_union, tube_distance
from fewview.data.phantom.heart import Vessel, fat_pad
from fewview.data.phantom.trunk import Trunk, Wall, look_up, profile

PLEURA_MM = 1.5
DOME_PLACE = 0.46  # of the half width from the middle to the top of a dome
RIGHT_DOME_MM = 194.0  # below the lung apex at mean inspiration


def above_diaphragm(trunk: Trunk, wall: Wall) -> Array:
    """Height over the diaphragm, mm across it; negative in the abdomen.

    Two domes that fall steeply toward the wall: least in front, most behind.
    """
    body = trunk.anatomy
    right = RIGHT_DOME_MM + body.inspiration_mm
    top = right + np.float32(body.dome_difference_mm) * smooth_step(-25.0, 45.0, wall.x)
    outward = (wall.across - DOME_PLACE) / (1 - DOME_PLACE)
    from_dome = np.where(outward > 0, outward, -0.8 * outward)
    edge = (from_dome**2 + wall.along**2) ** 0.5
    edge = np.minimum(edge, np.float32(1.25))
    # In front the fall begins near the wall, behind from the middle on.
    cosine = wall.toward_back
    behind = np.clip(cosine, 0, 1)
    fall = 58 + 20 * behind - 26 * np.clip(-cosine, 0, 1) - np.float32(0.35 * body.inspiration_mm)
    early = (
        np.float32(0.3) + np.float32(0.6) * behind + np.float32(0.45) * (1 - np.abs(cosine)) ** 0.7
    )
    early = np.minimum(early, np.float32(1.0))
    tilt = 10 * np.clip(cosine * wall.along, -0.6, 1.0)
    surface = top + tilt + fall * (early * edge**2 + (1 - early) * edge**4)
    return np.asarray((surface - wall.below) * np.float32(0.8), dtype=np.float32)


def septum_distance(trunk: Trunk, wall: Wall) -> Array:
    """Signed distance to the tissue between the lungs, without heart and vessels."""
    below = wall.below
    depth = np.clip(1 + wall.y / wall.front, 0, 1.2)  # 0 behind the sternum, 1 at the spine
    front = look_up(profile({0: 26, 35: 24, 80: 12, 120: 7, 170: 8, 230: 20}), below)
    middle = look_up(profile({0: 25, 40: 31, 80: 31, 115: 25, 150: 20, 250: 22}), below)
    back = look_up(profile({0: 19, 100: 14, 200: 15, 300: 20}), below)
    half = front + (middle - front) * smooth_step(0.12, 0.5, depth)
    half = half + (back - half) * smooth_step(0.62, 0.95, depth)
    middle_x = np.float32(2.0) + look_up(profile({0: 0, 150: 2, 250: 6}), below)
    return np.asarray(np.abs(wall.x - middle_x) - half, dtype=np.float32)


def mediastinum_distance(
    canvas: Canvas,
    trunk: Trunk,
    wall: Wall,
    heart: tuple[Box | None, Array],
    found: dict[str, Vessel],
) -> Array:
    """Signed distance to everything that keeps the lungs from the middle, with filleted edges."""
    total = septum_distance(trunk, wall)
    spine = np.hypot(wall.x, wall.y + 2) - look_up(profile({0: 17, 100: 19, 300: 24}), wall.below)
    total = np.minimum(total, spine)
    where, distance = heart
    if where is not None:
        total[where] = np.minimum(total[where], distance - np.float32(4.0))
    place, pad = fat_pad(canvas, trunk)
    if place is not None:
        total[place] = np.minimum(total[place], pad)
    for vessel in found.values():
        place, tube = tube_distance(
            canvas, vessel.course[:, :3], [float(r) for r in vessel.course[:, 3]]
        )
        if place is not None:
            total[place] = np.minimum(total[place], tube - np.float32(2.5))
    return np.asarray(gaussian_filter(total, 3.0 / canvas.voxel_mm, truncate=2.5))


def lung_distance(wall: Wall, mediastinum: Array, above: Array) -> Array:
    """Signed distance to both lungs: inside the wall, beside the middle, over the diaphragm."""
    # Each apex is a dome of its own, 40 mm high, behind the middle of the inlet.
    apex = (np.abs(wall.x) - 44) ** 2 + (wall.y + 12) ** 2
    dome = np.float32(40.0) * (1 - np.exp(apex / np.float32(-3600.0))) - wall.below

    inside = np.maximum(wall.distance + PLEURA_MM, np.float32(0.7) * dome)
    # Fat fills the corner between heart and diaphragm.
    open_space = smooth_union(mediastinum, above - np.float32(2.5), 16.0)
    return np.maximum(inside, -open_space)
