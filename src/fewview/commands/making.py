"""Commands that make volumes, stores and views: demo, phantom, prepare, project."""

from pathlib import Path
from typing import Annotated

import typer

from fewview import arguments, terminal
from fewview.arguments import MAX_VIEWS, Angles, Force, Geometry, KeepCouch, Out
from fewview.progress import steps


def demo(
    out: Out = Path("demo"),
    ct: Annotated[Path | None, typer.Option("--ct", help="Your own CT instead of ours.")] = None,
    views: Annotated[int, typer.Option(min=1, max=MAX_VIEWS, help="Number of X-rays.")] = 2,
    force: Force = False,
) -> None:
    """Reconstruct a CT from its X-rays, two by default, and compare it to the truth."""
    from fewview.demo import run_demo

    run_demo(out, ct=ct, num_views=views, force=force, say=typer.echo)


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write, one folder per case.")],
    count: Annotated[int, typer.Option(min=1, help="Number of cases.")],
    size: Annotated[int, typer.Option(min=8, help="Voxels per side.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first case.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    force: Force = False,
) -> None:
    """Make procedural chest CTs with label maps."""
    from fewview.data.phantom import write_cases

    arguments.check_folder(out, force=force)
    write_cases(out, count, size=size, seed=seed, force=force, workers=workers)
    typer.echo(f"{out}: {count} cases")


def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders with CT files.")],
    out: Annotated[Path, typer.Option("--out", help="Store to write; resumed if begun.")],
    layout: Annotated[
        str, typer.Option("--layout", help="folder, lidc-idri, x2ct or ctspine1k.")
    ] = "folder",
    stored_offset_hu: Annotated[
        int | None, typer.Option(help="What x2ct files store above HU: 1000 or 1024.")
    ] = None,
    size: Annotated[int, typer.Option(min=8, help="Voxels per side of the model grid.")] = 128,
    extent_mm: Annotated[float, typer.Option(min=1.0, help="Side of the model grid.")] = 400.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    dask: Annotated[
        str | None, typer.Option("--dask", help="Address of a Dask scheduler to work on.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option("--split", help="CSV with the columns case,patient,split.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option("--patients", help="CSV with the columns case,patient.")
    ] = None,
    split_shares: Annotated[
        str | None, typer.Option(help="Shares of val and test without --split; 0.1,0.1.")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the split without --split; 0.")
    ] = None,
    keep_couch: KeepCouch = False,
    license: Annotated[
        str, typer.Option("--license", help="Of the scans whose folders have no LICENSE file.")
    ] = "",
    force: Force = False,
) -> None:
    """Turn CT files into a store to train from."""
    from fewview.data.layouts import LAYOUTS
    from fewview.data.prepare import prepare as prepare_store
    from fewview.data.splits import SplitRule
    from fewview.data.x2ct import OFFSETS_HU

    if layout not in LAYOUTS:
        raise typer.BadParameter(f"--layout {layout}: known are {', '.join(LAYOUTS)}")
    if layout == "x2ct" and stored_offset_hu not in OFFSETS_HU:
        raise typer.BadParameter("--layout x2ct needs --stored-offset-hu 1000 or 1024")
    if layout != "x2ct" and stored_offset_hu is not None:
        raise typer.BadParameter("--stored-offset-hu is for --layout x2ct only")
    if dask is not None and workers > 1:
        raise typer.BadParameter("give --workers or --dask, not both")
    if split is not None and (patients, split_shares, split_seed) != (None, None, None):
        raise typer.BadParameter(
            "--split says it all: no --patients, --split-shares or --split-seed beside it"
        )
    val_share, test_share = arguments.numbers(split_shares or "0.1,0.1", count=2)
    rule = SplitRule(seed=split_seed or 0, val_share=val_share, test_share=test_share)
    arguments.check_writable(out)
    with steps("prepare") as progress:
        report = prepare_store(
            sources,
            out,
            layout=layout,
            stored_offset_hu=stored_offset_hu,
            size=size,
            extent_mm=extent_mm,
            workers=workers,
            dask=dask,
            split_file=split,
            patients_file=patients,
            split_rule=rule,
            keep_couch=keep_couch,
            license=license,
            force=force,
            progress=progress,
        )
    for case, reason in report.failures:
        terminal.complain(f"left out {case}: {reason}")
    typer.echo(f"{out}: couch {'kept' if keep_couch else 'removed'}")
    for line in report.summary():
        typer.echo(line)
    if report.failures and not report.num_prepared + report.num_kept:
        raise ValueError(f"no scan of {', '.join(map(str, sources))} could be used")


def project(
    ct: Annotated[Path, typer.Argument(help="CT file or DICOM folder.")],
    out: Out,
    angles_deg: Angles = None,
    num_views: Annotated[
        int | None, typer.Option(min=1, max=MAX_VIEWS, help="Views spread over 180 degrees.")
    ] = None,
    geometry: Geometry = None,
    size: Annotated[int | None, typer.Option(min=8, help="Detector pixels per side.")] = None,
    isocenter_mm: Annotated[
        str | None, typer.Option(help="Point x,y,z (LPS) all views turn about.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="Which DICOM series of the folder.")] = None,
    resample_uneven: Annotated[
        bool, typer.Option("--resample-uneven", help="Even out slices that are uneven or missing.")
    ] = False,
    photons: Annotated[
        float | None, typer.Option(help="Add noise of this many photons per pixel in air.")
    ] = None,
    display_style: Annotated[
        bool, typer.Option("--display-style", help="8-bit look instead of line integrals.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    keep_couch: KeepCouch = False,
    force: Force = False,
) -> None:
    """Compute X-rays of a CT: noise-free line integrals with their geometry."""
    from fewview.data.body import remove_couch
    from fewview.data.files import replacing_folder
    from fewview.data.images import read_volume
    from fewview.records import RECORD, write_record
    from fewview.xray.acquisition import as_detected
    from fewview.xray.geometry import spread_angles
    from fewview.xray.views import drr, preview, write_views

    if angles_deg is not None and num_views is not None:
        raise typer.BadParameter("give --angles-deg or --num-views, not both")
    angles = None if angles_deg is None else arguments.numbers(angles_deg)
    if num_views is not None:
        angles = spread_angles(num_views)
    isocenter = None if isocenter_mm is None else arguments.numbers(isocenter_mm, count=3)
    geometries = arguments.geometries(geometry, angles, size)
    arguments.check_folder(out, force=force)
    volume = read_volume(ct, series=series, resample_uneven=resample_uneven)
    if not keep_couch:
        volume = remove_couch(volume)
        typer.echo("couch removed (--keep-couch leaves it in)")
    views = drr(volume, geometries, isocenter_mm=isocenter)
    views = as_detected(views, photons=photons, display=display_style, seed=seed)
    with replacing_folder(out, force=force) as folder:
        write_views(views, folder)
        preview(views, folder / "preview.png")
        settings = {"geometries": views.geometries, "keep_couch": keep_couch, "photons": photons}
        settings |= {"display_style": display_style}
        write_record(folder / RECORD, "project", settings=settings, inputs=[ct], seed=seed)
    angles_text = ", ".join(f"{one.primary_angle_deg:g}" for one in geometries)
    views_text = "1 view" if len(geometries) == 1 else f"{len(geometries)} views"
    typer.echo(f"{out}: {views_text} at {angles_text} degrees")
