"""Training of style models: real radiographs and DRRs, unpaired, in both directions.

Beside CycleGAN's terms, DRRs whose window, gray curve and exposed field were changed are restored.
The held-out display style (`xray/style.py`) has no part in it; the changes here are smaller.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fewview.inputs import ViewRange
from fewview.training.examples import Body, generator_of, uniform
from fewview.training.loop import Report, Stage, fit
from fewview.training.source import TrainingSource
from fewview.training.style_config import StyleRun, StyleStage
from fewview.training.views import (
    displayed,
    draw_geometries,
    project_body,
    standard_geometries,
)
from fewview.transfer.style import Patches, StyleNetworks, standardized
from fewview.xray.detector import display_style
from fewview.xray.geometry import ViewGeometry, preset
from fewview.xray.novelty import kind_of
from fewview.xray.picture import read_picture
from fewview.xray.radiograph import read_radiographs

CONTINUED_MM = 200.0  # half of a detector at the isocenter; a scan reaches over its middle

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")

Pictures = Float[Tensor, "picture 1 row col"]


def frontal_pictures(folder: Path, views: ViewRange) -> Pictures:
    """All frontal radiographs of a folder, cleaned, hung like PA ones, on the training detector.

    Pictures that do not say their view are taken for frontal ones; lateral ones are left out.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    geometry = preset(views.preset, size=views.num_pixels)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} of radiographs")
    pictures = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        angle = read_picture(path).header.primary_angle_deg or 0.0
        kind, mirrored = kind_of(angle)
        if kind == "frontal":
            image = read_radiographs([path], [angle], geometry).images[0]
            pictures.append(image.flip(-1) if mirrored else image)
    if not pictures:
        raise ValueError(f"{folder} has no frontal radiographs ({', '.join(PICTURE_SUFFIXES)})")
    return torch.stack(pictures)


def augmented(
    pictures: Pictures, config: StyleStage, generator: torch.Generator
) -> Float[Tensor, "1 1 row col"]:
    """One of the radiographs: enlarged, moved inside its frame, of another gray curve."""
    index = int(torch.randint(len(pictures), (), generator=generator))
    scale = 1.0 / (1.0 + uniform(generator, 0.0, config.zoom))
    across, down = (uniform(generator, scale - 1.0, 1.0 - scale) for _ in "uv")
    matrix = torch.tensor([[[scale, 0.0, across], [0.0, scale, down]]])
    picture = pictures[index : index + 1]
    grid = functional.affine_grid(matrix, list(picture.shape), align_corners=False)
    moved = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    low, high = (math.log(gamma) for gamma in config.gamma)
    return standardized(moved.clamp(0.0, 1.0) ** math.exp(uniform(generator, low, high)))


def drr_pictures(body: Body, geometries: list[ViewGeometry]) -> Float[Tensor, "view 1 row col"]:
    """Radiographs of a body, in [0, 1], in the style that models are trained on.

    A scan ends and a patient does not: where the scan's ends showed, a style model would learn to
    blacken the edges of radiographs. So the body goes on as it ends.
    """
    images, _ = project_body(_continued(body), geometries)
    return display_style(images[0])[:, None]


def _continued(body: Body) -> Body:
    """The body with its first and last slice repeated, beyond the edge of any detector."""
    step = body.voxel_to_patient[:3, 2]
    count = math.ceil(CONTINUED_MM / float(torch.linalg.vector_norm(step)))
    hu = functional.pad(body.hu[None, None], (0, 0, 0, 0, count, count), mode="replicate")[0, 0]
    matrix = body.voxel_to_patient.clone()
    matrix[:3, 3] -= count * step
    return replace(body, hu=hu, voxel_to_patient=matrix)


def redisplayed(
    picture: Float[Tensor, "1 1 row col"], config: StyleStage, generator: torch.Generator
) -> Float[Tensor, "1 1 row col"]:
    """A DRR of another window, gray curve and exposed field, as cleaning would hand it on."""
    shown = displayed(
        picture[0, 0],
        generator,
        gamma=config.gamma,
        window_cut=config.window_cut,
        widest=config.collimation,
    )
    return standardized(shown[None, None])


def drr_pool(views: ViewRange, source: TrainingSource, seed: int) -> Float[Tensor, "drr row col"]:
    """A frontal and a lateral DRR, in turn, of every body of an epoch."""
    bodies = enumerate(source.keys())
    return torch.cat(
        [
            drr_pictures(
                source.body(key), draw_geometries(views, 2, generator_of(seed, 60, index))
            )[:, 0]
            for index, key in bodies
        ]
    )


