"""Chests from real radiographs: `python benchmarks/radiographs.py FOLDER --out DIR [...]`.

Reconstructs every picture of a folder as one PA view with the bundled model (`--nfe 0`), writes
the CT and prints, for each, the novelty score and the re-projection error: how far the CT's own
display-style X-ray is from the picture, after the best line through their grays, relative to the
picture's spread. About two seconds a picture on one CPU core.
"""

import argparse
import logging
from pathlib import Path

import torch

from fewview.bundle import DEFAULT_MODEL, load_model, load_style
from fewview.data.images import write_volume
from fewview.data.volume import Volume
from fewview.reconstruct import reconstruct
from fewview.training.style import PICTURE_SUFFIXES
from fewview.xray.detector import display_style
from fewview.xray.radiograph import read_radiographs
from fewview.xray.views import Views, drr


def display_error(volume: Volume, views: Views) -> float:
    """Share of the picture's spread that the volume's own X-ray, displayed, does not explain."""
    again = drr(volume, views.geometries, isocenter_mm=views.isocenter_mm).images[0, 0]
    shown, given = display_style(again), views.images[0, 0]
    seen = given > 0.0  # margins that keep the picture's shape are black
    likeness = torch.corrcoef(torch.stack([shown[seen], given[seen]]))[0, 1].clamp(min=0.0)
    return float((1.0 - likeness**2).clamp(min=0.0).sqrt())


def main() -> None:
    """Print the table and write the volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--style", help="folder of a style model")
    parser.add_argument("--keep-markings", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    model = load_model(arguments.model)
    style = None if arguments.style is None else load_style(arguments.style)
    arguments.out.mkdir(parents=True, exist_ok=True)
    head = "| picture | score | limit | re-projection error |"
    print(f"{head}\n|---|---|---|---|")  # noqa: T201
    for path in sorted(arguments.folder.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        views = read_radiographs([path], [0.0], keep_markings=arguments.keep_markings)
        found = reconstruct(views, model=model, style=style, nfe=0)
        write_volume(found.volume, arguments.out / f"{path.stem}.nii.gz")
        novelty = found.novelties[0]
        assert novelty is not None, "display style"
        error = display_error(found.volume, views)
        cells = (f"{value:.2f}" for value in (novelty.score, novelty.limit, error))
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
