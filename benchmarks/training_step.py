"""Time and memory of one training step of each stage of a config, by its parts.

    python benchmarks/training_step.py configs/fewview-64.toml --data STORE --threads 2
    python benchmarks/training_step.py CONFIG --data STORE --device cuda --peak-tflops 989

Each stage runs in a process of its own, with fresh networks, so that its peak memory is its own;
medians over the steps after the first. `data` is for copies that are met for the first time, their
scans read already, as in every step of stage 1 and of regressors. Stages 2 and 3 meet copies again:
what a run then has in memory (`fewview.training.examples.BodyCache`) costs it less. There are only
as many copies as a step needs, so memory is without what a run keeps of all of them: bodies,
latents and, with `fixed_views`, conditions. Floating point operations are those that torch's
counter knows (convolutions, matrix products; attention on GPUs), forward and backward, as computed:
with checkpointing also what is computed twice. The share of the peak is of the figure given by
`--peak-tflops`, the maker's for dense bfloat16. A stage that needs more than `--memory-gb` says so;
one that is killed says that it was.
"""

import argparse
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from step_parts import GIB, PARTS, Clock, TimedSource, timed_steps

from fewview.data.store import open_store
from fewview.models.layers import channels_last
from fewview.regressor import Regressor, build_regressor
from fewview.system import build_networks
from fewview.training.alignment import train_alignment
from fewview.training.autoencoder import train_autoencoder
from fewview.training.config import AnyRun, load_run
from fewview.training.diffusion import train_diffusion
from fewview.training.examples import BodyCache, ScanCache
from fewview.training.latents import Latents
from fewview.training.loop import Stage
from fewview.training.memory import is_out_of_memory
from fewview.training.processes import Processes, join
from fewview.training.regression import train_regression
from fewview.training.regression_config import RegressionRun
from fewview.training.run import stages_of
from fewview.training.source import TrainingSource

COLUMNS = ("stage", "batch", *(f"{part}, s" for part in PARTS), "volumes/s")
COLUMNS += ("peak memory, GiB", "TFLOP per step", "share of peak")


