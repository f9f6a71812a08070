"""The default evidence of docs/results.md, from nothing: `python benchmarks/evidence.py --out DIR`.

Makes phantoms, prepares them (and, with `--ct-data FOLDER`, the training CTs of
configs/fewview-64.csv), trains every system of configs/evidence with the same budget, and runs
`fewview experiment` on held-out phantoms and on the validation CT. Every step goes on where it was
stopped. `--steps N` cuts each stage to N steps, to see that everything runs.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs" / "evidence"
HEADLINE_SEEDS = (0, 1, 2)
RUNS = {  # the system, its seeds, and whose model it starts from
    "fewview": (HEADLINE_SEEDS, None),
    "x2ct-cnn": (HEADLINE_SEEDS, None),
    "x2ct-gan": ((0,), "x2ct-cnn"),
    "inrr3ct": ((0,), None),
    "ldm": ((0,), None),
    "coarse": ((0,), "fewview"),
}


def fewview(*words: object) -> None:
    """Run a `fewview` command; stop where it fails."""
    code = "from fewview.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)


def config_of_run(name: str, seed: int, steps: int | None, folder: Path) -> Path:
    """The committed config with a seed of its own, and fewer steps where they are asked for."""
    text = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"^seed = \d+\n", "", text, flags=re.MULTILINE)
    text = text.replace("[training]\n", f"[training]\nseed = {seed}\n", 1)
    if steps is not None:
        text = re.sub(r"num_steps = \d+", f"num_steps = {steps}", text)
        text = re.sub(r"cooldown_steps = \d+", "cooldown_steps = 0", text)
        text = re.sub(r"num_examples = \d+\n", "", text)
        text = text.replace("[training]\n", f"[training]\nnum_examples = {max(4, steps)}\n", 1)
    path = folder / f"{name}-{seed}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train(name: str, seed: int, start: str | None, out: Path, steps: int | None) -> None:
    """Train one system with one seed, unless its model is there."""
    run = out / "runs" / f"{name}-{seed}"
    if (run / "model" / "weights.safetensors").is_file():
        return
    config = config_of_run(name, seed, steps, out / "configs")
    words = ["train", config, "--data", out / "store", "--out", run]
    if run.is_dir():
        words.append("--resume")
    if start is not None:
        words += ["--start", out / "runs" / f"{start}-0" / "model"]
    fewview(*words)


def main() -> None:
    """Prepare, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ct-data", type=Path, help="folder of the development CTs")
    parser.add_argument("--phantoms", type=int, default=150, help="phantoms to train on")
    parser.add_argument("--steps", type=int, help="only so many steps a stage: a trial")
    parser.add_argument("--experiment", default="experiment-evidence", help="which config")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    (out / "configs").mkdir(parents=True, exist_ok=True)
    if not (out / "phantoms").is_dir():
        fewview("phantom", out / "phantoms", "--count", options.phantoms)
    sources = [out / "phantoms"]
    splits = []
    if options.ct_data is not None:
        sources.append(options.ct_data)
        splits = ["--split", ROOT / "configs" / "fewview-64.csv"]
    else:
        splits = ["--split-shares", "0.05,0.0"]
    fewview("prepare", *sources, "--out", out / "store", "--size", 128, *splits)
    for name, (seeds, start) in RUNS.items():
        for seed in seeds:
            train(name, seed, start, out, options.steps)
    text = (ROOT / "configs" / f"{options.experiment}.toml").read_text(encoding="utf-8")
    (out / "experiment.toml").write_text(text.replace("RUNS", str(out / "runs")), encoding="utf-8")
    fewview("experiment", out / "experiment.toml", "--out", out / "experiment")


if __name__ == "__main__":
    main()
