"""Procedural anatomy: a seeded, unlimited source of labelled chest volumes."""

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
