"""Views to a CT volume. Never sees a CT.

The views are binned to the pixel pitch the model was trained with, encoded, and decoded by the
deterministic head (`nfe=0`) or by sampling; the result is made consistent with the measured views
where they are calibrated.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewview.bundle import DEFAULT_MODEL, Bundle, RegressorBundle, load_model, load_style
from fewview.calibration import GrayCurve, calibrate
from fewview.data.volume import Volume, cubic_grid
from fewview.inputs import network_images, ray_grid
from fewview.models.lifting import RayGrid
from fewview.outside import warn_novel, warn_outside
from fewview.refine import make_consistent, posterior_mean_std
from fewview.regressor import AnySystem
from fewview.sampling import EncodedViews, condition_of, sample_latents
from fewview.system import SystemConfig
from fewview.transfer.style import StyleBundle, StyleConfig, in_drr_style
from fewview.xray.geometry import ViewGeometry, preset
from fewview.xray.novelty import Novelty, novelties
from fewview.xray.views import Views


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a set of views was turned into."""

    volume: Volume
    """The CT: the deterministic estimate, the one sample, or the mean of several."""

    sample: Volume | None
    """The first sample, sharper than a mean; None without sampling."""

    std: Volume | None
    """Standard deviation of the samples in HU; None with fewer than two."""

    nfe: int
    """Denoiser calls of one sample."""

    novelties: tuple[Novelty | None, ...] = ()
    """Per view, how far it lies from what models were trained on; None for line integrals."""

    curves: tuple[GrayCurve | None, ...] = ()
    """Per view, what its gray was taken to mean; None for line integrals and where displays were
    left to the networks."""


def reconstruct(  # noqa: PLR0913 - each is one choice of a user
    views: Views,
    *,
    model: str | Path | Bundle | RegressorBundle = DEFAULT_MODEL,
    style: str | Path | StyleBundle | None = None,
    nfe: int | None = None,
    samples: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    consistency: bool = True,
    calibration: bool = True,
) -> Reconstruction:
    """Reconstruct a CT volume from X-ray views.

    Args:
        views: Any number of views with their geometry.
        model: A bundled model's name, a model folder, or a loaded bundle.
        style: A style model (folder or loaded) that display-style views are put through first.
        nfe: Denoiser calls per sample, 0 for the deterministic head; default of the model.
        samples: Samples to average; default of the model, or 1 when only `nfe` is given.
        guidance: How far samples go toward (1) and beyond (more) what the views say; default of the
            model. Anything but 1 needs a model trained with `condition_dropout`, and an even `nfe`.
        seed: Seed of the samples.
        device: Where to compute.
        consistency: Whether to correct the result by the measured line integrals.
        calibration: Whether models made for it see displays a second time, as line integrals.

    Returns:
        Volumes in HU on the model grid, centered on the views' isocenter.

    Raises:
        ValueError: If a number is out of range or the model cannot be read.
    """
    bundle = load_model(model, device=device) if isinstance(model, str | Path) else model
    config = bundle.config
    warn_outside(views, config, displays=bundle.display_share != 0.0)
    found = tuple(novelties(views))
    warn_novel(found)
    curves: tuple[GrayCurve | None, ...] = (None,) * len(found)
    if style is not None:
        known = load_style(style, device=device) if isinstance(style, str | Path) else style
        views = in_drr_style(bin_views(views, known.config), known)
    if isinstance(bundle, RegressorBundle):
        if nfe or (samples is not None and samples > 1):
            raise ValueError(f"{config.name} is a regressor: it has no samples to draw")
        if guidance is not None:
            raise ValueError(f"{config.name} is a regressor: it has no samples to guide")
        nfe, decoded = 0, [_regressed(bundle, views)]
    else:
        bundle = _guided(bundle, guidance)
        nfe, count = _counts(nfe, samples, bundle.config)
        told = views
        if calibration and bundle.config.calibrate_displays and not all(views.calibrated):
            told, curves = _calibrated(bundle, views)
        encoded = encode_views(bundle, told, for_head=nfe == 0)
        decoded = _decoded(bundle, encoded, nfe=nfe, count=count, seed=seed)
    volumes = [_on_patient(hu, views, config) for hu in decoded]
    steps = config.consistency_steps if consistency and any(views.calibrated) else 0
    if steps:
        volumes = [make_consistent(volume, views, num_steps=steps) for volume in volumes]
    if len(volumes) == 1:
        return Reconstruction(volumes[0], volumes[0] if nfe else None, None, nfe, found, curves)
    mean, std = posterior_mean_std(volumes)
    return Reconstruction(mean, volumes[0], std, nfe, found, curves)


