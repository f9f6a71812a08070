"""Named protocols: a fixed range, a fixed set of measures, one name for the lot.

Published numbers of this field hardly ever share a protocol, and the protocol alone moves
a PSNR by many dB. So every number names the protocol that made it.
"""

from collections.abc import Callable, Iterable
from functools import partial

from fewview.data.volume import Volume
from fewview.evaluation import legacy, metrics
from fewview.evaluation.features import features
from fewview.evaluation.metrics import Hu, Mask
from fewview.evaluation.regions import regions
from fewview.evaluation.ssim import ssim3d
from fewview.evaluation.tissues import tfprdit_hu

HU3D_WINDOW = (-1000.0, 1500.0)
"""The fixed range of `hu3d`, in HU."""

HU3D_KEYS = ("psnr", "ssim", "mae", "rmse", "bias")
"""What `hu3d` measures: dB, none, HU, HU, HU."""

HEADLINE, RETRIEVAL = "hu3d", "retrieval"

PROTOCOLS = {
    HEADLINE: "the headline: whole-volume PSNR, SSIM and errors over -1000 to 1500 HU",
    "x2ct": "X2CT-GAN's test code: peak 4095, slice averages, stored = HU + 1000",
    "x2ct-1024": "the same with stored = HU + 1024",
    "clsdm": "CLS-DM's offline code: 8 bits, peak 4095, stored = HU + 1000",
    "clsdm-1024": "the same with stored = HU + 1024",
    "perx2ct": "PerX2CT's code: peak 4095 in slices, SSIM with range 2, stored = HU + 1000",
    "perx2ct-1024": "the same with stored = HU + 1024",
    "liftxr": "LiftXR: [-1024, 1024] HU on the unit interval",
    "sparc": "SPARC: whole HU in [-1024, 1024], PSNR up to 120 dB",
    "unit3d": "bjy12/XctDiff: [-1024, 1500] HU on the unit interval",
    "tfprdit_hu": "TF-PRDiT: errors by HU band of the truth",
    "regions": "Dice and HD95 of body, lungs and bone by threshold",
    "features": "distance in the features of a fixed random 3-D network",
    RETRIEVAL: "rank of the own truth among all cases' truths",
}
"""What `--protocol` takes, and what each is."""

NEEDS_WEIGHTS = {
    "perx2ct": "LPIPS, which needs VGG-16 weights",
    "perx2ct-1024": "LPIPS, which needs VGG-16 weights",
    "liftxr": "Dice and HD95 of 20 organs, which need TotalSegmentator weights",
    "features": "LPIPS and other learned distances, which need trained weights",
}
"""What a protocol names and this package cannot measure, for want of weights."""

UNMEASURED = (
    "Skipped by every protocol, because they need trained weights that do not come with the "
    "package: LPIPS and other learned distances (VGG-16 and the like), Dice and HD95 of organs by "
    "a pretrained network (TotalSegmentator)."
)
"""What a reader may look for in a report and not find, and why."""


def protocol_names(names: Iterable[str]) -> tuple[str, ...]:
    """The protocols of a list, each once, in the order given.

    Raises:
        ValueError: If a name is unknown or there is none; lists the known ones.
    """
    chosen = tuple(dict.fromkeys(name.strip() for name in names))
    for name in chosen:
        if name not in PROTOCOLS:
            raise ValueError(f"no protocol {name!r}; there is {', '.join(PROTOCOLS)}")
    if not chosen:
        raise ValueError(f"no protocol given; there is {', '.join(PROTOCOLS)}")
    return chosen


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
    prediction, truth, mask = metrics.in_box(prediction, truth, mask)
    low, high = HU3D_WINDOW
    p, t = (metrics.from_zero(hu, low, high) for hu in (prediction, truth))
    return {
        "psnr": metrics.psnr(p, t, data_range=high - low, mask=mask),
        "ssim": ssim3d(p, t, data_range=high - low, mask=mask),
        "mae": metrics.mae(p, t, mask),
        "rmse": metrics.rmse(p, t, mask),
        "bias": metrics.bias(p, t, mask),
    }


_OF_VALUES: dict[str, Callable[[Hu, Hu, Mask | None], dict[str, float]]] = {
    HEADLINE: hu3d,
    "x2ct": legacy.x2ct,
    "x2ct-1024": partial(legacy.x2ct, offset_hu=legacy.OTHER_OFFSET_HU),
    "clsdm": legacy.clsdm,
    "clsdm-1024": partial(legacy.clsdm, offset_hu=legacy.OTHER_OFFSET_HU),
    "perx2ct": legacy.perx2ct,
    "perx2ct-1024": partial(legacy.perx2ct, offset_hu=legacy.OTHER_OFFSET_HU),
    "liftxr": legacy.liftxr,
    "sparc": legacy.sparc,
    "unit3d": legacy.unit3d,
    "tfprdit_hu": tfprdit_hu,
    "features": features,
}
"""The protocols that need the values alone."""


def measure(
    name: str, prediction: Volume, truth: Volume, mask: Mask | None = None
) -> dict[str, float]:
    """The numbers of one named protocol of one case; `retrieval` needs many and is not here.

    Args:
        name: One of `PROTOCOLS` but `retrieval`.
        prediction: The prediction.
        truth: The truth on the same grid.
        mask: The voxels that count; all of them by default.

    Raises:
        ValueError: If the mask is empty, or the volume too small for the protocol.
    """
    p, t = prediction.hu, truth.hu
    if name == "regions":
        return regions(p, t, truth.spacing_mm, mask)
    return _OF_VALUES[name](p, t, mask)
