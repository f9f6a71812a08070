"""How well a model's X-rays and CTs lie together in its latent space, on cases it never saw.

    python -m fewview.experiment.alignment MODEL --out DIR [--phantoms 50] [--num-views 2]
    python -m fewview.experiment.alignment MODEL --out DIR --data STORE --split test

Each case's X-rays are projected from its CT, encoded and brought to the latent by the projector of
stage 2; its CT is encoded by the autoencoder. Then each set of X-rays looks for its own CT among
all, and each CT for its own X-rays. The same is done with a view encoder and projector that have
learned nothing: other ones than those the model's training began with, whose seed no model keeps.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewview.bundle import Bundle, load_bundle
from fewview.data.files import replacing_folder
from fewview.data.splits import SPLITS
from fewview.data.volume import Volume, cubic_grid, resample
from fewview.experiment.alignment_figures import (
    DIGITS,
    as_table,
    case_figures,
    embedding_svg,
    summarized,
    summary_lines,
)
from fewview.experiment.cases import Case, Sources, list_cases, read_truth
from fewview.experiment.config import ExperimentConfig, PhantomCases, StoreCases
from fewview.experiment.methods import ConstantMethod
from fewview.models.projector import Projector
from fewview.reconstruct import network_inputs
from fewview.records import RECORD, write_record
from fewview.system import Networks, build_networks
from fewview.training.collapse import effective_rank, spread
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr

FRESH_SEED = 0
"""Of the networks that have learned nothing, whatever the seed of the model's training."""

UNALIGNED = (
    "{name}: the temperature of its contrast is as training begins it. Unless stage 2 had matched "
    "pairs alone (case_weight and local_weight 0), its projector has learned nothing and these "
    "figures mean nothing.\n"
)

MIN_CASES = 3
"""Two directions of the picture need three CTs."""

Progress = Callable[[int, int, str], None]
"""Called with cases done, all cases, and the last one's name."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The latents of all cases, in one order."""

    names: tuple[str, ...]
    cts: Float[Tensor, "case latent depth height width"]
    aligned: Float[Tensor, "case latent depth height width"]
    """Of the X-rays, by the model."""

    fresh: Float[Tensor, "case latent depth height width"]
    """Of the X-rays, by networks that have learned nothing."""


def cases_of(
    bundle: Bundle, *, phantoms: int, phantom_size: int, split: str, sources: Sources
) -> tuple[ExperimentConfig, list[Case]]:
    """The held-out cases as an experiment names them: of a store's split, else phantoms.

    Raises:
        ValueError: If there are fewer than three.
    """
    of_store = sources.store is not None
    config = ExperimentConfig(
        name="alignment",
        reference="none",
        methods={"none": ConstantMethod()},
        geometry=bundle.config.views.preset,
        phantoms=None if of_store else PhantomCases(count=phantoms, size=phantom_size),
        store=StoreCases(split=split) if of_store else None,
    )
    cases = list_cases(config, sources)
    if len(cases) < MIN_CASES:
        raise ValueError(f"alignment needs {MIN_CASES} or more cases, got {len(cases)}")
    return config, cases


def encoded_pool(
    bundle: Bundle,
    config: ExperimentConfig,
    cases: Sequence[Case],
    sources: Sources,
    *,
    num_views: int = 2,
    progress: Progress | None = None,
) -> Pool:
    """Latents of all cases, in single precision.

    Args:
        bundle: The model.
        config: Where cases come from, and how they are projected.
        cases: The cases.
        sources: Their folders.
        num_views: X-rays of a case, spread over 180 degrees from 0.
        progress: Shows how far it is.
    """
    fresh = fresh_networks(bundle)
    found: tuple[list[Tensor], ...] = ([], [], [])
    geometries = [
        preset(config.geometry, angle_deg=angle, size=config.num_pixels)
        for angle in spread_angles(num_views)
    ]
    for index, case in enumerate(cases, start=1):
        truth = read_truth(case, config, sources)
        views = drr(truth, geometries)
        found[0].append(latent_of_ct(bundle, truth, views))
        found[1].append(latent_of_views(bundle, bundle.networks, views))
        found[2].append(latent_of_views(bundle, fresh, views))
        if progress is not None:
            progress(index, len(cases), case.name)
    cts, aligned, untrained = (torch.cat(one) for one in found)
    return Pool(tuple(case.name for case in cases), cts, aligned, untrained)


def has_told_apart(bundle: Bundle) -> bool:
    """Whether a contrast moved the projector's temperature, which nothing else moves.

    Without one (a plain latent diffusion model, reconstruction alone) the projector stays as it was
    made, and a model's folder does not say how it was trained.
    """
    stored = bundle.networks.projector.log_temperature.half().cpu()
    begun = Projector(1, 1).log_temperature.half()  # the same for every size
    return not torch.equal(stored, begun)


