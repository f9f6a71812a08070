"""Commands that score: evaluate finished volumes, experiment."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewview import arguments, terminal
from fewview.arguments import Device, Force, KeepCouch, Out
from fewview.progress import steps


def evaluate(
    prediction: Annotated[Path, typer.Option(help="Predicted CT, or a folder of them.")],
    truth: Annotated[Path, typer.Option(help="True CT, or a folder with the same names.")],
    out: Out,
    grid: Annotated[
        Literal["prediction", "truth"], typer.Option(help="Whose voxels to compare on.")
    ] = "prediction",
    protocol: Annotated[
        str,
        typer.Option(help="Comma-separated protocols, such as hu3d,x2ct; see docs/protocols.md."),
    ] = "hu3d",
    labels: Annotated[
        Path | None, typer.Option(help="Label map of the truth, or a folder of them, by tissue.")
    ] = None,
    views: Annotated[
        Path | None,
        typer.Option(help="X-rays the prediction was made from, or a folder of such folders."),
    ] = None,
    keep_couch: KeepCouch = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse missing, doubled and identical cases.")
    ] = False,
    force: Force = False,
) -> None:
    """Score predicted CTs against the truth: PSNR, SSIM, MAE over fixed ranges, by protocol."""
    from fewview.data.files import replacing_folder
    from fewview.evaluation.files import companions, pair_files
    from fewview.evaluation.protocols import NEEDS_WEIGHTS, protocol_names
    from fewview.evaluation.score import mean_scores, score_files
    from fewview.records import RECORD, write_record

    try:
        protocols = protocol_names(protocol.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--protocol: {error}") from None
    arguments.check_folder(out, force=force)
    pairing = pair_files(prediction, truth)
    beside = companions(list(pairing.pairs), labels=labels, views=views)
    if not keep_couch:
        typer.echo("couch removed from the truth (--keep-couch leaves it in)")
    for name in protocols:
        if name in NEEDS_WEIGHTS:
            typer.echo(f"{name}: skipped {NEEDS_WEIGHTS[name]}")
    settings = {"protocols": protocols, "grid": grid, "keep_couch": keep_couch, "strict": strict}
    with replacing_folder(out, force=force) as folder, steps("evaluate") as progress:
        scores = score_files(
            pairing,
            folder,
            grid=grid,
            keep_couch=keep_couch,
            protocols=protocols,
            beside=beside,
            progress=progress,
            tell=_refuse if strict else terminal.complain,
        )
        inputs = [path for pair in pairing.pairs.values() for path in pair]
        write_record(folder / RECORD, "evaluate", settings=settings, inputs=inputs)
    rows = {**scores, "mean": mean_scores(scores)} if len(scores) > 1 else scores
    for name, score in rows.items():
        typer.echo(f"{name}: {_headline(score)}")
    *_, last = rows.values()
    for name in protocols:
        numbers = {key: value for key, value in last.items() if key.startswith(f"{name}_")}
        for key, value in numbers.items():
            typer.echo(f"  {key} {value:.5g}")


def _refuse(remark: str) -> None:
    """End the command with a remark that is otherwise only told."""
    raise ValueError(f"{remark} (only told without --strict)")


def _headline(score: dict[str, float]) -> str:
    """A case's line on the terminal."""
    share = f"{score['scanned_share']:.0%} of the grid scanned"
    if "psnr" not in score:
        return share
    line = f"PSNR {score['psnr']:.2f} dB, SSIM {score['ssim']:.3f}, MAE {score['mae']:.1f} HU"
    if "reprojection_error" in score:
        line += f", re-projection {score['reprojection_error']:.1%}"
    return f"{line} ({share})"


def experiment(
    config: Annotated[Path, typer.Argument(help="What to compare (TOML).")],
    out: Annotated[Path, typer.Option("--out", help="Folder; resumed if begun.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Store made by `fewview prepare`.")
    ] = None,
    ct_data: Annotated[
        Path | None, typer.Option("--ct-data", help="Folder of the CT files that CONFIG names.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: Device = "cpu",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report again; run nothing.")
    ] = False,
) -> None:
    """Compare methods over views, seeds and cases: tables, plots, report."""
    from fewview import config as config_files
    from fewview.experiment.cases import Sources
    from fewview.experiment.config import ExperimentConfig
    from fewview.experiment.report import report_experiment
    from fewview.experiment.run import run_experiment
    from fewview.experiment.tables import line_of

    arguments.check_device(device)
    arguments.check_writable(out)
    if not report_only:
        with steps("experiment") as progress:
            plan = run_experiment(
                config_files.load(config, ExperimentConfig),
                out,
                sources=Sources(data, ct_data),
                workers=workers,
                device=device,
                progress=progress.staged,
            )
        for one in plan.skipped:
            typer.echo(f"skipped {one['method']} with {one['num_views']} views: {one['reason']}")
        for one in plan.failed:
            where = ", ".join(word for word in (one["method"], one["case"]) if word)
            terminal.complain(f"failed {where}: {one['reason']}")
    for entry in report_experiment(out):
        typer.echo(line_of(entry))
    typer.echo(f"Open {out / 'report.html'} in a browser.")
