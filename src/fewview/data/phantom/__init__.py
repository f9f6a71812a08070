"""Procedural anatomy: a seeded, unlimited source of labelled chest volumes.

A body is drawn in `anatomy.py`, laid out in millimeters (`trunk`, `spine`, `ribs`, `shoulders`,
`heart`, `chest`, `tree`, `abdomen`) and painted in `build.py` as signed distances, so that one
seed is one body at any size. It lies on its back, as in a CT scanner; there is no couch.

The spread, fixed before any result. Seeds 100 to 139 at 64^3 over 400 mm, as least, median and
greatest: lungs without vessels 3.3, 4.4, 6.3 l; lung height 238, 281, 313 mm; lung width 231,
263, 294 mm; heart 0.30, 0.47, 0.78 l; heart width over lung width 0.39, 0.48, 0.56; liver 1.5,
2.2, 3.1 l; body at the heart 281, 322, 375 mm wide and 200, 238, 275 mm deep.
45 % have breasts, 65 % raised arms, 25 % contrast agent, 40 % one to five nodules.
"""

from fewview.data.phantom.build import Phantom, phantom
from fewview.data.phantom.cases import DEMO_SEED, HELD_OUT_SEEDS, NUM_TRAINING_SEEDS, write_cases
from fewview.data.phantom.labels import LABELS, OPTIONAL

__all__ = [
    "DEMO_SEED",
    "HELD_OUT_SEEDS",
    "LABELS",
    "NUM_TRAINING_SEEDS",
    "OPTIONAL",
    "Phantom",
    "phantom",
    "write_cases",
]
