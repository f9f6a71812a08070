"""Trees in the lungs: arteries and veins that reach every part, airways that fork.

Vessels join given end points to the nearest place of the growing tree, paying also for the
length of the way back to the root (balanced minimum spanning tree, Cuntz et al. 2010, eq. 1), and
get their radius from what they feed (Murray 1926 with an exponent of 2.6 as in the lung).
"""

from dataclasses import dataclass

import numpy as np

from fewview.data.phantom.canvas import Array, Canvas, capsule, tube_distance
from fewview.data.phantom.labels import LABELS
from fewview.data.phantom.trunk import Trunk

LEAF_RADIUS_MM = 0.68
MURRAY = 2.6
BALANCE = 0.6
NUM_CANDIDATES = 1100
NUM_LEAVES = 320


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes of a vessel tree; node 0 is the root."""

    points: Array
    parent: Array
    radius: Array


def grow(root: Array, ends: Array) -> Tree:
    """Connect end points to a root, nearest first, then give every branch its radius."""
    order = np.argsort(np.linalg.norm(ends - root, axis=1))
    points = np.vstack([root, ends[order]])
    parent = np.zeros(len(points), dtype=int)
    path = np.zeros(len(points))
    for i in range(1, len(points)):
        reach = np.linalg.norm(points[:i] - points[i], axis=1)
        best = int(np.argmin(reach + BALANCE * path[:i]))
        parent[i], path[i] = best, path[best] + reach[best]
    load = np.ones(len(points))
    for i in range(len(points) - 1, 0, -1):
        load[parent[i]] += load[i]
    return Tree(points, parent, LEAF_RADIUS_MM * load ** (1 / MURRAY))


def paint_tree(
    canvas: Canvas, tree: Tree, lung: Array, hu: float, rng: np.random.Generator
) -> None:
    """Draw a tree's branches, slightly bent, where there is lung."""
    shifts = rng.normal(0.0, 0.05, (len(tree.points), 3))
    for i in range(1, len(tree.points)):
        start, end = tree.points[tree.parent[i]], tree.points[i]
        middle = 0.5 * (start + end) + shifts[i] * np.linalg.norm(end - start)
        wide = min(float(tree.radius[i]) * 1.15, float(tree.radius[tree.parent[i]]))
        radius = float(tree.radius[i])
        for a, b, radii in (
            (start, middle, (wide, radius)),
            (middle, end, (radius, radius * 0.85)),
        ):
            where = canvas.box(np.stack([a, b]), wide + 1.0)
            if where is None:
                continue
            distance = np.maximum(capsule(canvas, where, a, b, radii), lung[where] - 4.0)
            # A branch thinner than a voxel fills only part of the voxels it crosses.
            share = min(1.0, np.pi * radius * radius / canvas.voxel_mm**2 + 0.25)
            fill = np.clip(0.5 - distance / canvas.voxel_mm, 0.0, 1.0) * share
            region = canvas.hu[where]
            canvas.hu[where] = np.maximum(region, region + fill * (hu - region))
            labels = canvas.labels[where]
            labels[(distance < 0) & (labels == LABELS["lung"])] = LABELS["lung_vessel"]


def paint_lung_vessels(canvas: Canvas, trunk: Trunk, lung: Array, rng: np.random.Generator) -> None:
    """Arteries from the hila and veins toward the left atrium, on both sides."""
    front = trunk.inner_front(120.0)
    hu = 30.0 + 0.8 * trunk.anatomy.contrast_hu
    for flip in (-1.0, 1.0):
        for below, behind in ((124.0, 72.0), (142.0, 80.0)):
            low = np.array([min(20.0 * flip, 132.0 * flip), front - 10.0, -300.0])
            high = np.array([max(20.0 * flip, 132.0 * flip), front + 175.0, 5.0])
            candidates = rng.uniform(low, high, (NUM_CANDIDATES, 3))
            ends = candidates[canvas.sample(lung, candidates) < -4.0][:NUM_LEAVES]
            root = np.array(
                [flip * 44.0, front + behind, -below - 0.5 * trunk.anatomy.inspiration_mm]
            )
            tree = grow(root, ends)
            paint_tree(canvas, tree, lung, hu, rng)


