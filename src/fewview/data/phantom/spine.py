"""The spine: vertebral bodies with a shell, discs, canal, arches and processes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from fewview.data.phantom.canvas import Array, Box, Canvas, capsule
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.trunk import BOTTOM, PER_MM, TOP, Trunk, look_up, profile

# Heights in mm of a vertebra with the disc below it, C3 to L5 (typical adult; T1 to T12 281 mm).
CERVICAL = (15.0, 15.0, 15.0, 16.0, 17.0)
THORACIC = (20.0, 20.5, 21.0, 21.5, 22.0, 22.5, 23.0, 23.5, 24.5, 26.0, 27.5, 29.0)
LUMBAR = (32.0, 34.0, 35.0, 36.0, 36.0)
PITCH = (*CERVICAL, *THORACIC, *LUMBAR)
FIRST_THORACIC = 5
T1_TOP = -14.0  # mm below the lung apex: the apex reaches to the first rib's neck
SHELL_MM = 0.8
UNDER_SKIN_MM = 4.0


def vertebra_tops() -> Float32[np.ndarray, " vertebra"]:
    """Height below the apex of the upper end plates, and the lower end of the last."""
    tops = np.r_[0.0, np.cumsum(PITCH)]
    return np.asarray(tops - tops[FIRST_THORACIC] + T1_TOP, dtype=np.float32)


def disc_share(number: int) -> float:
    """Part of the pitch that the disc takes."""
    if number < FIRST_THORACIC:
        return 0.28
    return 0.17 if number < FIRST_THORACIC + 12 else 0.25


@dataclass(frozen=True, eq=False)
class SpineFrame:
    """Spine coordinates of the voxels in a box."""

    x: Array
    y: Array
    along: Array
    """Below the middle of the nearest vertebral body, mm, along the spine."""
    half_height: Array
    width: Array
    depth: Array


def paint_spine(canvas: Canvas, trunk: Trunk) -> None:
    """Draw all vertebrae and discs."""
    heights = np.arange(-170.0, 400.0, 20.0)
    course = np.array(
        [[trunk.at(trunk.spine_x, h), trunk.at(trunk.spine_y, h), -h] for h in heights]
    )
    where = canvas.box(course, 60.0)
    if where is None:
        return
    frame = spine_frame(canvas, trunk, where)
    body = trunk.anatomy
    bodies = body_distance(frame)
    paint_arches(canvas, trunk, where, frame)
    disc = cylinder(frame, inset=0.8)
    disc = np.maximum(disc, -bodies)
    canvas.paint(disc, 85.0, LABELS["disc"], where)
    paint_bone(
        canvas, bodies, body.cortical_hu * 0.45, body.cancellous_hu, LABELS["vertebra"], where
    )
    canal = np.hypot(frame.x, frame.y - canal_center(frame)) - np.float32(8.0)
    canvas.paint(canal, 28.0, LABELS["spinal_canal"], where)


def paint_bone(
    canvas: Canvas,
    distance: Array,
    cortical_hu: float,
    cancellous_hu: float,
    label: int,
    where: Box | tuple[Array, ...],
    shell_mm: float = SHELL_MM,
) -> None:
    """A shell of dense bone around spongy bone, always under the skin."""
    distance = np.maximum(distance, canvas.skin[where] + np.float32(UNDER_SKIN_MM))

    canvas.paint(distance, cortical_hu, label, where)
    canvas.paint(distance + np.float32(shell_mm), cancellous_hu, None, where)


def spine_frame(canvas: Canvas, trunk: Trunk, where: Box) -> SpineFrame:
    """Coordinates relative to the nearest vertebra, end plates square to the spine's course."""
    z = canvas.z[where]
    below = -z
    x = canvas.x[where] - look_up(trunk.spine_x, below)
    y = canvas.y[where] - look_up(trunk.spine_y, below)
    slope = np.gradient(trunk.spine_y, 1.0 / PER_MM).astype(np.float32)
    along_course = below + look_up(slope, below) * y
    tops = vertebra_tops()
    middles = np.array(
        [
            t + 0.5 * p * (1 - disc_share(i))
            for i, (t, p) in enumerate(zip(tops, PITCH, strict=False))
        ]
    )
    halves = np.array([0.5 * p * (1 - disc_share(i)) for i, p in enumerate(PITCH)])
    ticks = np.arange(TOP, BOTTOM, 1.0 / PER_MM)
    # The disc belongs half to the vertebra above it and half to the one below.
    nearest = np.searchsorted(tops[1:-1] - 0.5 * np.array(PITCH[:-1]) * 0.2, ticks)
    middle, half = middles[nearest].astype(np.float32), halves[nearest].astype(np.float32)
    width = profile({-90: 10, -20: 14, 60: 14.5, 150: 16, 260: 20, 400: 24})
    depth = profile({-90: 8, -20: 9, 60: 11.5, 150: 14, 260: 15.5, 400: 17})
    return SpineFrame(
        x=x,
        y=y,
        along=along_course - look_up(middle, along_course),
        half_height=look_up(half, along_course),
        width=look_up(width, below),
        depth=look_up(depth, below),
    )


