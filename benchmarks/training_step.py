"""Time and memory of one training step of each stage of a config, by its parts.

    python benchmarks/training_step.py configs/fewview-64.toml --data STORE --threads 2
    python benchmarks/training_step.py CONFIG --data STORE --device cuda --peak-tflops 989

Each stage runs in a process of its own, with fresh networks, so that its peak memory is its own;
medians over the steps after the first. Floating point operations are those that torch's counter
knows (convolutions, matrix products; attention on GPUs), forward and backward, as computed: with
checkpointing also what is computed twice. The share of the peak is of the figure given by
`--peak-tflops`, the maker's for dense bfloat16. A stage that needs more than `--memory-gb` says so.
"""

import argparse
import contextlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewview.data.store import open_store
from fewview.models.layers import channels_last
from fewview.regressor import Regressor, build_regressor
from fewview.system import build_networks
from fewview.training.alignment import train_alignment
from fewview.training.autoencoder import train_autoencoder
from fewview.training.batches import shares
from fewview.training.config import AnyRun, load_run
from fewview.training.diffusion import parts_to_learn, train_diffusion
from fewview.training.examples import Body, ExampleKey, ScanCache
from fewview.training.latents import Latents
from fewview.training.loop import Averages, Stage
from fewview.training.memory import explained, recomputing
from fewview.training.optimizer import new_optimizer
from fewview.training.processes import Processes, join
from fewview.training.regression import train_regression
from fewview.training.regression_config import RegressionRun
from fewview.training.run import stages_of
from fewview.training.source import TrainingSource
from fewview.training.views import ViewBatch

PARTS = ("data", "forward", "backward", "optimizer")
COLUMNS = ("stage", "batch", *(f"{part}, s" for part in PARTS), "volumes/s")
COLUMNS += ("peak memory, GiB", "TFLOP per step", "share of peak")
GIB = 2**30


@dataclass
class Clock:
    """Seconds by part; waits for the GPU at each reading."""

    device: str
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time of the body to a part."""
        began = self.now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - began

    def now(self) -> float:
        """Seconds, with nothing left to do on the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class TimedSource(TrainingSource):
    """A source whose examples, views and noise are timed as data."""

    clock: Clock

    def body(self, key: ExampleKey) -> Body:
        """As the source's."""
        with self.clock.of("data"):
            return super().body(key)

    def target(self, body: Body) -> Tensor:
        """As the source's."""
        with self.clock.of("data"):
            return super().target(body)

    def views(self, bodies: list[Body], places: range, *seeds: int) -> ViewBatch:
        """As the source's."""
        with self.clock.of("data"):
            return super().views(bodies, places, *seeds)

    def noise(self, shape: Sequence[int], places: range, *seeds: int) -> Tensor:
        """As the source's."""
        with self.clock.of("data"):
            return super().noise(shape, places, *seeds)


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
        found = json.loads(done.stdout) if done.returncode == 0 else {"failure": "killed"}
        out(row(stage, found, options.peak_tflops))


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
    config = load_run(options.config)
    figures: dict[str, object] = {}

    def stopwatch(stage: Stage, out: Path, processes: Processes, *, report: object) -> None:
        clock.seconds.clear()  # preparing the stage does not count
        figures.update(timed_steps(stage, processes, clock, options.steps))

    clock = Clock(options.device)
    module = f"fewview.training.{options.stage}"
    try:
        with tempfile.TemporaryDirectory() as folder, patch(f"{module}.fit", stopwatch):
            run_stage(options, config, clock, Path(folder))
    except ValueError as failure:
        return {"failure": str(failure)}
    return figures


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
        config.system, config.training, store, ScanCache(store), join(options.device)
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
    if config.training.alignment is not None:
        networks.view_encoder.eval().requires_grad_(False)
    learned = parts_to_learn(config.system, networks, config.training.alignment)
    train_diffusion(stage, config.system, networks, learned, latents, source, out, report=nothing)


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


def timed_steps(
    stage: Stage, processes: Processes, clock: Clock, num_steps: int
) -> dict[str, object]:
    """Medians of the parts of a step, peak memory and operations; the first steps do not count."""
    module, config = stage.module.train(), stage.config
    optimizer = new_optimizer(module, replace(config, learning_rate=1e-9))
    averages = Averages(module, config.ema_decay)
    places = shares(config, stage.name, processes)
    again = recomputing(module) if config.checkpointing else contextlib.nullcontext()
    times: list[dict[str, float]] = []
    with explained(config, stage.name, processes), again:
        with FlopCounterMode(display=False) as counter:
            one_step(stage, places, clock, 0)
        for step in range(num_steps + 1):
            clock.seconds.clear()
            one_step(stage, places, clock, step)
            with clock.of("optimizer"):
                torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
                optimizer.step()
                averages.update(module, step)
            times.append(dict(clock.seconds))
    figures: dict[str, object] = {
        part: statistics.median(one.get(part, 0.0) for one in times[1:]) for part in PARTS
    }
    figures["step"] = statistics.median(sum(one.values()) for one in times[1:])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if clock.device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated(clock.device)
    batch = f"{config.batch_size}" + (f" in {config.accumulate}" if config.accumulate > 1 else "")
    flops = counter.get_total_flops()
    return {
        **figures,
        "examples": config.batch_size,
        "batch": batch,
        "gib": memory / GIB,
        "flops": flops,
    }


def one_step(stage: Stage, places: list[range], clock: Clock, step: int) -> None:
    """Forward and backward over the micro-batches of a step; what data took is no forward time."""
    stage.module.zero_grad(set_to_none=True)
    for some in places:
        before = clock.seconds.get("data", 0.0)
        with clock.of("forward"):
            loss, _ = stage.step_loss(step, some)
        clock.seconds["forward"] -= clock.seconds.get("data", 0.0) - before
        with clock.of("backward"):
            (loss / len(places)).backward()


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
