"""Use of a codebook with and without revival, on held-out phantoms, and the memory of its search.

    python benchmarks/codebook.py OUT

Stage 1 of `configs/xctdiff-64.toml`, cut to 32^3 voxels, half the width and 300 steps, on eight
phantoms; use and PSNR on eight others, with the averaged weights. A minute and a half on one core.
Then the peak of resident memory above the start while a latent of 32^3 is quantized by 8192 codes.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fewview import config as config_files
from fewview.data.phantom import write_cases
from fewview.data.prepare import prepare
from fewview.experiment.cost import peak_memory_mb, reset_peak_memory
from fewview.models.codebook import Codebook, quantization_loss
from fewview.training import train
from fewview.training.config import RunConfig, load_run

BASE = Path(__file__).parents[1] / "configs" / "xctdiff-64.toml"
NUM_CASES, SIZE, STEPS = 16, 32, 300
TRIALS = ((256, 0), (256, 10), (1024, 10))
"""Codes, and steps between revivals."""


def store_of(folder: Path) -> Path:
    """Half of the phantoms to train, half to validate."""
    write_cases(folder / "cases", NUM_CASES, size=SIZE)
    rows = [
        f"case_{index:04d},p{index},{'train' if index < NUM_CASES // 2 else 'val'}"
        for index in range(NUM_CASES)
    ]
    (folder / "split.csv").write_text("\n".join(["case,patient,split", *rows]) + "\n")
    prepare([folder / "cases"], folder / "store", size=SIZE, split_file=folder / "split.csv")
    return folder / "store"


def trial_of(num_codes: int, revive_every: int) -> RunConfig:
    """The base config, cut down."""
    run = load_run(BASE)
    assert isinstance(run, RunConfig), "a system, not a regressor"
    system = replace(
        run.system,
        grid=replace(run.system.grid, size=SIZE),
        autoencoder=replace(run.system.autoencoder, width=16, num_codes=num_codes),
        denoiser=replace(run.system.denoiser, multipliers=(1, 2, 3), attention_levels=(1, 2)),
    )
    stage = replace(
        run.training.autoencoder,
        num_steps=STEPS,
        steady_steps=STEPS,
        cooldown_steps=STEPS // 3,
        validate_every=STEPS,
        revive_every=revive_every,
    )
    return replace(run, system=system, training=replace(run.training, autoencoder=stage))


def held_out(folder: Path, store: Path, trial: RunConfig) -> dict[str, float]:
    """Figures of the validation after the last step."""
    folder.mkdir()
    (folder / "trial.toml").write_text(config_files.to_toml(trial), encoding="utf-8")
    train(folder / "trial.toml", store, folder / "run", stage="autoencoder")
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[str, float] = next(
        entry for entry in map(json.loads, reversed(lines)) if "val_psnr_db" in entry
    )
    return found


def search_memory_mb(*, learning: bool) -> float:
    """Peak above the start of quantizing 8 x 32^3 values by 8192 codes."""
    torch.manual_seed(0)
    codebook = Codebook(8192, 8)
    torch.nn.init.uniform_(codebook.vectors, -1.0, 1.0)
    latent = torch.rand(1, 8, 32, 32, 32, requires_grad=learning)
    codebook(latent[..., :2])  # libraries and threads are there before the measurement
    reset_peak_memory("cpu")
    before = peak_memory_mb()
    with torch.set_grad_enabled(learning):
        quantized = codebook(latent)
        if learning:
            quantization_loss(latent, quantized).backward()
    after = peak_memory_mb()
    assert before is not None, "needs /proc"
    assert after is not None, "needs /proc"
    return after - before


def main(out: Path) -> None:
    """Measure and print tables in Markdown."""
    out.mkdir(parents=True)
    store = store_of(out)
    write = sys.stdout.write
    write("| codes | steps between revivals | chosen | perplexity | PSNR (dB) |\n")
    write("|---|---|---|---|---|\n")
    for index, (num_codes, every) in enumerate(TRIALS):
        found = held_out(out / f"trial_{index}", store, trial_of(num_codes, every))
        cells = [str(num_codes), str(every or "none"), f"{found['val_code_share']:.1%}"]
        cells += [f"{found['val_perplexity']:.0f}", f"{found['val_psnr_db']:.2f}"]
        write(f"| {' | '.join(cells)} |\n")
    for learning in (False, True):
        what = "with its gradients" if learning else "alone"
        write(f"\nSearch among 8192 codes for 32^3 vectors, {what}: ")
        write(f"{search_memory_mb(learning=learning):.0f} MB.\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
