"""Latents of the augmented copies, computed once: stages 2 and 3 never run the encoder again."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from fewview.data.files import replacing_file
from fewview.system import AnyAutoencoder
from fewview.training.batches import in_shares
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
def cached_latents(path: Path, autoencoder: AnyAutoencoder, source: TrainingSource) -> Latents:
    """Read the latents of the run, or compute them, each process its share, and keep them."""
    keys = source.keys()
    expected = json.dumps([[key.case, key.seed] for key in keys])
    if path.exists():
        tensors, metadata = read_checkpoint(path)
        if metadata.get("keys") == expected:
            return Latents(keys, tensors["mean"])

    def encoded(index: int) -> Tensor:
        with source.autocast():
            return autoencoder.encode(source.target(source.body(keys[index]))).mean.half()

    mean = in_shares(encoded, len(keys), source.processes)
    if source.processes.first:
        with replacing_file(path) as writing:
            save_file({"mean": mean}, writing, {"keys": expected})
    return Latents(keys, mean)
