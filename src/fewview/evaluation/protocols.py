"""Named protocols: a fixed range, a fixed set of measures, one name for the lot.

Published numbers of this field hardly ever share a protocol, and the protocol alone moves
a PSNR by many dB. So every number names the protocol that made it.
"""

from collections.abc import Callable

import numpy as np

from fewview.evaluation import metrics
from fewview.evaluation.metrics import Hu, Mask

HU3D_WINDOW = (-1000.0, 1500.0)
"""The fixed range of `hu3d`, in HU."""

HU3D_KEYS = ("psnr", "ssim", "mae", "rmse", "bias")
"""What `hu3d` measures: dB, none, HU, HU, HU."""


def hu3d(prediction: Hu, truth: Hu, mask: Mask | None = None) -> dict[str, float]:
    """The headline protocol: whole-volume measures over the fixed range -1000 to 1500 HU.

    Both volumes are clipped to the range and shifted to start at zero.

    Args:
        prediction: Predicted CT values in HU.
        truth: True CT values in HU on the same grid.
        mask: The voxels that count; all of them by default. SSIM counts the windows that
            lie wholly inside.

    Returns:
        `psnr` in dB with peak 2500 (infinite for equal volumes), `ssim` with one
        7 x 7 x 7 window and range 2500, and `mae`, `rmse` and signed `bias` in HU.

    Raises:
        ValueError: If the mask is empty or SSIM's window does not fit.
    """
    assert prediction.shape == truth.shape, "bring both to one grid first"
    low, high = HU3D_WINDOW
    p, t = (np.clip(hu.astype(np.float64), low, high) - low for hu in (prediction, truth))
    return {
        "psnr": metrics.psnr(p, t, data_range=high - low, mask=mask),
        "ssim": metrics.ssim3d(p, t, data_range=high - low, mask=mask),
        "mae": metrics.mae(p, t, mask),
        "rmse": metrics.rmse(p, t, mask),
        "bias": metrics.bias(p, t, mask),
    }


PROTOCOLS: dict[str, Callable[[Hu, Hu, Mask | None], dict[str, float]]] = {"hu3d": hu3d}
"""Every protocol by its name on the command line."""
