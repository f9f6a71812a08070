"""What display processing costs: `python benchmarks/style.py [--style MODEL] [--views 2]`.

Reconstructs held-out phantoms from clean DRRs and from the same in the held-out display style of
`fewview.xray.style` (one style per view, seeded), as it is, cleaned, and cleaned and put through a
style model. Prints the mean PSNR of `hu3d` and what is lost against clean display-style DRRs. The
goal: at most 1 dB lost with a style model where at least 3 dB are lost without anything. About five
seconds a phantom on one CPU core.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fewview.bundle import DEFAULT_MODEL, load_model, load_style
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.evaluation.compare import compare
from fewview.reconstruct import reconstruct
from fewview.transfer.style import StyleBundle
from fewview.xray.acquisition import as_detected
from fewview.xray.cleaning import clean
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.novelty import novelties
from fewview.xray.style import apply_style, draw_style
from fewview.xray.views import Views, drr


def styled(views: Views, seed: int) -> Views:
    """Line integrals in the held-out display style, another one for each view."""
    generator = torch.Generator().manual_seed(seed)
    images = [apply_style(image, draw_style(generator), generator) for image in views.images[:, 0]]
    return replace(views, images=torch.stack(images)[:, None], calibrated=(False,) * len(images))


def cleaned(views: Views) -> Views:
    """Views without borders and letters, as radiographs are read."""
    images = [clean(image).image for image in views.images[:, 0]]
    return replace(views, images=torch.stack(images)[:, None])


def ways(style: StyleBundle | None) -> dict[str, Callable[[Views, int], Views]]:
    """What is done to line integrals before they are reconstructed."""
    made: dict[str, Callable[[Views, int], Views]] = {
        "line integrals": lambda views, seed: views,
        "clean display": lambda views, seed: as_detected(views, display=True),
        "held-out style": styled,
        "held-out style, cleaned": lambda views, seed: cleaned(styled(views, seed)),
    }
    if style is not None:
        made["held-out style, cleaned, style model"] = made["held-out style, cleaned"]
        made["clean display, style model"] = made["clean display"]
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--style", help="folder of a style model")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--views", type=int, default=2)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    style = None if arguments.style is None else load_style(arguments.style)
    geometries = [preset("chest", angle_deg=one) for one in spread_angles(arguments.views)]
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in HELD_OUT_SEEDS[: arguments.count]:
        truth = phantom(seed).volume
        views = drr(truth, geometries)
        for name, way in ways(style).items():
            shown = way(views, seed)
            used = style if name.endswith("style model") else None
            found = reconstruct(shown, model=model, style=used, nfe=0, consistency=False)
            scores = [one.score for one in novelties(shown) if one is not None]
            psnr = compare(found.volume, truth, keep_couch=True)["psnr"]
            rows.setdefault(name, []).append((psnr, float(np.mean(scores or [np.nan]))))
    base = np.mean([psnr for psnr, _ in rows["clean display"]])
    print("| views | PSNR dB | lost dB | novelty score |\n|---|---|---|---|")  # noqa: T201
    for name, pairs in rows.items():
        psnr, score = np.mean(pairs, axis=0)
        print(f"| {name} | {psnr:.2f} | {base - psnr:+.2f} | {score:.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
