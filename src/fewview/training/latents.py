"""Latents of the augmented copies, computed once: stages 2 and 3 never run the encoder again."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from fewview.data.files import replacing_file
from fewview.models.autoencoder import Autoencoder
from fewview.training.checkpoint import read_checkpoint
from fewview.training.examples import ExampleKey
from fewview.training.source import TrainingSource


@dataclass(frozen=True, eq=False)
class Latents:
    """Posterior means of the copies, in the order of their keys."""

    keys: list[ExampleKey]
    mean: Float[Tensor, "example latent depth height width"]

    @property
    def scale(self) -> float:
        """1 / standard deviation over all values of all copies."""
        return 1.0 / self.mean.float().std().item()


@torch.no_grad()
def cached_latents(path: Path, autoencoder: Autoencoder, source: TrainingSource) -> Latents:
    """Read the latents of the run, or compute them, each process its share, and keep them."""
    keys = source.keys()
    expected = json.dumps([[key.case, key.seed] for key in keys])
    if path.exists():
        tensors, metadata = read_checkpoint(path)
        if metadata.get("keys") == expected:
            return Latents(keys, tensors["mean"])
    processes, means = source.processes, []
    # Rounded up, so that all have as many: the last ones of the others repeat the first.
    for turn in range(math.ceil(len(keys) / processes.count)):
        key = keys[(turn * processes.count + processes.rank) % len(keys)]
        with source.autocast():
            means.append(autoencoder.encode(source.target(source.body(key))).mean.half())
    of_rank = processes.gathered(torch.cat(means)).unflatten(0, (processes.count, len(means)))
    mean = of_rank.transpose(0, 1).flatten(0, 1)[: len(keys)].cpu().contiguous()
    if processes.first:
        with replacing_file(path) as writing:
            save_file({"mean": mean}, writing, {"keys": expected})
    return Latents(keys, mean)
