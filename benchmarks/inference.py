"""Time and memory of the whole inference of a config, from views to the volume, by its parts.

    python benchmarks/inference.py configs/clsdm-paper.toml configs/clsdm.toml --threads 2
    python benchmarks/inference.py CONFIG --device cuda --peak-tflops 989

Views of a phantom go through `fewview.reconstruct` with fresh networks, which take as long as
trained ones. Each config runs in a process of its own, so that its peak memory is its own; medians
over the runs after the first. Preparing is binning the views and where voxels project; the rest of
the time between the parts is HU and the novelty score. The share of the peak is of the figure given
by `--peak-tflops`. A config that needs more than `--memory-gb` says so.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from training_step import GIB, Clock, limit_memory, machine

from fewview.bundle import Bundle, RegressorBundle
from fewview.data.phantom import phantom
from fewview.experiment.cost import count_flop
from fewview.reconstruct import reconstruct
from fewview.regressor import build_regressor
from fewview.system import build_networks
from fewview.training.config import load_run
from fewview.training.regression_config import RegressionRun
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr

PARTS = ("prepare", "encode", "sample", "decode")
MODULE = sys.modules[reconstruct.__module__]
COLUMNS = ("config", "grid", *(f"{part}, s" for part in PARTS), "all, s", "volumes/s")
COLUMNS += ("peak memory, GiB", "TFLOP", "share of peak")


def main() -> None:
    """Measure every config in a process of its own and print one Markdown table."""
    options = arguments()
    if options.alone:
        sys.stdout.write(json.dumps(measured(options)) + "\n")
        return
    sys.stdout.write(f"{machine(options)}; {options.views} views, {options.nfe} denoiser calls\n\n")
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n")
    flags = [word for word in sys.argv[1:] if Path(word) not in options.configs]
    for config in options.configs:
        words = [sys.executable, __file__, str(config), *flags, "--alone"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else {"failure": "killed"}
        sys.stdout.write(row(config.stem, found, options.peak_tflops))
        sys.stdout.flush()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--nfe", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gb", type=float, default=20.0)
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--alone", action="store_true", help="measure here and print JSON")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> dict[str, object]:
    """Figures of one config, or why there are none."""
    torch.set_num_threads(options.threads)
    limit_memory(options)
    try:
        return timed(options)
    except (MemoryError, RuntimeError) as failure:
        if "memory" not in str(failure).lower() and not isinstance(failure, MemoryError):
            raise
        return {"failure": f"does not fit in {options.memory_gb:g} GB"}


def timed(options: argparse.Namespace) -> dict[str, object]:
    """Run the inference several times."""
    config = load_run(options.configs[0])
    system = config.system
    torch.manual_seed(0)
    bundle: Bundle | RegressorBundle
    if isinstance(config, RegressionRun):
        bundle = RegressorBundle(config.system, build_regressor(config.system), "")
        nfe, samples = 0, None
    else:
        bundle = Bundle(config.system, build_networks(config.system), "")
        nfe, samples = options.nfe, 1
    for module in bundle.networks.modules().values():
        module.eval().requires_grad_(False).to(options.device)
    angles, pixels = spread_angles(options.views), system.views.num_pixels
    geometries = [preset(system.views.preset, angle_deg=one, size=pixels) for one in angles]
    views = drr(phantom(0, size=64).volume, geometries)
    clock = Clock(options.device)
    run = inference(bundle, views, clock, nfe, samples)
    flop = count_flop(run)
    times = []
    for _ in range(options.repeats + 1):
        clock.seconds.clear()
        with clock.of("all"):
            run()
        times.append(dict(clock.seconds))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated(options.device)
    return {
        part: statistics.median(one.get(part, 0.0) for one in times[1:]) for part in (*PARTS, "all")
    } | {"grid": system.grid.size, "gib": memory / GIB, "flop": flop}


def inference(
    bundle: Bundle | RegressorBundle, views: Views, clock: Clock, nfe: int, samples: int | None
) -> Callable[[], object]:
    """One reconstruction whose parts are timed."""

    def watched(part: str, call: Callable[..., object]) -> Callable[..., object]:
        def timed_call(*words: object, **named: object) -> object:
            with clock.of(part):
                return call(*words, **named)

        return timed_call

    def run() -> object:
        names = {"network_inputs": "prepare", "condition_of": "encode", "sample_latents": "sample"}
        patches = [
            patch.object(MODULE, name, watched(part, getattr(MODULE, name)))
            for name, part in names.items()
        ]
        network: nn.Module
        if isinstance(bundle, Bundle):
            network, name, part = bundle.networks.autoencoder, "decode", "decode"
        else:
            network, name, part = bundle.networks.network, "forward", "encode"
        patches.append(patch.object(network, name, watched(part, getattr(network, name))))
        for one in patches:
            one.start()
        try:
            return reconstruct(
                views,
                model=bundle,
                nfe=nfe,
                samples=samples,
                device=clock.device,
                consistency=False,
            )
        finally:
            patch.stopall()

    return run


def row(name: str, found: dict[str, object], peak_tflops: float | None) -> str:
    """A line of the table."""
    if "failure" in found:
        return f"| {name} | {found['failure']} |{' |' * (len(COLUMNS) - 2)}\n"
    seconds, tera = float(found["all"]), float(found["flop"]) / 1e12
    share = f"{100 * tera / seconds / peak_tflops:.1f} %" if peak_tflops else ""
    parts = " | ".join(f"{float(found[part]):.2f}" for part in (*PARTS, "all"))
    return (
        f"| {name} | {found['grid']}^3 | {parts} | {1.0 / seconds:.3g} | "
        f"{float(found['gib']):.2f} | {tera:.3g} | {share} |\n"
    )


if __name__ == "__main__":
    main()
