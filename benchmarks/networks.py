"""Seconds of each network of a system, one forward pass at a time.

    python benchmarks/networks.py configs/xctdiff-paper.toml configs/xctdiff.toml --views 1

Fresh networks and random values, one sample, single precision: what one pass costs, not what comes
of it. The median of `--repeats` passes after a first one. `inference.py` has the whole of them.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from training_step import Clock, machine

from fewview.inputs import ray_grid
from fewview.system import build_networks
from fewview.training.config import RunConfig, load_run
from fewview.xray.geometry import cameras, preset, spread_angles, stack_cameras


def passes(run: RunConfig, num_views: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    system = run.system
    torch.manual_seed(0)
    networks = build_networks(system)
    for module in networks.modules().values():
        module.eval()
    autoencoder, encoder = networks.autoencoder, networks.view_encoder
    size, pixels = system.grid.size, system.views.num_pixels
    low = size // system.autoencoder.reduction
    volume = torch.randn(1, 1, size, size, size)
    latent = torch.randn(1, system.autoencoder.latent_channels, low, low, low)
    told = torch.randn(1, system.told_channels, low, low, low)
    angles = spread_angles(num_views)
    views = [preset(system.views.preset, angle_deg=angle, size=pixels) for angle in angles]
    rays = ray_grid(stack_cameras([cameras(views, [0.0] * 3)]), torch.zeros(1, 3), system.grid)
    images = torch.randn(1, num_views, 2, pixels, pixels)

    def one_call() -> Tensor:
        return networks.denoiser(latent, torch.full((1,), 0.5), told)

    found: dict[str, Callable[[], object]] = {"encode a CT": lambda: autoencoder.encode(volume)}
    if hasattr(autoencoder, "codebook"):
        found["quantize a latent"] = lambda: autoencoder.codebook(latent)
    found["decode a CT"] = lambda: autoencoder.decode(latent)
    found["encode the views"] = lambda: encoder(images, rays, with_estimate=False)
    found["encode them, with CT estimate"] = lambda: encoder(images, rays)
    found["one call of the denoiser"] = one_call
    return found


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.set_defaults(device="cpu", memory_gb=20.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: dict[str, dict[str, float]] = {}
    for path in options.configs:
        run = load_run(path)
        assert isinstance(run, RunConfig), f"{path} has no such networks"
        for name, work in passes(run, options.views).items():
            clocks = [Clock("cpu") for _ in range(options.repeats + 1)]
            for clock in clocks:
                with clock.of(name):
                    work()
            seconds = statistics.median(clock.seconds[name] for clock in clocks[1:])
            rows.setdefault(name, {})[path.stem] = seconds
    names = [path.stem for path in options.configs]
    out = sys.stdout.write
    out(f"{machine(options)}; {options.views} view(s), seconds of one forward pass\n\n")
    out(f"| forward | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|\n")
    for row, values in rows.items():
        cells = (f"{values[name]:.3g}" if name in values else "" for name in names)
        out(f"| {row} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
