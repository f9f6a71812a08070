"""The main job on what comes with the package: CT to X-rays to CT, beside the baselines.

Stands on top: it alone sees both the truth and the model, and gives each only its own side.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fewview.baselines.analytic import fdk
from fewview.baselines.iterative import sirt
from fewview.baselines.mean_volume import mean_volume
from fewview.bundle import DEFAULT_MODEL, Bundle, load_bundle
from fewview.data.body import remove_couch
from fewview.data.files import replacing_folder
from fewview.data.images import read_volume, write_volume
from fewview.data.phantom import DEMO_SEED, phantom
from fewview.data.volume import Grid, Volume, resample
from fewview.evaluation.compare import compare
from fewview.evaluation.metrics import reprojection_error
from fewview.evaluation.montage import write_montage
from fewview.evaluation.report import write_report
from fewview.outside import warn_depth
from fewview.reconstruct import reconstruct
from fewview.records import RECORD, is_record_of, write_record
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr, preview, write_views

CEILING = "autoencoder ceiling"
"""The name of the truth sent through the autoencoder: what no sample can pass."""


@dataclass(frozen=True, eq=False)
class Result:
    """What one method made of the views."""

    name: str
    volume: Volume
    seconds: float
    scores: dict[str, float]
    """`psnr` (dB), `ssim`, `mae` (HU) and more of `compare`, and `reprojection_error`."""


def run_demo(
    out: Path,
    *,
    ct: Path | None = None,
    num_views: int = 2,
    force: bool = False,
    say: Callable[[str], None],
) -> list[Result]:
    """Reconstruct a CT from its own X-rays; write volumes, views, montage and report.

    Args:
        out: Folder to write. One that this function wrote before is replaced.
        ct: A CT to use instead of the phantom; its couch is removed.
        num_views: X-rays, spread over 180 degrees from 0.
        force: Replace any folder.
        say: Gets the lines for the user.

    Returns:
        The methods' results, fewview first.

    Raises:
        ValueError: If the CT or the model cannot be read, or `out` holds something else.
    """
    force = force or is_record_of(out / RECORD, "demo")
    with replacing_folder(out, force=force) as folder:
        truth = phantom(DEMO_SEED).volume if ct is None else remove_couch(read_volume(ct))
        source = "a phantom that training never used" if ct is None else f"{ct.name}, couch removed"
        say(f"CT: {source}")
        views = drr(truth, [preset("chest", angle_deg=a) for a in spread_angles(num_views)])
        bundle = load_bundle(DEFAULT_MODEL)
        say(f"reconstructing from {_xrays(num_views)}")
        warn_depth(views)
        results = run_methods(truth, views, bundle)
        write_volume(truth, folder / "truth.nii.gz")
        write_volume(results[0].volume, folder / "ct.nii.gz")
        write_views(views, folder / "views")
        preview(views, folder / "views" / "preview.png")
        _write_pictures(folder, results, truth, views, source)
        settings = {
            "model": bundle.config.name,
            "geometries": views.geometries,
            "results": {one.name: one.scores for one in results},
        }
        inputs = [] if ct is None else [ct]
        seed = DEMO_SEED if ct is None else None
        write_record(folder / RECORD, "demo", settings=settings, inputs=inputs, seed=seed)
    say("")
    say(table(results))
    say("")
    say(f"Open {out / 'report.html'} in a browser; the CT is {out / 'ct.nii.gz'}.")
    return results


def run_methods(truth: Volume, views: Views, bundle: Bundle) -> list[Result]:
    """Reconstruct by every method and score each against the truth.

    Args:
        truth: The CT without couch. Only the ceiling and the scores see it.
        views: Its X-rays.
        bundle: The model.

    Returns:
        fewview, the baselines, and the autoencoder's ceiling.
    """
    started = time.monotonic()
    volume = reconstruct(views, model=bundle).volume
    results = [_scored("fewview", volume, truth, views, time.monotonic() - started)]
    grid = volume.grid
    methods: dict[str, Callable[[], Volume]] = {
        "mean volume": lambda: mean_volume(grid, views.isocenter_mm),
        "FDK": lambda: fdk(views, grid),
        "SIRT": lambda: sirt(views, grid),
        CEILING: lambda: autoencoded(truth, grid, bundle),
    }
    for name, method in methods.items():
        started = time.monotonic()
        volume = method()
        results.append(_scored(name, volume, truth, views, time.monotonic() - started))
    return results


def autoencoded(truth: Volume, grid: Grid, bundle: Bundle) -> Volume:
    """The truth on the model grid after the model's autoencoder: the ceiling of its samples."""
    hu = torch.from_numpy(resample(truth, grid).hu)
    return Volume(bundle.autoencode(hu[None, None])[0, 0].float().numpy(), grid.voxel_to_patient)


def _scored(name: str, volume: Volume, truth: Volume, views: Views, seconds: float) -> Result:
    """Score one method's volume; the couch is gone from the truth already."""
    scores = compare(volume, truth, keep_couch=True)
    scores["reprojection_error"] = reprojection_error(volume, views)
    return Result(name, volume, seconds, scores)


def cells(results: list[Result]) -> list[list[str]]:
    """The results as rows of text, the header first."""
    rows = [["method", "PSNR dB", "SSIM", "MAE HU", "re-projection error", "seconds"]]
    for one in results:
        scores = one.scores
        rows.append(
            [
                one.name,
                f"{scores['psnr']:.2f}",
                f"{scores['ssim']:.3f}",
                f"{scores['mae']:.1f}",
                f"{scores['reprojection_error']:.1%}",
                f"{one.seconds:.1f}",
            ]
        )
    return rows


def table(results: list[Result]) -> str:
    """The results as aligned text, a line per method."""
    rows = cells(results)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _xrays(count: int) -> str:
    """So many X-rays, in words."""
    return "1 X-ray" if count == 1 else f"{count} X-rays"


def _write_pictures(
    folder: Path, results: list[Result], truth: Volume, views: Views, source: str
) -> None:
    """Write the montage and the report."""
    mine = results[0].volume
    volumes = {"truth": resample(truth, mine.grid)}
    write_montage(folder / "montage.png", {**volumes, "fewview": mine})
    volumes |= {one.name: one.volume for one in results}
    again = drr(mine, views.geometries, isocenter_mm=views.isocenter_mm).images
    write_report(
        folder / "report.html",
        title=f"A CT from {_xrays(len(views.geometries))}",
        volumes=volumes,
        views=views,
        reprojection={"fewview": again},
        table=cells(results),
        notes=[
            f"The CT is {source}; its X-rays were computed from it without noise.",
            "PSNR, SSIM and MAE over -1000 to 1500 HU on the reconstruction's grid, where "
            f"{results[0].scores['scanned_share']:.0%} of the voxels were scanned and count.",
            "The autoencoder ceiling is the true CT sent through the model's autoencoder.",
            "Research software, not a medical device.",
        ],
    )
