"""Commands that score finished volumes: evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewview import arguments, terminal
from fewview.arguments import Force, KeepCouch, Out
from fewview.progress import steps


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