def _calibrated(bundle: Bundle, views: Views) -> tuple[Views, tuple[GrayCurve | None, ...]]:
    """Displays as line integrals, by what the deterministic head makes of them."""
    hu = _decoded(bundle, encode_views(bundle, views, for_head=True), nfe=0, count=1, seed=0)[0]
    return calibrate(bin_views(views, bundle.config), _on_patient(hu, views, bundle.config))


def _guided(bundle: Bundle, guidance: float | None) -> Bundle:
    """The bundle with a guidance of its own where one is given.

    Raises:
        ValueError: If it is to guide, or be guided, without having learned to do without condition.
    """
    sampler = bundle.config.sampler
    if guidance is not None:
        sampler = replace(sampler, guidance=guidance)
        bundle = replace(bundle, config=replace(bundle.config, sampler=sampler))
    if sampler.guidance != 1.0 and not bundle.networks.guidable:
        raise ValueError(
            f"{bundle.config.name} was not trained to do without condition "
            f"(training.diffusion.condition_dropout), so guidance must be 1, got "
            f"{sampler.guidance:g}"
        )
    return bundle


def _counts(nfe: int | None, samples: int | None, config: SystemConfig) -> tuple[int, int]:
    """Denoiser calls per sample and number of samples; (0, 1) is the deterministic head."""
    if nfe is not None and nfe < 0:
        raise ValueError(f"nfe must be 0 or more, got {nfe}")
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if nfe == 0:
        if not config.estimate:
            raise ValueError(f"{config.name} has no deterministic head; nfe must be 1 or more")
        if samples is not None and samples > 1:
            raise ValueError("nfe 0 is the deterministic head, which has no samples to average")
        return 0, 1
    if nfe is None and samples is None:
        samples = config.sampler.num_samples
        if samples == 0:
            return 0, 1
    return nfe or config.sampler.nfe, samples or 1


@torch.no_grad()
def encode_views(bundle: Bundle, views: Views, *, for_head: bool) -> EncodedViews:
    """Bin the views to the model's pitch and encode them; `for_head` as in `condition_of`."""
    images, rays = network_inputs(bundle, views)
    with torch.autocast(bundle.device.type, torch.bfloat16):
        return condition_of(bundle.config, bundle.networks, images, rays, for_head=for_head)


@torch.no_grad()
def _regressed(bundle: RegressorBundle, views: Views) -> Float[Tensor, "depth height width"]:
    """The HU volume of a regressor, in single precision."""
    images, rays = network_inputs(bundle, views)
    return bundle.config.grid.to_hu(bundle.networks.network(images, rays)[0, 0]).cpu()


def network_inputs(
    bundle: Bundle | RegressorBundle, views: Views
) -> tuple[Float[Tensor, "1 view 2 row col"], RayGrid]:
    """Binned and normalized images, and where the voxels of the model grid project."""
    binned = bin_views(views, bundle.config)
    images = network_images(binned.images, binned.calibrated)[None].to(bundle.device)
    center = torch.tensor([binned.isocenter_mm], dtype=torch.float32, device=bundle.device)
    cameras = binned.cameras.view(1, len(binned.geometries)).to(bundle.device)
    return images, ray_grid(cameras, center, bundle.config.grid)


