"""The numbers that make one body differ from another, drawn once per seed.

The spread is fixed here, before any result: nothing in training or evaluation changes it.
Lengths are millimeters of a reference body (lungs 131 mm to each side, 12 thoracic vertebrae in
281 mm) that `width_scale`, `depth_scale` and `height_scale` then stretch.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One body. Angles in degrees, lengths in mm."""

    female: bool
    width_scale: float
    depth_scale: float
    height_scale: float
    fat_mm: float
    """Mean thickness of the fat under the skin at the chest."""
    muscle: float
    """Factor on the thickness of the muscles over the ribs."""
    belly: float
    """How much the abdomen stands out: 0 flat, 1 large."""
    breast_mm: float
    """Thickness of the breasts; 0 for none."""
    arms_up: bool
    kyphosis_mm: float
    scoliosis_mm: float
    scoliosis_phase: float
    rib_difference_mm: float
    """How much lower the front ends of the left ribs lie than those of the right."""
    inspiration_mm: float
    """Shift of the diaphragm, positive downward."""
    dome_difference_mm: float
    heart_scale: float
    heart_turn_deg: float
    aorta_radius_mm: float
    aorta_unfold_mm: float
    shoulder_drop_mm: float
    apex_z_mm: float
    """Height of the lung apex above the center of the grid, patient mm."""
    shift_mm: tuple[float, float]
    turn_deg: tuple[float, float, float]
    """Rotation about the patient's x, y and z axis."""
    lung_hu: float
    gravity_hu: float
    contrast_hu: float
    """Added to blood; 0 without contrast agent."""
    cortical_hu: float
    cancellous_hu: float
    liver_hu: float
    noise_hu: float
    num_nodules: int


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """One body from the fixed spread."""
    female = bool(rng.random() < 0.45)
    age = rng.random()
    size = rng.normal(-0.04 if female else 0.02, 0.035)
    fat = float(np.clip(rng.gamma(2.3, 4.2) + (4.5 if female else 2.5), 3.0, 30.0))
    breast = float(rng.uniform(12.0, 50.0)) if female else 0.0
    return Anatomy(
        female=female,
        width_scale=float(np.clip(1.01 + size + rng.normal(0, 0.045), 0.88, 1.14)),
        depth_scale=float(np.clip(1.0 + size + rng.normal(0, 0.075), 0.84, 1.22)),
        height_scale=float(np.clip(0.99 + size + rng.normal(0, 0.04), 0.86, 1.10)),
        fat_mm=fat,
        muscle=float(np.clip(rng.normal(0.9 if female else 1.1, 0.15), 0.6, 1.5)),
        belly=float(np.clip((fat - 6.0) / 20.0 + rng.normal(0.1, 0.15), 0.0, 1.1)),
        breast_mm=breast,
        arms_up=bool(rng.random() < 0.65),
        kyphosis_mm=float(np.clip(rng.normal(16.0 + 8.0 * age, 5.0), 6.0, 36.0)),
        scoliosis_mm=float(rng.normal(0.0, 4.0)),
        scoliosis_phase=float(rng.uniform(0.0, 2 * np.pi)),
        rib_difference_mm=float(rng.normal(0.0, 6.0)),
        inspiration_mm=float(np.clip(rng.normal(0.0, 13.0), -34.0, 22.0)),
        dome_difference_mm=float(np.clip(rng.normal(12.0, 6.0), -2.0, 26.0)),
        heart_scale=float(np.clip(rng.normal(1.04, 0.075), 0.87, 1.25)),
        heart_turn_deg=float(rng.normal(0.0, 9.0)),
        aorta_radius_mm=float(np.clip(rng.normal(12.5 + 2.5 * age, 1.3), 10.0, 19.0)),
        aorta_unfold_mm=float(np.clip(rng.normal(8.0 * age, 3.0), -3.0, 15.0)),
        shoulder_drop_mm=float(rng.uniform(-10.0, 25.0)),
        apex_z_mm=float(rng.uniform(105.0, 165.0)),
        shift_mm=(float(rng.normal(0.0, 8.0)), float(rng.normal(0.0, 10.0))),
        turn_deg=(
            float(rng.normal(0.0, 2.5)),
            float(rng.normal(0.0, 1.5)),
            float(rng.normal(0.0, 3.0)),
        ),
        lung_hu=float(rng.uniform(-905.0, -835.0)),
        gravity_hu=float(rng.uniform(15.0, 75.0)),
        contrast_hu=float(rng.uniform(90.0, 280.0)) if rng.random() < 0.25 else 0.0,
        cortical_hu=float(rng.uniform(560.0, 980.0) - 120.0 * age),
        cancellous_hu=float(rng.uniform(140.0, 225.0) - 75.0 * age),
        liver_hu=float(rng.normal(56.0, 7.0)),
        noise_hu=float(rng.uniform(4.0, 16.0)),
        num_nodules=int(rng.choice([0, 1, 2, 3, 5], p=[0.6, 0.18, 0.1, 0.07, 0.05])),
    )
