"""A perceptual distance that needs no trained weights: features of a random network.

LPIPS and its kin compare features of a network trained on photographs; those weights do not
come with this package. A fixed network with random weights still answers to edges and texture
where a mean squared error answers to values only, but nothing here was learned from people's
judgment or from CT: it ranks blur and noise, and says nothing about plausibility.
"""

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewview.evaluation.metrics import Hu, Mask

WINDOW_HU = (-1000.0, 1500.0)
"""Scaled to -1 to 1 before the first layer."""

CHANNELS = (1, 4, 8, 16)
"""Of the input and of the three layers; the grid is halved after each."""

SEED = 20190326
"""Of the weights; a number without meaning that must never change."""

SMALLEST = 4
"""Voxels along an axis for which every layer has at least one position."""


def features(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """The distance below under its own name, so that no table takes it for LPIPS."""
    return {"random_features_distance": random_features_distance(prediction, truth, mask)}


def random_features_distance(prediction: Hu, truth: Hu, mask: Mask | None = None) -> float:
    """Distance of two volumes in the features of a fixed random 3-D network.

    Three layers of 3 x 3 x 3 convolution, rectifier and halving by averages, with normal weights
    of a fixed seed and no bias. In each layer the feature vectors of every position are scaled
    to length one; the squared length of their difference is averaged over positions and summed
    over layers, as LPIPS does without its learned weights.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; the others are made air in both.

    Returns:
        0 for equal volumes, at most 6 (rectified vectors differ by at most 2 a layer).

    Raises:
        ValueError: If the volume is less than 4 voxels thick.

    References:
        Zhang et al. 2018 (LPIPS), equation 1, with w = 1.
    """
    if min(truth.shape) < SMALLEST:
        raise ValueError(f"features need {SMALLEST} voxels along each axis, got {truth.shape}")
    low, high = WINDOW_HU
    pair = np.stack([np.clip(hu, low, high) for hu in (prediction, truth)]).astype(np.float32)
    if mask is not None:
        pair = np.where(mask, pair, np.float32(low))
    values = torch.from_numpy((2.0 * (pair - low) / (high - low) - 1.0).astype(np.float32))
    values = values[:, None]
    distance = 0.0
    with torch.no_grad():
        for weight in _weights():
            padded = functional.pad(values, (1,) * 6, mode="replicate")
            values = functional.conv3d(padded, weight).relu_()
            unit = functional.normalize(values, dim=1, eps=1e-6)
            distance += float((unit[0] - unit[1]).square().sum(dim=0).double().mean())
            values = functional.avg_pool3d(values, 2)
    return distance


def _weights() -> list[Float[Tensor, "out in 3 3 3"]]:
    """The layers' weights: normal, with variance 2 / fan-in (He et al. 2015)."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    weights = []
    for before, after in itertools.pairwise(CHANNELS):
        values = generator.standard_normal((after, before, 3, 3, 3))
        scaled = values * np.sqrt(2.0 / (27 * before))
        weights.append(torch.from_numpy(scaled.astype(np.float32)))
    return weights
