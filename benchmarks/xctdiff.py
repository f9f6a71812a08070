"""XctDiff's ablation, from nothing: `python benchmarks/xctdiff.py --out DIR`.

Makes phantoms, prepares them (and the training CTs with `--ct-data FOLDER`), trains the systems of
configs/xctdiff-ablation, each of which differs from shared.toml in one factor, counts the codes
that they choose on held-out phantoms, and runs `fewview experiment configs/experiment-xctdiff.toml`
with one frontal view. All rows and seeds share stage 1 of seed 0. Two further stages 1 with the
published number of codes, one with revival and one without, are trained and counted alone. Every
step goes on where it was stopped; `--only` and `--seeds` do a part of it, as in evidence.py.
`--steps N` cuts each stage to N steps, to see that everything runs.
"""

import json
from argparse import Namespace
from pathlib import Path

import torch
from runs import AUTOENCODER, ROOT, options_of, prepare, run_experiment, train

from fewview.bundle import Bundle, load_bundle
from fewview.data.files import replacing_file
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.volume import cubic_grid, resample
from fewview.demo import autoencoded
from fewview.evaluation.compare import compare
from fewview.models.codebook import Codebook, code_counts
from fewview.reconstruct import encode_views
from fewview.system import build_networks
from fewview.training.checkpoint import part, read_checkpoint
from fewview.training.codes import figures_of
from fewview.training.config import RunConfig, load_run
from fewview.xray.geometry import preset
from fewview.xray.views import drr

CONFIGS = ROOT / "configs" / "xctdiff-ablation"
DEFAULT = "shared"
ROWS = {
    "shared": (0, 1, 2),
    "separate": (0, 1, 2),
    "cross-attention": (0,),
    "epsilon": (0,),
    "copies": (0,),
    "codes-8192": (0,),
    "codes-8192-unrevived": (0,),
}
"""Seeds of each row; the default first, for all take over its stage 1 of seed 0."""

STAGE_ONE_ROWS = ("codes-8192", "codes-8192-unrevived")
"""Rows of which only stage 1 is trained."""

SAME_STAGE_TWO = ("cross-attention", "epsilon")
"""Rows that differ from the default in stage 3 alone."""


def stage_one(run: Path) -> Bundle:
    """A run whose stage 1 is finished, its other networks fresh."""
    config = load_run(run / "config.toml")
    assert isinstance(config, RunConfig), "a system, not a regressor"
    networks = build_networks(config.system)
    averages = part(read_checkpoint(run / AUTOENCODER)[0], "average")
    networks.autoencoder.load_state_dict(part(averages, "autoencoder"))
    networks.autoencoder.eval()
    return Bundle(config.system, networks, "")


@torch.no_grad()
def use_of_codes(bundle: Bundle, num_phantoms: int, size: int, *, xray: bool) -> dict[str, float]:
    """Share of the codes chosen on held-out phantoms, perplexity, and the mean ceiling in dB.

    Args:
        bundle: Whose codebooks.
        num_phantoms: How many phantoms.
        size: Their voxels per axis.
        xray: Whether to count also the codes of their frontal X-rays.
    """
    autoencoder, grid_config = bundle.networks.autoencoder, bundle.config.grid
    counts: dict[str, torch.Tensor] = {}
    ceilings = []

    def count(name: str, book: Codebook, latent: torch.Tensor) -> None:
        found = code_counts(book(latent).indices, len(book.vectors))
        counts[name] = counts[name] + found if name in counts else found

    for seed in HELD_OUT_SEEDS[:num_phantoms]:
        truth = phantom(seed, size=size).volume
        grid = cubic_grid(truth.center_mm, size=grid_config.size, extent_mm=grid_config.extent_mm)
        hu = torch.from_numpy(resample(truth, grid).hu)[None, None]
        count("ct", autoencoder.codebook, autoencoder.encode(grid_config.to_unit(hu)).mean)
        coded = compare(autoencoded(truth, grid, bundle), truth, keep_couch=True)
        ceilings.append(coded["psnr"])
        if xray:
            views = drr(truth, [preset("chest", angle_deg=0.0)])
            told = encode_views(bundle, views, for_head=False).condition
            count("xray", bundle.networks.view_encoder.codebook, told)
    figures = {
        f"{name}_{figure}": value
        for name, found in counts.items()
        for figure, value in figures_of(found).items()
    }
    return {**figures, "ceiling_psnr_db": sum(ceilings) / len(ceilings)}


def count_codes(run: Path, options: Namespace) -> None:
    """Write `codes.json` of a run, of its model if it has one, otherwise of its stage 1."""
    path, model = run / "codes.json", run / "model"
    if path.is_file():
        return
    many = (50, 128) if options.steps is None else (2, 64)
    bundle = load_bundle(model) if model.is_dir() else stage_one(run)
    found = use_of_codes(bundle, *many, xray=model.is_dir())
    with replacing_file(path) as writing:
        writing.write_text(json.dumps(found, indent=1))


def main() -> None:
    """Prepare, train, count, compare."""
    options = options_of(__doc__, "experiment-xctdiff")
    out: Path = options.out
    prepare(out, options.phantoms, options.ct_data, options.workers)
    for seed in options.seeds:
        for name, seeds in ROWS.items():
            if seed not in seeds or (options.only and name not in options.only):
                continue
            source = CONFIGS / f"{name}.toml"
            if name in STAGE_ONE_ROWS:
                run = train(source, seed, options, stage="autoencoder")
            else:
                same = DEFAULT if name in SAME_STAGE_TWO else None
                run = train(source, seed, options, stage_one_of=DEFAULT, stage_two_of=same)
            count_codes(run, options)
    if not options.only:
        run_experiment(options.experiment, options)


if __name__ == "__main__":
    main()
