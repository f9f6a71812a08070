"""Latents of the augmented copies, computed once: stages 2 and 3 never run the encoder again."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from fewview.models.digest import weights_digest
from fewview.system import AnyAutoencoder
from fewview.training.caches import cached
from fewview.training.examples import ExampleKey
from fewview.training.loop import Report
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


def cached_latents(
    path: Path, autoencoder: AnyAutoencoder, source: TrainingSource, report: Report
) -> Latents:
    """Read the latents of this autoencoder, or compute what is missing of them, and keep them."""
    keys = source.keys()

    def encoded(index: int) -> Tensor:
        with source.autocast():
            return autoencoder.encode(source.target(source.body(keys[index]))).mean.half()

    found = cached(
        path,
        keys,
        encoded,
        source.processes,
        partial(report, "latents"),
        made_by=weights_digest(autoencoder),
    )
    return Latents(keys, found)