def airways(trunk: Trunk, rng: np.random.Generator) -> list[Array]:
    """Courses (x, y, z, inner radius) of trachea, main bronchi and three more generations."""
    body = trunk.anatomy
    front = trunk.inner_front(100.0)
    wide = 8.3 if body.female else 9.3
    carina = np.array([2.0, front + 66.0, -98.0])
    neck_y = trunk.at(trunk.spine_y, -40.0) - 26.0
    inlet = np.array([1.0, trunk.at(trunk.spine_y, 15.0) - 30.0, -15.0])
    found = [
        np.array(
            [
                [0.0, neck_y - 6.0, 140.0, wide],
                [0.0, neck_y, 50.0, wide],
                [*inlet, wide],
                [*carina, wide],
            ]
        )
    ]
    sides = (
        (np.array([-20.0, front + 69.0, -112.0]), np.array([-38.0, front + 74.0, -132.0]), 7.0),
        (np.array([24.0, front + 70.0, -116.0]), np.array([45.0, front + 78.0, -130.0]), 6.3),
    )
    for near, hilum, radius in sides:
        found.append(np.array([[*carina, radius + 1], [*near, radius], [*hilum, radius * 0.85]]))
        flip = np.sign(hilum[0])
        lobes = ((0.5, -0.25, 0.85), (0.55, -0.75, -0.3), (0.45, 0.25, -0.85), (0.75, 0.6, -0.35))
        for heading in lobes:
            start = near if heading[2] > 0 and flip < 0 else hilum
            fork(start, np.array(heading) * np.array([flip, 1, 1]), radius * 0.52, 3, rng, found)
    return found


def fork(
    start: Array,
    heading: Array,
    radius: float,
    generations: int,
    rng: np.random.Generator,
    found: list[Array],
) -> None:
    """Add a bronchus and, at its end, two daughters."""
    heading = heading / np.linalg.norm(heading)
    end = start + heading * (10.0 + 3.2 * radius) * rng.uniform(0.8, 1.2)
    found.append(np.array([[*start, radius], [*end, radius * 0.9]]))
    if generations == 1:
        return
    aside = np.cross(heading, rng.normal(size=3))
    aside *= 0.62 / np.linalg.norm(aside)
    for turned in (heading + aside, heading - aside):
        fork(end, turned, radius * 0.76, generations - 1, rng, found)


def paint_airways(canvas: Canvas, courses: list[Array]) -> None:
    """All walls first, then the air in them."""
    tubes = [
        (*tube_distance(canvas, c[:, :3], [float(r) for r in c[:, 3]], 5.0), float(c[0, 3]))
        for c in courses
    ]
    for where, distance, radius in tubes:
        if where is not None:
            wall = np.float32(min(1.5, 0.5 + 0.15 * radius))
            canvas.paint(distance - wall, 20.0, None, where)
    for where, distance, _ in tubes:
        if where is not None:
            canvas.paint(distance, -990.0, LABELS["airway"], where)


def paint_nodules(
    canvas: Canvas, trunk: Trunk, lung: Array, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Round, slightly lumpy nodules; returns their centers in body mm and diameters."""
    front = trunk.inner_front(120.0)
    candidates = rng.uniform([-125.0, front, -280.0], [125.0, front + 170.0, -10.0], (400, 3))
    inside = candidates[canvas.sample(lung, candidates) < -9.0]
    found: list[dict[str, float]] = []
    for center in inside[: trunk.anatomy.num_nodules]:
        radius = float(np.clip(rng.gamma(3.0, 2.2), 2.5, 16.0))
        hu = float(rng.uniform(-20.0, 60.0))
        lump = rng.normal(0.0, 0.3, 3) * radius
        for middle, size in ((center, radius), (center + lump, 0.8 * radius)):
            where = canvas.box(middle[None], size + 3.0)
            if where is not None:
                shape = capsule(canvas, where, middle, middle, (size, size))
                canvas.paint(shape, hu, LABELS["nodule"], where)
        found.append(
            {"x": center[0], "y": center[1], "z": center[2], "diameter_mm": 2 * radius, "hu": hu}
        )
    return found
