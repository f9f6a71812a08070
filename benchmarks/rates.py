"""What a stage's optimizer and learning rate do to its validation, early on.

    python benchmarks/rates.py configs/evidence/x2ct-cnn.toml --data STORE --out DIR \
        --optimizers adamw,muon --rates 2e-4,5e-4,1e-3 --steps 100

Trains one stage of the config anew for each pair, with the same examples, without cooldown, and
prints the validation of every fifty steps. `--stage` says which, by default regression or
alignment; `--start-from RUN` takes over the autoencoder and latents that stage 2 needs, and stage 2
for stage 3. Rates are chosen this way on the validation split alone, for every method alike.
"""

import argparse
import json
import re
import sys
from itertools import product
from pathlib import Path

from runs import fewview, take_stage_one, take_stage_two

STAGES = ("regression", "alignment", "autoencoder", "diffusion")


def config_of_rate(
    source: Path, stage: str, optimizer: str, rate: float, steps: int, folder: Path
) -> Path:
    """The config with one stage's optimizer, rate and steps changed, and no cooldown."""
    head, mark, tail = source.read_text(encoding="utf-8").partition(f"[training.{stage}]\n")
    own, following, rest = tail.partition("\n[")
    keys = ("num_steps", "optimizer", "learning_rate", "cooldown_steps", "validate_every")
    kept = [line for line in own.splitlines() if line.split(" ")[0] not in keys]
    changed = [
        f"num_steps = {steps}",
        f'optimizer = "{optimizer}"',
        f"learning_rate = {rate}",
        "validate_every = 50",
        *kept,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.stem}-{stage}-{optimizer}-{rate:g}.toml"
    path.write_text(head + mark + "\n".join(changed) + following + rest, encoding="utf-8")
    return path


def validations(run: Path, stage: str) -> dict[int, dict[str, float]]:
    """Validation figures of a stage by step."""
    found = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        figures = {name: value for name, value in record.items() if name.startswith("val_")}
        if record["stage"] == stage and figures:
            found[record["step"]] = figures
    return found


def main() -> None:
    """Train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", required=True, help="2e-4,5e-4")
    parser.add_argument("--optimizers", default="adamw", help="adamw,muon")
    parser.add_argument("--stage", choices=STAGES, help="which")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--start-from", type=Path, help="run with the finished stages before it")
    options = parser.parse_args()
    found = re.findall(r"^\[training\.(\w+)\]", options.config.read_text(encoding="utf-8"), re.M)
    stages = [stage for stage in (options.stage or STAGES[0], *STAGES) if stage in found]
    if not stages or options.stage not in (None, stages[0]):
        raise SystemExit(f"{options.config} has no such stage; it has {', '.join(found)}")
    stage = stages[0]
    pairs = product(options.optimizers.split(","), map(float, options.rates.split(",")))
    for optimizer, rate in pairs:
        config = config_of_rate(options.config, stage, optimizer, rate, options.steps, options.out)
        run = options.out / config.stem
        if options.start_from is not None:
            take = take_stage_two if stage == "diffusion" else take_stage_one
            take(options.start_from, config, run)
        words = ["train", config, "--data", options.data, "--out", run, "--stage", stage]
        fewview(*words, *(["--resume"] if run.is_dir() else []))
        shown = "; ".join(
            f"{step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            for step, figures in validations(run, stage).items()
        )
        sys.stdout.write(f"| {options.config.stem} | {optimizer} {rate:g} | {shown} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