def _head(bundle: Bundle, encoded: EncodedViews) -> Float[Tensor, "1 1 depth height width"]:
    """The deterministic head's volume in [-1, 1]: the CT estimate, as it is or coded."""
    if bundle.config.head == "estimate":
        return encoded.estimate
    with torch.autocast(bundle.device.type, torch.bfloat16):
        return bundle.networks.autoencoder.decode(encoded.coarse)


@torch.no_grad()
def _decoded(
    bundle: Bundle, encoded: EncodedViews, *, nfe: int, count: int, seed: int
) -> list[Float[Tensor, "depth height width"]]:
    """HU volumes of the deterministic head or of each sample."""
    grid = bundle.config.grid
    if nfe == 0:
        return [grid.to_hu(_head(bundle, encoded)[0, 0]).cpu()]
    generator = torch.Generator().manual_seed(seed)
    volumes = []
    for _ in range(count):  # one by one: memory does not grow with the number of samples
        noise = torch.randn(encoded.coarse.shape, generator=generator).to(bundle.device)
        with torch.autocast(bundle.device.type, torch.bfloat16):
            latent = sample_latents(bundle.config, bundle.networks, encoded, noise, nfe=nfe)
            unit = bundle.networks.autoencoder.decode(latent)
        volumes.append(grid.to_hu(unit[0, 0]).cpu())
    return volumes


def _on_patient(hu: Tensor, views: Views, config: AnySystem) -> Volume:
    """The model grid about the isocenter, in patient space."""
    center = torch.tensor(views.isocenter_mm, dtype=torch.float64).numpy()
    grid = cubic_grid(center, size=config.grid.size, extent_mm=config.grid.extent_mm)
    return Volume(hu.numpy(), grid.voxel_to_patient)


def bin_views(views: Views, config: AnySystem | StyleConfig) -> Views:
    """Average pixels to about the pitch (at the isocenter) the model was trained with.

    Rows and columns that do not fill a bin are dropped at the far edges; the images are then
    padded by their edge to multiples of eight. The geometry follows.
    """
    first = views.geometries[0]
    wanted = pitch_at_isocenter(preset(config.views.preset, size=config.views.num_pixels))[1]
    found = pitch_at_isocenter(first)
    rows_per_bin, cols_per_bin = (max(1, round(wanted / pitch)) for pitch in found)
    images = F.avg_pool2d(views.images, (rows_per_bin, cols_per_bin))
    rows, cols = images.shape[-2:]
    padding = (0, -cols % 8, 0, -rows % 8)
    images = F.pad(images, padding, mode="replicate")
    size = (images.shape[-2], images.shape[-1])
    geometries = tuple(
        _rebinned(geometry, (rows_per_bin, cols_per_bin), size) for geometry in views.geometries
    )
    return replace(views, images=images, geometries=geometries)


def _rebinned(
    geometry: ViewGeometry, per_bin: tuple[int, int], size: tuple[int, int]
) -> ViewGeometry:
    """The geometry of a detector with wider pixels whose first pixel's corner stays in place."""
    pitch = tuple(
        side * count for side, count in zip(geometry.pixel_pitch_mm, per_bin, strict=True)
    )
    old_size = (geometry.num_rows, geometry.num_cols)
    # The center moves from the first corner by half the change of the detector's extent.
    offset = tuple(
        old_offset - 0.5 * (count * wide - old_count * narrow)
        for old_offset, count, wide, old_count, narrow in zip(
            geometry.detector_offset_mm, size, pitch, old_size, geometry.pixel_pitch_mm, strict=True
        )
    )
    return replace(
        geometry,
        num_rows=size[0],
        num_cols=size[1],
        pixel_pitch_mm=(pitch[0], pitch[1]),
        detector_offset_mm=(offset[0], offset[1]),
    )


def pitch_at_isocenter(geometry: ViewGeometry) -> tuple[float, float]:
    """Pixel pitch (v, u) scaled from the detector to the isocenter, in mm."""
    scale = 1.0
    if geometry.sdd_mm is not None and geometry.sod_mm is not None:
        scale = geometry.sod_mm / geometry.sdd_mm
    return geometry.pixel_pitch_mm[0] * scale, geometry.pixel_pitch_mm[1] * scale
