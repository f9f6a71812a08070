"""What the scripts with many runs share: phantoms to a store, configs to models, an experiment.

Every step goes on where it was stopped. A trial is the same with few steps and few cases.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fewview import config as config_files
from fewview.training.config import RunConfig, load_run

ROOT = Path(__file__).parent.parent
AUTOENCODER, LATENTS = "autoencoder.safetensors", "latents.safetensors"
"""What stage 1 leaves for the others."""

ALIGNMENT = "alignment.safetensors"
"""What stage 2 leaves."""

VALIDATION_CT = "covidctmd_P001.nii.gz"
"""The one development CT of configs/fewview-64.csv that no run trains on."""


def options_of(about: str | None, experiment: str) -> argparse.Namespace:
    """The command line of such a script."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ct-data", type=Path, help="folder of the development CTs")
    parser.add_argument("--phantoms", type=int, default=150, help="phantoms to train on")
    parser.add_argument("--steps", type=int, help="only so many steps a stage: a trial")
    parser.add_argument("--experiment", default=experiment, help="which config")
    parser.add_argument("--workers", type=int, default=1, help="processes but for training")
    parser.add_argument("--device", default="cpu", help="where networks train and run")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), help="only these: 0,1")
    parser.add_argument(
        "--only", type=_words, default=(), help="train these configs alone and compare nothing"
    )
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


def _numbers(text: str) -> tuple[int, ...]:
    """`0,1` as numbers."""
    return tuple(int(word) for word in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    """`ldm,both` as words."""
    return tuple(text.split(","))


def fewview(*words: object) -> None:
    """Run a `fewview` command; stop where it fails."""
    run_python("-c", "from fewview.cli import main; main()", *words)


def run_python(*words: object) -> None:
    """Run this Python; stop where it fails."""
    subprocess.run([sys.executable, *map(str, words)], check=True)


def prepare(out: Path, num_phantoms: int, ct_data: Path | None, workers: int = 1) -> None:
    """Make phantoms and bring them, and the training CTs if there are any, into `out/store`."""
    if not (out / "phantoms").is_dir():
        fewview("phantom", out / "phantoms", "--count", num_phantoms, "--workers", workers)
    sources, splits = [out / "phantoms"], ["--split-shares", "0.05,0.0"]
    if ct_data is not None:
        sources.append(ct_data)
        splits = ["--split", str(ROOT / "configs" / "fewview-64.csv")]
    words = ["--out", out / "store", "--size", 128, "--workers", workers]
    fewview("prepare", *sources, *words, *splits)


def config_of_run(source: Path, seed: int, steps: int | None, folder: Path) -> Path:
    """A committed config with a seed of its own, and fewer steps where they are asked for."""
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"^seed = \d+\n", "", text, flags=re.MULTILINE)
    text = text.replace("[training]\n", f"[training]\nseed = {seed}\n", 1)
    if steps is not None:
        text = re.sub(r"num_steps = \d+", f"num_steps = {steps}", text)
        text = re.sub(r"cooldown_steps = \d+", "cooldown_steps = 0", text)
        text = re.sub(r"num_examples = \d+\n", "", text)
        text = text.replace("[training]\n", f"[training]\nnum_examples = {max(8, steps)}\n", 1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.stem}-{seed}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train(
    source: Path,
    seed: int,
    options: argparse.Namespace,
    *,
    start: str | None = None,
    stage_one_of: str | None = None,
    stage_two_of: str | None = None,
    stage: str | None = None,
) -> Path:
    """Train one config with one seed, unless its model is there; returns the run's folder.

    Args:
        source: The committed config.
        seed: The run's seed.
        options: Of `options_of`: where the store and all runs lie, steps of a trial, device.
        start: The run of seed 0 whose model this one starts from.
        stage_one_of: The config whose finished stage 1 of seed 0 this run takes over: one
            autoencoder for all, so that seeds differ in what is compared. Latents come from its run
            of the same seed, if that has them.
        stage_two_of: The config whose finished stages 1 and 2 of the same seed this run takes over,
            if they are there.
        stage: Only this stage, which leaves no model.
    """
    out: Path = options.out
    run = out / "runs" / f"{source.stem}-{seed}"
    if (run / "model" / "weights.safetensors").is_file():
        return run
    config = config_of_run(source, seed, options.steps, out / "configs")
    if stage_two_of is not None:
        take_stage_two(out / "runs" / f"{stage_two_of}-{seed}", config, run)
    if stage_one_of is not None:
        for number in dict.fromkeys((seed, 0)):  # of the same seed also the latents are the same
            take_stage_one(out / "runs" / f"{stage_one_of}-{number}", config, run)
    words = ["train", config, "--data", out / "store", "--out", run, "--device", options.device]
    if run.is_dir():
        words.append("--resume")
    if start is not None:
        words += ["--start", out / "runs" / f"{start}-0" / "model"]
    if stage is not None:
        words += ["--stage", stage]
    fewview(*words)
    return run


