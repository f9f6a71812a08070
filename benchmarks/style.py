"""What display processing costs: `python benchmarks/style.py [--style MODEL] [--parts]`.

Reconstructs held-out phantoms from clean DRRs and from the same in the held-out display style of
`fewview.xray.style` (one style per view, seeded), as it is, cleaned, cleaned and put through a
style model, and cleaned without finding out what its gray means (`--no-calibration`). Prints the
mean PSNR of `hu3d`, of the whole and of the voxels that the styles' collimators leave in every
view, and what is lost of it against clean display-style DRRs of the same treatment. The
goal: at most 1 dB lost with a style model where at least 3 dB are lost without anything. `--parts`
does the same with each part of the style alone instead. About a second per phantom and row on one
CPU core.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from fewview.bundle import DEFAULT_MODEL, load_model, load_style
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.volume import Volume
from fewview.evaluation.compare import on_one_grid
from fewview.evaluation.protocols import hu3d
from fewview.reconstruct import reconstruct
from fewview.transfer.style import StyleBundle
from fewview.xray.acquisition import as_detected
from fewview.xray.cleaning import clean
from fewview.xray.geometry import preset, project_points, spread_angles
from fewview.xray.novelty import novelties
from fewview.xray.style import DisplayStyle, apply_style, draw_style
from fewview.xray.views import Views, drr

PLAIN = DisplayStyle(
    gamma=1.0,
    window=(0.0, 1.0),
    collimation=(0.0, 0.0, 0.0, 0.0),
    border=0.0,
    noise=0.0,
    letters=(),
)
PARTS = {
    "gray curve": ("gamma",),
    "window": ("window",),
    "collimation": ("collimation", "border"),
    "noise": ("noise",),
    "letters": ("letters",),
}
ALL = tuple(name for names in PARTS.values() for name in names)

Way = Callable[[Views, int], Views]
LEFT = ", not calibrated"


def in_styles(
    views: Views, seed: int, parts: tuple[str, ...] = ALL
) -> Iterator[tuple[torch.Tensor, DisplayStyle]]:
    """Each view's picture in (parts of) a held-out display style of its own, and that style."""
    generator = torch.Generator().manual_seed(seed)
    for image in views.images[:, 0]:
        drawn = draw_style(generator)
        style = replace(PLAIN, **{part: getattr(drawn, part) for part in parts})
        yield apply_style(image, style, generator), style


def styled(views: Views, seed: int, parts: tuple[str, ...] = ALL) -> Views:
    """Line integrals in (parts of) the held-out display style."""
    images = [image for image, _ in in_styles(views, seed, parts)]
    return replace(views, images=torch.stack(images)[:, None], calibrated=(False,) * len(images))


def exposed(volume: Volume, views: Views, seed: int) -> np.ndarray:
    """Which voxels the collimators of the held-out styles leave in every view."""
    index = np.stack(np.indices(volume.shape)[::-1], axis=-1).reshape(-1, 3)
    matrix = volume.voxel_to_patient
    points = torch.from_numpy(index @ matrix[:3, :3].T + matrix[:3, 3])
    pixels, _ = project_points(views.cameras, points[None])
    rows, cols = views.images.shape[-2:]
    seen = torch.ones(len(points), dtype=torch.bool)
    for pixel, (_, style) in zip(pixels, in_styles(views, seed), strict=True):
        top, bottom, left, right = style.collimation
        row, col = (pixel[:, 0] + 0.5) / rows, (pixel[:, 1] + 0.5) / cols
        seen &= (row > top) & (row < 1.0 - bottom) & (col > left) & (col < 1.0 - right)
    return seen.reshape(volume.shape).numpy()


def cleaned(views: Views) -> Views:
    """Views without borders and letters, as radiographs are read."""
    images = [clean(image).image for image in views.images[:, 0]]
    return replace(views, images=torch.stack(images)[:, None])


def ways(style: StyleBundle | None) -> dict[str, Way]:
    """What is done to line integrals before they are reconstructed."""
    made: dict[str, Way] = {
        "line integrals": lambda views, seed: views,
        "clean display": displayed,
        "held-out style": styled,
        "held-out style, cleaned": lambda views, seed: cleaned(styled(views, seed)),
    }
    for name in ("clean display", "held-out style, cleaned"):
        made[name + LEFT] = made[name]
    if style is not None:
        made["held-out style, cleaned, style model"] = made["held-out style, cleaned"]
        made["clean display, style model"] = displayed
    return made


def ways_of_parts(style: StyleBundle | None) -> dict[str, Way]:
    """The same with each part of the held-out style alone."""
    made: dict[str, Way] = {"clean display": displayed}
    for part, names in PARTS.items():

        def raw(views: Views, seed: int, names: tuple[str, ...] = names) -> Views:
            return styled(views, seed, names)

        def tidy(views: Views, seed: int, names: tuple[str, ...] = names) -> Views:
            return cleaned(styled(views, seed, names))

        made[part], made[f"{part}, cleaned"] = raw, tidy
        if style is not None:
            made[f"{part}, cleaned, style model"] = tidy
    return made


def displayed(views: Views, seed: int) -> Views:
    """Line integrals in the display style that models are trained on."""
    return as_detected(views, display=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--style", help="folder of a style model")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--parts", action="store_true", help="each part of the style alone")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    style = None if arguments.style is None else load_style(arguments.style)
    geometries = [preset("chest", angle_deg=one) for one in spread_angles(arguments.views)]
    rows: dict[str, list[tuple[float, ...]]] = {}
    shares = []
    chosen = ways_of_parts(style) if arguments.parts else ways(style)
    for seed in HELD_OUT_SEEDS[: arguments.count]:
        truth = phantom(seed).volume
        views = drr(truth, geometries)
        for name, way in chosen.items():
            shown = way(views, seed)
            found = reconstruct(
                shown,
                model=model,
                style=style if name.endswith("style model") else None,
                nfe=0,
                consistency=False,
                calibration=not name.endswith(LEFT),
            ).volume
            one, other, mask = on_one_grid(found, truth, keep_couch=True)
            seen = mask & exposed(one, views, seed)
            shares.append(seen.sum() / mask.sum())
            psnr, of_seen = (hu3d(one.hu, other.hu, part)["psnr"] for part in (mask, seen))
            scores = [score.score for score in novelties(shown) if score is not None]
            rows.setdefault(name, []).append((psnr, of_seen, float(np.mean(scores or [np.nan]))))
    means = {name: np.mean(figures, axis=0) for name, figures in rows.items()}
    share = 100.0 * np.mean(shares)
    print(  # noqa: T201
        f"voxels exposed in every view of the held-out style: {share:.0f} %\n\n"
        "| views | PSNR dB | lost dB | PSNR of the exposed dB | lost dB | novelty score |\n"
        "|---|---|---|---|---|---|"
    )
    for name, (psnr, of_seen, score) in means.items():
        base, base_seen, _ = means["clean display" + LEFT * name.endswith(LEFT)]
        print(  # noqa: T201
            f"| {name} | {psnr:.2f} | {base - psnr:+.2f} "
            f"| {of_seen:.2f} | {base_seen - of_seen:+.2f} | {score:.2f} |"
        )


if __name__ == "__main__":
    main()
