"""The upper abdomen: diaphragm muscle, liver, spleen, stomach, kidneys, bowel."""

import numpy as np

from fewview.data.phantom.canvas import Array, Canvas, ellipsoid, smooth_union
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.trunk import Trunk, Wall

DIAPHRAGM_MM = 3.0
GAS_HU = -960.0


def paint_abdomen(
    canvas: Canvas, trunk: Trunk, wall: Wall, above: Array, rng: np.random.Generator
) -> None:
    """Draw what lies under the diaphragm, inside the abdominal wall."""
    body = trunk.anatomy
    room = np.maximum(wall.distance + 3.0, above)
    canvas.paint(room, -100.0, LABELS["abdomen"])
    muscle = np.maximum(np.maximum(wall.distance + 0.5, above), -above - DIAPHRAGM_MM)
    canvas.paint(muscle, 45.0, LABELS["diaphragm"])
    inside = np.maximum(wall.distance + 4.5, above + DIAPHRAGM_MM + 1.0)
    low = body.inspiration_mm
    for flip in (-1.0, 1.0):
        place = (flip * 60.0, trunk.at(trunk.spine_y, 345.0) - 2.0, -345.0 - 0.5 * low - 5.0 * flip)
        paint_organ(
            canvas, inside, place, (26.0, 24.0, 52.0), 35.0 + 0.5 * body.contrast_hu, "kidney"
        )
    paint_bowel(canvas, trunk, inside, rng)
    paint_stomach(canvas, trunk, inside, rng)
    spleen = (88.0, trunk.at(trunk.spine_y, 275.0) - 4.0, -272.0 - 0.8 * low)
    paint_organ(canvas, inside, spleen, (34.0, 44.0, 48.0), 50.0 + 0.3 * body.contrast_hu, "spleen")
    tilt = 0.72 * (wall.x - 12.0) + 0.62 * (wall.below - 284.0 - low) + 0.30 * (wall.y + 45.0)
    spine = np.float32(34.0) - np.hypot(wall.x, wall.y)
    liver = -smooth_union(-np.maximum(inside, spine), -tilt, 25.0)
    canvas.paint(liver, body.liver_hu + 0.25 * body.contrast_hu, LABELS["liver"])


def paint_organ(
    canvas: Canvas,
    inside: Array,
    center: tuple[float, float, float],
    semi: tuple[float, float, float],
    hu: float,
    name: str,
) -> Array | None:
    """One ellipsoid organ kept inside the abdominal cavity; returns its distance on its box."""
    where = canvas.box(np.array([center]), max(semi) + 4.0)
    if where is None:
        return None
    shape = np.maximum(ellipsoid(canvas, where, center, semi), inside[where])
    canvas.paint(shape, hu, LABELS[name], where)
    return shape


def paint_stomach(canvas: Canvas, trunk: Trunk, inside: Array, rng: np.random.Generator) -> None:
    """The stomach with its gas in front, where it rises in a patient lying on the back."""
    low = trunk.anatomy.inspiration_mm
    front = trunk.inner_front(260.0)
    center = (62.0, front + 66.0, -262.0 - 0.8 * low)
    semi = (42.0, 50.0, 48.0)
    food = float(rng.uniform(10.0, 60.0))
    gas_level = front + float(rng.uniform(20.0, 62.0))
    shape = paint_organ(canvas, inside, center, semi, 42.0, "stomach")
    where = canvas.box(np.array([center]), max(semi) + 4.0)
    if shape is None or where is None:
        return
    canvas.paint(shape + np.float32(4.0), food, None, where)
    gas = np.maximum(shape + np.float32(4.0), canvas.y[where] - np.float32(gas_level))
    canvas.paint(gas, GAS_HU, LABELS["stomach"], where)


def paint_bowel(canvas: Canvas, trunk: Trunk, inside: Array, rng: np.random.Generator) -> None:
    """Loops in the lower front, some with gas."""
    front = trunk.inner_front(340.0)
    for _ in range(26):
        center = tuple(rng.uniform([-105.0, front + 12.0, -400.0], [110.0, front + 75.0, -300.0]))
        semi = tuple(rng.uniform(11.0, 26.0, 3))
        content = float(rng.uniform(0.0, 50.0))
        gas = bool(rng.random() < 0.25)
        shape = paint_organ(canvas, inside, center, semi, 38.0, "bowel")
        where = canvas.box(np.array([center]), max(semi) + 4.0)
        if shape is not None and where is not None:
            canvas.paint(shape + np.float32(3.0), GAS_HU if gas else content, None, where)