def train_style(
    run: StyleRun,
    networks: StyleNetworks,
    source: TrainingSource,
    pictures: Pictures,
    out: Path,
    *,
    report: Report,
) -> None:
    """Fit both generators to radiographs and DRRs, whose display changes while the bodies stay."""
    config, seed = run.training.style, run.training.seed
    patches = {
        name: Patches(run.system.discriminator).to(source.device) for name in ("drr", "radiograph")
    }
    modules = nn.ModuleDict({**networks.modules(), **patches})
    standard = standard_geometries(run.system.views, 1)
    validation = [
        standardized(drr_pictures(source.scans.read(case.id), standard)).to(source.device)
        for case in source.store.of_split("val")
    ]
    pool = drr_pool(run.system.views, source, seed)

    def drawn(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A frontal DRR; others of any view as they were; the same displayed otherwise."""
        body = int(torch.randint(len(pool) // 2, (), generator=generator))
        others = torch.randint(len(pool), (config.num_displays,), generator=generator)
        wanted = pool[others][:, None]
        changed = [redisplayed(one[None], config, generator) for one in wanted]
        frontal = pool[2 * body : 2 * body + 1][:, None]
        return standardized(frontal), standardized(wanted), torch.cat(changed)

    def step_loss(step: int, places: range) -> tuple[Tensor, dict[str, float]]:
        examples = [drawn(generator_of(seed, 61, step, place)) for place in places]
        drrs, wanted, changed = (
            torch.cat(part).to(source.device) for part in zip(*examples, strict=True)
        )
        radiographs = [
            augmented(pictures, config, generator_of(seed, 62, step, place)) for place in places
        ]
        with source.autocast():
            shown = torch.cat(radiographs).to(source.device)
            loss, figures = style_losses(modules, shown, drrs, config)
            restoration = (networks.to_drr(changed) - wanted).abs().mean()
        figures["restoration"] = restoration.item()
        return loss + config.restoration_weight * restoration, figures

    def validate() -> dict[str, list[float]]:
        figures: dict[str, list[float]] = {"val_cycle": [], "val_identity": []}
        rank, count = source.processes.rank, source.processes.count
        for drr in validation[rank::count]:
            back = networks.to_drr(networks.to_radiograph(drr))
            figures["val_cycle"].append((back - drr).abs().mean().item())
            figures["val_identity"].append((networks.to_drr(drr) - drr).abs().mean().item())
        return figures

    stage = Stage(
        name="style", config=config, module=modules, step_loss=step_loss, validate=validate
    )
    fit(stage, out, source.processes, report=report)


def style_losses(
    modules: nn.ModuleDict, radiographs: Pictures, drrs: Pictures, config: StyleStage
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Losses of all four networks, each of which gets its own gradients, and named figures.

    References:
        Zhu et al. (2017), CycleGAN, equations 1 to 3 and section 5.2 (identity), with the
        least-squares losses of section 4.
    """
    to_drr, to_radiograph = modules["to_drr"], modules["to_radiograph"]
    made_drrs, made_radiographs = to_drr(radiographs), to_radiograph(drrs)
    cycle = (to_radiograph(made_drrs) - radiographs).abs().mean()
    cycle = cycle + (to_drr(made_radiographs) - drrs).abs().mean()
    identity = (to_drr(drrs) - drrs).abs().mean()
    identity = identity + (to_radiograph(radiographs) - radiographs).abs().mean()
    fooling, telling = torch.zeros((), device=drrs.device), torch.zeros((), device=drrs.device)
    for name, made, true in (
        ("drr", made_drrs, drrs),
        ("radiograph", made_radiographs, radiographs),
    ):
        fooled, told = least_squares(modules[name], made, true)
        fooling, telling = fooling + fooled, telling + told
    loss = config.adversarial_weight * fooling + telling
    loss = loss + config.cycle_weight * cycle + config.identity_weight * identity
    figures = {
        "change": (made_drrs - radiographs).abs().mean().item(),
        "fooling": fooling.item(),
        "telling": telling.item(),
        "cycle": cycle.item(),
        "identity": identity.item(),
    }
    return loss, figures


def least_squares(
    discriminator: nn.Module, made: Pictures, true: Pictures
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The generator's loss with the discriminator fixed, and the discriminator's with the picture.

    References:
        Mao et al. (2017), LSGAN, equation 9, with labels 1 and 0.
    """
    fixed = discriminator.state_dict()  # detached from the weights
    fooled = functional_call(discriminator, fixed, (made,))
    told = (discriminator(true) - 1.0).square().mean() + discriminator(
        made.detach()
    ).square().mean()
    return (fooled - 1.0).square().mean(), told


def style_card(run: StyleRun, out: Path) -> str:
    """A card that says what is known of a style model."""
    last: dict[str, float] = {}
    for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        last |= {name: entry[name] for name in ("val_cycle", "val_identity") if name in entry}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    return (
        f"# {run.system.name}\n\n"
        "Turns real frontal radiographs into the style of computed ones, before a reconstruction. "
        "It may invent or hide findings.\n\n"
        "Research software, not a medical device. Do not use it for diagnosis.\n\n"
        f"Mean absolute error of standardized val DRRs: {shown or 'the store has no val split'}.\n"
    )