def cylinder(frame: SpineFrame, inset: float) -> Array:
    """Distance to the elliptic column of bodies and discs."""
    level = np.sqrt((frame.x / frame.width) ** 2 + (frame.y / frame.depth) ** 2)
    return np.asarray((level - 1) * np.minimum(frame.width, frame.depth) + inset)


def body_distance(frame: SpineFrame) -> Array:
    """Distance to the vertebral bodies: waisted cylinders between their end plates."""
    share = np.clip(frame.along / frame.half_height, -1.0, 1.0)
    waist = np.float32(1.8) * (1 - share * share)
    return np.maximum(cylinder(frame, 0.0) + waist, np.abs(frame.along) - frame.half_height)


def canal_center(frame: SpineFrame) -> Array:
    """Posterior coordinate of the middle of the spinal canal behind the centers of the bodies."""
    return frame.depth + np.float32(8.0)


def paint_arches(canvas: Canvas, trunk: Trunk, where: Box, frame: SpineFrame) -> None:
    """Pedicles and laminae around the canal, then transverse and spinous processes."""
    body = trunk.anatomy
    radius = np.hypot(frame.x, frame.y - canal_center(frame))
    # Pedicles start at the upper half of the body; laminae slope down like tiles.
    tilt = frame.along - np.float32(0.35) * (frame.y - canal_center(frame))
    arch = np.maximum(np.abs(radius - 11.0) - 3.2, np.abs(tilt + 1.0) - 0.72 * frame.half_height)
    label = LABELS["vertebra"]
    paint_bone(canvas, arch, body.cortical_hu * 0.7, body.cancellous_hu + 70.0, label, where)
    for number, top in enumerate(vertebra_tops()[:-1]):
        middle = float(top) + 0.5 * PITCH[number]
        center = np.array(
            [trunk.at(trunk.spine_x, middle), trunk.at(trunk.spine_y, middle), -middle]
        )
        for start, end, radii in processes(number, trunk, middle):
            ends = np.stack([center + start, center + end])
            place = canvas.box(ends, 9.0)
            if place is None:
                continue
            distance = capsule(canvas, place, ends[0], ends[1], radii)
            paint_bone(
                canvas, distance, body.cortical_hu * 0.7, body.cancellous_hu + 60.0, label, place
            )


def processes(
    number: int, trunk: Trunk, middle: float
) -> list[tuple[Array, Array, tuple[float, float]]]:
    """Start, end and radii of one vertebra's three processes, relative to its center."""
    depth = trunk.at(profile({-90: 8, -20: 9, 60: 11.5, 150: 14, 260: 15.5, 400: 17}), middle)
    thoracic = FIRST_THORACIC <= number < FIRST_THORACIC + 12
    lumbar = number >= FIRST_THORACIC + 12
    order = number - FIRST_THORACIC
    # Thoracic spines overlap like tiles in the middle of the row, others point straight back.
    fall = 10.0 + 14.0 * np.exp(-(((order - 5.5) / 3.0) ** 2)) if thoracic else 6.0
    reach = depth + (42.0 if lumbar else 34.0)
    root = np.array([0.0, depth + 19.0, -3.0])
    spine = (root, np.array([0.0, reach, -3.0 - fall]), (3.4, 3.8 if not lumbar else 5.0))
    out, behind = (
        (40.0, 12.0) if lumbar else ((33.0 - 0.9 * order, 19.0) if thoracic else (24.0, 6.0))
    )
    if number == FIRST_THORACIC + 11:
        out = 20.0
    arms: list[tuple[Array, Array, tuple[float, float]]] = [spine]
    for flip in (-1.0, 1.0):
        base = np.array([flip * 11.0, depth + 9.0, 2.0])
        arms.append((base, np.array([flip * out, depth + behind, 2.0]), (4.6, 4.2)))
    return arms
