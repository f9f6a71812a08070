"""XctDiff's ablation, from nothing: `python benchmarks/xctdiff.py --out DIR`.

Makes phantoms, prepares them (and the training CTs with `--ct-data FOLDER`), trains the systems of
configs/xctdiff-ablation, each of which differs from shared.toml in one factor, counts the codes
that they choose on held-out phantoms, and runs `fewview experiment configs/experiment-xctdiff.toml`
with one frontal view. All rows and seeds share stage 1 of seed 0. Every step goes on where it
was stopped; `--only` and `--seeds` do a part of it, as in evidence.py. `--steps N` cuts each stage
to N steps, to see that everything runs.
"""

import json
from pathlib import Path

import torch
from runs import ROOT, options_of, prepare, run_experiment, train

from fewview.bundle import load_bundle
from fewview.data.files import replacing_file
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.volume import cubic_grid, resample
from fewview.models.codebook import Codebook, code_counts
from fewview.reconstruct import encode_views
from fewview.training.codes import figures_of
from fewview.xray.geometry import preset
from fewview.xray.views import drr

CONFIGS = ROOT / "configs" / "xctdiff-ablation"
DEFAULT = "shared"
ROWS = {"shared": (0, 1, 2), "separate": (0, 1, 2), "cross-attention": (0,), "copies": (0,)}
"""Seeds of each row; the default first, for all take over its stage 1 of seed 0."""

SAME_STAGE_TWO = ("cross-attention",)
"""Rows that differ from the default in stage 3 alone."""


@torch.no_grad()
def use_of_codes(model: Path, num_phantoms: int, size: int) -> dict[str, float]:
    """Share of the codes chosen for CTs and for frontal X-rays of held-out phantoms, perplexity."""
    bundle = load_bundle(model)
    autoencoder, view_encoder = bundle.networks.autoencoder, bundle.networks.view_encoder
    books = {"ct": autoencoder.codebook, "xray": view_encoder.codebook}
    counts = {
        name: torch.zeros(len(book.vectors), dtype=torch.long) for name, book in books.items()
    }
    grid_config = bundle.config.grid

    def count(name: str, latent: torch.Tensor) -> None:
        book: Codebook = books[name]
        counts[name] += code_counts(book(latent).indices, len(book.vectors))

    for seed in HELD_OUT_SEEDS[:num_phantoms]:
        truth = phantom(seed, size=size).volume
        grid = cubic_grid(truth.center_mm, size=grid_config.size, extent_mm=grid_config.extent_mm)
        hu = torch.from_numpy(resample(truth, grid).hu)[None, None]
        count("ct", autoencoder.encode(grid_config.to_unit(hu)).mean)
        views = drr(truth, [preset("chest", angle_deg=0.0)])
        count("xray", encode_views(bundle, views, for_head=False).condition)
    return {
        f"{name}_{figure}": value
        for name, found in counts.items()
        for figure, value in figures_of(found).items()
    }


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
            same = DEFAULT if name in SAME_STAGE_TWO else None
            run = train(source, seed, options, stage_one_of=DEFAULT, stage_two_of=same)
            codes = run / "codes.json"
            if not codes.is_file():
                many = (50, 128) if options.steps is None else (2, 64)
                with replacing_file(codes) as writing:
                    writing.write_text(json.dumps(use_of_codes(run / "model", *many), indent=1))
    if not options.only:
        run_experiment(options.experiment, options)


if __name__ == "__main__":
    main()
