"""The commands: thin shells over the Python API.

Nothing heavy is imported before a command runs, so that `--help` answers at once. Usage is
checked before work starts; what goes wrong later becomes one line in `terminal`.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewview import __version__, arguments, terminal
from fewview.arguments import Angles, Device, Force, Geometry, KeepCouch, Out
from fewview.progress import steps

MAX_VIEWS = 16


app = typer.Typer(
    cls=terminal.CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The `fewview` command."""
    # Threads that wait by spinning slow every neighbor on a busy machine, and themselves; read when
    # torch is first imported. On an idle machine it costs nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.warnoptions:  # warnings of libraries are for developers: python -W shows them
        warnings.simplefilter("ignore")
    app(prog_name="fewview")


def _show_version(wanted: bool) -> bool:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"fewview {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the traceback of a failure.")
    ] = False,
) -> None:
    """CT volumes from one to sixteen X-ray views. Research software, not a medical device."""


@app.command()
def demo(
    out: Out = Path("demo"),
    ct: Annotated[Path | None, typer.Option("--ct", help="Your own CT instead of ours.")] = None,
    views: Annotated[int, typer.Option(min=1, max=MAX_VIEWS, help="Number of X-rays.")] = 2,
    force: Force = False,
) -> None:
    """Reconstruct a CT from two of its X-rays and compare it to the truth."""
    from fewview.demo import run_demo

    run_demo(out, ct=ct, num_views=views, force=force, say=typer.echo)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write, one folder per case.")],
    count: Annotated[int, typer.Option(min=1, help="Number of cases.")],
    size: Annotated[int, typer.Option(min=8, help="Voxels per side.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first case.")] = 0,
    force: Force = False,
) -> None:
    """Make procedural chest CTs with label maps."""
    from fewview.data.phantom import write_cases

    arguments.check_folder(out, force=force)
    write_cases(out, count, size=size, seed=seed, force=force)
    typer.echo(f"{out}: {count} cases")