def take_stage_one(finished: Path, config_path: Path, run: Path) -> None:
    """Begin a run with the stage 1 of another, where both would train the same one.

    Stage 1 depends on grid, autoencoder, data and seed alone: with the same seed this changes no
    result. With another one the run has the other's autoencoder, and copies and latents of its own.

    Raises:
        ValueError: If the two configs do not have the same stage 1.
    """
    if run.is_dir() or not all((finished / name).is_file() for name in (AUTOENCODER, LATENTS)):
        return
    config, other = load_run(config_path), load_run(finished / "config.toml")
    if stage_one_of_config(config) != stage_one_of_config(other):
        raise ValueError(f"{config_path} has another stage 1 than {finished}")
    same_copies = config.training.seed == other.training.seed
    _take(finished, run, config, [AUTOENCODER, LATENTS] if same_copies else [AUTOENCODER])


def take_stage_two(finished: Path, config_path: Path, run: Path) -> None:
    """Begin a run with the stages 1 and 2 of another of the same seed; changes no result.

    Raises:
        ValueError: If the two configs do not have the same stages 1 and 2.
    """
    names = [AUTOENCODER, LATENTS, ALIGNMENT]
    # The other has begun stage 3 only when its stage 2 was finished.
    begun = (*names, "diffusion.safetensors")
    if run.is_dir() or not all((finished / name).is_file() for name in begun):
        return
    config, other = load_run(config_path), load_run(finished / "config.toml")
    if stage_two_of_config(config) != stage_two_of_config(other):
        raise ValueError(f"{config_path} has another stage 2 than {finished}")
    _take(finished, run, config, names)


def _take(finished: Path, run: Path, config: object, names: list[str]) -> None:
    run.mkdir(parents=True)
    for name in names:
        shutil.copy(finished / name, run / name)
    # Last: without it the folder is not taken for a run, and nothing goes on from half a copy.
    (run / "config.toml").write_text(config_files.to_toml(config), encoding="utf-8")


def stage_one_of_config(config: object) -> tuple[object, ...]:
    """All that stage 1 depends on but the seed."""
    if not isinstance(config, RunConfig):
        raise ValueError("a regressor has no stage 1 to take over")
    training = config.training
    return (
        config.system.grid,
        config.system.autoencoder,
        training.autoencoder,
        training.augmentation,
        (training.num_examples, training.phantom_share, training.precision),
    )


def stage_two_of_config(config: object) -> tuple[object, ...]:
    """All that stages 1 and 2 depend on."""
    first = stage_one_of_config(config)
    assert isinstance(config, RunConfig), "or stage_one_of_config had refused it"
    system, training = config.system, config.training
    return (*first, system.views, system.view_encoder, training.alignment, training.seed)


def run_experiment(name: str, options: argparse.Namespace) -> None:
    """Run an experiment's config on the runs; a trial takes two small phantoms.

    With `--ct-data` the same methods also run on the validation CT.
    """
    out, config = options.out, ROOT / "configs" / f"{name}.toml"
    text = config.read_text(encoding="utf-8").replace("RUNS", str(out / "runs"))
    # First the experiment's own seeds, then those of methods that run with one of them.
    every, alone = f"seeds = {[*options.seeds]}", f"seeds = [{options.seeds[0]}]"
    text = re.sub(r"^seeds = .*$", alone, text, flags=re.MULTILINE).replace(alone, every, 1)
    if options.steps is not None:
        text = re.sub(r"^count = \d+$", "count = 2\nsize = 64", text, flags=re.MULTILINE)
    (out / "experiment.toml").write_text(text, encoding="utf-8")
    where = ("--workers", options.workers, "--device", options.device)
    fewview("experiment", out / "experiment.toml", "--out", out / "experiment", *where)
    if options.ct_data is not None:
        text = re.sub(r"\[phantoms\]\n(.+\n)+", f'[files]\npaths = ["{VALIDATION_CT}"]\n', text)
        (out / "experiment-ct.toml").write_text(text, encoding="utf-8")
        words = ["--ct-data", options.ct_data, "--out", out / "experiment-ct", *where[2:]]
        fewview("experiment", out / "experiment-ct.toml", *words)
