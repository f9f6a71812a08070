"""What a stage's learning rate does to its validation, early on.

    python benchmarks/rates.py configs/evidence/x2ct-cnn.toml --data STORE --out DIR \
        --rates 2e-4,5e-4,1e-3 --steps 100

Trains the config's last regression or alignment stage anew for each rate, with the same examples,
without cooldown, and prints the validation of every fifty steps. `--start-from RUN` takes over the
autoencoder and latents that stage 2 needs. Rates are chosen this way on the validation split alone,
for every method alike.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from runs import fewview, take_stage_one

STAGES = ("regression", "alignment")


def config_of_rate(source: Path, stage: str, rate: float, steps: int, folder: Path) -> Path:
    """The config with one stage's rate and number of steps changed, and no cooldown."""
    head, mark, tail = source.read_text(encoding="utf-8").partition(f"[training.{stage}]\n")
    own, following, rest = tail.partition("\n[")
    keys = ("num_steps", "learning_rate", "cooldown_steps", "validate_every")
    kept = [line for line in own.splitlines() if line.split(" ")[0] not in keys]
    changed = [f"num_steps = {steps}", f"learning_rate = {rate}", "validate_every = 50", *kept]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.stem}-{rate:g}.toml"
    path.write_text(head + mark + "\n".join(changed) + following + rest, encoding="utf-8")
    return path


def validations(run: Path, stage: str) -> dict[int, float]:
    """Validation PSNR of a stage by step."""
    found = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["stage"] == stage and "val_psnr_db" in record:
            found[record["step"]] = record["val_psnr_db"]
    return found


def main() -> None:
    """Train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", required=True, help="2e-4,5e-4")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--start-from", type=Path, help="run with a finished stage 1")
    options = parser.parse_args()
    found = re.findall(r"^\[training\.(\w+)\]", options.config.read_text(encoding="utf-8"), re.M)
    stages = [stage for stage in STAGES if stage in found]
    if not stages:
        raise SystemExit(f"{options.config} has no stage {' or '.join(STAGES)}")
    stage = stages[0]
    for rate in (float(word) for word in options.rates.split(",")):
        config = config_of_rate(options.config, stage, rate, options.steps, options.out)
        run = options.out / config.stem
        if options.start_from is not None:
            take_stage_one(options.start_from, config, run)
        words = ["train", config, "--data", options.data, "--out", run, "--stage", stage]
        fewview(*words, *(["--resume"] if run.is_dir() else []))
        shown = ", ".join(f"{step}: {psnr:.2f}" for step, psnr in validations(run, stage).items())
        sys.stdout.write(f"| {options.config.stem} | {rate:g} | {shown} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
