"""Puts a body together: coordinates, painting order, texture, truth."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter, zoom

from fewview.data.phantom.abdomen import paint_abdomen
from fewview.data.phantom.anatomy import Anatomy, draw_anatomy
from fewview.data.phantom.canvas import WARP_MM, Array, Canvas, tube_distance
from fewview.data.phantom.chest import above_diaphragm, lung_distance, mediastinum_distance
from fewview.data.phantom.heart import heart_distance, paint_heart, paint_vessels, vessels
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.ribs import paint_ribs, paint_sternum
from fewview.data.phantom.shoulders import paint_shoulders
from fewview.data.phantom.spine import paint_spine
from fewview.data.phantom.tree import airways, paint_airways, paint_lung_vessels, paint_nodules
from fewview.data.phantom.trunk import SKIN_MM, Trunk, Wall, soft_layers, wall_of
from fewview.data.volume import Volume, cubic_grid

TEXTURE_MM = 10.0  # grid of the slow part of the texture


@dataclass(frozen=True, eq=False)
class Phantom:
    """A made body: CT values, tissue labels, and what is known about it."""

    volume: Volume
    labels: UInt8[np.ndarray, "depth height width"]
    truth: dict[str, Any]


def phantom(seed: int, *, size: int = 128, extent_mm: float = 400.0) -> Phantom:
    """A procedural torso that depends on the seed alone; the size only sets the voxels.

    Args:
        seed: Names the body; 0 or more.
        size: Voxels along each edge of the cube.
        extent_mm: Length of the cube's edge; its center is patient (0, 0, 0).

    Returns:
        The CT from neck to upper abdomen, its labels (numbers in `LABELS`) and its truth: seed,
        drawn parameters, nodules in patient mm, and organ volumes in ml.

    Raises:
        ValueError: If seed, size or extent cannot make a phantom.
    """
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    if not 16 <= size <= 512:
        raise ValueError(f"size must be 16 to 512 voxels, got {size}")
    if not 50.0 <= extent_mm <= 2000.0:
        raise ValueError(f"extent_mm must be 50 to 2000 mm, got {extent_mm}; is it in cm?")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    body = draw_anatomy(streams[0])
    grid = cubic_grid(np.zeros(3), size=size, extent_mm=extent_mm)
    canvas = blank_canvas(body, grid.voxel_to_patient, size, extent_mm, streams[1])
    nodules = paint_body(canvas, body, streams[2], streams[3])
    add_texture(canvas, body, streams[4], streams[5])
    volume = Volume(canvas.hu, grid.voxel_to_patient)
    truth = truth_of(seed, body, canvas, nodules, grid.voxel_to_patient)
    return Phantom(volume, canvas.labels, truth)


def blank_canvas(
    body: Anatomy,
    voxel_to_patient: Float[np.ndarray, "4 4"],
    size: int,
    extent_mm: float,
    rng: np.random.Generator,
) -> Canvas:
    """Air, with the body coordinates of every voxel: pose, stretch and a smooth warp."""
    stretch = np.array([body.width_scale, body.depth_scale, body.height_scale])
    body_to_patient = np.eye(4)
    body_to_patient[:3, :3] = rotation(body.turn_deg) * stretch
    body_to_patient[:3, 3] = (*body.shift_mm, body.apex_z_mm)
    body_to_voxel = np.linalg.inv(voxel_to_patient) @ body_to_patient
    voxel_to_body = np.linalg.inv(body_to_voxel)
    z, y, x = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 3, indexing="ij", sparse=True)
    at = []
    for row in voxel_to_body[:3].astype(np.float32):
        at.append(row[0] * x + (row[1] * y + (row[2] * z + row[3])))
    position = (np.arange(size) + 0.5) / size * extent_mm
    for axis in range(3):
        at[axis] += random_warp(position, rng)
    voxel_mm = extent_mm / size / float(np.prod(stretch)) ** (1 / 3)
    shape = (size, size, size)
    return Canvas(
        x=at[0],
        y=at[1],
        z=at[2],
        hu=np.full(shape, -1000.0, np.float32),
        labels=np.zeros(shape, np.uint8),
        skin=np.full(shape, -1e3, np.float32),
        voxel_mm=voxel_mm,
        extent_mm=extent_mm,
        body_to_voxel=body_to_voxel,
    )


def rotation(turn_deg: tuple[float, float, float]) -> Float[np.ndarray, "3 3"]:
    """Rotation about the patient's x, then y, then z axis."""
    total = np.eye(3)
    for axis, angle in enumerate(np.radians(turn_deg)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        total = step @ total
    return total


def random_warp(position: Float[np.ndarray, " voxel"], rng: np.random.Generator) -> Array:
    """A smooth displacement of one coordinate: three standing waves, at most `WARP_MM`."""
    total: Array = np.zeros((1, 1, 1), np.float32)
    for _ in range(3):
        height = rng.uniform(-WARP_MM / 3, WARP_MM / 3)
        waves = []
        for _ in range(3):
            length, phase = rng.uniform(180.0, 420.0), rng.uniform(0.0, 2 * np.pi)
            waves.append(np.sin(2 * np.pi * position / length + phase).astype(np.float32))
        product = waves[0][:, None, None] * waves[1][:, None] * waves[2]
        total = total + np.float32(height) * product
    return total


def paint_body(
    canvas: Canvas, body: Anatomy, tree_rng: np.random.Generator, organ_rng: np.random.Generator
) -> list[dict[str, float]]:
    """Everything but texture, outside in; returns the nodules in body mm."""
    trunk = Trunk(body)
    wall = wall_of(trunk, canvas.x, canvas.y, canvas.z)
    muscle, skin = soft_layers(canvas, trunk, wall)
    canvas.skin = skin
    canvas.paint(skin, 15.0, LABELS["skin"])
    canvas.paint(skin + np.float32(SKIN_MM), -105.0, LABELS["fat"])
    canvas.paint(muscle, 52.0, LABELS["muscle"])
    marble(canvas, muscle, slow_noise(canvas.hu.shape[0], canvas.extent_mm, organ_rng))
    above = above_diaphragm(trunk, wall)
    paint_abdomen(canvas, trunk, wall, above, organ_rng)
    chest = np.maximum(np.maximum(wall.distance + 1.0, -above), -wall.below - 5.0)
    canvas.paint(chest, -55.0, LABELS["mediastinum"])
    where, heart = heart_distance(canvas, trunk)
    found = vessels(trunk)
    middle = mediastinum_distance(canvas, trunk, wall, (where, heart), found)
    if where is not None:
        paint_heart(canvas, trunk, heart, where, above)
    paint_esophagus(canvas, trunk)
    paint_vessels(canvas, trunk, found)
    lung = lung_distance(wall, middle, above)
    canvas.paint(lung, lung_hu(body, wall), LABELS["lung"])
    paint_lung_vessels(canvas, trunk, lung, tree_rng)
    nodules = paint_nodules(canvas, trunk, lung, organ_rng)
    paint_airways(canvas, airways(trunk, tree_rng))
    paint_ribs(canvas, wall, body)
    paint_sternum(canvas, trunk)
    paint_shoulders(canvas, trunk, wall)
    paint_spine(canvas, trunk)
    return nodules


def lung_hu(body: Anatomy, wall: Wall) -> Array:
    """Lung tissue without vessels: denser toward the back, where blood sinks."""
    return np.asarray(body.lung_hu + np.float32(body.gravity_hu / 150.0) * (wall.y + 60.0))


def paint_esophagus(canvas: Canvas, trunk: Trunk) -> None:
    """A soft tube in front of the spine."""
    heights = np.arange(-140.0, 260.0, 12.0)
    course = np.array([[4.0, trunk.at(trunk.spine_y, h) - 26.0, -h] for h in heights])
    course[:, 1] += 10.0 * (heights < 0)
    where, distance = tube_distance(canvas, course, [7.0] * len(course))
    if where is not None:
        canvas.paint(distance, 35.0, LABELS["esophagus"], where)


def slow_noise(size: int, extent_mm: float, rng: np.random.Generator) -> Array:
    """Noise of unit variance whose grain is about `TEXTURE_MM`, the same at any size."""
    coarse = int(np.ceil(extent_mm / TEXTURE_MM)) + 2
    noise = gaussian_filter(rng.standard_normal((coarse,) * 3).astype(np.float32), 0.8)
    noise *= np.float32(1.0 / noise.std())
    return np.asarray(zoom(noise, size / coarse, order=1, grid_mode=True, mode="nearest"))


def marble(canvas: Canvas, muscle: Array, noise: Array) -> None:
    """Sheets of fat between muscles: along the zero surface of a slow noise, under the surface."""
    sheets = np.exp(-((noise / np.float32(0.16)) ** 2))
    sheets *= np.clip((-2.0 - muscle) / np.float32(4.0), 0, 1) * (canvas.labels == LABELS["muscle"])
    canvas.hu -= np.float32(110.0) * sheets


def add_texture(
    canvas: Canvas,
    body: Anatomy,
    slow_rng: np.random.Generator,
    fast_rng: np.random.Generator,
) -> None:
    """Slow variation of each tissue, fine grain of lung and muscle, and scanner noise."""
    size = canvas.hu.shape[0]
    slow = slow_noise(size, canvas.extent_mm, slow_rng)
    grain = fast_rng.standard_normal(canvas.hu.shape).astype(np.float32)
    smooth = gaussian_filter(grain, 0.7)
    smooth *= np.float32(1.0 / smooth.std())
    strength = np.zeros(len(LABELS), np.float32)
    fine = np.zeros(len(LABELS), np.float32)
    for names, slow_hu, fine_hu in (
        (("lung",), 14.0, 9.0),
        (("muscle",), 14.0, 12.0),
        (("fat", "abdomen", "mediastinum"), 14.0, 8.0),
        (("breast",), 45.0, 15.0),
        (("liver", "spleen", "heart", "kidney"), 4.0, 3.0),
        (("vertebra", "rib", "sternum", "scapula", "humerus", "clavicle"), 25.0, 35.0),
        (("bowel", "stomach"), 12.0, 10.0),
    ):
        for name in names:
            strength[LABELS[name]], fine[LABELS[name]] = slow_hu, fine_hu
    inside = canvas.labels > 0
    scanner = np.float32(body.noise_hu) * np.where(inside, np.float32(1.0), np.float32(0.4))
    canvas.hu += strength[canvas.labels] * slow + (fine[canvas.labels] + scanner) * smooth
    np.clip(canvas.hu, -1000.0, 3000.0, out=canvas.hu)
    canvas.hu[canvas.hu < -995.0] = -1000.0


def truth_of(
    seed: int,
    body: Anatomy,
    canvas: Canvas,
    nodules: list[dict[str, float]],
    voxel_to_patient: Float[np.ndarray, "4 4"],
) -> dict[str, Any]:
    """What is known about the body, ready for JSON."""
    body_to_patient = voxel_to_patient @ canvas.body_to_voxel
    placed = []
    for nodule in nodules:
        center = (
            body_to_patient[:3, :3] @ [nodule["x"], nodule["y"], nodule["z"]]
            + body_to_patient[:3, 3]
        )
        placed.append(
            {
                "position_lps_mm": [round(float(c), 2) for c in center],
                "diameter_mm": round(nodule["diameter_mm"], 2),
                "hu": round(nodule["hu"], 1),
            }
        )
    voxel_ml = abs(float(np.linalg.det(voxel_to_patient[:3, :3]))) / 1000.0
    counts = np.bincount(canvas.labels.ravel(), minlength=len(LABELS))
    return {
        "format": "fewview-phantom/1",
        "seed": seed,
        "parameters": asdict(body),
        "nodules": placed,
        "volumes_ml": {
            name: round(float(counts[i]) * voxel_ml, 1) for name, i in LABELS.items() if i
        },
        "labels": LABELS,
    }