def main() -> None:
    """Measure every stage in a process of its own and print one Markdown table."""
    options = arguments()
    if options.stage is not None:
        sys.stdout.write(json.dumps(measured(options)) + "\n")
        return
    out = sys.stdout.write
    config = load_run(options.config)
    out(f"{machine(options)}; {options.config.name}, grid {config.system.grid.size}\n\n")
    out(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n")
    for stage in stages_of(config):
        words = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        out(row(stage, figures_of(done), options.peak_tflops))


def figures_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """What a stage's process has found, or how it ended."""
    if done.returncode < 0:
        return {"failure": f"killed ({signal.Signals(-done.returncode).name})"}
    if done.returncode > 0:
        return {"failure": "failed, see its error"}
    found: dict[str, object] = json.loads(done.stdout)
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gb", type=float, default=20.0)
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--stage", help="measure this one here and print JSON")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> dict[str, object]:
    """Figures of one stage, or why there are none."""
    torch.set_num_threads(options.threads)
    limit_memory(options)
    config = few_copies(load_run(options.config))
    figures: dict[str, object] = {}

    def stopwatch(stage: Stage, out: Path, processes: Processes, *, report: object) -> None:
        clock.seconds.clear()  # preparing the stage does not count
        figures.update(timed_steps(stage, processes, clock, options.steps))

    clock = Clock(options.device)
    module = f"fewview.training.{options.stage}"
    try:
        with tempfile.TemporaryDirectory() as folder, patch(f"{module}.fit", stopwatch):
            run_stage(options, config, clock, Path(folder))
    except (ValueError, RuntimeError, MemoryError) as failure:
        if lacks_memory(failure):
            return {"failure": f"does not fit in {options.memory_gb:g} GB"}
        if not isinstance(failure, ValueError):
            raise
        return {"failure": str(failure)}
    return figures


def few_copies(config: AnyRun) -> AnyRun:
    """The config with no more copies than a step needs at once: each is worked on before the first.

    With `fixed_views` stage 3 computes the condition of every copy, at 128^3 a second for each.
    """
    stages = [getattr(config.training, name) for name in stages_of(config)]
    needed = max(stage.batch_size + getattr(stage, "num_negatives", 0) for stage in stages)
    count = min(needed, config.training.num_examples)
    return replace(config, training=replace(config.training, num_examples=count))


def lacks_memory(failure: Exception) -> bool:
    """Whether a failure, or what it explains, is a lack of memory."""
    causes = [one for one in (failure, failure.__cause__) if one is not None]
    return any(is_out_of_memory(one) or is_without_primitive(one) for one in causes)


def is_without_primitive(error: BaseException) -> bool:
    """Whether oneDNN got no memory; without a descriptor it cannot do what it was asked."""
    text = str(error)
    return "could not create a primitive" in text and "descriptor" not in text


def limit_memory(options: argparse.Namespace) -> None:
    """Let this process have `--memory-gb` and no more, on the device where it computes."""
    limit = int(options.memory_gb * GIB)
    if options.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(options.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def run_stage(options: argparse.Namespace, config: AnyRun, clock: Clock, out: Path) -> None:
    """Call a stage's training function with fresh networks and latents of noise."""
    store = open_store(options.data)
    torch.manual_seed(0)
    networks = (
        build_regressor(config.system)
        if isinstance(config, RegressionRun)
        else build_networks(config.system)
    )
    networks.to(options.device)
    for module in networks.modules().values():
        channels_last(module)
    source = TimedSource(
        config.system,
        config.training,
        store,
        ScanCache(store),
        join(options.device),
        BodyCache(capacity_bytes=0),  # every meeting is the first
    )
    object.__setattr__(source, "clock", clock)
    stage = getattr(config.training, options.stage)
    if isinstance(networks, Regressor):
        train_regression(stage, networks.network, source, out, report=nothing)
        return
    if options.stage == "autoencoder":
        train_autoencoder(stage, networks.autoencoder, source, out, report=nothing)
        return
    latents = stand_in_latents(config, source)
    if options.stage == "alignment":
        train_alignment(stage, networks, latents, source, out, report=nothing)
        return
    networks.autoencoder.eval().requires_grad_(False)
    before = config.training.alignment
    if before is not None:
        networks.view_encoder.eval().requires_grad_(False)
    train_diffusion(stage, config.system, networks, before, latents, source, out, report=nothing)


def nothing(stage: str, step: int, num_steps: int, shown: str) -> None:
    """Report nothing."""


def stand_in_latents(config: AnyRun, source: TrainingSource) -> Latents:
    """Noise of the latents' shape: a step takes as long, and no autoencoder need run first."""
    system = config.system
    size = system.grid.size // system.autoencoder.reduction
    keys = source.keys()
    return Latents(
        keys, torch.randn(len(keys), system.autoencoder.latent_channels, *[size] * 3).half()
    )


def row(stage: str, found: dict[str, object], peak_tflops: float | None) -> str:
    """A line of the table."""
    if "failure" in found:
        return f"| {stage} | {found['failure']} | | | | | | | | |\n"
    seconds = float(found["step"])
    tera = float(found["flops"]) / 1e12
    share = f"{100 * tera / seconds / peak_tflops:.1f} %" if peak_tflops else ""
    parts = " | ".join(f"{float(found[part]):.3f}" for part in PARTS)
    return (
        f"| {stage} | {found['batch']} | {parts} | {int(found['examples']) / seconds:.3g} | "
        f"{float(found['gib']):.2f} | {tera:.3g} | {share} |\n"
    )


def machine(options: argparse.Namespace) -> str:
    """What the figures were measured on."""
    name = platform.machine()
    if options.device.startswith("cuda"):
        name = torch.cuda.get_device_name(options.device)
    threads = f"{options.threads} CPU thread(s)"
    return f"{name}, {threads}, torch {torch.__version__}, at most {options.memory_gb:g} GB"


if __name__ == "__main__":
    main()