@app.command()
def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders with CT files.")],
    out: Annotated[Path, typer.Option("--out", help="Store to write; resumed if begun.")],
    size: Annotated[int, typer.Option(min=8, help="Voxels per side of the model grid.")] = 128,
    extent_mm: Annotated[float, typer.Option(min=1.0, help="Side of the model grid.")] = 400.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    split: Annotated[
        Path | None, typer.Option("--split", help="CSV with the columns case,patient,split.")
    ] = None,
    keep_couch: KeepCouch = False,
    force: Force = False,
) -> None:
    """Turn CT files into a store to train from."""
    from fewview.data.prepare import prepare as prepare_store

    arguments.check_writable(out)
    with steps("prepare") as progress:
        report = prepare_store(
            sources,
            out,
            size=size,
            extent_mm=extent_mm,
            workers=workers,
            split_file=split,
            keep_couch=keep_couch,
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


@app.command()
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
    typer.echo(f"{out}: {len(geometries)} views at {angles_text} degrees")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Training configuration (TOML).")],
    data: Annotated[Path, typer.Option("--data", help="Store made by `fewview prepare`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: Device = "cpu",
) -> None:
    """Train a system, stage by stage."""
    from fewview.records import RECORD, write_record
    from fewview.training import train as train_system

    arguments.check_device(device)
    arguments.check_writable(out)
    with steps("train") as progress:
        report = progress.staged
        train_system(config, data, out, stage=stage, resume=resume, device=device, report=report)
    settings = {"stage": stage, "resumed": resume}
    write_record(out / RECORD, "train", settings=settings, inputs=[config, data], device=device)


@app.command()
def reconstruct(
    inputs: Annotated[list[Path], typer.Argument(help="A views folder, or radiographs.")],
    out: Annotated[str, typer.Option("--out", help="CT to write: .nii.gz, .nrrd, .mha, or DIR/.")],
    model: Annotated[str, typer.Option(help="Bundled name or model folder.")] = "fewview-64",
    nfe: Annotated[
        int | None, typer.Option(min=0, help="Denoiser calls; 0 takes the coarse head alone.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples to average.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    device: Device = "cpu",
    uncertainty: Annotated[
        str | None, typer.Option(help="Also write the samples' standard deviation (HU) here.")
    ] = None,
    consistency: Annotated[
        bool, typer.Option("--consistency/--no-consistency", help="Make it agree with the views.")
    ] = True,
    angles_deg: Angles = None,
    geometry: Geometry = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse radiographs without known distances.")
    ] = False,
) -> None:
    """Reconstruct a CT from a views folder, or from radiographs and their angles."""
    arguments.check_volume_output(out)
    if uncertainty is not None:
        arguments.check_volume_output(uncertainty, "--uncertainty")
        if samples is None or samples < 2 or nfe == 0:
            raise typer.BadParameter("--uncertainty needs --samples 2 or more, and no --nfe 0")
    arguments.check_device(device)
    views = arguments.read_inputs(inputs, angles_deg, geometry, strict)

    from fewview.data.images import write_volume
    from fewview.reconstruct import reconstruct as reconstruct_views
    from fewview.records import write_record

    result = reconstruct_views(
        views,
        model=model,
        nfe=nfe,
        samples=samples,
        seed=seed,
        device=device,
        consistency=consistency,
    )
    if uncertainty is not None and result.std is not None:
        write_volume(result.std, uncertainty)
    if result.sample is not None and result.sample is not result.volume:
        write_volume(result.sample, arguments.beside(out, "sample"))
    write_volume(result.volume, out)
    settings = {
        "model": model,
        "nfe": result.nfe,
        "samples": samples,
        "consistency": consistency,
        "geometries": views.geometries,
        "geometry_source": views.geometry_source,
    }
    record = arguments.beside(out, "run", ".json")
    write_record(record, "reconstruct", settings=settings, inputs=inputs, seed=seed, device=device)
    typer.echo(f"{out}: {' x '.join(map(str, result.volume.shape))} voxels")


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Option(help="Predicted CT, or a folder of them.")],
    truth: Annotated[Path, typer.Option(help="True CT, or a folder with the same names.")],
    out: Out,
    grid: Annotated[
        Literal["prediction", "truth"], typer.Option(help="Whose voxels to compare on.")
    ] = "prediction",
    keep_couch: KeepCouch = False,
    force: Force = False,
) -> None:
    """Score predicted CTs against the truth: PSNR, SSIM and MAE in HU over a fixed range."""
    from fewview.data.files import replacing_folder
    from fewview.evaluation.files import mean_scores, pair_files, score_files
    from fewview.records import RECORD, write_record

    arguments.check_folder(out, force=force)
    pairs, unmatched = pair_files(prediction, truth)
    for name in unmatched:
        terminal.complain(f"left out {name}: no truth of that name")
    if not keep_couch:
        typer.echo("couch removed from the truth (--keep-couch leaves it in)")
    settings = {"protocol": "hu3d", "grid": grid, "keep_couch": keep_couch}
    with replacing_folder(out, force=force) as folder, steps("evaluate") as progress:
        scores = score_files(pairs, folder, grid=grid, keep_couch=keep_couch, progress=progress)
        inputs = [path for pair in pairs.values() for path in pair]
        write_record(folder / RECORD, "evaluate", settings=settings, inputs=inputs)
    rows = {**scores, "mean": mean_scores(scores)} if len(scores) > 1 else scores
    for name, score in rows.items():
        typer.echo(
            f"{name}: PSNR {score['psnr']:.2f} dB, SSIM {score['ssim']:.3f}, "
            f"MAE {score['mae']:.1f} HU ({score['scanned_share']:.0%} of the grid scanned)"
        )


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show this model's whole card.")] = None,
) -> None:
    """List the models that come with the package, with their cards."""
    from fewview.bundle import bundled_folder, bundled_models

    names = bundled_models()
    if name is not None and name not in names:
        raise typer.BadParameter(f"no bundled model {name}; there are {', '.join(names) or 'none'}")
    for one in names if name is None else [name]:
        card = (bundled_folder() / one / "card.md").read_text(encoding="utf-8").strip()
        typer.echo(card if name else f"{one}\n\n{card}\n")
