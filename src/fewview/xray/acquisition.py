"""Noise-free views to what a detector or a viewing station would have given."""

from dataclasses import replace

import torch

from fewview.xray.detector import DetectorConfig, display_style, expose
from fewview.xray.views import Views


def as_detected(
    views: Views, *, photons: float | None = None, display: bool = False, seed: int = 0
) -> Views:
    """Noise-free views as a detector or a viewing station would give them.

    Args:
        views: Line integrals.
        photons: Photons per pixel in air; None leaves the noise out.
        display: Make display-style images, which are not calibrated.
        seed: Seed of the noise.

    Raises:
        ValueError: If `photons` is not positive.
    """
    if photons is not None:
        generator = torch.Generator().manual_seed(seed)
        noisy = expose(views.images, DetectorConfig(photons=photons), generator)
        views = replace(views, images=noisy)
    if display:
        calibrated = (False,) * len(views.geometries)
        views = replace(views, images=display_style(views.images), calibrated=calibrated)
    return views
