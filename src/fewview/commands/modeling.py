"""Commands about models: train, reconstruct, models."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fewview import arguments
from fewview.arguments import Angles, Device, Geometry
from fewview.progress import Steps, steps


def train(
    config: Annotated[Path, typer.Argument(help="Training configuration (TOML).")],
    data: Annotated[Path, typer.Option("--data", help="Store made by `fewview prepare`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Start from this model's weights (bundled name or folder).")
    ] = None,
    radiographs: Annotated[
        Path | None, typer.Option("--radiographs", help="Real radiographs, for a style model.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: Device = "cpu",
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, one per GPU.")
    ] = None,
) -> None:
    """Train a system, stage by stage; under torchrun, together with its other processes."""
    from fewview.records import RECORD, write_record
    from fewview.training import train as train_system
    from fewview.training.launch import launch, needs_launch
    from fewview.training.processes import is_first, one_voice

    arguments.check_device(device)
    arguments.check_writable(out)
    if needs_launch(devices):
        raise typer.Exit(launch(devices, sys.argv[1:]))
    shown = steps("train") if is_first() else nullcontext(Steps("train", None))
    with one_voice(), shown as progress:
        train_system(
            config,
            data,
            out,
            stage=stage,
            start=start,
            radiographs=radiographs,
            resume=resume,
            device=device,
            report=progress.staged,
        )
    if is_first():
        settings = {"stage": stage, "start": start, "resumed": resume, "devices": devices}
        inputs = [config, data] if radiographs is None else [config, data, radiographs]
        write_record(out / RECORD, "train", settings=settings, inputs=inputs, device=device)


def reconstruct(
    inputs: Annotated[list[Path], typer.Argument(help="A views folder, or radiographs.")],
    out: Annotated[str, typer.Option("--out", help="CT to write: .nii.gz, .nrrd, .mha, or DIR/.")],
    model: Annotated[str, typer.Option(help="Bundled name or model folder.")] = "fewview-64",
    style: Annotated[
        Path | None, typer.Option("--style", help="Style model to put radiographs through first.")
    ] = None,
    nfe: Annotated[
        int | None,
        typer.Option(min=0, help="Denoiser calls; 0 takes the head, without sampling."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples to average.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Beyond 1: follow the views more closely (some models)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    device: Device = "cpu",
    uncertainty: Annotated[
        str | None, typer.Option(help="Also write the samples' standard deviation (HU) here.")
    ] = None,
    consistency: Annotated[
        bool, typer.Option("--consistency/--no-consistency", help="Make it agree with the views.")
    ] = True,
    calibration: Annotated[
        bool,
        typer.Option("--calibration/--no-calibration", help="Find out what displayed gray means."),
    ] = True,
    angles_deg: Angles = None,
    geometry: Geometry = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse radiographs without known distances.")
    ] = False,
    keep_markings: Annotated[
        bool, typer.Option("--keep-markings", help="Leave borders and letters in radiographs.")
    ] = False,
) -> None:
    """Reconstruct a CT from a views folder, or from radiographs and their angles."""
    arguments.check_volume_output(out)
    if uncertainty is not None:
        arguments.check_volume_output(uncertainty, "--uncertainty")
        if samples is None or samples < 2 or nfe == 0:
            raise typer.BadParameter("--uncertainty needs --samples 2 or more, and no --nfe 0")
    arguments.check_device(device)
    views = arguments.read_inputs(
        inputs, angles_deg, geometry, strict=strict, keep_markings=keep_markings
    )

    from fewview.data.images import write_volume
    from fewview.outside import warn_depth
    from fewview.reconstruct import reconstruct as reconstruct_views
    from fewview.records import write_record

    warn_depth(views)
    result = reconstruct_views(
        views,
        model=model,
        style=style,
        nfe=nfe,
        samples=samples,
        guidance=guidance,
        seed=seed,
        device=device,
        consistency=consistency,
        calibration=calibration,
    )
    if uncertainty is not None and result.std is not None:
        write_volume(result.std, uncertainty)
    if result.sample is not None and result.sample is not result.volume:
        write_volume(result.sample, arguments.beside(out, "sample"))
    write_volume(result.volume, out)
    settings = {
        "model": model,
        "style": style,
        "novelty": result.novelties,
        "nfe": result.nfe,
        "samples": samples,
        "guidance": guidance,
        "consistency": consistency,
        "gray_curves": result.curves,
        "geometries": views.geometries,
        "geometry_source": views.geometry_source,
    }
    record = arguments.beside(out, "run", ".json")
    write_record(record, "reconstruct", settings=settings, inputs=inputs, seed=seed, device=device)
    typer.echo(f"{out}: {' x '.join(map(str, result.volume.shape))} voxels")


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