def fresh_networks(bundle: Bundle) -> Networks:
    """The same system with networks that have learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        networks = build_networks(bundle.config).to(str(bundle.device))
    for module in networks.modules().values():
        module.eval()
    return networks


@torch.no_grad()
def latent_of_ct(bundle: Bundle, truth: Volume, views: Views) -> Tensor:
    """The autoencoder's latent of the CT on the model grid about the isocenter."""
    own = bundle.config.grid
    grid = cubic_grid(np.array(views.isocenter_mm), size=own.size, extent_mm=own.extent_mm)
    hu = torch.from_numpy(resample(truth, grid).hu)[None, None].to(bundle.device)
    return bundle.networks.autoencoder.encode(own.to_unit(hu)).mean.float().cpu()


@torch.no_grad()
def latent_of_views(bundle: Bundle, networks: Networks, views: Views) -> Tensor:
    """The aligned latent of X-rays by some networks of the bundle's system."""
    images, rays = network_inputs(bundle, views)
    encoding = networks.view_encoder(images, rays, with_estimate=False)
    return networks.projector(encoding.condition).float().cpu()


def write_alignment(
    pool: Pool, out: Path, *, name: str, num_views: int, force: bool = False
) -> list[str]:
    """Write `alignment.json`, `alignment.csv` and `embedding.svg`; returns lines to show.

    `spread` in the first is that of the X-rays over that of the CTs, as in training.

    Args:
        pool: The latents.
        out: The folder to write.
        name: The model's.
        num_views: X-rays of a case.
        force: Whether a folder that is not empty may be replaced.
    """
    cts, aligned, fresh = (unit_rows(of) for of in (pool.cts, pool.aligned, pool.fresh))
    figures = case_figures(cts, aligned, fresh, num_positions=pool.cts[0, 0].numel())
    summary = summarized(figures)
    content = {
        "model": name,
        "num_views": num_views,
        "num_cases": len(pool.names),
        "chance": {"top1": 1 / len(pool.names), "top5": min(1.0, 5 / len(pool.names))},
        "figures": summary,
        "spread": {
            name: round(spread(latent) / spread(pool.cts), DIGITS)
            for name, latent in (("xray", pool.aligned), ("fresh_xray", pool.fresh))
        },
        "effective_rank": {
            name: round(effective_rank(latent), DIGITS)
            for name, latent in (("ct", pool.cts), ("xray", pool.aligned))
        },
    }
    with replacing_folder(out, force=force) as folder:
        text = json.dumps(content, indent=1) + "\n"
        (folder / "alignment.json").write_text(text, encoding="utf-8")
        table = as_table(pool.names, figures)
        (folder / "alignment.csv").write_text(table, encoding="utf-8")
        (folder / "embedding.svg").write_bytes(embedding_svg(cts, aligned, fresh))
        settings = {"model": name, "num_views": num_views, "cases": pool.names}
        write_record(folder / RECORD, "alignment", settings=settings, seed=FRESH_SEED)
    return summary_lines(name, len(pool.names), summary)


def unit_rows(latent: Float[Tensor, "case latent depth height width"]) -> np.ndarray:
    """Every position's vector at length 1, a case in one row."""
    return F.normalize(latent, dim=1).flatten(1).numpy()


def main(words: Sequence[str]) -> int:
    """Measure the model named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fewview.experiment.alignment")
    parser.add_argument("model", help="bundled name or model folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--phantoms", type=int, default=50, help="held-out phantoms")
    parser.add_argument("--phantom-size", type=int, default=128, help="their voxels per side")
    parser.add_argument("--data", type=Path, help="store to take the cases from instead")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which of its splits")
    parser.add_argument("--num-views", type=int, default=2, help="X-rays of a case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--force", action="store_true", help="replace a folder that is not empty")
    options = parser.parse_args(words)
    sources = Sources(store=options.data)
    try:
        bundle = load_bundle(options.model, device=options.device)
        if not has_told_apart(bundle):
            sys.stderr.write(UNALIGNED.format(name=bundle.config.name))
        config, cases = cases_of(
            bundle,
            phantoms=options.phantoms,
            phantom_size=options.phantom_size,
            split=options.split,
            sources=sources,
        )
        pool = encoded_pool(bundle, config, cases, sources, num_views=options.num_views)
        lines = write_alignment(
            pool,
            options.out,
            name=bundle.config.name,
            num_views=options.num_views,
            force=options.force,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
